"""The optimizers of one model, with the learning rates that its parametrization wants."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from harness.grid import Trunk
from harness.model.gpt import GPT
from harness.model.parametrization import parameter_groups


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
        self.parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(adamw, betas=betas, fused=True)]
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
            part.zero_grad(set_to_none=True)

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
