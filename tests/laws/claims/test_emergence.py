"""The width of exact match's rise over that of the loss's fall, from curves of known widths."""

import math

import numpy as np
import pytest
from known_tasks import logistic, rows_of, sweep, with_task

from harness.errors import UserError
from harness.laws.claims.emergence import Ratio, logistic_width
from harness.laws.claims.measured import Evidence
from harness.laws.claims.quantities import measure
from harness.laws.table.pool import read_sources
from harness.laws.table.rows import Columns
from harness.laws.variants.arms import column_of
from harness.report.claims import figure

SHAPES = ((64, 0), (64, 1), (32, 0), (16, 0))
COPYING = (7, 26)


def of_widths(rows, name, symbols, exact, accuracy, fallen, tokens=250e3):
    curves = [logistic(rows, tokens, width) for width in (exact, accuracy, fallen)]
    return with_task(rows, name, symbols, *curves)


def test_widths_are_those_of_the_curves(tmp_path):
    """.2 over .5 decades of copying, .45 over .5 of brackets: the largest decides. No trunk differs from another."""
    rows = of_widths(rows_of(SHAPES), "copying", 26, 0.2, 0.3, 0.5)
    rows = of_widths(rows, "brackets", 4, 0.45, 0.6, 0.5)
    found = measure("emergence", Evidence(sweep(tmp_path / "e", rows, copying=COPYING, brackets=(4, 4))))
    assert (found.estimate, found.low, found.high) == pytest.approx((0.9, 0.9, 0.9), rel=1e-4)
    assert not found.doubts and [row.decides for row in found.rows] == [False] * 6 + [True]
    exact, accuracy, power, *_ = found.rows
    assert exact.label == "copying, exact match"
    assert (exact.estimate, accuracy.estimate) == pytest.approx((0.4, 0.6), rel=1e-4)
    # accuracy^7 of a logistic of .3 decades, with a guess of 1/26, is near one of .25
    assert power.label == "copying, accuracy^7" and power.estimate == pytest.approx(0.45, abs=0.06)
    assert "copying 0.20 over 0.50 decades in 4 trunks; brackets 0.45 over 0.50 decades in 4 trunks" in found.method


def test_the_interval_is_that_of_trunks():
    """Log ratios of 0, .1 and .2: mean .1, standard error .1 / sqrt(3), Student's t with 2 degrees of freedom 4.303."""
    found = Ratio(np.array([0.0, 0.1, 0.2]), (0.2, 0.5))
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert found.ends() == pytest.approx((math.exp(0.1), math.exp(0.1 - half), math.exp(0.1 + half)), rel=1e-6)


def test_a_jump_between_two_budgets_has_the_least_width():
    x = np.arange(8) * 0.15
    assert logistic_width(x, (x > 0.5).astype(float)) < 0.15
    steep = logistic_width(x, np.array([0.0, 0, 0, 0.1, 0.9, 1, 1, 1]))
    assert steep == pytest.approx(0.15, abs=0.01)  # a tenth and nine tenths at two budgets that are neighbours


def test_a_task_that_never_switches_on_is_named_and_decides_nothing(tmp_path):
    rows = of_widths(rows_of(SHAPES), "copying", 26, 0.2, 0.3, 0.5)
    guessed = np.zeros(len(rows))
    rows = with_task(rows, "addition", 10, guessed, guessed, guessed)
    found = measure("emergence", Evidence(sweep(tmp_path / "e", rows, copying=COPYING, addition=(4, 10))))
    assert found.estimate == pytest.approx(0.4, rel=1e-4)
    assert found.method.endswith("; addition switches on in 0 of 4, with 0.0% right at most")
    assert [panel.y for panel in (found.panel, *found.panels)] == ["copying", "addition"]
    alone = measure("emergence", Evidence(sweep(tmp_path / "a", rows, addition=(4, 10))))
    assert alone.estimate is None and alone.doubts == [
        "no task switches on in 3 trunks: addition switches on in 0 of 4, with 0.0% right at most"
    ]


def test_trunks_that_end_before_or_begin_after_do_not_count(tmp_path):
    """Half is reached at 2 M tokens by one and at 20 thousand by another of five shapes."""
    rows = rows_of(((64, 0), (64, 1), (48, 0), (32, 0), (16, 0)))
    begins = {48: 2e6, 16: 20e3}
    exact, fallen = (
        [float(logistic([row], begins.get(row["width"], 250e3), width)[0]) for row in rows] for width in (0.2, 0.5)
    )
    rows = with_task(rows, "copying", 26, exact, fallen, fallen)
    found = measure("emergence", Evidence(sweep(tmp_path / "e", rows, copying=COPYING)))
    assert found.estimate == pytest.approx(0.4, rel=1e-4) and "0.50 decades in 3 trunks" in found.method


def test_the_figure_has_a_panel_a_task_and_a_line_a_trunk(tmp_path):
    rows = of_widths(rows_of(SHAPES), "copying", 26, 0.2, 0.3, 0.5)
    found = measure("emergence", Evidence(sweep(tmp_path / "e", rows, copying=COPYING)))
    lines = found.panel.lines
    assert len(lines) == 3 * 4 * 16 and len({line["line"] for line in lines}) == 12
    first = {line["series"]: line["y"] for line in reversed(lines)}
    # at 62,500 tokens, .602 decades below the middle: what guessing gives, and its loss, with what came off
    gone = 1 / (1 + 81 ** (0.602060 / 0.5))
    assert first["loss, over that of guessing"] == pytest.approx(1 - gone, rel=1e-4)
    assert first["accuracy a token"] == pytest.approx(1 / 26 + 25 / 26 / (1 + 81 ** (0.602060 / 0.3)), rel=1e-4)
    numbers = [vars(row) for row in found.rows]
    content = {"rule": {"low": None, "high": 0.5}, "panel": vars(found.panel), "rows": numbers}
    drawn = figure(content).chart.to_dict()["hconcat"][0]["layer"]
    assert [layer["encoding"]["detail"]["field"] for layer in drawn] == ["line"]
    above, below = figure(content | {"panels": [vars(found.panel)] * 2}).chart.to_dict()["vconcat"]
    assert [len(row["hconcat"]) for row in (above, below)] == [2, 2]
    assert below["resolve"]["scale"]["color"] == "independent"  # those of the numbers are others


def test_a_sweep_without_tasks_is_refused(tmp_path):
    with pytest.raises(UserError, match="validates on no task: name one under validation= before it is trained$"):
        measure("emergence", Evidence(sweep(tmp_path / "e", rows_of(SHAPES[:1]))))


def test_what_a_task_is_told_by_is_no_variant(tmp_path):
    rows = rows_of(SHAPES)
    half = (np.arange(len(rows)) % 2).astype(float)
    rows = [row | {"config_hash": row["cell"]} for row in with_task(rows, "copying", 26, half, half, 1 - half)]
    folder = sweep(tmp_path / "e", rows, copying=COPYING)
    table = read_sources(str(folder), "loss", None)
    with pytest.raises(UserError, match="^no setting varies in "):
        column_of(table, None, Columns())
