"""The section of forecasts: what was said, what came after it, and what is refused."""

import json
import os
from datetime import datetime

import pytest
from synthetic_sweep import make_rows, write_sweep
from test_page import render_page, text_of

from harness.errors import UserError
from harness.laws.prediction.forecast import write
from harness.records import COLUMNS
from harness.report.forecasts import forecasts, interval_score
from harness.report.inputs import read
from harness.report.page import write_report

CREATED = "2026-05-04T03:02:01+00:00"
CELL = {
    "params": 3e6, "tokens": 3.6e6, "flops": 1e14, "beyond": 12.3, "width": 256, "depth": 4, "seed": 0,
    "cell": "w256-d4-t3.6M-s0-1a2b3c4d", "trunk": "w256-d4-s0-0f0f0f0f", "law": "chinchilla", "loss": 2.5,
    "intervals": {"0.5": [2.48, 2.52], "0.9": [2.45, 2.55], "0.95": [2.4, 2.6]}, "target": "loss", "certified": True,
}  # fmt: skip


def recorded(outputs, loss, seconds, status="finished", trunk=CELL["trunk"]):
    """A record of the cell in another sweep, so many seconds after the forecast."""
    folder = outputs / "sweep-forecast" / "runs" / "w256-d4-t3.6M-s0-aaaaaaaa"
    folder.mkdir(parents=True, exist_ok=True)
    record = dict.fromkeys(COLUMNS) | {"schema": 1, "status": status, "tokens": 3600000, "trunk": trunk, "loss": loss}
    (folder / "run.json").write_text(json.dumps(record))
    when = datetime.fromisoformat(CREATED).timestamp() + seconds
    os.utime(folder / "run.json", (when, when))


@pytest.fixture
def sweep(tmp_path):
    folder = write_sweep(tmp_path / "sweep", make_rows())
    write({"schema": 1, "cells": [CELL], "created": CREATED}, None, folder / "forecasts")
    return folder


def row(sweep) -> list[str]:
    (found,) = forecasts(read(sweep)).rows
    return [field.text for field in found]


@pytest.mark.parametrize(
    ("loss", "score"),
    # 2.55 - 2.45 = .1 within; 2 / .1 times the .03 above and the .02 below beside it
    [(2.5, 0.1), (2.45, 0.1), (2.58, 0.1 + 20 * 0.03), (2.43, 0.1 + 20 * 0.02)],
)
def test_the_interval_score_is_that_of_gneiting_and_raftery(loss, score):
    assert interval_score(2.45, 2.55, loss, 0.9) == pytest.approx(score)


def test_a_forecast_stands_alone_until_something_came(sweep, tmp_path):
    said = ["w256-d4, 3.6M tokens", "2026-05-04 03:02:01", "12.3 ×", "chinchilla", "2.500"]
    assert row(sweep) == [*said, "not trained yet", "–", "–", "–"]
    recorded(tmp_path, 2.47, seconds=-60)  # it was there before
    assert row(sweep)[5] == "not trained yet"
    recorded(tmp_path, 2.47, seconds=60, trunk="w256-d4-s0-other")
    assert row(sweep)[5] == "not trained yet"
    recorded(tmp_path, 2.47, seconds=60)
    assert row(sweep) == [*said, "2.470", "+1.21 %", "0.100", "90 %"]  # 2.5 / 2.47 = 1.0121
    recorded(tmp_path, 2.65, seconds=60)
    assert row(sweep)[5:] == ["2.650", "−5.66 %", "2.100", "no"]  # .1 + 20 x .1; 2.5 / 2.65 = .9434
    recorded(tmp_path, None, seconds=60, status="diverged")
    assert row(sweep)[5:] == ["diverged", "–", "–", "–"]


def test_the_page_has_a_section_with_the_formula_of_the_score(sweep, tmp_path):
    recorded(tmp_path, 2.47, seconds=60)
    section = text_of(render_page(sweep), "<h2>Forecasts</h2>", "</table>")
    assert "S = (high − low) + 2/α (low − y)[y &lt; low] + 2/α (y − high)[y &gt; high]" in section
    assert "[2.450, 2.550]" in section and "<td>90 %</td>" in section
    for path in (sweep / "forecasts").iterdir():
        path.unlink()
    assert "Forecasts" not in render_page(sweep)


def test_a_forecast_that_was_changed_is_refused_before_anything_is_written(sweep):
    (path,) = (sweep / "forecasts").iterdir()
    path.write_text(path.read_text().replace("2.5", "2.47", 1))
    with pytest.raises(UserError, match=f"^{path} is not what was forecast"):
        write_report(sweep)
    assert not (sweep / "report.html").exists()
