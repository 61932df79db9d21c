"""Whether a device computes what a CPU does in float32, asked of one on which no sweep was seen before it trains.

Of each shape: the gradients of a few sequences, what the head reads in an evaluation, and a step of the optimizer.
"""

from dataclasses import replace

import torch

from harness.data.tokens import TokenStore
from harness.errors import UserError
from harness.grid import Trunk
from harness.training.device import Device
from harness.training.trainer import Trainer

TOKENS = 1024  # so many, or one sequence
# Relative distances that rounding does not reach: compiled bf16 was 3e-2 from float32 at most, float32 2e-6.
BOUNDS = {"bf16": 0.1, "float32": 0.01}
UPDATE_BOUND = 0.1  # Muon multiplies in bf16


def check_agreement(trunk: Trunk, store: TokenStore, device: Device) -> None:
    """Raises UserError where `device` computes anything else than a CPU."""
    few = replace(trunk, batch_sequences=max(1, min(trunk.batch_sequences, TOKENS // trunk.job.model.seq_len)))
    here, there = (Trainer(few, store, one) for one in (device, Device(torch.device("cpu"), "float32", False)))
    bound = BOUNDS[device.precision]
    found = [
        ("gradients", farthest(gradients(here), gradients(there)), bound),
        ("evaluations", farthest([evaluated(here)], [evaluated(there)]), bound),
        ("steps of the optimizer", farthest(*updates(here, there)), UPDATE_BOUND),
    ]
    for what, distance, limit in found:
        if not distance <= limit:
            raise UserError(
                f"device={device.kind} computes other {what} of {trunk.name.rsplit('-', 1)[0]} than the CPU does, off "
                f"by {distance:.2g} where rounding explains {limit:g}: take device=cpu, or another version of torch"
            )


def farthest(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """The largest relative distance of two tensors on the CPU; not a number where one of them holds none."""
    distances = [(one - other).norm() / other.norm() for one, other in zip(ours, theirs, strict=True)]
    return float(torch.stack(distances).max())


def gradients(one: Trainer) -> list[torch.Tensor]:
    """Of every parameter, left at the parameters too."""
    one.gradients(0)
    return [parameter.grad.float().cpu() for parameter in one.parameters if parameter.grad is not None]


@torch.no_grad()
def evaluated(one: Trainer) -> torch.Tensor:
    """What the head reads, without a graph."""
    with one.device.autocast():
        return one.model.eval().hidden(one.batches.batch(0)[0]).float().cpu()


@torch.no_grad()
def updates(here: Trainer, there: Trainer) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """How far one step moves every parameter on either, by the gradients of `there`."""
    for parameter, other in zip(here.parameters, there.parameters, strict=True):
        assert other.grad is not None
        parameter.grad = other.grad.to(parameter.device)
    moved = []
    for one in (here, there):
        before = [parameter.detach().cpu().clone() for parameter in one.parameters]
        one.optimizer.step(1.0)
        moved.append([parameter.cpu() - old for parameter, old in zip(one.parameters, before, strict=True)])
    return moved[0], moved[1]
