"""Cross-entropy of a linear head without ever holding all logits.

On a CPU in float32 they would leave the cache twice, so loops over small chunks are written out. Elsewhere a chunk is
as large as LOGITS_BYTES allow: one, whole, for the vocabularies and batches of most grids.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from harness.model.products import add_product, product

# 256 rows of 1024 float32 logits are 1 MiB, a core's L2 cache.
CHUNK_LOGITS = 256 * 1024
LEAST_ROWS = 64  # each chunk passes over the whole head weight, which pays from here on
# What the logits of a chunk may take elsewhere.
LOGITS_BYTES = {"training": 2**32, "evaluation": 2**30}
ALIGNED = 64  # the number of logits a row is padded to a multiple of in compiled code
# Bytes of a logit where autograd runs op by op: in float32, its log-softmax, and the gradient of one of them.
EAGER_BYTES = 12


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


def bounded_rows(hidden_ND: Tensor, vocab_size: int) -> int:
    """How many rows of logits may be held at once on this device; compiled code keeps one copy of each."""
    if not torch.is_grad_enabled():
        return max(1, LOGITS_BYTES["evaluation"] // (EAGER_BYTES * vocab_size))
    each = EAGER_BYTES
    if torch.compiler.is_compiling():
        device = hidden_ND.device.type
        each = torch.get_autocast_dtype(device).itemsize if torch.is_autocast_enabled(device) else 4
    return max(1, LOGITS_BYTES["training"] // (each * vocab_size))


def _plain(hidden_CD: Tensor, weight_VD: Tensor, targets_C: Tensor, scale: float, reduction: str) -> Tensor:
    vocab_size = len(weight_VD)
    padding = -vocab_size % ALIGNED if torch.compiler.is_compiling() else 0
    # Else inductor may pad, or not, as it times both, and with that choose memory and last digits.
    padded_VD = F.pad(weight_VD, (0, 0, 0, padding)) if padding else weight_VD
    # As one sequence, cut by a slice, inductor keeps one copy of the logits; as rows, or masked, two or more.
    logits_1CV = F.linear(hidden_CD[None], padded_VD)[..., :vocab_size] * scale
    return F.cross_entropy(logits_1CV.flatten(0, 1).float(), targets_C, reduction=reduction)


def bounded_cross_entropy_rows(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, scale: float) -> Tensor:
    """Nats a row (N,), float32, in any precision and on any device; holds no graph."""
    rows = bounded_rows(hidden_ND, weight_VD.shape[0])
    parts = zip(hidden_ND.split(rows), targets_N.split(rows), strict=True)
    return torch.cat([_plain(hidden_CD, weight_VD, targets_C, scale, "none") for hidden_CD, targets_C in parts])


def bounded_cross_entropy(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, scale: float) -> Tensor:
    """Mean nats a row, a scalar; where the logits are more than may be held, chunks that backward makes again."""
    count, rows = len(targets_N), bounded_rows(hidden_ND, weight_VD.shape[0])
    if count <= rows:
        return _plain(hidden_ND, weight_VD, targets_N, scale, "mean")
    parts = zip(hidden_ND.split(rows), targets_N.split(rows), strict=True)
    sums = [checkpoint(_plain, hidden_CD, weight_VD, targets_C, scale, "sum", use_reentrant=False,
                       preserve_rng_state=False)
            for hidden_CD, targets_C in parts]  # fmt: skip
    return torch.stack(sums).sum() / count
