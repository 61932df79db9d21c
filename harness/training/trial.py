"""What a user wrote, tried on the CPU at the smallest shape of a sweep before anything is trained.

A model must give finite logits that no later token changes; an optimizer must go on from a checkpoint to the same bits.
"""

import io
from collections.abc import Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor

from harness.config import TrainConfig
from harness.errors import UserError
from harness.grid import Trunk
from harness.model.config import CUSTOM
from harness.model.custom import Custom, named
from harness.model.make import Model, make_model
from harness.model.measure import check_gradients, check_logits, check_loss
from harness.model.source import load, refused
from harness.training.coordinates import growth
from harness.training.optimizer import Optimizer, clip_gradients

SEQUENCES = 2
STEPS = 2  # of an optimizer, before and after its state is kept
MOVED = 1e-4  # relative to the largest logit: other sums of the same terms may round so far apart
# The noise that every parameter gets before causality is asked for: a head of zeros would hide what comes before it.
NOISE = 0.05


def import_targets(jobs: Sequence[TrainConfig]) -> None:
    """Raises UserError where what a job names cannot be imported; needs no tokens."""
    for job in jobs:
        for group, settings in (("model", job.model), ("optimizer", job.optimizer)):
            if settings.target is not None:
                load(group, settings.target)


def try_custom(trunks: Sequence[Trunk]) -> list[str]:
    """A warning a line on what a user wrote. Raises UserError where it cannot be trained."""
    smallest: dict[str, Trunk] = {}
    for trunk in sorted(trunks, key=lambda trunk: trunk.flops_per_token):
        model = replace(trunk.job.model, width=0, depth=0)
        smallest.setdefault(repr((model, asdict(trunk.job.optimizer))), trunk)
    said_of = []
    with torch.random.fork_rng(devices=[]):  # so that what is drawn here changes nothing that is drawn later
        for trunk in smallest.values():
            if trunk.job.model.family == CUSTOM:
                try_model(trunk)
            if trunk.job.optimizer.name == "custom":
                try_optimizer(trunk)
            if trunk.job.model.family == CUSTOM:
                with refused(f"{named(trunk.job.model)} raises at twice or four times that width"):
                    said_of += growth(trunk)
    return list(dict.fromkeys(said_of))


def try_model(trunk: Trunk) -> None:
    """Raises UserError where the module of `trunk` cannot be trained or evaluated, or sees later tokens."""
    config = trunk.job.model
    model = make_model(config, trunk.vocab_size, trunk.job.seed)
    assert isinstance(model, Custom)
    tokens_BT = torch.randint(0, trunk.vocab_size, (SEQUENCES, config.seq_len + 1))
    inputs_BT, targets_BT = tokens_BT[:, :-1], tokens_BT[:, 1:]
    with refused(f"{named(config)} raises"):
        for training in (True, False):
            model.train(training)
            logits = model(inputs_BT)
            check_logits(model, logits, inputs_BT)
            _check_finite(model, "logit", logits)
        model.train()
        loss = model.loss(inputs_BT, targets_BT)
        check_loss(model, loss)
        _check_finite(model, "loss", loss)
        loss.backward()
        check_gradients(model)
        for name, parameter in model.module.named_parameters():
            _check_finite(model, f"gradient of {name}", parameter.grad)
        check_causal(model, inputs_BT)
        for parameter in model.parameters():
            parameter.data += NOISE * torch.randn_like(parameter)
        check_causal(model, inputs_BT)


def _check_finite(model: Custom, what: str, tensor: Tensor | None) -> None:
    if tensor is not None and not tensor.isfinite().all():
        raise UserError(
            f"{named(model.config)} has a {what} that is not finite before any training: correct how it starts"
        )


@torch.no_grad()
def check_causal(model: Custom, inputs_BT: Tensor) -> None:
    """Raises UserError where other tokens from some place on change a logit before it, in training or evaluation."""
    length = inputs_BT.shape[1]
    others_BT = (inputs_BT + torch.randint(1, model.vocab_size, inputs_BT.shape)) % model.vocab_size
    for training in (True, False):
        model.train(training)
        logits_BTV = _drawn(model, inputs_BT)
        if not logits_BTV.isfinite().all():  # of parameters that may have no noise
            return
        for place in sorted({1, length // 2 + 1, length - 1} & set(range(1, length))):
            changed_BT = torch.cat([inputs_BT[:, :place], others_BT[:, place:]], 1)
            moved_BTV = (_drawn(model, changed_BT) - logits_BTV)[:, :place].abs()
            if not moved_BTV.max() <= MOVED * logits_BTV.abs().max():
                first = int(moved_BTV.amax((0, 2)).gt(MOVED * logits_BTV.abs().max()).nonzero()[0])
                raise UserError(
                    f"{named(model.config)} is not causal: in {'training' if training else 'evaluation'} tokens from "
                    f"{place} on change the logits at {first}: let each position see itself and those before it alone"
                )


def _drawn(model: Custom, inputs_BT: Tensor) -> Tensor:
    """Logits, with the same random numbers each time."""
    torch.manual_seed(0)
    return model(inputs_BT).float()


def try_optimizer(trunk: Trunk) -> None:
    """Raises UserError where a user's optimizer cannot train, or does not go on from its state to the same bits."""
    named_so = f"optimizer.target={trunk.job.optimizer.target}"
    model = make_model(trunk.job.model, trunk.vocab_size, trunk.job.seed)
    optimizer = Optimizer(model, trunk)
    with refused(f"{named_so} raises in a step"):
        _steps(model, optimizer, trunk, 0)
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise UserError(f"{named_so} leaves parameters that are not finite after {STEPS} steps")
    kept = io.BytesIO()
    with refused(f"{named_so} has a state that a checkpoint cannot hold", ": keep tensors and plain values in it"):
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, kept)
        state = torch.load(io.BytesIO(kept.getvalue()), map_location="cpu", weights_only=True)
        other = make_model(trunk.job.model, trunk.vocab_size, trunk.job.seed)
        other.load_state_dict(state["model"])
        resumed = Optimizer(other, trunk)
        resumed.load_state_dict(state["optimizer"])
    _steps(model, optimizer, trunk, STEPS)
    _steps(other, resumed, trunk, STEPS)
    if not all(map(torch.equal, model.parameters(), other.parameters())):
        raise UserError(
            f"{named_so} goes on from its state_dict to other bits than without a stop: keep all that a step reads in "
            "its state"
        )


def _steps(model: Model, optimizer: Optimizer, trunk: Trunk, first: int) -> None:
    parameters, length = list(model.parameters()), trunk.job.model.seq_len
    for step in range(first, first + STEPS):
        generator = torch.Generator().manual_seed(step)
        tokens_BT = torch.randint(0, trunk.vocab_size, (SEQUENCES, length + 1), generator=generator)
        torch.manual_seed(step)
        model.loss(tokens_BT[:, :-1], tokens_BT[:, 1:]).backward()
        clip_gradients(parameters, trunk.job.optimizer.gradient_clip)
        optimizer.step(1.0)
