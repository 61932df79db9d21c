import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from harness.laws.noise.noise import Components, Wild, estimate
from harness.laws.noise.seeds import seed_noise

ONES = np.ones((8, 1))
PAIRS = np.repeat(np.arange(4), 2)


def test_components_are_those_of_the_analysis_of_variance():
    # Four trunks of two cells around a mean: between 2 (4 + 0 + 4 + 0) = 16 with 3 degrees of freedom,
    # within 8 with 4; so cell variance 2, trunk variance (16/3 - 2) / 2 = 5/3.
    noise = estimate(ONES, np.array([1.0, 3, -1, 1, -3, -1, -1, 1]), PAIRS)
    assert isinstance(noise, Components)
    assert noise.squares_J == pytest.approx([16, 8])
    assert noise.freedom_J == pytest.approx([3, 4])
    assert noise.estimates == pytest.approx((5 / 3, 2))


def test_the_share_of_the_trunks_is_integrated_out():
    """The mean of the table above. At a share s of trunks, squares of 3 (1 + s) and 4 (1 - s) times the total variance
    are expected, so total times chi-square with 7 degrees of freedom is 16 / (1 + s) + 8 / (1 - s) = t, with likelihood
    (1 + s)^-1.5 (1 - s)^-2 t^-3.5, and the mean's variance is (1 + s) / 8 of the total."""
    noise = estimate(ONES, np.array([1.0, 3, -1, 1, -3, -1, -1, 1]), PAIRS)

    def integral(value):
        def likelihood(s):
            t = 16 / (1 + s) + 8 / (1 - s)
            return (1 + s) ** -1.5 * (1 - s) ** -2 * t**-3.5 * value(t * (1 + s) / 8)

        return quad(likelihood, 0, 1)[0]

    precision = integral(lambda v: 7 / v) / integral(lambda v: 1)
    square = integral(lambda v: 63 / v**2) / integral(lambda v: 1)
    sd, freedom = noise.spread(np.full((1, 8), 1 / 8))
    assert sd[0] == pytest.approx(precision**-0.5, rel=1e-3)
    assert freedom[0] == pytest.approx(2 * precision**2 / (square - precision**2), rel=1e-3)
    drawn, _ = noise.draw(40000, np.random.default_rng(0))
    tail = stats.t.ppf(0.975, freedom[0]) * sd[0]
    assert (np.abs(drawn.mean(1)) > tail).mean() == pytest.approx(0.05, abs=0.006)


def test_a_negative_trunk_variance_is_pooled():
    noise = estimate(ONES, np.array([1.0, -1, 1, -1, 1, -1, 1, -1]), PAIRS)
    assert noise.estimates == pytest.approx((0, 8 / 7))
    # Four trunks cannot show that they share nothing, so their mean is less certain than that of eight free rows.
    sd, freedom = noise.spread(np.full((1, 8), 1 / 8))
    assert np.sqrt(8 / 7 / 8) < sd[0] < 0.5
    assert 3 < freedom[0] < 7


def test_rows_without_clusters_are_independent():
    noise = estimate(ONES, np.array([1.0, -1, 1, -1, 1, -1, 1, -1]), None)
    assert noise.estimates == pytest.approx((0, 8 / 7))


