"""Reports of laws that count more than params and tokens."""

import math

import pandas as pd
import pytest
from synthetic_sweep import hand_study, make_rows, write_sweep

from harness.laws.settings import FitConfig
from harness.laws.study import write_study
from harness.report.fields import number, percent
from harness.report.inputs import read
from harness.report.page import draw
from harness.report.paper import paper
from harness.report.prose import headline
from harness.report.tables import tables

ALWAYS = {"loss_by_params", "loss_by_tokens", "residuals", "exponents"}


def test_a_law_without_curves_has_its_points(tmp_path):
    """As width_depth, whose path through the shapes is not known."""
    study = hand_study(pd.DataFrame(make_rows())) | {"frontier": None}
    study["bands"] = {"kind": "none for this law", "by_tokens": [], "by_params": []}
    drawn = draw(read(write_sweep(tmp_path / "plain", make_rows(), study=study)))
    assert {figure.name for figure in drawn} >= ALWAYS


def of_one_corpus(folder):
    """Cells of 2e6 tokens that the largest budget sees twice."""
    seen = [{"unique_tokens": min(row["tokens"], 2e6), "epochs": max(1.0, row["tokens"] / 2e6)} for row in make_rows()]
    return write_sweep(folder, [row | more for row, more in zip(make_rows(), seen, strict=True)])


def test_a_law_of_repeats_has_a_line_a_shape_of_one_corpus(tmp_path):
    """Of 2e6 tokens: what is worth U there is worth less than 2 U at 4e6."""
    directory = of_one_corpus(tmp_path / "again")
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


def test_the_page_sets_the_laws_of_repeats_side_by_side(tmp_path):
    """R and P with their intervals, and the law without repeats, by what they fit and what they predict."""
    directory = of_one_corpus(tmp_path / "again")
    found = write_study(FitConfig(runs=str(directory), law="chinchilla_penalized", bootstrap=0))
    (table,) = (table for table in tables(read(directory)) if table.key == "epochs")
    assert table.header == ["law", "repeats", "objective", "rms residual", "largest shape", "largest budget",
                            "most compute", "held out", "certified"]  # fmt: skip
    assert [row[0].text for row in table.rows] == ["chinchilla_penalized", "chinchilla_repeated", "chinchilla"]
    P = found["fit"]["estimates"]["P"]
    assert table.rows[0][1].text.startswith(f"P = {number(P)} [")
    assert table.rows[1][1].text.startswith("R = ")
    assert table.rows[2][1].text == "repeats as fresh text"
    errors = [entry["mean_relative_error"] for entry in found["holdouts"]]
    assert [field.text for field in table.rows[0][4:8]] == [
        percent(error, 2) for error in (*errors, sum(errors) / 3)
    ]  # fmt: skip
    assert ("P", number(P)) in [(symbol, field.text) for symbol, field in headline(read(directory)).parts]
    assert "P" in next(table for table in tables(read(directory)) if table.key == "by-params").header
    quoted = paper(read(directory))
    assert "P,P_low,P_high" in quoted["row.csv"] and " & $P$ & " in quoted["row.tex"]
