"""Every law: what it predicts in natural units, by arithmetic, and what a fit finds on losses that follow it."""

import numpy as np
import pandas as pd
import pytest

from harness.errors import UserError
from harness.laws import fit

GRID = pd.DataFrame(
    [
        {"params_with_head": 12.0 * width**2 * depth, "width": width, "depth": depth, "tokens": tokens, "flops": C}
        for width, depth in [(32, 2), (48, 5), (64, 3), (96, 2), (128, 6), (192, 3), (256, 10), (256, 4)]
        for tokens in np.geomspace(1e6, 6e7, 6)
        for C in [70.0 * width**2 * depth * tokens]
    ]
).assign(unique_tokens=lambda table: np.minimum(table["tokens"], 5e6))


def power(x, centre, exponent):
    return (x / centre) ** -exponent


N, D, C = (GRID[name].to_numpy() for name in ("params_with_head", "tokens", "flops"))
WIDTH, DEPTH, U = (GRID[name].to_numpy(float) for name in ("width", "depth", "unique_tokens"))
WORTH = U + U * 4 * (1 - np.exp(-(D / U - 1) / 4))
# The law's own optimum for U tokens: .35 * .6 (N* / 4e5)^-.35 = .4 * .9 (U / 5e6)^-.4.
FRESH = np.minimum(N, 4e5 * (0.36 * power(U, 5e6, 0.4) / 0.21) ** (-1 / 0.35))
PARAMS_WORTH = FRESH + FRESH * 6 * (1 - np.exp(-(N / FRESH - 1) / 6))
TRUTHS = {
    "chinchilla": (
        1.7 + 0.6 * power(N, 4e5, 0.35) + 0.9 * power(D, 5e6, 0.4),
        {"E": 1.7, "alpha": 0.35, "beta": 0.4, "A": 0.6 * 4e5**0.35, "B": 0.9 * 5e6**0.4, "a": 0.4 / 0.75},
    ),
    "kaplan_params": (power(N, 8e13, 0.076), {"alpha": 0.076, "Nc": 8e13}),
    "kaplan_tokens": (power(D, 5e13, 0.095), {"alpha": 0.095, "Dc": 5e13}),
    "kaplan_flops": (power(C, 3e20, 0.05), {"alpha": 0.05, "Cc": 3e20}),
    "kaplan_params_floor": (1.5 + power(N, 4e5, 0.3), {"E": 1.5, "alpha": 0.3, "A": 4e5**0.3}),
    "kaplan_tokens_floor": (1.5 + power(D, 4e6, 0.5), {"E": 1.5, "alpha": 0.5, "A": 4e6**0.5}),
    "kaplan_flops_floor": (1.5 + power(C, 4e13, 0.2), {"E": 1.5, "alpha": 0.2, "A": 4e13**0.2}),
    "kaplan_joint": (
        ((2e7 / N) ** (0.3 / 0.25) + 3e8 / D) ** 0.25,
        {"alpha": 0.3, "beta": 0.25, "Nc": 2e7, "Dc": 3e8, "a": 0.25 / 0.55},
    ),
    "chinchilla_tied": (
        1.7 + 0.6 * power(N, 4e5, 0.35) + 0.9 * power(D, 5e6, 0.35),
        {"E": 1.7, "alpha": 0.35, "A": 0.6 * 4e5**0.35, "B": 0.9 * 5e6**0.35, "a": 0.5},
    ),
    "chinchilla_coupled": (
        1.7 + (0.6 * power(N, 4e5, 0.5) + 0.9 * power(D, 5e6, 0.6)) ** 0.7,
        {"E": 1.7, "alpha": 0.5, "beta": 0.6, "gamma": 0.7, "A": 0.6 * 4e5**0.5, "a": 0.6 / 1.1},
    ),
    "width_depth": (
        1.7 + 0.6 * power(WIDTH, 64, 0.7) + 0.2 * power(DEPTH, 4, 0.9) + 0.9 * power(D, 5e6, 0.4),
        {"E": 1.7, "alpha": 0.7, "gamma": 0.9, "beta": 0.4, "A": 0.6 * 64**0.7, "G": 0.2 * 4**0.9},
    ),
    "chinchilla_repeated": (
        1.7 + 0.6 * power(N, 4e5, 0.35) + 0.9 * power(WORTH, 5e6, 0.4),
        {"E": 1.7, "alpha": 0.35, "beta": 0.4, "R": 4.0},
    ),
    "data_constrained": (
        1.7 + 0.6 * power(PARAMS_WORTH, 4e5, 0.35) + 0.9 * power(WORTH, 5e6, 0.4),
        {"E": 1.7, "alpha": 0.35, "beta": 0.4, "A": 0.6 * 4e5**0.35, "R_D": 4.0, "R_N": 6.0},
    ),
    "chinchilla_penalized": (
        1.7 + 0.6 * power(N, 4e5, 0.35) + 0.9 * power(D, 5e6, 0.4) + 0.02 * (D / U - 1) * N / U,
        {"E": 1.7, "alpha": 0.35, "beta": 0.4, "A": 0.6 * 4e5**0.35, "B": 0.9 * 5e6**0.4, "P": 0.02},
    ),
    "broken_tokens": (
        1.2 + 1.5 * power(D, 5e6, 0.1) * (1 + (D / 8e6) ** 4) ** (-0.5 / 4),
        {"E": 1.2, "alpha": 0.1, "beta": 0.6, "D1": 8e6, "f": 0.25},
    ),
}  # fmt: skip


