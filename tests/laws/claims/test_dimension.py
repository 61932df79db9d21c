"""Exponents of the params against 4/d, where they are known."""

import json

import numpy as np
import pytest
from known_dimensions import sweep
from known_sweep import SHAPES, cell, write_cells

from harness.errors import UserError
from harness.laws.claims.claim import write_claim
from harness.laws.claims.dimension import farthest
from harness.laws.claims.measured import Evidence, Row
from harness.laws.claims.quantities import measure

CLAIM = {"text": "Exponents are 4/d.", "quantity": "dimension", "rule": {"low": None, "high": 1.25}}


def test_exponents_are_those_of_the_excess_over_4_by_d(tmp_path):
    """1.1 of 4/d at d = 4, .8 at 8, 1.2 at 16: the farthest is 1/.8 = 1.25."""
    known = {4: 1.1, 8: 0.8 * 0.5, 16: 1.2 * 0.25}
    found = measure("dimension", Evidence(sweep(tmp_path / "a", known, noise=1e-4)))
    assert not found.doubts
    of = {row.label: row for row in found.rows}
    for dimension, ratio in ((4, 1.1), (8, 0.8), (16, 1.2)):
        assert of[f"d = {dimension}, N = params_non_embedding"].estimate == pytest.approx(ratio, abs=2e-3)
        # nothing here depends on tokens
        assert of[f"d = {dimension}, 3e+06 tokens"].estimate == pytest.approx(ratio, abs=2e-3)
    assert found.estimate == pytest.approx(1.25, abs=2e-3)
    assert [row.label for row in found.rows if row.decides] == ["the farthest from 1, either way"]
    assert of["the lowest"].estimate == pytest.approx(0.8, abs=2e-3)
    # params with the head of 1024 grow as 12 w^2 + 1024 w: from w = 6 to 16 by 3, not 7
    assert of["d = 4, N = params_with_head"].estimate > 1.5


def test_interval_has_the_noise_of_the_cells_and_the_figure_the_curve(tmp_path):
    """10 % of the excess in 6 cells whose log N has a standard deviation of .71: .1 / .71 / sqrt(6) = .057."""
    known = {4: 1.0, 16: 0.25}
    found = measure("dimension", Evidence(sweep(tmp_path / "a", known, noise=0.1, draw=3)))
    (row,) = (row for row in found.rows if row.label == "d = 4, N = params_non_embedding")
    assert row.low < 1 < row.high
    # Student's t with 4 degrees of freedom is 2.78; the noise of 6 cells is known to a half
    assert 0.4 * 2 * 2.78 * 0.057 < row.high - row.low < 2 * 2 * 2.78 * 0.057
    assert [point["x"] for point in found.panel.points] == [4, 16]
    for point in found.panel.points:
        assert point["low"] < 4 / point["x"] < point["high"] and point["low"] < point["y"] < point["high"]
    ends = found.panel.lines[0], found.panel.lines[-1]
    assert [(end["series"], end["x"], end["y"]) for end in ends] == [
        ("4 / d", pytest.approx(4), pytest.approx(1)), ("4 / d", pytest.approx(16), pytest.approx(0.25)),
    ]  # fmt: skip
    losses = found.panels[0]
    assert {point["series"] for point in losses.points} == {"d = 4", "d = 16"} and len(losses.points) == 12
    # the line through the middle of the cells at 1,000 params is near the .1 above the floor there
    (first, last) = (line for line in losses.lines if line["series"] == "d = 4")
    slope = np.log(last["y"] / first["y"]) / np.log(last["x"] / first["x"])
    assert first["y"] * (1e3 / first["x"]) ** slope == pytest.approx(0.1, rel=0.15)


