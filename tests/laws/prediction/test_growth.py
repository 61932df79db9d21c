"""How fast a law's errors grow beyond its table: the arithmetic of the widening, and a law that bends."""

import numpy as np
import pytest

from harness.laws import fit
from harness.laws.prediction.growth import CUTS, PRIOR, Beyond, beyond_cut, growth, of_cuts, widened


def test_what_a_table_shows_is_drawn_towards_the_prior():
    # two cuts: (4e-4 + 8e-4) / (4 + 8) = 1e-4; with a prior of .02 that counts for two: (2 1e-4 + 2 4e-4) / 4 = 2.5e-4
    found = of_cuts([Beyond(4e-4, 4.0), Beyond(8e-4, 8.0)], prior=0.02, counts=2.0)
    assert (found.own, found.cuts) == (pytest.approx(0.01), 2)
    assert found.by_e == pytest.approx(2.5e-4**0.5)


def test_errors_within_the_noise_leave_half_the_prior_s_square():
    found = of_cuts([Beyond(-1e-4, 2.0)] * 2, prior=0.02, counts=2.0)
    assert (found.own, found.by_e) == (0.0, pytest.approx(0.02 * 0.5**0.5))
    assert of_cuts([]).by_e == PRIOR and of_cuts([]).own is None


def test_an_interval_widens_by_the_root_of_squares():
    # z = 1.6449 at 90 %, log C over that of the table is 2: 1.6449 x .02 x 2 = .065794; with .03 and .01 beside it
    ends = np.exp([1 - 0.03, 1 + 0.01])
    low, high = widened(np.exp(1.0), (ends[0], ends[1]), np.exp(2.0), 0.02, 0.9)
    assert np.log(low) == pytest.approx(1 - 0.072311, abs=2e-6)
    assert np.log(high) == pytest.approx(1 + 0.066550, abs=2e-6)
    assert widened(np.exp(1.0), (ends[0], ends[1]), np.array(0.5), 0.02, 0.9) == pytest.approx(tuple(ends))


def test_a_law_that_bends_grows_and_the_true_one_does_not(simulated):
    table = simulated(alpha=0.3, beta=0.9, noise=1e-4)
    grown = {}
    for law in ("chinchilla", "chinchilla_tied"):  # which has one exponent where two differ by .6
        whole = fit(table, law=law, loss="log_mse")
        grown[law] = growth(whole.rows, whole.columns, law, "log_mse", 1e-3)
    assert grown["chinchilla_tied"].own > 10 * grown["chinchilla"].own
    assert grown["chinchilla_tied"].by_e > PRIOR > grown["chinchilla"].by_e
    assert all(each.cuts == len(CUTS) for each in grown.values())


def test_a_cut_that_leaves_too_few_rows_says_nothing(simulated):
    few = simulated(noise=1e-4)
    whole = fit(few[few["seed"] == 0].iloc[:12], loss="log_mse")
    assert beyond_cut(whole.rows, whole.columns, "chinchilla", "log_mse", 1e-3, 0.4) is None
    assert beyond_cut(whole.rows, whole.columns, "chinchilla", "log_mse", 1e-3, 1.0) is None
