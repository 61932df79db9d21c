from __future__ import annotations

from pathlib import Path

import altair as alt
import pandas as pd
import pytest
from synthetic_sweep import diverge, hand_study, make_rows, write_sweep
from untraced import untrace

from harness.report.page import write_report

untrace(alt.TopLevelMixin, "to_dict")


@pytest.fixture(scope="session")
def rows() -> list[dict]:
    return make_rows()


@pytest.fixture(scope="session")
def finished(tmp_path_factory, rows) -> Path:
    """A sweep with one diverged cell (a second seed's largest budget), a certified fit, and its report."""
    rows = [diverge(row) if row["trunk"] == "w64-d2-s1" and row["tokens"] > 3e6 else row for row in rows]
    study = hand_study(pd.DataFrame(rows))
    directory = write_sweep(tmp_path_factory.mktemp("outputs") / "synthetic", rows, study=study)
    write_report(directory)
    return directory
