"""The penalty for repeated data: by arithmetic, by the complex step, on simulated sweeps and on published runs."""

import numpy as np
import pandas as pd
import pytest

from harness.laws import fit
from harness.laws.forms import FORMS, centred

FORM = FORMS["chinchilla_penalized"]
N = np.repeat([57.6e3, 105e3, 164e3, 320e3], 6)
D = np.tile([0.25e6, 0.35e6, 0.5e6, 1e6, 2e6, 4e6], 4)
U = np.minimum(D, 0.5e6)
# Three of the four shapes twice, as the grid of conf/sweep/repeat.yaml.
SEEDS = np.r_[np.zeros(24, int), np.ones(18, int)]
FRAME = pd.DataFrame(
    {"params_with_head": np.r_[N, N[:18]], "tokens": np.r_[D, D[:18]], "unique_tokens": np.r_[U, U[:18]]}
).assign(trunk=lambda table: table["params_with_head"].map("{:g}".format) + SEEDS.astype(str))
TRUTH = {"E": 2.2, "A": 0.45 * 1e5**0.4, "alpha": 0.4, "B": 0.9 * 5e5**0.45, "beta": 0.45}


def fresh(table):
    params, tokens = table["params_with_head"], table["tokens"]
    return TRUTH["E"] + TRUTH["A"] * params ** -TRUTH["alpha"] + TRUTH["B"] * tokens ** -TRUTH["beta"]


def repeats(table):
    """(D/U - 1) N/U: .64 at the second sight of 5e5 tokens by 3.2e5 params, 7 times as much at the eighth."""
    unique = table["unique_tokens"]
    return (table["tokens"] / unique - 1) * table["params_with_head"] / unique


def noisy(loss, seed, sd=0.002):
    """Half of the variance is the trunks'."""
    generator = np.random.default_rng(seed)
    trunk_R = np.unique(FRAME["trunk"], return_inverse=True)[1]
    shared, own = generator.standard_normal(trunk_R.max() + 1), generator.standard_normal(len(FRAME))
    return FRAME.assign(loss=loss * np.exp(sd * np.sqrt(0.5) * (shared[trunk_R] + own)))


def test_by_arithmetic():
    """2 + 100 / 10^4^.5 + 400 / 40,000^.5 + .05 (4 - 1) 10,000 / 10,000 = 2 + 1 + 2 + .15; once through, without it."""
    at = centred(np.full(2, 3.0), np.full(2, 1e4), np.array([4e4, 1e4]), np.full(2, 1e4))
    theta = FORM.from_natural({"E": 2, "A": 100, "B": 400, "alpha": 0.5, "beta": 0.5, "P": 0.05}, at)
    assert np.exp(FORM.log_prediction(theta[None], at)[0]) * 3 == pytest.approx([5.15, 7.0], rel=1e-12)


def test_derivatives_are_those_of_the_complex_step():
    """Of the formula as it is written, the parameters in its units one by one."""
    at = centred(np.full(24, 3.0), N, D, U)
    names = ("E", "A", "alpha", "B", "beta", "P")
    theta = FORM.from_natural(TRUTH | {"P": 0.03}, at)
    _, J_MRP = FORM.derivatives(theta[None], at)

    def log_loss(theta_P):
        E, logA, alpha, logB, beta, p = theta_P
        n, d, u = (np.log(values) - np.log(values).mean() for values in (N, D, U))
        penalty = p * (D / U - 1) * np.exp(n - u)
        return np.log(E + np.exp(logA - alpha * n) + np.exp(logB - beta * d) + penalty)

    assert FORM.internal == names
    for index in range(6):
        step = np.zeros(6, complex)
        step[index] = 1e-30j
        assert J_MRP[0, :, index] == pytest.approx(log_loss(theta + step).imag / 1e-30, rel=1e-11, abs=1e-14)


