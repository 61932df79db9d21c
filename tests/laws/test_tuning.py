"""Settings that vary within variants: each is compared at its best, and an end of what was tried is named."""

import numpy as np
import pandas as pd
import pytest
from test_compare import two_ways

from harness.errors import UserError
from harness.laws import compare

RATES = (0.002, 0.004, 0.008)


def rated(column="lr", best=(0.004, 0.008), rates=RATES, **columns):
    """two_ways at three rates each, b with a g of 1.3; a factor of 2 from the best one costs 2 % of the loss."""
    parts = []
    for rate in rates:
        frame = two_ways(g=1.3).frame.copy()
        off = np.log2(rate / np.where(frame["way"] == "b", best[1], best[0]))
        frame["loss"] *= 1 + 0.02 * off**2
        frame["trunk"] += f"-{rate}"
        parts.append(frame.assign(**{column: rate}))
    return pd.concat(parts, ignore_index=True).assign(**columns)


def test_each_variant_is_compared_at_its_best():
    found = compare(rated(), bootstrap=0)
    content = found.to_dict()
    assert content["settings"] == {
        "a": {"lr": {"best": 0.004, "at_end": None, "tried": [0.002, 0.004, 0.008]}},
        "b": {"lr": {"best": 0.008, "at_end": "high", "tried": [0.002, 0.004, 0.008]}},
    }
    m = content["variants"]["b"]["multiplier"]["equal_tokens"]
    alone = compare(two_ways(g=1.3), bootstrap=0).to_dict()["variants"]["b"]["multiplier"]["equal_tokens"]
    assert m == pytest.approx(alone, rel=1e-6) and m["low"] < 1.3 < m["high"]
    assert found.lines()[0].endswith(", its best lr is the largest tried")
    assert len(content["source"]["excluded"]) == 96 and content["source"]["rows_used"] == 48
    assert content["source"]["excluded"][0]["why"] == "not at the best lr of its variant"
    (note,) = (note for note in content["notes"] if "at its best" in note)
    assert note.startswith("Each variant is compared at its best lr (a 0.004 of 3, b 0.008 of 3), that of the lowest")


def test_the_end_of_a_baseline_is_named_too():
    said = compare(rated(best=(0.002, 0.004)), bootstrap=0).lines()[0]
    assert said.endswith(", a's best lr is the smallest tried")
    said = compare(rated(best=(0.002, 0.008)), bootstrap=0).lines()[0]
    assert said.endswith(", its best lr is the largest tried, a's best lr is the smallest tried")


def test_one_lucky_run_chooses_nothing():
    frame = rated()
    lucky = frame.index[(frame["way"] == "a") & (frame["lr"] == 0.002)][7]
    frame.loc[lucky, "loss"] *= 0.9
    assert compare(frame, bootstrap=0).to_dict()["settings"]["a"]["lr"]["best"] == 0.004


def test_a_setting_under_which_cells_are_missing_is_tried_and_never_best():
    """The runs of the largest width diverged at .008, so that .004 is the best and lies at no end."""
    frame = rated()
    frame = frame.assign(config_hash="0", **{"optimizer.learning_rate.value": frame["lr"]}).drop(columns="lr")
    gone = (frame["way"] == "b") & (frame["optimizer.learning_rate.value"] == 0.008) & (frame["width"] == 144)
    content = compare(frame[~gone], column="way", bootstrap=0).to_dict()
    assert content["settings"]["b"] == {
        "optimizer.learning_rate.value": {"best": 0.004, "at_end": None, "tried": [0.002, 0.004, 0.008]}
    }


def test_axes_of_a_sweep_are_settings_where_they_are_numbers():
    frame = rated("optimizer.learning_rate.value", config_hash="0")
    frame["learning_rate"] = frame["optimizer.learning_rate.value"] * 48 / frame["width"]
    found = compare(frame, column="way", bootstrap=0)
    assert found.to_dict()["settings"]["b"]["optimizer.learning_rate.value"]["at_end"] == "high"
    assert found.lines()[0].endswith(", its best learning_rate is the largest tried")
    named = frame.assign(**{"optimizer.kind": np.where(frame["optimizer.learning_rate.value"] == 0.004, "x", "y")})
    with pytest.raises(UserError, match="column optimizer.kind varies"):
        compare(named, column="way", bootstrap=0)


def test_two_settings_are_chosen_together():
    low, high = rated().assign(warmup=100), rated().assign(warmup=200)
    high["loss"] *= np.where(high["way"] == "a", 1.01, 0.99)
    high["trunk"] += "-200"
    settings = compare(pd.concat([low, high], ignore_index=True), bootstrap=0).to_dict()["settings"]
    assert settings["a"]["warmup"] == {"best": 100, "at_end": "low", "tried": [100, 200]}
    assert settings["b"]["warmup"]["at_end"] == "high" and settings["b"]["lr"]["best"] == 0.008


def test_what_follows_from_size_is_no_setting():
    """A rate that falls with width, tried twice at one width only, is what somebody's table has: nothing is dropped."""
    frame = two_ways(g=1.3).frame
    frame["lr"] = 0.1 / frame["width"]
    more = frame[frame["width"] == 48].assign(lr=0.004, trunk=lambda part: part["trunk"] + "x")
    content = compare(pd.concat([frame, more], ignore_index=True), bootstrap=0).to_dict()
    assert content["settings"] == {} and content["source"]["rows_used"] == 56
