"""The cpu grid trained twice, with two sets of seeds, as variants that differ in nothing: m must be 1.

cpu_seeds.csv has both run tables, as trained by

    make sweep SWEEP=cpu
    make sweep SWEEP=cpu ARGS="name=second shape=w176-d2-s100,w96-d3-s100,w112-d2-s100,w80-d2-s100,\\
        w64-d2-s100,w64-d2-s101,w48-d2-s100,w48-d2-s101,w48-d2-s102"

both with optimizer.learning_rate.value=0.004 optimizer.batch_tokens.value=512 optimizer.weight_decay.value=0.01.
"""

from pathlib import Path

import pandas as pd
import pytest

from harness.laws import compare

TABLE = pd.read_csv(Path(__file__).with_name("cpu_seeds.csv"))


def multiplier(tokens_worth=1.0):
    """The entry of the second set, its tokens counted as fewer by a factor."""
    second = TABLE["set"] == "second"
    worth = second.map({True: tokens_worth, False: 1.0})
    frame = TABLE.assign(tokens=TABLE["tokens"] / worth, flops=TABLE["flops"] / worth)
    return compare(frame, column="set", law="chinchilla_coupled", bootstrap=2000).to_dict()["variants"]["second"]


def ends(found):
    return [found["low"], found["estimate"], found["high"]]


def test_two_sets_of_seeds_are_worth_the_same():
    entry = multiplier()
    assert ends(entry["multiplier"]["equal_tokens"]) == pytest.approx([0.968, 0.995, 1.023], abs=2e-3)
    assert entry["exponents_shared"]["p"] == pytest.approx(0.74, abs=0.01)
    assert entry["neutral"]["p"] == pytest.approx(0.36, abs=0.01)
    assert ", no saving shown" in entry["sentence"]


def test_losses_that_were_reached_with_fewer_tokens_are_worth_as_much_more():
    """The second set's losses at 1 / 1.25 of its tokens: g of 1.25 and an f of 1."""
    entry = multiplier(1.25)
    assert ends(entry["multiplier"]["equal_tokens"]) == pytest.approx([1.210, 1.244, 1.279], abs=2e-3)
    assert ends(entry["tokens"]) == pytest.approx([1.231, 1.267, 1.306], abs=2e-3)
    assert ends(entry["params"]) == pytest.approx([0.940, 0.982, 1.024], abs=2e-3)
    assert ", saves tokens rather than params" in entry["sentence"]