def test_data_seen_once_are_chinchillas():
    at = centred(np.full(24, 3.0), N, D, D)
    theta = FORM.from_natural(TRUTH | {"P": 0.7}, at)
    assert np.exp(FORM.log_prediction(theta[None], at)[0]) * 3 == pytest.approx(
        2.2 + 0.45 * (N / 1e5) ** -0.4 + 0.9 * (D / 5e5) ** -0.45, rel=1e-12
    )


@pytest.mark.parametrize("P", [0.01, 0.04])
def test_a_known_penalty_is_covered(P):
    """By the 95 % intervals of 100 simulated sweeps, of which 90 or fewer would hold it once in 35 times."""
    tables = [noisy(fresh(FRAME) + P * repeats(FRAME), seed) for seed in range(100)]
    found = [fit(table, "chinchilla_penalized", "log_mse") for table in tables]
    assert all(each.certificate.certified for each in found)
    inside = sum(each.intervals["P"][0] <= P <= each.intervals["P"][1] for each in found)
    assert 91 <= inside <= 99
    estimates = np.array([each.estimates["P"] for each in found])
    assert abs(estimates.mean() - P) < 3 * estimates.std() / 10


@pytest.mark.parametrize("P", [0.0, 0.02])
def test_simulated_intervals_cover_it_too(P):
    """Those of a P of 0 reach down to it."""
    tables = [noisy(fresh(FRAME) + P * repeats(FRAME), seed) for seed in range(30)]
    found = [fit(table, "chinchilla_penalized", "log_mse", bootstrap=200).intervals["P"] for table in tables]
    assert 26 <= sum(low <= P <= high for low, high in found) < 30 + (P == 0)
    assert all(low >= 0 and 0.0005 < high - low < 0.012 for low, high in found)


def test_repeats_that_cost_nothing_leave_chinchillas_law_and_say_so():
    """Losses that even fall below the law's with repeats: P is held at 0."""
    frame = FRAME.assign(loss=fresh(FRAME) - 0.002 * repeats(FRAME))
    result, plain = fit(frame, "chinchilla_penalized", "log_mse"), fit(frame, "chinchilla", "log_mse")
    assert result.estimates["P"] == 0
    assert result.intervals["P"] is None
    assert {name: result.estimates[name] for name in plain.estimates} == pytest.approx(plain.estimates, rel=1e-5)
    assert result.certificate.at_bound == ["P"]
    assert result.certificate.reasons == [
        "P is at the lower bound 0: in these rows repeats cost nothing, as in Chinchilla's law"
    ]


def test_data_that_are_never_repeated_do_not_identify_it():
    frame = FRAME.assign(unique_tokens=FRAME["tokens"], loss=fresh(FRAME))
    result = fit(frame, "chinchilla_penalized", "log_mse")
    assert result.certificate.reasons == ["P is not identified: these rows do not show what repeating costs"]
    assert result.intervals["P"] is None


def test_published_runs(published):
    """The 296 runs of Muennighoff et al. 2023; the numbers are those of scipy's least squares from 60 starts."""
    table = published / "data_constrained_muennighoff" / "runs.csv"
    columns = {"params": "N", "tokens": "D", "unique_tokens": "U", "loss": "log_mse"}
    result = fit(table, law="chinchilla_penalized", **columns)
    assert result.certificate.certified
    assert result.objective == pytest.approx(4.3418547, rel=1e-7)
    assert result.estimates["P"] == pytest.approx(9.86407e-4, rel=1e-5)
    assert result.estimates["E"] == pytest.approx(1.8609, rel=1e-4)
    assert result.estimates["beta"] == pytest.approx(0.340186, rel=1e-5)
    low, high = result.intervals["P"]
    assert 5e-4 < low < 7e-4 and 1.2e-3 < high < 1.5e-3
    assert fit(table, law="chinchilla_repeated", **columns).objective == pytest.approx(6.5427443, rel=1e-7)
