"""How far the best of random settings lies from the optimum: bowls that are known, and what is said of them."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import special

from harness.errors import UserError
from harness.laws.tune import tune
from harness.laws.tuning.basin import Design
from harness.laws.tuning.enough import effective, gaps
from harness.laws.tuning.rules import Sizes

# Of lr, batch and decay: half or twice of lr and batch cost .7 %, of decay .2 %; lr and batch lie along a ridge.
H = np.array([[0.03, -0.01, 0.004], [-0.01, 0.03, 0.0], [0.004, 0.0, 0.008]])
NAMES = ("lr", "batch", "decay")
SIZES = Sizes(np.repeat([1e5, 2e5], 2), np.tile([1e6, 3e6], 2))
# log settings over the middle of what is drawn, at each size
BEST_CK = np.array([[0.3, -0.3, 0.2], [0.1, 0.0, 0.2], [0.1, -0.2, -0.2], [-0.1, 0.1, -0.2]])
AWAY = math.log(4)


def drawn(seed: int, count: int = 32, noise: float = 0.0025, settings: int = 3) -> pd.DataFrame:
    """Runs at so many random settings, the same at all sizes, half of the noise common to the budgets of a trunk."""
    generator = np.random.default_rng(seed)
    log_RK = generator.uniform(-AWAY, AWAY, (count, settings))
    rows = []
    for cell, (params, tokens) in enumerate(zip(SIZES.params_C, SIZES.tokens_C, strict=True)):
        if cell % 2 == 0:
            shared_R = generator.standard_normal(count)
        v_RK = log_RK - BEST_CK[cell, :settings]
        height_R = ((v_RK @ H[:settings, :settings]) * v_RK).sum(1) / 2
        noise_R = noise * math.sqrt(0.5) * (shared_R + generator.standard_normal(count))
        loss_R = 3 * np.exp(height_R + noise_R) * (params * tokens) ** -0.05
        own = dict(zip(NAMES, np.exp(log_RK).T, strict=False))
        trunk = [f"{params:g}-{index}" for index in range(count)]
        rows.append(pd.DataFrame(own | {"N": params, "D": tokens, "loss": loss_R, "trunk": trunk, "true": height_R}))
    return pd.concat(rows, ignore_index=True)


def true_gap(frame: pd.DataFrame) -> float:
    """What the settings of the best run of each size truly cost, in the mean."""
    return float(np.expm1(frame.loc[frame.groupby(["N", "D"])["loss"].idxmin(), "true"].mean()))


def true_power(draws: int, counts: tuple[int, ...], noise: float = 0.0025, settings: int = 3) -> float:
    """p of the mean heights of the best of so many settings, of many draws."""
    generator, gap = np.random.default_rng(0), []
    for count in counts:
        found = []
        for best_K in BEST_CK[:, :settings]:
            v = generator.uniform(-AWAY, AWAY, (draws, count, settings)) - best_K
            height = ((v @ H[:settings, :settings]) * v).sum(2) / 2
            lowest = (height + noise * generator.standard_normal(height.shape)).argmin(1)
            found.append(height[np.arange(draws), lowest].mean())
        gap.append(np.mean(found))
    return effective(np.array(gap), np.array(counts))


def chances(frame: pd.DataFrame, p: float, settings: int = 3) -> dict[str, bool]:
    """Which intervals of a table hold what it was simulated with."""
    found = tune(frame.drop(columns="true"), list(NAMES[:settings])).to_dict()["enough"]
    told = found["effective_settings"]
    return {
        "the cost of the best runs inside": found["gap"]["low"] <= true_gap(frame) <= found["gap"]["high"],
        "p inside": told["low"] <= p <= told["high"],
    }


def test_the_best_of_k_of_some_rows_is_a_mean_over_all_choices():
    # Of heights 1, 2 and 4, in the order of their losses: the best of one is 7/3, of two 1 twice and 2 once.
    cell_R = np.array([0, 1, 0, 0, 1])
    every = np.ones((2, 1), bool)
    design = Design(np.array([0.2, 0.5, 0.1, 0.4, 0.1]), np.zeros((5, 1)), cell_R, cell_R, None, every, np.ones(5))
    found = gaps(np.array([2.0, 5.0, 1.0, 4.0, 3.0]), design, np.array([1, 2]))
    assert found == pytest.approx(np.array([[7 / 3, 4 / 3], [4.0, 3.0]]))


def test_p_is_that_of_heights_that_fill_a_ball():
    # Of k points spread evenly in a ball of p dimensions the least square distance is k B(k, 1 + 2/p) on average.
    counts = np.array([2, 4, 8])
    for p in (1, 2, 4):
        assert effective(7e-3 * counts * special.beta(counts, 1 + 2 / p), counts) == pytest.approx(p, rel=1e-3)


def test_the_best_of_random_settings_is_judged_by_the_bowl():
    frame = drawn(0)
    found = tune(frame.drop(columns="true"), list(NAMES))
    content = found.to_dict()["enough"]
    assert content["settings"] == [32, 32]
    assert [each["count"] for each in content["by_count"]] == [1, 2, 4, 8, 16, 32]
    gap, p = content["gap"], content["effective_settings"]
    assert gap["low"] < true_gap(frame) < gap["high"] and gap["estimate"] == pytest.approx(true_gap(frame), rel=0.25)
    # the mean of all runs, which no choice was made of
    assert content["by_count"][0]["gap"] == pytest.approx(np.expm1(frame["true"].mean()), rel=0.05)
    assert content["with_twice_as_many"] == pytest.approx(gap["estimate"] * 2 ** (-2 / p["estimate"]))
    (line,) = [line for line in str(found).splitlines() if line.startswith("the settings of the best run")]
    said = f"p = {p['estimate']:.1f} ({p['low']:.1f} to {p['high']:.1f}) effective settings: twice as many would leave "
    assert line.endswith(f"that of k random ones falls as k^(-2/p), {said}{content['with_twice_as_many']:.2%}")


def test_few_settings_tell_no_p():
    found = tune(drawn(0, count=11, settings=1).drop(columns="true"), ["lr"])
    assert found.to_dict()["enough"]["effective_settings"] == {"estimate": None, "low": None, "high": None}
    assert "k random" not in str(found)


def test_intervals_hold_known_bowls():
    """12 tables; enough_coverage.py has more."""
    p = true_power(2000, (2, 4, 8), settings=2)
    assert 1.9 < p < 2.5  # two settings that matter, and corners of a square in which one is far off
    found = [chances(drawn(seed, settings=2), p, settings=2) for seed in range(12)]
    assert all(sum(each[name] for each in found) >= 9 for name in found[0])


def test_a_setting_without_a_minimum_is_left_out_where_none_was_named():
    frame = drawn(1, settings=2).drop(columns="true")
    frame["warmup"] = frame["trunk"].map(lambda name: 1.5 + int(name.split("-")[1]) * 7919 % 32)
    frame["loss"] *= np.exp(0.002 * np.log(frame["warmup"]))  # the less the better
    found = tune(frame.drop(columns="trunk"))
    assert found.runs.names == ("lr", "batch")
    said = "warmup: no minimum beside the others; what it does to the loss counts as noise."
    assert said in found.to_dict()["notes"]
    with pytest.raises(UserError, match="the losses have no minimum along"):
        tune(frame.drop(columns="trunk"), ["lr", "batch", "warmup"])
