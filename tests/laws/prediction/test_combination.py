"""Laws weighed by what they predict of cells with more compute."""

import numpy as np
import pytest
from extrapolation import judge, tables

from harness.errors import UserError
from harness.laws import combine, fit
from harness.laws.prediction.combination import DOUBT


def untied(simulated, noise=3e-4):
    return simulated(alpha=0.3, beta=0.9, noise=noise)


def test_the_law_that_holds_has_the_weight_and_is_recommended(simulated):
    table = untied(simulated)
    found = combine(table, loss="log_mse")
    weights = {member.fit.law: member.weight for member in found.members}
    assert sum(weights.values()) == pytest.approx(1)
    assert found.recommended.fit.law == "chinchilla"
    assert weights["chinchilla"] > 0.5
    assert found.reason.startswith("chinchilla has ")
    truth = 2.1 + 0.7 * (2e6 / 4e5) ** -0.3 + 1.2 * (1e7 / 2e6) ** -0.9
    assert found.predict(2e6, 1e7) == pytest.approx(truth, rel=0.01)


def test_the_combination_is_the_geometric_mean_of_its_laws(simulated):
    found = combine(untied(simulated), loss="log_mse")
    params, tokens = np.array([1e5, 1e6]), 3e6
    logs = sum(member.weight * np.log(member.fit.predict(params, tokens)) for member in found.members)
    assert found.predict(params, tokens) == pytest.approx(np.exp(logs), rel=1e-12)


def test_the_interval_widens_with_compute_beyond_the_table(simulated):
    table = simulated(noise=3e-4)
    found = combine(table, loss="log_mse")
    params = float(table["params_with_head"].max())
    halves = []
    for factor in (1.0, 10.0, 100.0):
        low, high = found.predict_interval(params, 4e6 * factor)
        halves.append(float(np.log(high / low)) / 2)
    assert halves[0] < halves[1] < halves[2]
    assert halves[2] > 1.96 * DOUBT * np.log(100)
    assert halves[0] < 0.003


def test_a_law_that_cannot_be_judged_is_left_out_with_why(simulated):
    table = untied(simulated)
    small = table[table["seed"] == 0].iloc[::4]
    with pytest.raises(UserError, match="combine=holdout finds no law that can be judged"):
        combine(small, loss="log_mse")
    some = combine(table[table["tokens"] < 3e6].iloc[:10], loss="log_mse")
    assert set(some.left_out) | {member.fit.law for member in some.members} == {
        "chinchilla_tied",
        "chinchilla",
        "chinchilla_coupled",
    }


def test_published_runs_that_were_held_out(published):
    """Smaller tables of tests/laws/extrapolation.py, which judges all four and takes minutes."""
    for name, rows, columns, held in tables(published, "N"):
        if name == "epoch":
            continue
        found = judge(combine(rows[~held], **columns), rows[held], columns)
        single = judge(fit(rows[~held], law="chinchilla_tied", **columns), rows[held], columns)
        assert found.error < 1.1 * single.error
        assert np.mean(found.covered) > 0.8
        assert found.score < 1.05 * single.score
