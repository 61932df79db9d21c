"""Seeds tell noise from misfit."""

import numpy as np
import pytest

from harness.laws.checks.misfit import by_noise, lack_of_fit, sentence
from harness.laws.fit import fit
from harness.laws.noise.seeds import seed_noise
from harness.laws.table.levels import budget_labels, shape_labels


def labels(frame, result):
    return shape_labels(frame, result.rows.params), budget_labels(result.rows.tokens)


def test_a_law_that_holds_leaves_what_seeds_leave(simulated):
    """32 cells, 8 of them twice: 5 parameters and 8 degrees of freedom for noise leave 19 for the law."""
    ratios = []
    for seed in range(20):
        frame = simulated(noise=0.002, seed=seed)
        result = fit(frame, loss="log_mse")
        test = lack_of_fit(result, *labels(frame, result))
        assert test["degrees_of_freedom"] == [19, 8]
        assert test["noise_sd"] == pytest.approx(
            seed_noise(result.rows.loss, *labels(frame, result), None)["sd_relative"]
        )
        ratios.append(test["f"])
    assert 0.6 < np.median(ratios) < 1.6


def test_a_law_that_bends_away_is_said_to_misfit(simulated):
    frame = simulated(noise=0.0005)
    params, tokens = (np.log(frame[name] / frame[name].mean()) for name in ("params_with_head", "tokens"))
    result = fit(frame.assign(loss=frame["loss"] * np.exp(0.01 * params * tokens)), loss="log_mse")
    test = lack_of_fit(result, *labels(frame, result))
    assert test["p"] < 1e-3
    assert test["misfit_sd"] > 3 * test["noise_sd"]
    assert sentence(test)[0].startswith("The law misfits by more than seeds explain: ")
    assert sentence(None) == sentence({"p": 0.5}) == []


def test_weights_count_in_both_parts(simulated):
    """Weights that are all alike change nothing; rows of no weight leave the test to the others."""
    frame = simulated(noise=0.002)
    plain = fit(frame, loss="log_mse")
    light = frame["tokens"] < 1.3e6
    heavy = fit(frame.assign(weight=np.where(light, 1e-9, 1.0)), loss="log_mse", weight="weight")
    rest = frame[~light].reset_index(drop=True)
    fewer = fit(rest, loss="log_mse")
    assert lack_of_fit(plain, *labels(frame, plain))["p"] > 0
    weighted, without = lack_of_fit(heavy, *labels(frame, heavy)), lack_of_fit(fewer, *labels(rest, fewer))
    squares = [test["noise_sd"] ** 2 * test["degrees_of_freedom"][1] for test in (weighted, without)]
    assert squares[0] / squares[1] == pytest.approx(32 / 24, rel=1e-4)  # weights have mean 1


def test_without_a_second_seed_nothing_is_told_apart(simulated):
    frame = simulated(noise=0.002)
    frame = frame[frame["seed"] == 0].reset_index(drop=True)
    result = fit(frame, loss="log_mse")
    assert lack_of_fit(result, *labels(frame, result)) is None


def test_intervals_under_each_noise(simulated):
    """Rows of a trunk that share half of their noise: independent rows would make beta too certain or too doubtful."""
    frame = simulated(noise=0.002)
    result = fit(frame, loss="log_mse", bootstrap=400)
    seeds = seed_noise(result.rows.loss, *labels(frame, result), result.rows.cluster)
    found = {entry["noise"]: entry["intervals"] for entry in by_noise(result, seeds, 400, 0)}
    assert list(found) == ["independent rows", "trunks and cells", "measured between seeds"]
    assert found["trunks and cells"]["a"] == list(result.intervals["a"])
    assert found["independent rows"]["a"] != found["trunks and cells"]["a"]
    tenth = {key: value / 10 if key.endswith("relative") else value for key, value in seeds.items()}
    narrow = by_noise(result, tenth, 400, 0)[-1]["intervals"]["a"]
    wide = found["measured between seeds"]["a"]
    assert narrow[1] - narrow[0] < 0.2 * (wide[1] - wide[0])
