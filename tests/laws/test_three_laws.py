"""The three laws on published tables: which rows are taken, held out, and what they say of the coupled law."""

import numpy as np
import pandas as pd
import pytest
from three_laws import (
    ADDITIVE,
    COUPLED,
    TIED,
    Judged,
    Published,
    by_hold_outs,
    by_reach,
    judge,
    left_out,
    most_flops,
    tables,
)

from harness.laws import fit

ROWS = {
    "chinchilla_epoch": 240,
    "gadre_overtraining c4_original": 32,
    "gadre_overtraining rpj": 33,
    "gadre_overtraining rw_original": 33,
    "olmo_ladder": 30,
    "gemstones": 199,
    "data_constrained_muennighoff": 41,
    "porian_isoflop base|long|kaplan|kaplan": 39,
    "porian_isoflop base|long|kaplan|standard": 45,
    "porian_isoflop base|short|kaplan|standard": 99,
    "porian_isoflop base|short|chinchilla|standard": 80,
    "porian_isoflop tuned|short|const|standard": 97,
    "porian_isoflop tuned|long|const|kaplan": 38,
    "marin_isoflop comma": 80,
    "marin_isoflop dclm": 79,
    "marin_isoflop nemotron": 80,
    "step_law": 17,
}


@pytest.fixture(scope="module")
def listed(published):
    return {table.name: table for table in tables(published)}


def test_whole_budgets_of_most_compute_are_held_out():
    flops = np.array([1e18, 9e18, 1e18, 3e18, 3.03e18, 9e18, 9.1e18, 1e18])
    assert np.flatnonzero(most_flops(flops, 0.5)).tolist() == [1, 5, 6]
    assert np.flatnonzero(most_flops(flops, 0.375)).tolist() == [1, 5, 6]
    assert np.flatnonzero(most_flops(flops, 0.7)).tolist() == [1, 3, 4, 5, 6]
    assert not most_flops(flops, 0.25).any()


def test_every_table_shows_a_gamma_below_1(listed):
    assert {name: len(table.rows) for name, table in listed.items()} == ROWS
    for name, table in listed.items():
        found = fit(table.rows, law=COUPLED, **table.columns)
        assert found.certificate.certified, (name, found.certificate.reasons)
        assert found.intervals["gamma"][1] < 1, (name, found.intervals["gamma"])


def test_rows_within_their_warm_up_follow_no_law(published, listed):
    """The same runs with those whose warm-up had not ended: gamma is another, the scatter ten times as large."""
    points = pd.read_csv(published / "porian_isoflop" / "isoflop_points.csv")
    scatter = []
    table = listed["porian_isoflop base|long|kaplan|standard"]
    for rows in (table.rows, points[points["config"] == "rw|base|long|kaplan|standard|val"]):
        found = fit(rows, law=COUPLED, **table.columns)
        scatter.append(np.median(np.abs(np.log(rows["loss"] / found.predict(rows["N"], rows["D"])))))
    assert scatter == pytest.approx([0.0021, 0.0256], rel=0.05)
    assert found.estimates["gamma"] == pytest.approx(2.60, abs=0.01)


@pytest.mark.parametrize(
    ("name", "case", "errors"),
    [
        ("marin_isoflop comma", "largest quarter", [0.0186, 0.0129, 0.0059]),  # within the params of the fit
        ("marin_isoflop comma", "params over 1/16", [0.0200, 0.0154, 0.0290]),
        ("olmo_ladder", "largest quarter", [0.0081, 0.0182, 0.0015]),
        ("gadre_overtraining rpj", "params over 1/16", [0.0067, 0.0151, 0.0341]),
    ],
)
def test_the_coupled_law_reaches_in_compute_and_not_in_params(listed, name, case, errors):
    judged = judge(listed[name], case)
    assert [judged.errors[law] for law in (TIED, ADDITIVE, COUPLED)] == pytest.approx(errors, abs=1e-4)


def test_too_few_shapes_are_no_case(listed):
    assert judge(listed["step_law"], "params over 1/4") is None  # 2 shapes are left


def test_what_a_rule_leaves_open_is_chosen_without_the_table_or_source_that_it_is_judged_on():
    def case(name, source, reach, coupled):
        errors = {TIED: 0.02, ADDITIVE: 0.03, COUPLED: coupled}
        return Judged(Published(name, source, "", {}, pd.DataFrame()), errors, {}, {}, reach)

    cases = [case("a", "x", 1.0, 0.01), case("b", "y", 16.0, 0.04), case("c", "y", 16.0, 0.05)]
    reaches = [(2.0, TIED), (np.inf, TIED)]
    # The other table of y shows what lies beyond 2 times; where both of y are left out, nothing does: the first that
    # fits x as well is taken for it.
    assert left_out(cases, by_reach, reaches, "name")[0] == [COUPLED, TIED, TIED]
    assert left_out(cases, by_reach, reaches[::-1], "source") == (
        [COUPLED, COUPLED, COUPLED],
        [(2.0, TIED), *[(np.inf, TIED)] * 2],
    )


def test_the_rule_of_hold_outs_asks_a_price_for_each_exponent():
    within = {TIED: 0.02, ADDITIVE: 0.015, COUPLED: 0.010}
    judged = Judged(Published("a", "x", "", {}, pd.DataFrame()), {}, {}, within, 1.0)
    # Skills 2500, 4444 and 10000 times 1, p and p^2.
    assert [by_hold_outs(judged, price) for price in (1.0, 0.6, 0.1)] == [COUPLED, COUPLED, TIED]
    assert by_hold_outs(Judged(judged.table, {}, {}, dict.fromkeys(within, 0.001), 1.0), 0.9) == TIED
