"""Muon for a GPU, where a launch takes longer than the products of a small model."""

import math
from collections.abc import Sequence
from typing import Any

import torch


class Muon(torch.optim.Muon):
    """torch.optim.Muon(adjust_lr_fn="match_rms_adamw") to rounding, with its states, for parameters that all have
    gradients: matrices of one shape are stacked, so that there is a product for each shape instead of each matrix.
    """

    rates: Sequence[torch.Tensor] = ()  # on the device, one a group, in place of each group's lr

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for index, group in enumerate(self.param_groups):
            rate = self.rates[index] if self.rates else group["lr"]
            alike: dict[torch.Size, list[torch.Tensor]] = {}
            for parameter in group["params"]:
                if not self.state[parameter]:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
                alike.setdefault(parameter.shape, []).append(parameter)
            for params in alike.values():
                updates = _orthogonalized(torch.stack(self._directions(group, params)).bfloat16(), group)
                # The update gets AdamW's RMS, so that one rate serves all groups (Liu et al. 2025).
                updates = updates.float() * (-0.2 * math.sqrt(max(updates.shape[1:])) * rate)
                torch._foreach_mul_(params, 1 - rate * group["weight_decay"])
                torch._foreach_add_(params, updates.unbind())

    def _directions(self, group: dict[str, Any], params: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Gradients and momentum together, of each parameter; the momentum moves on."""
        grads = [parameter.grad for parameter in params if parameter.grad is not None]
        momenta = [self.state[parameter]["momentum_buffer"] for parameter in params]
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        return tuple(torch._foreach_lerp(grads, momenta, group["momentum"])) if group["nesterov"] else tuple(momenta)


def _orthogonalized(stack_KMN: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
    """Newton and Schulz's iteration, as Muon wants it (Jordan et al. 2024), on each matrix of a stack in bf16."""
    a, b, c = group["ns_coefficients"]
    tall = stack_KMN.shape[1] > stack_KMN.shape[2]
    found_KMN = stack_KMN.mT if tall else stack_KMN
    norm_K11 = torch.linalg.vector_norm(found_KMN, dim=(1, 2), keepdim=True)
    found_KMN = found_KMN / norm_K11.clamp(min=group["eps"])
    for _ in range(group["ns_steps"]):
        gram_KMM = found_KMN @ found_KMN.mT
        polynomial_KMM = torch.baddbmm(gram_KMM, gram_KMM, gram_KMM, beta=b, alpha=c)
        found_KMN = torch.baddbmm(found_KMN, polynomial_KMM, found_KMN, beta=a)
    return found_KMN.mT.contiguous() if tall else found_KMN