# Six budgets hold a break, its sharpness and a floor loosely, and Nc lies far outside the sampled params.
LOOSE = {"broken_tokens": 0.3, "kaplan_joint": 0.1}


@pytest.mark.parametrize("law", TRUTHS)
def test_a_law_is_found_again_where_it_holds(law):
    loss, truth = TRUTHS[law]
    noise = np.random.default_rng(0).standard_normal(len(loss))
    result = fit(GRID.assign(loss=loss * (1 + 1e-4 * noise)), law=law, loss="log_mse")
    for name, value in truth.items():
        assert result.estimates[name] == pytest.approx(value, rel=LOOSE.get(law, 0.03)), name
    others = {name: GRID[name] for name in ("width", "depth", "unique_tokens") if name in result.form.uses}
    assert result.predict(N, D, **others) == pytest.approx(loss, rel=5e-4)
    assert result.certificate.converged and result.certificate.moved


def test_a_law_that_needs_more_says_so():
    result = fit(GRID.assign(loss=TRUTHS["width_depth"][0]), law="width_depth", loss="log_mse")
    with pytest.raises(UserError, match="predict: width_depth needs width too: give width="):
        result.predict(1e6, 1e7)
    with pytest.raises(UserError, match="has no column 'depth'"):
        fit(GRID.drop(columns="depth").assign(loss=2.0), law="width_depth")
    with pytest.raises(UserError, match="column depth has 1 distinct level, and width_depth needs at least 3"):
        fit(GRID.assign(loss=TRUTHS["width_depth"][0], depth=2), law="width_depth")


def test_data_that_is_never_repeated_does_not_identify_what_repeating_costs():
    result = fit(GRID.assign(loss=TRUTHS["chinchilla"][0], unique_tokens=D), law="chinchilla_repeated")
    assert not result.certificate.certified
    assert "R is not identified: these rows do not show what repeating costs" in result.certificate.reasons


def test_published_runs_do_not_identify_what_repeating_costs(published):
    """Muennighoff et al. 2023 hold the law of fresh data and report R_D 15.4, R_N 5.3 from 182 of these 296 rows."""
    table = published / "data_constrained_muennighoff" / "runs.csv"
    columns = {"params": "N", "tokens": "D", "unique_tokens": "U"}
    fresh = {"E": 1.87, "A": 521.0, "B": 1488.0, "alpha": 0.353, "beta": 0.353}
    result = fit(table, law="data_constrained", loss="huber", delta=1e-3, fixed=fresh, **columns)
    assert len(result.rows) == 296
    assert {name: result.estimates[name] for name in fresh} == pytest.approx(fresh, rel=1e-12)
    assert result.certificate.at_bound == ["R_D", "R_N"]
    assert "R_D is not identified: these rows do not show what repeating costs" in result.certificate.reasons


def test_parameters_are_held():
    loss = 1.7 + 0.6 * power(N, 4e5, 0.35) + 0.9 * power(D, 5e6, 0.4)
    fixed = {"beta": 0.4, "B": 0.9 * 5e6**0.4}
    result = fit(GRID.assign(loss=loss), fixed=fixed)
    assert result.estimates["beta"] == 0.4
    assert result.estimates["B"] == pytest.approx(fixed["B"], rel=1e-12)
    assert result.certificate.rank == 3
    assert result.estimates["alpha"] == pytest.approx(0.35, abs=1e-6)
    assert result.certificate.at_bound == []
    with pytest.raises(UserError, match="fixed: B of chinchilla can be held only beside its exponent: fix that too"):
        fit(GRID.assign(loss=loss), fixed={"B": 1.0})
    with pytest.raises(UserError, match="fixed: chinchilla has no parameter gamma: give some of E, A, alpha, B, beta"):
        fit(GRID.assign(loss=loss), fixed={"gamma": 1.0})
