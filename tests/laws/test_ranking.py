"""The law that made the losses predicts the held-out ones best."""

import numpy as np

from harness.laws.fit import fit
from harness.laws.holdout import Grid
from harness.laws.levels import budget_labels, shape_labels
from harness.laws.ranking import ranking
from harness.laws.table import as_table


def ranked(frame, law="chinchilla"):
    result = fit(frame, law=law, loss="log_mse")
    rows = result.rows
    return ranking(Grid(as_table(frame), rows, shape_labels(frame, rows.params), budget_labels(rows.tokens)), result)


def noisy(frame, loss):
    return frame.assign(loss=loss * np.exp(2e-4 * np.random.default_rng(1).standard_normal(len(frame))))


def test_an_additive_law_wins_where_it_holds(simulated):
    entries, notes = ranked(simulated(noise=2e-4))
    errors = {entry["law"]: entry["mean_relative_error"] for entry in entries}
    assert errors["chinchilla"] < 0.001
    assert errors["kaplan_joint"] > 3 * errors["chinchilla"]
    if entries[0]["law"] == "chinchilla":
        assert notes == []


def test_a_coupled_law_wins_where_it_holds_and_is_named(simulated):
    frame = simulated()
    inner = 0.9 * (frame["params_with_head"] / 4e5) ** -0.7 + 1.1 * (frame["tokens"] / 2e6) ** -0.8
    entries, notes = ranked(noisy(frame, 2.3 + inner**0.5))
    assert entries[0]["law"] == "chinchilla_coupled"
    assert entries[0]["a"]["low"] < 0.8 / 1.5 < entries[0]["a"]["high"]
    assert entries[0]["mean_relative_error"] < 0.5 * entries[1]["mean_relative_error"]
    assert len(notes) == 1 and notes[0].startswith(
        "Held-out cells are predicted best by chinchilla_coupled: mean error"
    )


def test_a_law_that_the_rows_do_not_carry_comes_last_with_why(simulated):
    frame = simulated(noise=1e-3)
    entries, _ = ranked(frame[frame["width"].isin([48, 64])], law="kaplan_tokens")
    assert all(entry["left_out"] for entry in entries if entry["mean_relative_error"] is None)
    coupled = next(entry for entry in entries if entry["law"] == "chinchilla_coupled")
    assert coupled["left_out"] and coupled["errors"] == {}


def test_a_law_with_one_exponent_has_an_a_without_doubt(simulated):
    entries, _ = ranked(simulated(alpha=0.4, beta=0.4, noise=2e-4))
    tied = next(entry for entry in entries if entry["law"] == "chinchilla_tied")
    assert tied["left_out"] is None
    assert (tied["a"]["value"], tied["a"]["low"], tied["a"]["high"]) == (0.5, 0.5, 0.5)
