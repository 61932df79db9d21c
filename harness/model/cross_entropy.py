"""Cross-entropy of a linear head without ever holding all logits: on a CPU they would leave the cache twice."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from harness.model.products import add_product, product

# 256 rows of 1024 float32 logits are 1 MiB, a core's L2 cache.
CHUNK_LOGITS = 256 * 1024
LEAST_ROWS = 64  # each chunk passes over the whole head weight, which pays from here on


def chunk_rows(vocab_size: int) -> int:
    return max(LEAST_ROWS, CHUNK_LOGITS // vocab_size)


def _chunk_losses(logits_CV: Tensor, targets_C1: Tensor) -> tuple[Tensor, Tensor]:
    """Nats a row and the sum of the exponentials of its logits less their largest, (C, 1) each; the logits become those
    exponentials. Faster than a softmax, whose division only the small factors of a gradient need."""
    picked_C1 = logits_CV.gather(1, targets_C1)
    top_C1 = logits_CV.amax(1, keepdim=True)
    sum_C1 = logits_CV.sub_(top_C1).exp_().sum(1, keepdim=True)
    return sum_C1.log().add_(top_C1).sub_(picked_C1), sum_C1


def linear_cross_entropy_rows(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, scale: float) -> Tensor:
    """Nats a row (N,) of softmax(scale * hidden @ weight.T) against targets; holds no graph."""
    rows = chunk_rows(weight_VD.shape[0])
    losses = []
    with torch.no_grad():
        for hidden_CD, targets_C in zip(hidden_ND.split(rows), targets_N.split(rows), strict=True):
            logits_CV = product(hidden_CD * scale, weight_VD)
            losses.append(_chunk_losses(logits_CV, targets_C[:, None])[0].squeeze(1))
    return torch.cat(losses)


class LinearCrossEntropy(torch.autograd.Function):
    """Mean nats a row of softmax(scale * hidden @ weight.T); both gradients are made in the forward pass.

    hidden (N, D), weight (V, D), targets (N,) int64, scale a float. Returns a scalar.
    """

    @staticmethod
    def forward(ctx, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, scale: float) -> Tensor:
        count, vocab_size = hidden_ND.shape[0], weight_VD.shape[0]
        rows = min(chunk_rows(vocab_size), count)
        loss = hidden_ND.new_zeros(())
        grad_hidden_ND = torch.empty_like(hidden_ND)
        # (D, V): the long dimension last makes this product of a thin and a wide matrix faster than (V, D)
        grad_weight_DV = weight_VD.new_zeros(weight_VD.shape[::-1])
        scaled_ND = hidden_ND * scale
        for start in range(0, count, rows):
            part = slice(start, start + rows)
            targets_C1, scaled_CD = targets_N[part, None], scaled_ND[part]
            grad_CV = product(scaled_CD, weight_VD)
            losses_C1, sum_C1 = _chunk_losses(grad_CV, targets_C1)
            loss += losses_C1.sum()
            # The gradient of each row's logits, times its sum of exponentials.
            grad_CV.scatter_add_(1, targets_C1, -sum_C1)
            torch.mul(product(grad_CV, weight_VD.t()), 1 / sum_C1, out=grad_hidden_ND[part])
            add_product(grad_weight_DV, (scaled_CD / sum_C1).t(), grad_CV.t())
        ctx.save_for_backward(grad_hidden_ND.mul_(scale / count), grad_weight_DV.mul_(1 / count))
        return loss / count

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss: Tensor):
        grad_hidden_ND, grad_weight_DV = ctx.saved_tensors
        return grad_hidden_ND * grad_loss, (grad_weight_DV * grad_loss).t(), None, None


def linear_cross_entropy(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, scale: float) -> Tensor:
    """Mean nats a row (scalar) of softmax(scale * hidden @ weight.T) against targets (N,)."""
    if torch.is_grad_enabled():
        return LinearCrossEntropy.apply(hidden_ND, weight_VD, targets_N, scale)
    return linear_cross_entropy_rows(hidden_ND, weight_VD, targets_N, scale).mean()
