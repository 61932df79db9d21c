"""The parts of a block with hand-written gradients for a CPU.

Autograd records norms, rotations and activations as chains of tensor-sized temporaries, which for small models cost
more than the matrix products. Elsewhere the plain forms run, which torch.compile fuses.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from harness.model.products import Linear, SquaredReLULayer, by_onednn, product


def written_out(x: Tensor) -> bool:
    """Whether the hand-written forms apply: on a CPU, not under torch.compile, without autocast."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not torch.is_autocast_enabled("cpu")


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        inverse = x.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        normed = x * inverse
        ctx.save_for_backward(normed, inverse, gain)
        return normed * gain

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        normed, inverse, gain = ctx.saved_tensors
        grad_gain = (grad * normed).flatten(0, -gain.ndim - 1).sum(0)
        grad_normed = grad * gain
        projection = (grad_normed * normed).mean(-1, keepdim=True)
        return grad_normed.addcmul_(normed, projection, value=-1).mul_(inverse), grad_gain, None


def _normed(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """What _RMSNorm returns, to rounding; nothing is kept for a gradient, so that no square is written out."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    inverse = norm.square_().mul_(1 / x.shape[-1]).add_(eps).rsqrt_()
    return (x * inverse).mul_(gain)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, -1), sin)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        cos, sin = ctx.saved_tensors
        return (grad * cos).addcmul_(grad.roll(grad.shape[-1] // 2, -1), sin, value=-1), None, None


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * gain, the mean over the last dimension; gain has x's last one or two dimensions."""
    if written_out(x):
        return _RMSNorm.apply(x, gain, eps) if torch.is_grad_enabled() else _normed(x, gain, eps)
    return F.rms_norm(x, x.shape[-1:], None, eps) * gain


def rotate(x_BTNH: Tensor, cos_T1H: Tensor, sin_T1H: Tensor) -> Tensor:
    """Turns each pair (feature i, feature i + H/2) by its position's angle; sin is negative in the first half."""
    if written_out(x_BTNH):
        return _Rotate.apply(x_BTNH, cos_T1H, sin_T1H)
    return x_BTNH * cos_T1H + x_BTNH.roll(x_BTNH.shape[-1] // 2, -1) * sin_T1H


def linear(x: Tensor, weight_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """x (..., K) @ weight.T + bias."""
    if written_out(x) and by_onednn(x, weight_NK):
        return Linear.apply(x, weight_NK, bias_N)
    return F.linear(x, weight_NK, bias_N)


def squared_relu_layer(x: Tensor, up_FD: Tensor, down_DF: Tensor) -> Tensor:
    """max(x @ up.T, 0)^2 @ down.T, of x (..., D)."""
    if written_out(x):
        if torch.is_grad_enabled():
            return SquaredReLULayer.apply(x, up_FD, down_DF)
        return product(product(x, up_FD).relu_().square_(), down_DF)
    return F.linear(F.relu(F.linear(x, up_FD)).square(), down_DF)
