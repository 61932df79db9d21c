"""The optimizers of one model, with the learning rates that its parametrization wants."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from harness.config import OptimizerConfig
from harness.errors import UserError
from harness.grid import Trunk
from harness.model.make import Model, groups_of
from harness.model.source import load, refused
from harness.training.muon import Muon


class AdamW:
    """torch.optim.AdamW(fused=True), to the last bit and with its states, for parameters that all have gradients.

    torch's class takes 3 % more of a small model's step, and imports torch._dynamo, half a second for every process.
    """

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float]):
        self.param_groups, self.betas = groups, betas
        self.rates: Sequence[torch.Tensor] = ()  # on the device, one a group, in place of each group's lr
        self.moments = [
            (
                [torch.zeros_like(parameter) for parameter in group["params"]],
                [torch.zeros_like(parameter) for parameter in group["params"]],
                [torch.zeros((), device=parameter.device) for parameter in group["params"]],
            )
            for group in groups
        ]

    @torch.no_grad()
    def step(self) -> None:
        for index, (group, (mean, square, steps)) in enumerate(zip(self.param_groups, self.moments, strict=True)):
            rate = self.rates[index] if self.rates else group["lr"]
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                group["params"], [parameter.grad for parameter in group["params"]], mean, square, [], steps,
                lr=rate, beta1=self.betas[0], beta2=self.betas[1], weight_decay=group["weight_decay"],
                eps=group["eps"], amsgrad=False, maximize=False,
            )  # fmt: skip

    def states(self) -> list[dict[str, torch.Tensor]]:
        return [
            dict(zip(("exp_avg", "exp_avg_sq", "step"), state, strict=True))
            for moments in self.moments
            for state in zip(*moments, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        return {"state": dict(enumerate(self.states()))}

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        for index, state in enumerate(self.states()):
            for name, tensor in state.items():
                tensor.copy_(kept["state"][index][name])


def muon_class(device: torch.device) -> type[torch.optim.Muon]:
    """torch's own, one matrix after another, but on a GPU, where a launch takes longer than a small product."""
    return torch.optim.Muon if device.type in ("cpu", "mps") else Muon


def custom_optimizer(settings: OptimizerConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """optimizer.target of a configuration, called with groups of params, lr, weight_decay, eps and kind, and with
    optimizer.args. Raises UserError where that gives no optimizer."""
    assert settings.target is not None
    make, named = load("optimizer", settings.target).value, f"optimizer.target={settings.target}"
    with refused(f"{named} cannot be made"):
        found = make(groups, **settings.args)
    if not isinstance(found, torch.optim.Optimizer):
        raise UserError(f"{named} gives a {type(found).__name__}: write a torch.optim.Optimizer")
    return found


class Optimizer:
    """AdamW, or Muon for the matrices beside AdamW for the rest, or the user's, driven by one learning-rate factor."""

    def __init__(self, model: Model, trunk: Trunk):
        settings = trunk.job.optimizer
        adamw, muon, custom = [], [], []
        for group in groups_of(model):
            shared = {
                "params": group.params,
                "lr": trunk.learning_rate * group.lr_scale,
                "weight_decay": trunk.weight_decay * group.weight_decay_scale,
            }
            if settings.name == "custom":
                custom.append(shared | {"eps": settings.eps * group.eps_scale, "kind": group.kind})
            elif settings.name == "muon" and group.kind == "matrix":
                muon.append(shared)
            else:
                adamw.append(shared | {"eps": settings.eps * group.eps_scale})
        betas = (settings.beta1, settings.beta2)
        self.parts: list[AdamW | torch.optim.Optimizer] = [AdamW(adamw, betas)] if adamw else []
        self.device = next(model.parameters()).device
        if custom:
            self.parts.append(custom_optimizer(settings, custom))
        if muon:
            # Its update gets AdamW's RMS, so that one rate serves all groups (Liu et al. 2025).
            self.parts.append(muon_class(self.device)(muon, adjust_lr_fn="match_rms_adamw"))
        self.base_rates = [[group["lr"] for group in part.param_groups] for part in self.parts]
        self.rates: torch.Tensor | None = None

    def hold_rates(self) -> None:
        """Has updates read their rates from the device's memory from now on, so that a replayed one reads them anew.

        In float32, as the kernels of a GPU want them; in float64 on a CPU, as exact as a number of Python.
        """
        dtype = torch.float64 if self.device.type == "cpu" else torch.float32
        self.rates = torch.zeros(sum(map(len, self.base_rates)), dtype=dtype, device=self.device)
        held = iter(self.rates.unbind())
        for part, rates in zip(self.parts, self.base_rates, strict=True):
            of_part = [next(held) for _ in rates]
            if isinstance(part, AdamW | Muon):
                part.rates = of_part

    def set_rates(self, factor: float) -> None:
        """Sets `factor` times the learning rate for the updates from here on; the host does not wait."""
        for part, rates in zip(self.parts, self.base_rates, strict=True):
            for group, rate in zip(part.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        if self.rates is not None:
            found = torch.tensor([rate * factor for rates in self.base_rates for rate in rates], dtype=self.rates.dtype)
            self.rates.copy_(found.pin_memory() if self.device.type == "cuda" else found, non_blocking=True)

    def update(self) -> None:
        """One update at the rates that are set; the gradients are cleared."""
        for part in self.parts:
            part.step()
            for group in part.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

    def step(self, factor: float) -> None:
        """One update at `factor` times the learning rate; the gradients are cleared."""
        self.set_rates(factor)
        self.update()

    def tensors(self) -> list[torch.Tensor]:
        """What an update changes beside the parameters."""
        found: list[torch.Tensor] = []
        for part in self.parts:
            states = part.states() if isinstance(part, AdamW) else part.state.values()
            found += [tensor for state in states for tensor in state.values() if isinstance(tensor, torch.Tensor)]
        return found

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float) -> torch.Tensor:
    """Scales all gradients to a norm of at most `limit`; the norm before it, a scalar on the device."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    # As nn.utils.clip_grad_norm_, which on a CPU goes over the tensors one by one.
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    torch._foreach_mul_(grads, (limit / (norm + 1e-6)).clamp(max=1.0))
    return norm
