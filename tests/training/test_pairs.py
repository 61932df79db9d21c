"""Cells of one shape, seed and budget under two variants: what they share, to the bit."""

import pytest
import torch

from harness.data.batches import Batches
from harness.grid import make_trunks
from harness.training.device import Device
from harness.training.trainer import Trainer

CPU = Device(torch.device("cpu"), "float32", False)


@pytest.fixture
def trainer(compose, corpus, store):
    def make(*arguments: str) -> Trainer:
        job = compose(*corpus, "tokens=20e3", "seed=7", *arguments)
        (trunk,) = make_trunks(job, store.vocab_size, store.recipe_hash, "float32")
        return Trainer(trunk, store, CPU)

    return make


@pytest.mark.parametrize(
    "change",
    ["optimizer=muon", "optimizer.beta2=.99", "model=llama", "model=gpt2", "model.ff_ratio=2", "schedule=cosine"],
)
def test_a_pair_sees_the_same_batches(trainer, change):
    own, other = trainer().batches, trainer(change, "model.head_size=8").batches
    for number in (0, 1, 77):
        for one, two in zip(own.batch(number), other.batch(number), strict=True):
            assert one.shape == (8, 32) and torch.equal(one, two)


def test_batches_of_other_sizes_hold_the_same_rows_in_the_same_order(store):
    """So that after as many tokens both have seen the same text."""
    small, large = (Batches(store.train, 32, rows, 7, "cpu") for rows in (8, 12))
    rows = [torch.cat([batches.batch(number)[0] for number in range(steps)])
            for batches, steps in ((small, 3), (large, 2))]  # fmt: skip
    assert rows[0].shape == (24, 32) and torch.equal(*rows)


@pytest.mark.parametrize("change", ["optimizer=muon", "optimizer.learning_rate.value=.01", "optimizer.beta2=.99"])
def test_a_pair_of_one_list_of_parameters_starts_from_the_same_bits(trainer, change):
    own, other = trainer().model.state_dict(), trainer(change).model.state_dict()
    assert list(own) == list(other) and all(torch.equal(own[name], other[name]) for name in own)
    another = trainer("seed=8").model.state_dict()
    assert not torch.equal(own["embedding.weight"], another["embedding.weight"])


def test_another_list_of_parameters_shares_no_more_than_what_comes_before_it_differs(trainer):
    """One generator sets all of them in turn."""
    own, other = (trainer(f"model={name}", "model.head_size=8").model.state_dict() for name in ("gpt", "llama"))
    assert torch.equal(own["embedding.weight"], other["embedding.weight"])
    assert not torch.equal(own["head.weight"], other["head.weight"])


def test_a_pair_ends_the_first_step_apart(trainer):
    """What differs is the step, not what it begins with: the first loss is the same to the bit."""
    own, other = trainer(), trainer("optimizer=muon")
    losses = [one.gradients(0)[0] for one in (own, other)]
    assert torch.equal(*losses)
    for one in (own, other):
        one.optimizer.step(1.0)
    name = "blocks.0.feed_forward.up.weight"
    assert not torch.equal(own.model.state_dict()[name], other.model.state_dict()[name])