def test_one_trunk_hides_what_its_cells_share():
    """Squares of 42 with 7 degrees of freedom: cells vary by 6, and the trunk may share any part of the variance. At a
    share s the mean of the 8 rows varies by v = 42 / X (s / (1 - s) + 1 / 8), X chi-square with 7 degrees of freedom,
    a contrast within the trunk by Student's t of the 42 alone."""
    noise = estimate(ONES, np.arange(8.0) - 3.5, np.zeros(8, np.intp))
    assert isinstance(noise, Components)
    assert noise.trunks_hidden and not noise.independent
    assert noise.estimates == pytest.approx((6, 6))

    def integral(power):
        return quad(lambda s: (s / (1 - s) + 1 / 8) ** -power, 0, 1)[0]

    # E(1 / v) = 7 / 42 integral(1), E(1 / v^2) = 63 / 42^2 integral(2).
    precision, square = 7 / 42 * integral(1), 63 / 42**2 * integral(2)
    sd, freedom = noise.spread(np.array([np.full(8, 1 / 8), [1, -1, 0, 0, 0, 0, 0, 0]]))
    assert sd == pytest.approx([precision**-0.5, np.sqrt(12)], rel=1e-3)
    assert freedom == pytest.approx([2 * precision**2 / (square - precision**2), 7], rel=1e-3)
    drawn, _ = noise.draw(40000, np.random.default_rng(0))
    assert np.quantile(np.abs(drawn[:, 0] - drawn[:, 1]), 0.95) == pytest.approx(
        stats.t.ppf(0.975, 7) * np.sqrt(12), rel=0.03
    )
    # The median share is a half: then trunk and cells vary alike.
    assert np.median(np.abs(drawn.mean(1))) > np.sqrt(6 / 8)


def test_drawn_noise_has_the_estimated_correlation():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 4)
    residual = generator.standard_normal(20)[labels] * 2 + generator.standard_normal(80)
    noise = estimate(np.ones((80, 1)), residual - residual.mean(), labels)
    trunk, cell = noise.estimates
    drawn, sd = noise.draw(20000, generator)
    covariance = np.cov(drawn.T)
    # The drawn variances exceed the estimates by about the mean of freedom / chi-square, 19/17.
    assert covariance[0, 1] == pytest.approx(trunk * 19 / 17, rel=0.2)
    assert covariance[0, 4] == pytest.approx(0, abs=0.15)
    assert (sd**2).mean() == pytest.approx(covariance[0, 0], rel=0.1)
    assert cell == pytest.approx(1, rel=0.4)


def test_many_clusters_keep_their_own_residuals():
    residual = np.tile([3.0, 1.0], 50) * np.repeat([1.0, -1.0], 50)
    noise = estimate(np.ones((100, 1)), residual, np.repeat(np.arange(50), 2))
    assert isinstance(noise, Wild)
    drawn, _ = noise.draw(10, np.random.default_rng(0))
    assert np.abs(drawn[:, ::2]) == pytest.approx(3 / 0.99)
    assert (np.sign(drawn[:, ::2]) * np.sign(residual[::2]) == np.sign(drawn[:, 1::2]) * np.sign(residual[1::2])).all()


def test_seed_noise_by_hand():
    # log loss of two seeds at two budgets, around 1: (.01, .03) and (-.01, -.03).
    loss = np.exp(1 + np.array([0.01, 0.03, -0.01, -0.03]))
    shape, budget, trunk = np.zeros(4, int), np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    noise = seed_noise(loss, shape, budget, trunk)
    assert noise["sd_relative"] == pytest.approx(np.sqrt(0.002 / 2))
    assert noise["sd_nats"] == pytest.approx(np.e * np.sqrt(0.001), rel=1e-3)
    assert (noise["groups"], noise["degrees_of_freedom"]) == (2, 2)
    # Trunk means +-.02, cells +-.01 around them: within .0004 on 1, between .0016 on 1 = 2 trunk + cell.
    assert noise["cell_sd_relative"] == pytest.approx(0.02)
    assert noise["trunk_sd_relative"] == pytest.approx(np.sqrt(0.0006))


def test_seed_noise_needs_repeats():
    assert seed_noise(np.ones(3), np.arange(3), np.zeros(3, int), None) is None
    repeated = seed_noise(np.exp([0.0, 0.02]), np.zeros(2, int), np.zeros(2, int), None)
    assert repeated["sd_relative"] == pytest.approx(0.01 * np.sqrt(2))
    assert repeated["trunk_sd_relative"] is None
