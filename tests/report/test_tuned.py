"""What a report says of a fit at the cells' own best settings, from a hand-made study with round numbers."""

import csv
import io

import pandas as pd
import pytest
from synthetic_sweep import hand_study, write_sweep
from test_page import render_page, text_of
from test_paper import cells_of

from harness.report.diagnostics import TUNED, exponents
from harness.report.inputs import read
from harness.report.paper import paper


def entry(value, half, moved):
    shift = {"estimate": moved, "low": moved - 0.01, "high": moved + 0.01}
    return {"value": value, "low": value - half, "high": value + half, "shift": shift}


TUNING = {
    "path": "outputs/cpu-tune/tune.json", "settings": ["learning_rate"], "rows": 31, "rows_tuned": 4, "rows_beyond": 0,
    "not_bracketed": {"smallest": [], "largest": ["learning_rate"]}, "tuning_certified": True, "certified": True,
    "certificate_reasons": [], "draws": 400, "penalties": [], "largest_penalty": {"cell": "c", "estimate": 0.004},
    "quantities": {"alpha": entry(0.41, 0.035, 0.03), "a": entry(0.512, 0.031, -0.036)},
}  # fmt: skip


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, rows):
    interval = {"noise": "rows", "intervals": {"a": [0.41, 0.49]}}
    study = hand_study(pd.DataFrame(rows)) | {"tuning": TUNING, "by_noise": [interval]}
    return write_sweep(tmp_path_factory.mktemp("tuned") / "sweep", rows, study=study)


def test_the_paper_has_a_column_for_each_quantity(sweep):
    quoted = paper(read(sweep))
    cells = cells_of(quoted["row.tex"])
    assert cells[r"$\alpha$ at best settings"] == r"${0.410}\ [0.375, 0.445]$"
    assert cells["$a$ at best settings"] == r"${0.512}\ [0.481, 0.543]$"
    (row,) = csv.DictReader(io.StringIO(quoted["row.csv"]))
    shown = [float(row[f"a_at_best_settings{end}"]) for end in ("", "_low", "_high", "_shift", "_shift_low")]
    assert shown == pytest.approx([0.512, 0.481, 0.543, -0.036, -0.046])
    assert (row["at_best_settings_certified"], row["tuning_certified"]) == ("True", "True")
    text = " ".join(quoted["methods.txt"].split())
    assert "With each of 31 cells at its own best learning_rate (4 by minima of their own, 27 by the rules): " in text
    assert "not tuned at both ends: no bracketed minimum of learning_rate at the largest shape." in text


def test_the_figure_of_exponents_and_the_table_of_intervals_have_a_row(sweep):
    drawn = exponents(read(sweep))
    data = str(drawn.chart.to_dict())
    assert TUNED in data and "0.512" in data
    assert "not tuned at both ends" in drawn.caption
    table = text_of(render_page(sweep), 'id="table-by-noise"', "</table>")
    assert "<td>0.481 to 0.543</td>" in text_of(table, "rows, at best settings<", "</tr>")


def test_a_fit_at_best_settings_that_is_not_certified_is_marked(tmp_path, rows):
    study = hand_study(pd.DataFrame(rows)) | {"tuning": TUNING | {"certified": False}}
    quoted = paper(read(write_sweep(tmp_path / "sweep", rows, study=study)))
    assert cells_of(quoted["row.tex"])["$a$ at best settings"] == r"${0.512}^{\dagger}\ [0.481, 0.543]$"
    assert "this fit is NOT certified" in quoted["methods.txt"]
