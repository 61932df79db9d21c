"""A device that computes something else than a CPU is refused; one that only rounds otherwise is not."""

import pytest
import torch
import torch.nn.functional as F

from harness.errors import UserError
from harness.grid import make_trunks
from harness.training import agreement
from harness.training.agreement import check_agreement
from harness.training.device import Device
from harness.training.trainer import Trainer

# op by op and in another precision than the CPU's own: as far from it as a right device gets
OTHER = Device(torch.device("cpu"), "bf16", False)


@pytest.fixture
def trunk_of(compose, corpus, store):
    def make(*arguments: str):
        job = compose(*corpus, "tokens=20e3", "model.parametrization=sp", *arguments)
        (trunk,) = make_trunks(job, store.vocab_size, store.recipe_hash, "bf16")
        return trunk

    return make


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("family", ["gpt", "gpt2", "llama"])
def test_rounding_is_no_disagreement(trunk_of, store, family, optimizer):
    check_agreement(trunk_of(f"model={family}", f"optimizer={optimizer}"), store, OTHER)


def wrong_batches(one: Trainer) -> None:
    right = one.batches.batch
    one.batches.batch = lambda i: tuple(part.roll(1, 0) for part in right(i + 1))


def wrong_attention(one: Trainer) -> None:
    """Only where no graph is made, as torch has an operation of its own there on an Apple GPU."""
    right = F.scaled_dot_product_attention

    def uncausal(*qkv, is_causal: bool, scale: float):
        return right(*qkv, is_causal=is_causal and torch.is_grad_enabled(), scale=scale)

    one.patch.setattr(F, "scaled_dot_product_attention", uncausal)


def wrong_optimizer(one: Trainer) -> None:
    one.optimizer.base_rates = [[2 * rate for rate in rates] for rates in one.optimizer.base_rates]


def no_numbers(one: Trainer) -> None:
    one.model.head.weight.data.fill_(float("nan"))


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (wrong_batches, "gradients"),
        (no_numbers, "gradients"),
        (wrong_attention, "evaluations"),
        (wrong_optimizer, "steps of the optimizer"),
    ],
)
def test_what_is_wrong_is_refused(trunk_of, store, monkeypatch, fault, what):
    class Faulty(Trainer):
        patch = monkeypatch

        def __init__(self, trunk, tokens, device):
            super().__init__(trunk, tokens, device)
            if device is OTHER:
                fault(self)

    monkeypatch.setattr(agreement, "Trainer", Faulty)
    said = f"device=cpu computes other {what} of w16-d1-s0 than the CPU does, off by .* where rounding explains 0.1: "
    with pytest.raises(UserError, match=said):
        check_agreement(trunk_of(), store, OTHER)
