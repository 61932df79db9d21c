"""The section on training curves: with its figure and table, with a sentence alone, and not at all."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from synthetic_sweep import hand_study, write_sweep
from test_page import png_rows, text_of

from harness.report.collapse import section
from harness.report.inputs import read
from harness.report.page import write_report

FRACTION = [0.4, 0.6, 0.9]
SHAPES = ("w48-d2", "w64-d2", "w64-d4", "w96-d3", "w112-d4")


def entry(shape: str, **changes) -> dict:
    return {
        "shape": shape, "params": 2.0e5, "tokens": 2.4e6, "runs": 1, "deviation": 0.001, "low": -0.004, "high": 0.006,
        "p": 1.0, "leaves": False,
    } | changes  # fmt: skip


FOUND = {
    "tokens_per_param": 12.0,
    "from": 0.3,
    "noise": {"sd": 0.0027, "degrees_of_freedom": 8.7},
    "drift": {"per_decade": -0.0094, "p": 0.065},
    "shapes": [*(entry(shape) for shape in SHAPES[:4]),
               entry("w112-d4", deviation=0.012, low=0.004, high=0.0201, p=0.00312, leaves=True)],
    "curves": {
        "fraction": FRACTION, "common": [0.03, 0.03, 0.01],
        "measured": {shape: [4.1, 3.9, 3.6] for shape in SHAPES},
        "law": {shape: [4.0, 3.8, 3.55] for shape in SHAPES},
        "law_end": dict.fromkeys(SHAPES, 3.5),
    },
}  # fmt: skip


def sweep_with(tmp_path, rows, found):
    return write_sweep(tmp_path / "sweep", rows, study=hand_study(pd.DataFrame(rows)) | {"collapse": found})


def test_the_report_names_the_shape_that_leaves_and_draws_the_curves(tmp_path, rows):
    folder = sweep_with(tmp_path, rows, FOUND)
    page = write_report(folder).read_text()
    told = text_of(page, "<h2>Collapse</h2>", "<figure")
    assert (
        "W112-d4" not in told
        and "w112-d4 by +1.2 % (p = 0.0031) leaves the common curve of training at D/N near 12: its settings, steps or "
        "the law may be why."
        in told
    )
    assert "Over ten times the params the curve itself moves by −0.94 % (p = 0.065)" in told
    row = text_of(text_of(page, 'id="table-collapse"', "</table>"), "<td>w112-d4</td>", "</tr>")
    assert '+1.20 % <span class="interval">[+0.40 %, +2.01 %]</span>' in row
    assert "<td>2.4M</td><td>12</td><td>1</td>" in row
    assert '<td class="bad">0.00312</td>' in row
    assert page.count('data-chart="collapse"') == page.count('id="spec-collapse"') == 1
    width, height, lines = png_rows((folder / "figures" / "collapse.png").read_bytes())
    assert width > 900 and height > 300 and len(set(lines)) > 100
    assert (folder / "figures" / "collapse.svg").read_text().startswith("<svg")
    # the same sweep fitted without its curves
    study = json.loads((folder / "fit.json").read_text())
    (folder / "fit.json").write_text(json.dumps(study | {"collapse": {"left_out": "the law is not certified"}}))
    page = write_report(folder).read_text()
    assert "<p>The training curves are not set against each other: the law is not certified.</p>" in page
    assert 'data-chart="collapse"' not in page and 'id="table-collapse"' not in page
    assert not list((folder / "figures").glob("collapse.*"))
    del study["collapse"]
    (folder / "fit.json").write_text(json.dumps(study))
    assert section(read(folder)) is None


def test_curves_are_less_the_floor_over_the_law_s_end_and_over_the_law(tmp_path, rows):
    found = section(read(sweep_with(tmp_path, rows, FOUND)))
    assert found is not None and found.figure is not None
    data = [row for rows in found.figure.chart.to_dict()["datasets"].values() for row in rows]
    first = next(row for row in data if row.get("shape") == "w48-d2")
    # E is 2.1: (4.1 - 2.1) / (3.5 - 2.1), (4.0 - 2.1) / (3.5 - 2.1), and 4.1 / 4.0
    assert first["measured"] == pytest.approx(2.0 / 1.4)
    assert first["law"] == pytest.approx(1.9 / 1.4)
    assert first["percent"] == pytest.approx(2.5)
    assert [row["percent"] for row in data if "shape" not in row] == pytest.approx([3.0, 3.0, 1.0])


def test_without_seeds_nobody_is_judged(tmp_path, rows):
    shapes = [entry(shape, low=None, high=None, p=None) for shape in SHAPES]
    unknown = FOUND | {"noise": None, "drift": {"per_decade": 0.01, "p": None}, "shapes": shapes}
    found = section(read(sweep_with(tmp_path, rows, unknown)))
    assert found is not None and found.figure is not None and found.table is not None
    assert found.sentences == [
        "No shape was trained with two seeds, so none can be said to leave the curve by more than seeds do."
    ]
    assert [field.text for field in found.table.rows[0][4:]] == ["+0.10 %", "–"]


def test_where_none_leaves_that_is_said(tmp_path, rows):
    well = FOUND | {"shapes": [entry(shape) for shape in SHAPES]}
    found = section(read(sweep_with(tmp_path, rows, well)))
    assert found is not None
    assert found.sentences[0] == "No shape leaves the common curve by more than seeds do."