def test_an_exponent_that_moves_with_tokens_decides_nothing(tmp_path):
    """.1 nats at 1,000 params, and a twentieth of that more at the larger budget, a tenth at the smaller one."""
    found = measure("dimension", Evidence(sweep(tmp_path / "a", {4: 1.0, 8: 0.1}, noise=1e-4, lacks=0.005)))
    of = {row.label: row.estimate for row in found.rows}
    larger, smaller = of["d = 4, N = params_non_embedding"], of["d = 4, 3e+06 tokens"]
    # between w6 and w16, of 432 and 3072 params, it falls from .2315 + .005 to .0326 + .005, ln(.2365 / .0376) /
    # ln(7.11) = .938, and from .2315 + .01 to .0326 + .01: .885
    assert (larger, smaller) == (pytest.approx(0.938, abs=0.01), pytest.approx(0.885, abs=0.015))
    assert found.doubts == []
    found = measure("dimension", Evidence(sweep(tmp_path / "b", {4: 1.0, 8: 0.1}, noise=1e-4, lacks=0.03)))
    (doubt,) = found.doubts
    assert doubt.startswith("tokens still limit d = 4: twice as many move its exponent by +0.1")
    assert found.estimate is not None and found.low is not None


def test_ends_that_any_of_several_may_err_beyond_are_wider():
    """Of two: 2.24 in place of 1.96 normal deviations (Bonferroni)."""
    half = np.log(1.1)
    ratios = [Row("a", 2.0, 2 / 1.1, 2 * 1.1), Row("b", 0.8, 0.8 / 1.1, 0.8 * 1.1)]
    factor, lowest = farthest(ratios)
    wider = np.exp(half * 2.2414 / 1.95996)
    assert (factor.estimate, factor.high) == pytest.approx((2.0, 2.2))
    assert factor.low == pytest.approx(2 / wider, rel=1e-4)
    assert (lowest.estimate, lowest.low, lowest.high) == pytest.approx((0.8, 0.8 / 1.1, 0.8 * wider), rel=1e-4)
    # an interval that holds 1 has a factor of 1 at its lower end
    assert farthest([Row("a", 1.02, 0.9, 1.15)])[0].low == 1.0
    # and one that may be 0 has none
    factor, lowest = farthest([Row("a", 0.5, -0.1, 1.1), Row("b", 1.5, 1.4, 1.6)])
    assert (factor.estimate, factor.low, factor.high, lowest.estimate, lowest.high) == (2.0, None, None, 0.5, None)


def test_verdict_is_written(tmp_path):
    folder = sweep(tmp_path / "a", {4: 1.5, 8: 0.75}, noise=0.02)
    content = (folder / "sweep.yaml").read_text()
    (folder / "sweep.yaml").write_text(content + f"claim: {json.dumps(CLAIM)}\n")
    found = write_claim(folder).content
    assert (found["verdict"], found["quantity"]) == ("fails", "dimension")
    assert found["estimate"] == pytest.approx(1.5, abs=0.1)


def test_what_cannot_tell_is_said(tmp_path):
    folder = sweep(tmp_path / "a", {4: 1.0})
    table = (folder / "runs.csv").read_text().splitlines()
    (folder / "runs.csv").write_text("\n".join(line for line in table if not line.startswith(("w12", "w6"))) + "\n")
    with pytest.raises(UserError, match="has not three shapes of d = 4 at its largest budget: add shapes"):
        measure("dimension", Evidence(folder))
    below = sweep(tmp_path / "b", {4: 1.0})
    content = (below / "sweep.yaml").read_text().replace("nats: 1.804", "nats: 1.9")
    (below / "sweep.yaml").write_text(content)
    with pytest.raises(UserError, match="has a cell at or below the floor of d = 4: that cannot be"):
        measure("dimension", Evidence(below))
    other = write_cells(tmp_path / "c", [cell(*shape, 1e6, lambda row: 3.0) for shape in SHAPES])
    with pytest.raises(UserError, match="knows no floors by dimension: train data=manifold in several dimensions"):
        measure("dimension", Evidence(other))
