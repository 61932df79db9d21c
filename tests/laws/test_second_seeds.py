"""The cpu grid trained twice, with two sets of seeds, as variants that differ in nothing: m must be 1.

cpu_seeds.csv has both run tables, as trained by

    make sweep SWEEP=cpu
    make sweep SWEEP=cpu ARGS="name=second shape=w176-d2-s100,w96-d3-s100,...,w48-d2-s102"

with seeds 0 to 2, and 100 to 102.
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
    assert ends(entry["multiplier"]["equal_tokens"]) == pytest.approx([0, 0, 0], abs=5e-4)
    assert entry["exponents_shared"]["p"] == pytest.approx(0, abs=5e-3)


def test_losses_that_were_reached_with_fewer_tokens_are_worth_as_much_more():
    """The second set's losses at 1 / 1.25 of its tokens: g of 1.25 and an f of 1."""
    entry = multiplier(1.25)
    assert ends(entry["multiplier"]["equal_tokens"]) == pytest.approx([0, 0, 0], abs=5e-4)
    assert ends(entry["tokens"]) == pytest.approx([0, 0, 0], abs=5e-4)
