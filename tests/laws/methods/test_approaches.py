"""Chinchilla's three approaches on tables whose optimum is known."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UserError
from harness.laws import fit
from harness.laws.methods.approaches import _disagreements, _lowest, approaches, power_line
from harness.laws.settings import fit_config
from harness.laws.table.levels import budget_labels, shape_labels
from harness.laws.table.rows import Cells
from harness.laws.table.table import as_table


def section(frame, within=4.0, **choices):
    result = fit(frame, **({"loss": "log_mse"} | choices))
    rows = result.rows
    cells = Cells(as_table(frame), rows, shape_labels(frame, rows.params), budget_labels(rows.tokens))
    report, notes = approaches(cells, result, 400, 0, within)
    return {entry["name"]: entry for entry in report["approaches"]}, report, notes


def sweep(params, tokens, noise=0.0, seed=0):
    """A run table of L = 2.1 + .7 (N / 4e5)^-.4 + 1.2 (D / 2e6)^-.45, whose a is .45 / .85."""
    generator = np.random.default_rng(seed)
    return pd.DataFrame(
        [
            {
                "params_with_head": N, "tokens": D, "flops": 6 * N * D, "trunk": f"{N:.0f}",
                "loss": (2.1 + 0.7 * (N / 4e5) ** -0.4 + 1.2 * (D / 2e6) ** -0.45)
                * np.exp(noise * generator.standard_normal()),
            }
            for N in params
            for D in tokens
        ]
    )  # fmt: skip


WIDE = np.geomspace(5e4, 4e6, 10), np.geomspace(0.3e6, 3e7, 8)


def test_a_line_in_the_logs_by_hand():
    line = power_line(np.array([1.0, 10.0, 100.0]), np.array([3.0, 3e1, 3e2]))
    assert line.slope == pytest.approx(1)
    assert line.intercept == pytest.approx(np.log(3))
    # y = 0, 1, 0 at x = 0, 1, 2 and weights 1, 2, 1: mean y 1/2, slope 0; the residual variance is
    # (4 x 1/4) 3/4 / 1 = 3/4 and the spread 2 x 3/4 = 3/2, so the error is .7071 and t(1, .975) = 12.706.
    line = power_line(np.exp([0, 1, 2]), np.exp([0, 1, 0]), np.array([1, 2, 1]))
    assert line.slope == pytest.approx(0, abs=1e-12)
    assert line.interval == pytest.approx((-12.7062 * 0.70711, 12.7062 * 0.70711), rel=1e-4)
    assert power_line(np.array([1.0, 2.0]), np.array([1.0, 4.0])).interval is None


def test_profiles_that_are_parabolas_give_their_exponent_exactly():
    """Loss 3 + .01 (log N - .6 log C + 8)^2 at C = 6 N D, sampled off its centre."""
    frame = pd.DataFrame(
        [
            {"N": N, "D": C / (6 * N), "flops": C, "loss": 3 + 0.01 * (np.log(N) - 0.6 * np.log(C) + 8) ** 2}
            for C in (1e15, 1e16, 1e17, 1e18)
            for N in np.exp(0.6 * np.log(C) - 8) * np.array([0.4, 0.7, 1.2, 2.0, 3.1])
        ]
    )
    entries, report, _ = section(frame, params="N", tokens="D")
    assert report["source"] == "the table's own IsoFLOP budgets"
    for name in ("isoflop_parabola", "isoflop_cubic"):
        assert entries[name]["points"] == 4
        assert entries[name]["a"]["value"] == pytest.approx(0.6, abs=1e-9)
        assert entries[name]["b"]["value"] == pytest.approx(0.4, abs=1e-9)
    expected = np.exp(0.6 * np.log([1e15, 1e16, 1e17, 1e18]) - 8)
    assert entries["isoflop_parabola"]["optimal_params"] == pytest.approx(expected, rel=1e-6)


def test_curves_of_a_wide_grid_give_the_exponent_of_the_law():
    entries, report, notes = section(sweep(*WIDE, noise=0.002))
    assert report["source"] == "each trunk's losses over compute, a cubic spline of the logs"
    for name in ("envelope", "isoflop_parabola", "isoflop_cubic", "parametric"):
        a = entries[name]["a"]
        assert a["low"] < 0.45 / 0.85 < a["high"], name
        assert a["high"] - a["low"] < 0.15, name
        assert abs(entries[name]["bias"]) < 0.01, name
    assert notes == []


@pytest.mark.parametrize(("dataset", "a"), [("comma", 0.4049), ("dclm", 0.4236), ("nemotron", 0.4224)])
def test_whole_profiles_give_the_exponents_that_unweighted_parabolas_give(published, dataset, a):
    """Outliers included: a parabola through all shapes of a budget, a line through the minima."""
    runs = pd.read_csv(published / "marin_isoflop" / "runs.csv")
    columns = {"params": "N", "tokens": "D", "flops": "C"}
    entries, report, _ = section(runs[runs["dataset"] == dataset], within=np.inf, **columns)
    assert entries["isoflop_parabola_whole"]["a"]["value"] == pytest.approx(a, abs=5e-5)
    assert entries["isoflop_parabola_whole"]["points"] == 7
    assert report["within"] == np.inf


def lopsided():
    """IsoFLOP profiles of the law of `sweep` without noise, from an 8th of the optimum to 40 times as many params."""
    rows = []
    for C in np.geomspace(1e13, 1e16, 5):
        best = ((0.4 * 0.7 * 4e5**0.4) / (0.45 * 1.2 * 2e6**0.45)) ** (1 / 0.85) * (C / 6) ** (0.45 / 0.85)
        for N in best * np.geomspace(1 / 8, 40, 15) * (1 + 0.1 * np.log10(C / 1e13)):
            D = C / (6 * N)
            loss = 2.1 + 0.7 * (N / 4e5) ** -0.4 + 1.2 * (D / 2e6) ** -0.45
            rows.append({"params_with_head": N, "tokens": D, "flops": C, "loss": loss})
    return pd.DataFrame(rows)


def test_near_and_whole_profiles_stand_together_where_they_differ():
    frame = lopsided()
    minima = []
    for C, rows in frame.groupby("flops"):
        square, slope, _ = np.polyfit(np.log(rows["params_with_head"]), rows["loss"], 2)
        minima.append((np.log(C), -slope / (2 * square)))
    whole = np.polyfit(*np.array(minima).T, 1)[0]
    for within in (4.0, np.inf):
        entries, report, notes = section(frame, within=within)
        both = ["isoflop_parabola", "isoflop_parabola_whole"]
        assert [name for name in entries if "parabola" in name] == (both if within == 4 else both[::-1])
        assert entries["isoflop_parabola_whole"]["a"]["value"] == pytest.approx(whole, abs=1e-9)
        assert abs(entries["isoflop_parabola"]["a"]["value"] - 0.45 / 0.85) < 0.02
        told = [note for note in notes if "isoflop_parabola " in note and "isoflop_parabola_whole" in note]
        assert len(told) == 1 and told[0].endswith("disagree beyond their intervals.")
        assert told[0] in report["disagree"]


def test_near_profiles_stand_alone_where_whole_ones_agree():
    entries, _, _ = section(sweep(*WIDE, noise=0.002))
    assert list(entries) == ["envelope", "isoflop_parabola", "isoflop_cubic", "parametric"]


@pytest.mark.parametrize("value", ["1", "0.5", "-4", "nan"])
def test_a_factor_that_holds_no_shape_is_refused(value):
    with pytest.raises(UserError, match=rf"approaches.within={value} is no factor above 1: give 4, or inf"):
        fit_config(["runs=x", f"approaches.within={value}"])


def test_whole_profiles_are_asked_for_by_inf():
    assert fit_config(["runs=x", "approaches.within=inf"]).approaches.within == np.inf


def test_approaches_that_disagree_are_named():
    def entry(name, value, half, bias=0.0):
        return {"name": name, "a": {"value": value, "low": value - half, "high": value + half}, "bias": bias}

    first, second = entry("envelope", 0.5, 0.03), entry("parametric", 0.56, 0.04)
    assert _disagreements([first, second]) == [  # .06 apart, where .05 is allowed
        "The approaches envelope (a 0.500) and parametric (a 0.560) disagree beyond their intervals."
    ]
    assert _disagreements([first, entry("parametric", 0.54, 0.04)]) == []
    assert _disagreements([entry("envelope", 0.5, 0.03, bias=-0.02), second]) == []
    assert _disagreements([first, {"name": "isoflop_cubic", "a": None}]) == []


def test_a_grid_that_brackets_no_optimum_gets_no_number():
    entries, _, _ = section(sweep([1e5, 1.6e5, 2.4e5, 3.2e5, 4.2e5, 9e5], [0.52e6, 0.8e6, 1.22e6, 1.85e6], 0.001))
    for name in ("envelope", "isoflop_parabola", "isoflop_cubic"):
        assert entries[name]["a"] is None
        assert entries[name]["left_out"] == "0 compute budgets have an optimum, 3 are needed"
    assert entries["parametric"]["a"]["value"] == pytest.approx(0.529, abs=0.05)


def test_a_law_without_an_optimum_has_no_approaches():
    frame = sweep(*WIDE)
    result = fit(frame, law="kaplan_params")
    cells = Cells(
        as_table(frame), result.rows, shape_labels(frame, result.rows.params), budget_labels(result.rows.tokens)
    )
    assert approaches(cells, result, 0, 0) == (None, [])


@given(minimum=st.floats(-2, 2), other=st.floats(-6, 6), twist=st.floats(-3, 3))
def test_the_minimum_of_a_cubic_is_found(minimum, other, twist):
    """Slope twist (x - minimum) (x - other) rises through its zero at the minimum where twist (minimum - other) > 0."""
    if twist * (minimum - other) < 1e-2:
        return
    coefficient = np.array([[0.7, twist * minimum * other, -twist * (minimum + other) / 2, twist / 3]])
    assert _lowest(coefficient, -3, 3)[0] == pytest.approx(minimum, abs=1e-6)
    assert np.isnan(_lowest(coefficient, minimum + 1e-3, minimum + 3)[0])


def test_our_profiles_give_the_exponents_of_their_authors(published):
    points = pd.read_csv(published / "porian_isoflop" / "isoflop_points.csv").dropna()
    theirs = pd.read_csv(published / "porian_isoflop" / "published_fits.csv").set_index("config")["a_point"]
    for name, most in (("envelope", 0.015), ("isoflop_parabola", 0.025), ("isoflop_cubic", 0.015)):
        errors = [
            section(rows, params="N", tokens="D", loss="huber")[0][name]["a"]["value"] - theirs[config]
            for config, rows in points.groupby("config")
        ]
        assert np.sqrt(np.mean(np.square(errors))) < most, name


def test_one_set_of_runs_has_an_exponent_for_each_way_of_counting(published):
    minima = pd.read_csv(published / "nanochat_isoflop_minima" / "minima.csv")
    slopes = {
        count: power_line(rows["flops"].to_numpy(), rows["N_star"].to_numpy()).slope
        for count, rows in minima.groupby("param_count")
    }
    assert sorted(slopes.values()) == pytest.approx([0.37, 0.52, 0.68], abs=0.01)
