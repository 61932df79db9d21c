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
    assert "R is not identified: these rows do not show what repeating their tokens costs" in result.certificate.reasons


def test_the_five_points_of_a_published_fit_predict_its_larger_runs(published):
    """Gadre et al. 2024: a N^-eta + b 6^(-eta/2) (M N)^-eta + E with M tokens a parameter."""
    runs = pd.read_csv(published / "gadre_overtraining" / "runs.csv")
    runs = runs[runs["train_set"] == "rpj"].assign(tokens=lambda table: table["M"] * table["N"])
    small = ((runs["M"] == 20) & (runs["N"] < 5e8)) | ((runs["M"] == 320) & (runs["N"] == 10569312))
    result = fit(runs[small], law="chinchilla_tied", loss="mse", params="N", target="loss_c4_val")
    assert len(result.rows) == 5
    eta = result.estimates["alpha"]
    assert eta == pytest.approx(0.272851, abs=1e-6)
    assert result.estimates["E"] == pytest.approx(1.836648, abs=1e-6)
    assert result.estimates["A"] == pytest.approx(166.211, abs=1e-3)
    assert result.estimates["B"] * 6 ** (eta / 2) == pytest.approx(366.687, abs=1e-3)
    large = runs[runs["N"] > 1.3e9].sort_values("N")
    errors = 100 * (result.predict(large["N"], large["tokens"]) / large["loss_c4_val"] - 1)
    assert errors.round(4).tolist()[-2:] == [0.7103, 0.732]
