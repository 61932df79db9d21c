"""gpt2 and llama trained beside those of transformers, by torch's own AdamW, from the same weights."""

from copy import deepcopy

import pytest
import torch
from field_models import FAMILIES, randomized

from harness.grid import make_trunks
from harness.model import GPT
from harness.training.device import Device
from harness.training.trainer import Trainer

CPU = Device(torch.device("cpu"), "float32", False)
STEPS = 20


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_loss_gradients_and_twenty_steps_are_those_of_transformers(family, tied, compose, corpus, store):
    asked = compose(
        *corpus, f"model={family}", "model.parametrization=sp", "model.width=64", "model.depth=2", f"model.tied={tied}",
        "model.head_size=16", "tokens=20e3", "optimizer.weight_decay.value=.1", "optimizer.gradient_clip=.5",
    )  # fmt: skip
    (trunk,) = make_trunks(asked, store.vocab_size, store.recipe_hash, "float32")
    make, copy = FAMILIES[family]
    ours, theirs = Trainer(trunk, store, CPU), randomized(make(asked.model, store.vocab_size)).train()
    copy(theirs, ours.model)
    matrices = [one for one in theirs.parameters() if one.ndim > 1]
    vectors = [one for one in theirs.parameters() if one.ndim == 1]
    adamw = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": trunk.weight_decay}, {"params": vectors, "weight_decay": 0}],
        lr=trunk.learning_rate, betas=(0.9, 0.95), eps=1e-8,
    )  # fmt: skip
    assert trunk.weight_decay == pytest.approx(0.1) and trunk.learning_rate == pytest.approx(0.004)
    for step in range(STEPS):
        inputs_BT, targets_BT = ours.batches.batch(step)
        loss = torch.nn.functional.cross_entropy(theirs(inputs_BT).logits.flatten(0, 1), targets_BT.flatten())
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        assert norm > 0.5
        if step == 0:
            of_ours, found = ours.gradients(0)
            assert (of_ours.item(), found.item()) == pytest.approx((loss.item(), norm.item()), abs=1e-5)
            copied = GPT(asked.model, store.vocab_size)
            copy(as_parameters(theirs), copied)
            for mine, one in zip(ours.parameters, copied.parameters(), strict=True):
                torch.testing.assert_close(mine.grad, one.detach(), rtol=1e-4, atol=1e-6)
                mine.grad = None
        ours.take(step, rate_factor=min(1.0, (step + 1) / 5))
        for group in adamw.param_groups:
            group["lr"] = trunk.learning_rate * min(1.0, (step + 1) / 5)
        adamw.step()
        adamw.zero_grad()
        assert ours.loss_sum.item() == pytest.approx(loss.item(), abs=1e-5), step
        ours.loss_sum.zero_()
    assert loss.item() < 5.2  # from ln(257) = 5.5


def as_parameters(model: torch.nn.Module) -> torch.nn.Module:
    """The gradients of a model in the place of its weights."""
    copied = deepcopy(model)
    with torch.no_grad():
        for one, of_model in zip(copied.parameters(), model.parameters(), strict=True):
            one.copy_(of_model.grad)
    return copied
