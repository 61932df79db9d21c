"""Reports of laws that count more than params and tokens."""

import math

import pandas as pd
import pytest
from synthetic_sweep import hand_study, make_rows, write_sweep

from harness.laws.settings import FitConfig
from harness.laws.study import write_study
from harness.report.inputs import read
from harness.report.page import draw

ALWAYS = {"loss_by_params", "loss_by_tokens", "residuals", "exponents"}


def test_a_law_without_curves_has_its_points(tmp_path):
    """As width_depth, whose path through the shapes is not known."""
    study = hand_study(pd.DataFrame(make_rows())) | {"frontier": None}
    study["bands"] = {"kind": "none for this law", "by_tokens": [], "by_params": []}
    drawn = draw(read(write_sweep(tmp_path / "plain", make_rows(), study=study)))
    assert {figure.name for figure in drawn} >= ALWAYS


def test_a_law_of_repeats_has_a_line_a_shape_of_one_corpus(tmp_path):
    """Of 2e6 tokens: what is worth U there is worth less than 2 U at 4e6."""
    seen = [{"unique_tokens": min(row["tokens"], 2e6), "epochs": max(1.0, row["tokens"] / 2e6)} for row in make_rows()]
    directory = write_sweep(tmp_path / "again", [row | more for row, more in zip(make_rows(), seen, strict=True)])
    found = write_study(FitConfig(runs=str(directory), law="chinchilla_repeated", bootstrap=0))
    by_tokens, by_name = found["bands"]["by_tokens"], found["fit"]["estimates"]
    assert len(by_tokens) == 6
    band, R = by_tokens[-1], by_name["R"]
    worth = 2e6 * (1 + R * (1 - math.exp(-(band["tokens"][-1] / 2e6 - 1) / R)))
    of_params = by_name["A"] * band["params"] ** -by_name["alpha"]
    expected = by_name["E"] + of_params + by_name["B"] * worth ** -by_name["beta"]
    assert band["predicted"][-1] == pytest.approx(expected)
    assert not any("counts as fresh tokens" in note for note in found["notes"])
    assert {figure.name for figure in draw(read(directory))} >= ALWAYS
