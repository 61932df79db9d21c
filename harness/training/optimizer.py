"""The optimizers of one model, with the learning rates that its parametrization wants."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from harness.grid import Trunk
from harness.model.gpt import GPT
from harness.model.parameters import parameter_groups


class AdamW:
    """torch.optim.AdamW(fused=True), to the last bit and with its states, for parameters that all have gradients.

    torch's class takes 3 % more of a small model's step, and imports torch._dynamo, half a second for every process.
    """

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float]):
        self.param_groups, self.betas = groups, betas
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
        for group, (mean, square, steps) in zip(self.param_groups, self.moments, strict=True):
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                group["params"], [parameter.grad for parameter in group["params"]], mean, square, [], steps,
                lr=group["lr"], beta1=self.betas[0], beta2=self.betas[1], weight_decay=group["weight_decay"],
                eps=group["eps"], amsgrad=False, maximize=False,
            )  # fmt: skip

    def _states(self) -> list[dict[str, torch.Tensor]]:
        return [
            dict(zip(("exp_avg", "exp_avg_sq", "step"), state, strict=True))
            for moments in self.moments
            for state in zip(*moments, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        return {"state": dict(enumerate(self._states()))}

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        for index, state in enumerate(self._states()):
            for name, tensor in state.items():
                tensor.copy_(kept["state"][index][name])


class Optimizer:
    """AdamW, or Muon for the matrices beside AdamW for the rest, driven by one learning-rate factor."""

    def __init__(self, model: GPT, trunk: Trunk):
        settings = trunk.job.optimizer
        adamw, muon = [], []
        for group in parameter_groups(model):
            shared = {
                "params": group.params,
                "lr": trunk.learning_rate * group.lr_scale,
                "weight_decay": trunk.weight_decay * group.weight_decay_scale,
            }
            if settings.name == "muon" and group.kind == "matrix":
                muon.append(shared)
            else:
                adamw.append(shared | {"eps": settings.eps * group.eps_scale})
        betas = (settings.beta1, settings.beta2)
        self.parts: list[AdamW | torch.optim.Muon] = [AdamW(adamw, betas)]
        if muon:
            # Its update gets AdamW's RMS, so that one rate serves all groups (Liu et al. 2025).
            self.parts.append(torch.optim.Muon(muon, adjust_lr_fn="match_rms_adamw"))
        self.base_rates = [[group["lr"] for group in part.param_groups] for part in self.parts]

    def step(self, factor: float) -> None:
        """One update at `factor` times the learning rate; the gradients are cleared."""
        for part, rates in zip(self.parts, self.base_rates, strict=True):
            for group, rate in zip(part.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            part.step()
            for group in part.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

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
