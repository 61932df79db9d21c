"""The law that made the losses predicts the held-out ones best."""

import numpy as np

from harness.laws.fit import fit
from harness.laws.prediction.ranking import ranking
from harness.laws.table.levels import budget_labels, shape_labels
from harness.laws.table.rows import Cells
from harness.laws.table.table import as_table


def ranked(frame, law="chinchilla"):
    result = fit(frame, law=law, loss="log_mse")
    rows = result.rows
    return ranking(Cells(as_table(frame), rows, shape_labels(frame, rows.params), budget_labels(rows.tokens)), result)


def noisy(frame, loss):
    return frame.assign(loss=loss * np.exp(2e-4 * np.random.default_rng(1).standard_normal(len(frame))))


def test_an_additive_law_wins_where_it_holds(simulated):
    entries, advice = ranked(simulated(noise=2e-4))
    errors = {entry["law"]: entry["mean_relative_error"] for entry in entries}
    assert errors["chinchilla"] < 0.001
    assert errors["kaplan_joint"] > 3 * errors["chinchilla"]
    assert advice.law == "chinchilla"
    if entries[0]["law"] == "chinchilla":
        assert advice.reason.startswith("chinchilla predicts held-out cells best, to 0.0")
    for entry in entries:
        if entry["left_out"] is None:
            # The largest shape has 4 cells, the largest budget 8, and a fifth of 32 cells are 6.
            assert (list(entry["errors"]), entry["n_test"]) == (["largest_shape", "largest_budget", "most_compute"], 18)
            assert 0 <= entry["inside"] <= 18
    assert next(entry for entry in entries if entry["law"] == "chinchilla")["inside"] >= 16


def test_a_coupled_law_wins_where_it_holds_and_is_recommended(simulated):
    frame = simulated()
    inner = 0.9 * (frame["params_with_head"] / 4e5) ** -0.7 + 1.1 * (frame["tokens"] / 2e6) ** -0.8
    frame = noisy(frame, 2.3 + inner**0.5)
    entries, advice = ranked(frame)
    assert entries[0]["law"] == "chinchilla_coupled"
    assert entries[0]["a"]["low"] < 0.8 / 1.5 < entries[0]["a"]["high"]
    assert entries[0]["mean_relative_error"] < 0.5 * entries[1]["mean_relative_error"]
    assert advice.law == "chinchilla_coupled"
    assert advice.reason.startswith("chinchilla_coupled predicts held-out cells best, to 0.0")
    assert "of chinchilla; its a is 0.5" in advice.reason
    # A headline law that is not ranked does not hide which one is better.
    assert "kaplan_params_floor is not ranked: " in ranked(frame, law="kaplan_params_floor")[1].reason


def test_a_law_as_good_as_the_best_up_to_noise_stays(simulated):
    """The coupled law holds the additive one, and a power of 1 costs it little."""
    _, advice = ranked(simulated(noise=1e-3), law="chinchilla_coupled")
    assert advice.law == "chinchilla_coupled"
    assert advice.reason.endswith(" that it leaves as noise.") or "chinchilla_coupled predicts" in advice.reason


def test_every_law_that_the_columns_carry_is_tried(simulated):
    frame = simulated(noise=1e-3)
    every = {
        "chinchilla", "chinchilla_tied", "chinchilla_coupled", "kaplan_joint", "kaplan_params", "kaplan_tokens",
        "kaplan_flops", "kaplan_params_floor", "kaplan_tokens_floor", "kaplan_flops_floor",
    }  # fmt: skip
    assert {entry["law"] for entry in ranked(frame)[0]} == {*every, "width_depth"}
    assert {entry["law"] for entry in ranked(frame.drop(columns=["width", "depth"]))[0]} == every
    once = frame.assign(unique_tokens=frame["tokens"])
    assert {entry["law"] for entry in ranked(once)[0]} == {*every, "width_depth"}
    breaks = {entry["law"] for entry in ranked(frame.assign(tokens=frame["tokens"] * 1.0), law="kaplan_flops")[0]}
    assert breaks == {*every, "width_depth", "broken_flops"}


def test_a_law_that_the_rows_do_not_carry_comes_last_with_why(simulated):
    frame = simulated(noise=1e-3)
    # Without the largest of three shapes two are left: that hold-out says nothing.
    entries, _ = ranked(frame[frame["width"].isin([48, 64])], law="kaplan_tokens")
    assert all(entry["left_out"] for entry in entries if entry["mean_relative_error"] is None)
    assert all("largest_shape" not in entry["errors"] for entry in entries)
    depth = next(entry for entry in entries if entry["law"] == "width_depth")
    assert depth["left_out"].endswith("has 2 distinct levels, and width_depth needs at least 3: add runs")
    assert depth["errors"] == {}


def test_a_table_without_a_hold_out_gets_no_recommendation(simulated):
    frame = simulated(noise=1e-3)
    entries, advice = ranked(
        frame[frame["width"].isin([48, 64]) & (frame["tokens"] < 3e6) & (frame["depth"] < 4)], "kaplan_tokens"
    )
    assert (entries, advice.law) == ([], None)
    assert advice.reason == "No law can be recommended: no hold-out leaves rows that carry one."


def test_a_law_with_one_exponent_has_an_a_without_doubt(simulated):
    entries, _ = ranked(simulated(alpha=0.4, beta=0.4, noise=2e-4))
    tied = next(entry for entry in entries if entry["law"] == "chinchilla_tied")
    assert tied["left_out"] is None
    assert (tied["a"]["value"], tied["a"]["low"], tied["a"]["high"]) == (0.5, 0.5, 0.5)
