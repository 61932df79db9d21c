"""Rows weighted by the noise that they share: the estimates are those of generalised least squares."""

from dataclasses import replace

import numpy as np
import pytest
from multipliers import one, table, truth

from harness.laws import compare
from harness.laws.forms import FORMS, centred
from harness.laws.forms.variants import JointLaw, labelled
from harness.laws.noise.noise import estimate
from harness.laws.noise.pairs import Groups, estimate_paired
from harness.laws.variants import weights as weights_module
from harness.laws.variants.weights import Mixed, gain, weights_of

# Two variants of four trunks of three cells.
TRUNK_R, PAIR_R, CELL_R = np.repeat(np.arange(8), 3), np.repeat(np.arange(8), 3) % 4, np.tile(np.arange(12), 2)


def same(label_R):
    return (label_R[:, None] == label_R).astype(float)


def noise_of_shares(trunk, pair):
    """Of the paired trunks, with one pair of shares known, and its covariance."""
    noise = estimate_paired(np.ones((24, 1)), np.random.default_rng(0).standard_normal(24),
                            Groups(TRUNK_R, PAIR_R, CELL_R, True))  # fmt: skip
    shares = noise.groups.shares
    weight = np.zeros_like(noise.weight_G)
    weight[np.argmin((shares.trunk_G - trunk) ** 2 + (shares.pair_G - pair) ** 2)] = 1.0
    own = trunk * same(TRUNK_R) + (1 - trunk) * np.eye(24)
    common = trunk * same(PAIR_R) + (1 - trunk) * same(CELL_R)
    return replace(noise, weight_G=weight), (1 - pair) * own + pair * common


@pytest.mark.parametrize(("trunk", "pair"), [(0.325, 0.625), (0.925, 0.025), (0.475, -0.125 / 5)])
def test_known_shares_give_the_best_linear_estimate(trunk, pair):
    """(J' S^-1 J)^-1 J' S^-1 for the covariance S."""
    noise, covariance = noise_of_shares(trunk, pair)
    pair = float(noise.groups.shares.pair_G[noise.weight_G.argmax()])
    noise, covariance = noise_of_shares(trunk, pair)
    J_RP = np.random.default_rng(1).standard_normal((24, 4))
    precise = J_RP.T @ np.linalg.inv(covariance)
    assert gain(J_RP, weights_of(noise)) == pytest.approx(np.linalg.solve(precise @ J_RP, precise), abs=1e-9)


def test_trunks_alone_are_weighted_by_their_share():
    """Trunks of three, two and one cells; the precision is the mean over shares, here summed row by row."""
    trunk_R = np.array([0, 0, 1, 2, 2, 0, 3, 3, 3, 4, 4, 5, 5, 6, 6, 6])
    generator = np.random.default_rng(2)
    J_RP = np.column_stack([np.ones(16), generator.standard_normal(16)])
    residual_R = generator.standard_normal(7)[trunk_R] + 0.3 * generator.standard_normal(16)
    noise = estimate(J_RP, residual_R - J_RP @ np.linalg.lstsq(J_RP, residual_R, rcond=None)[0], trunk_R)
    precision = sum(
        weight / scaled * np.linalg.inv(share * same(trunk_R) + (1 - share) * np.eye(16))
        for share, weight, scaled in zip(*noise.shares(), strict=True)
    )
    precise = J_RP.T @ precision
    assert gain(J_RP, weights_of(noise)) == pytest.approx(np.linalg.solve(precise @ J_RP, precise), abs=1e-9)


def test_noise_without_shares_has_no_weights():
    generator = np.random.default_rng(3)
    J_RP, residual_R = generator.standard_normal((12, 2)), generator.standard_normal(12)
    assert weights_of(estimate(J_RP, residual_R, None)) is None
    assert gain(J_RP, None) == pytest.approx(np.linalg.inv(J_RP.T @ J_RP) @ J_RP.T)


def test_derivatives_of_mixed_rows_agree_with_finite_differences():
    law = JointLaw(FORMS["chinchilla_coupled"], ("a", "b"), frozenset({"E", "alpha", "beta", "gamma"}))
    noise, _ = noise_of_shares(0.325, 0.625)
    form = Mixed(law, weights_of(noise))
    generator = np.random.default_rng(4)
    at = labelled(centred(np.full(24, 3.0), *generator.uniform(1e5, 1e6, (2, 24))), np.arange(24) // 12)
    theta = law.from_natural(truth("chinchilla_coupled", 1.2, 0.9), at)
    f, J = form.derivatives(theta[None], at)
    assert f[0] == pytest.approx(form.log_prediction(theta[None], at)[0])
    weight = np.linspace(-1, 2, 24)
    second = form.second(J, weight[None], at, theta[None])[0]
    for index, step in enumerate(1e-6 * np.eye(len(theta))):
        up, down = form.derivatives((theta + step)[None], at), form.derivatives((theta - step)[None], at)
        assert J[0, :, index] == pytest.approx((up[0] - down[0])[0] / 2e-6, abs=1e-6)
        assert second[index] == pytest.approx(weight @ (up[1] - down[1])[0] / 2e-6, abs=1e-5, rel=1e-5)


def test_a_comparison_is_where_the_weighted_gradient_vanishes():
    found = compare(table("24 cells in 6 trunks", "chinchilla", 0.5, 1.2, 0.9, 1), bootstrap=0)
    fit = found.fit
    _, J_MRP = fit.form.derivatives(fit.theta_P[None], fit.problem.at)
    weights = weights_of(fit.noise)
    residual = weights.mixed(fit.problem.residual(fit.theta_P[None]))[0]
    mixed = weights.mixed(J_MRP[0].T).T
    assert np.abs(residual @ mixed) / (np.abs(residual) @ np.abs(mixed)) == pytest.approx(0, abs=1e-8)
    assert found.content["choices"]["interval_method"].endswith("; rows weighted by it")
    huber = compare(table("24 cells in 6 trunks", "chinchilla", 0.5, 1.2, 0.9, 1), loss="huber", bootstrap=0)
    assert "weighted" not in huber.content["choices"]["interval_method"]


def test_steps_of_one_curvature_end_where_newtons_method_does(monkeypatch):
    found = []
    for steps in (weights_module.MOST_STEPS, 2, 0):
        monkeypatch.setattr(weights_module, "MOST_STEPS", steps)
        draws = compare(table("24 cells in 6 trunks", "chinchilla", 0.5, 1.2, 0.9, 3), bootstrap=200).fit.draws
        assert draws.converged == 1
        found.append(draws.theta_SP)
    spread = found[-1].std(0)
    assert all((np.abs(each - found[-1]) / spread).max() < 1e-3 for each in found)


def test_a_start_at_the_truth_ends_where_ninety_starts_do():
    grid, law, seed = "24 cells in 6 trunks", "chinchilla_coupled", 4
    f, g = np.random.default_rng((seed, 1)).uniform(0.7, 1.4, 2)
    real = compare(table(grid, law, 0.5, f, g, seed), law=law, bootstrap=0).content["variants"]["b"]
    _, half, error, *_ = one(grid, law, 0.5, 0, seed)
    m = real["multiplier"]["equal_tokens"]
    assert np.log(m["estimate"] / (f * g)) == pytest.approx(error, abs=1e-6)
    assert np.log(m["high"] / m["low"]) / 2 == pytest.approx(half, rel=1e-5)
