"""A shorter run of tests/laws/multipliers.py, intervals from the curvature; and the noise that pairs share."""

import numpy as np
import pytest
from multipliers import calibrate, one, table

from harness.laws import compare
from harness.laws.forms import FORMS, centred
from harness.laws.forms.variants import JointLaw, labelled
from harness.laws.noise.pairs import Groups, estimate_paired


def test_intervals_of_a_multiplier_cover_what_they_promise():
    """95 % of 40 tables, within what chance allows: .95 - 3.5 of .034; half-widths as the curvature promises."""
    found = calibrate("36 cells in 9 trunks", "chinchilla_coupled", 0.5, tables=40, draws=0)
    assert found.covered >= 0.83 and found.half_width < 0.034 and found.rejected <= 0.2
    assert found.certified == 1


def test_draws_and_curvature_give_one_interval():
    content = "36 cells in 9 trunks", "chinchilla_coupled", 0.5
    (_, by_draws, *_), (_, by_curvature, *_) = (one(*content, draws, seed=3) for draws in (1000, 0))
    assert by_draws == pytest.approx(by_curvature, rel=0.15)


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.0, 0.35), (0.8, 0.6, 0.95)])
def test_the_share_of_pairs_is_measured(share, low, high):
    found = compare(table("36 cells in 9 trunks", "chinchilla", share, 1.2, 0.9, 5), bootstrap=0)
    assert low <= found.pairs[0] <= high


def test_simulated_noise_has_the_covariance_that_it_is_drawn_from():
    """Two variants of four trunks of three cells, all draws at one share: trunks .3, pairs .6 of a variance of 1."""
    trunk = np.repeat(np.arange(8), 3)
    groups = Groups(trunk, trunk % 4, np.tile(np.arange(12), 2), True)
    noise = estimate_paired(np.ones((24, 1)), np.random.default_rng(0).standard_normal(24), groups)
    near = np.argmin((groups.shares.trunk_G - 0.325) ** 2 + (groups.shares.pair_G - 0.625) ** 2)
    weight = np.zeros_like(noise.weight_G)
    weight[near] = 1.0
    known = type(noise)(groups, weight, np.full(len(weight), 23.0), 1e9)
    drawn, _ = known.draw(100_000, np.random.default_rng(1))
    covariance = np.cov(drawn.T) / (23 / 1e9)
    assert np.diag(covariance) == pytest.approx(np.ones(24), abs=0.03)
    assert covariance[0, 1] == pytest.approx(0.325, abs=0.02)  # of one trunk
    assert covariance[0, 12] == pytest.approx(0.625, abs=0.02)  # a pair
    assert covariance[0, 13] == pytest.approx(0.325 * 0.625, abs=0.02)  # of paired trunks
    assert covariance[0, 3] == pytest.approx(0.0, abs=0.02)
    contrast = np.zeros((1, 24))
    contrast[0, [0, 12]] = 1.0, -1.0
    assert known.variances(contrast)[near, 0] == pytest.approx(2 * (1 - 0.625))
    assert known.spread(contrast)[0][0] == pytest.approx(np.sqrt(0.75 * 23 / 1e9))


@pytest.mark.parametrize("law", ["chinchilla", "chinchilla_tied", "chinchilla_coupled"])
@pytest.mark.parametrize("shared", [("E", "alpha", "beta", "gamma"), ("E", "gamma"), ()])
def test_derivatives_of_a_joint_law_agree_with_finite_differences(law, shared):
    """Rows of three variants in no order."""
    form = JointLaw(FORMS[law], ("a", "b", "c"), frozenset(shared))
    generator = np.random.default_rng(2)
    params, tokens, variant = generator.uniform(1e5, 1e6, 20), generator.uniform(1e6, 8e6, 20), np.arange(20) % 3
    at = labelled(centred(np.full(20, 3.0), params, tokens), variant)
    sizes = {"E": 0.6, "A": -1.5, "B": -1.2, "alpha": 0.5, "beta": 0.45, "gamma": 0.8}
    theta = np.array([sizes[name.split(" of ")[0]] for name in form.internal]) + 0.05 * generator.standard_normal(
        len(form.internal)
    )
    f, J = form.derivatives(theta[None], at)
    assert f[0] == pytest.approx(form.log_prediction(theta[None], at)[0])
    weight = np.linspace(-1, 2, 20)
    second = form.second(J, weight[None], at, theta[None])[0]
    for index in range(len(theta)):
        step = np.zeros(len(theta))
        step[index] = 1e-6
        up, down = form.derivatives((theta + step)[None], at), form.derivatives((theta - step)[None], at)
        assert J[0, :, index] == pytest.approx((up[0] - down[0])[0] / 2e-6, abs=1e-6)
        assert second[index] == pytest.approx(weight @ (up[1] - down[1])[0] / 2e-6, abs=1e-5, rel=1e-5)
    natural = {name: float(value[0]) for name, value in form.natural(theta[None], at).items()}
    assert form.from_natural(natural, at) == pytest.approx(theta, rel=1e-6, abs=1e-6)
