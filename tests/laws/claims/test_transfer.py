"""How far the best rates move, where that is known."""

import json
import math
import re

import pytest
from known_rates import EXPONENTS, RATES, row, rows_of, sweep, with_noise

from harness.errors import UserError
from harness.laws.claims.claim import write_claim
from harness.laws.claims.measured import Evidence
from harness.laws.claims.quantities import measure

CLAIM = {"text": "Rates transfer.", "quantity": "transfer", "rule": {"low": None, "high": 1.5}}


def measured(folder, rows):
    return measure("transfer", Evidence(sweep(folder, rows)))


def test_a_best_rate_that_moves_by_known_powers_is_found(tmp_path):
    """Widths of 16 to 128 are a factor 8: mup's rate moves by 8^.1 = 1.2311, sp's by 8^.5 = 2.8284; over depths of 1 to
    4 sp's moves by 4^.3 = 1.5157, mup's by 4^.2 = 1.3195, completep's not."""
    found = measured(tmp_path / "a", with_noise(rows_of(), 1e-6, 0))
    assert found.doubts == []
    assert found.estimate == pytest.approx(1.2311, abs=1e-3)
    assert "over widths of 16 to 128 at depth 2" in found.words
    of = {row.label: row.estimate for row in found.rows}
    assert of == {
        "mup, width 16 to 128": pytest.approx(1.2311, abs=1e-3),
        "sp, width 16 to 128": pytest.approx(2.8284, abs=1e-3),
        "sp, depth 1 to 4": pytest.approx(1.5157, abs=1e-3),
        "mup, depth 1 to 4": pytest.approx(1.3195, abs=1e-3),
        "completep, depth 1 to 4": pytest.approx(1.0, abs=1e-3),
    }
    assert [row.label for row in found.rows if row.decides] == ["mup, width 16 to 128"]


def test_the_figure_has_the_best_rates_with_their_intervals_and_the_rule(tmp_path):
    found = measured(tmp_path / "a", with_noise(rows_of(), 1e-3, 1))
    assert (found.panel.x, found.panels[0].x) == ("width, at depth 2", "depth, at width 64")
    points = {point["x"]: point for point in found.panel.points if point["series"] == "sp"}
    assert sorted(points) == [16, 32, 64, 128]
    for width, point in points.items():
        true = 0.006 * (width / 64) ** -0.5
        assert point["low"] < true < point["high"]
        assert point["low"] < point["y"] < point["high"] < 1.3 * point["low"]
    line = [(each["x"], each["y"]) for each in found.panel.lines if each["series"] == "sp"]
    assert line == [(16, pytest.approx(0.012, rel=0.05)), (128, pytest.approx(0.006 / 2**0.5, rel=0.05))]


def test_the_interval_holds_the_truth_and_a_move_down_is_one_up(tmp_path):
    """8^.1 either way, with noise of .3 %."""
    for sign in (-1, 1):
        exponents = EXPONENTS | {"mup": (0.1 * sign, 0.0)}
        found = measured(tmp_path / f"{sign}", with_noise(rows_of(exponents), 0.003, 1))
        assert 1 <= found.low < 1.2311 < found.high < 1.6
        assert found.estimate > 1


def test_what_does_not_move_has_a_factor_of_one_at_the_least(tmp_path):
    found = measured(tmp_path / "a", with_noise(rows_of(EXPONENTS | {"mup": (0.0, 0.0)}), 0.003, 0))
    assert found.low == 1.0
    assert found.high < 1.4


@pytest.mark.parametrize(("power", "verdict"), [(-0.05, "holds"), (-0.5, "fails"), (-0.2, "undecided")])
def test_verdicts(tmp_path, power, verdict):
    """8^.05 = 1.11, 8^.5 = 2.83, and 8^.2 = 1.52, at the end of the rule."""
    rows = with_noise(rows_of(EXPONENTS | {"mup": (power, 0.0)}), 0.002, 0)
    found = write_claim(sweep(tmp_path / "a", rows, claim=CLAIM)).content
    assert found["verdict"] == verdict
    assert len(json.loads((tmp_path / "a" / "claim.json").read_text())["panels"]) == 1


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (rows_of(rates=RATES[1:3]), r"^mup along width: .*: no params and tokens have 3 values of learning_rate"),
        (rows_of(names=("sp", "completep")), r"has no cells of mup: train them too"),
        (
            rows_of(shapes_of=lambda name: [(32, 2), (64, 2)]),
            r"has not three sizes of mup along width: add shapes",
        ),
        (
            rows_of(EXPONENTS | {"mup": (-1.0, 0.0)}),  # .024 at w16, the largest that was tried
            r"^mup along width: the best rate is not bracketed by those tried at width 16: try more on both sides$",
        ),
    ],
)
def test_what_tells_no_best_rates_is_undecided_in_one_sentence(tmp_path, rows, reason):
    found = write_claim(sweep(tmp_path / "a", with_noise(rows, 0.001, 0), claim=CLAIM)).content
    assert found["verdict"] == "undecided"
    assert re.search(reason, found["reason"])


def test_best_rates_that_follow_no_power_are_doubted(tmp_path):
    """At every other width twice the rate: max over min is 2, and the power all but 0."""
    twice = {16: 1.0, 32: 2.0, 64: 1.0, 128: 2.0}
    rows = [
        row("mup", width, 2, rate, 0.03 * math.log(rate / (0.004 * twice[width])) ** 2)
        for width in twice
        for rate in RATES
    ]
    found = measured(tmp_path / "a", with_noise(rows, 0.002, 0))
    assert [doubt.partition(" (p")[0] for doubt in found.doubts] == [
        "mup along width: the best rates follow no power of the width"
    ]


def test_a_bowl_that_narrows_with_the_width_is_doubted(tmp_path):
    """From .02 to .05 times the square of the log, at nine rates: the test is slow to reject."""
    rows = [
        row("mup", width, 2, rate, 0.01 * (2 + math.log2(width / 16)) * math.log(rate / 0.006) ** 2)
        for width in (16, 32, 64, 128)
        for rate in (0.0015 * 2 ** (step / 2) for step in range(9))
    ]
    found = measured(tmp_path / "a", with_noise(rows, 0.001, 0))
    assert [doubt.partition(" (p")[0] for doubt in found.doubts] == [
        "mup along width: the curvature is not the same at all widths"
    ]


def test_several_budgets_are_not_mixed(tmp_path):
    rows = [each | {"tokens": 4e5 if each["width"] == 16 else 2e5} for each in rows_of()]
    found = measured(tmp_path / "a", with_noise(rows, 0.002, 0))
    assert found.estimate is None
    assert "has several budgets, and rates are compared at one: give one tokens=" in found.doubts[0]


def test_a_table_without_parametrizations_is_refused(tmp_path):
    rows = [{key: value for key, value in each.items() if "parametrization" not in key} for each in rows_of()]
    with pytest.raises(UserError, match="has no column parametrization"):
        measured(tmp_path / "a", rows)
