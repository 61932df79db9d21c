"""The parts of a block with hand-written gradients for a CPU.

Autograd records norms, rotations, attention and activations as chains of tensor-sized temporaries, which for small
models cost more than the matrix products. Elsewhere the plain forms run, which torch.compile fuses.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from harness.model import cpu_kernels
from harness.model.products import Linear, SquaredReLULayer, by_onednn, product


def written_out(x: Tensor) -> bool:
    """Whether the hand-written forms apply: on a CPU in float32, not under torch.compile, without autocast."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.int64)
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
    )


def rows(x: Tensor) -> NDArray[np.float32]:
    """x (..., D) as an array (R, D), of the same memory where it is contiguous."""
    return x.detach().reshape(-1, x.shape[-1]).numpy()


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        out, inverse = torch.empty_like(x), x.new_empty(x.numel() // x.shape[-1])
        cpu_kernels.rms_norm(rows(x), gain.detach().numpy(), np.float32(eps), rows(out), inverse.numpy())
        ctx.save_for_backward(x, gain, inverse)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, gain, inverse = ctx.saved_tensors
        grad_x, grad_gain = torch.empty_like(x), torch.zeros_like(gain)
        cpu_kernels.rms_norm_gradient(
            rows(grad), rows(x), gain.detach().numpy(), inverse.numpy(), rows(grad_x), grad_gain.numpy()
        )
        return grad_x, grad_gain, None


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


class _AttentionLayer(torch.autograd.Function):
    """Features are rows, tokens columns between the two products: so the loops read and write whole rows."""

    @staticmethod
    def forward(ctx, x_BTD, qkv_WD, out_DD, query_gain_H, key_gain_H, cos_T1H, sin_T1H, eps: float, scale: float):
        B, T, D = x_BTD.shape
        qkv_WR = product(qkv_WD, x_BTD.flatten(0, 1))
        mixed_DR = qkv_WR.new_empty(D, B * T)
        sums_BNT = qkv_WR.new_empty(B, D // len(query_gain_H), T)
        cpu_kernels.attention(
            rows(qkv_WR), query_gain_H.detach().numpy(), key_gain_H.detach().numpy(), rows(cos_T1H), rows(sin_T1H),
            np.float32(eps), np.float32(scale), rows(mixed_DR), sums_BNT.numpy(),
        )  # fmt: skip
        ctx.save_for_backward(
            x_BTD, qkv_WD, out_DD, query_gain_H, key_gain_H, cos_T1H, sin_T1H, qkv_WR, mixed_DR, sums_BNT
        )
        ctx.eps, ctx.scale = eps, scale
        return product(mixed_DR.t(), out_DD).view(B, T, D)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_BTD: Tensor):
        x_BTD, qkv_WD, out_DD, query_gain_H, key_gain_H, cos_T1H, sin_T1H, qkv_WR, mixed_DR, sums_BNT = (
            ctx.saved_tensors
        )
        grad_RD = grad_BTD.flatten(0, 1)
        grad_mixed_DR = product(out_DD.t(), grad_RD)
        grad_qkv_WR = torch.empty_like(qkv_WR)
        grad_query_gain_H, grad_key_gain_H = torch.zeros_like(query_gain_H), torch.zeros_like(key_gain_H)
        cpu_kernels.attention_gradient(
            rows(grad_mixed_DR), rows(mixed_DR), sums_BNT.numpy(), rows(qkv_WR), query_gain_H.detach().numpy(),
            key_gain_H.detach().numpy(), rows(cos_T1H), rows(sin_T1H), np.float32(ctx.eps), np.float32(ctx.scale),
            rows(grad_qkv_WR), grad_query_gain_H.numpy(), grad_key_gain_H.numpy(),
        )  # fmt: skip
        grad_x_BTD = product(grad_qkv_WR.t(), qkv_WD.t()).view_as(x_BTD)
        grad_qkv_WD = product(grad_qkv_WR, x_BTD.flatten(0, 1).t())
        grad_out_DD = product(mixed_DR, grad_RD.t()).t().contiguous()
        return grad_x_BTD, grad_qkv_WD, grad_out_DD, grad_query_gain_H, grad_key_gain_H, None, None, None, None


def attention_layer(
    x_BTD: Tensor,
    qkv_WD: Tensor,
    out_DD: Tensor,
    query_gain_H: Tensor,
    key_gain_H: Tensor,
    cos_T1H: Tensor,
    sin_T1H: Tensor,
    eps: float,
    scale: float,
) -> Tensor:
    """Causal attention (B, T, D), times out. Queries, keys and values are x times qkv (3 * D, D), each of heads side by
    side; queries and keys are normed by `rms_norm` and turned by `rotate` first."""
    if written_out(x_BTD) and cpu_kernels.holds(*cos_T1H.shape[::2]):
        return _AttentionLayer.apply(
            x_BTD, qkv_WD, out_DD, query_gain_H, key_gain_H, cos_T1H, sin_T1H, eps, scale
        )  # fmt: skip
    qkv_BTW = linear(x_BTD, qkv_WD)
    query_BTNH, key_BTNH, value_BTNH = qkv_BTW.unflatten(2, (3, -1, len(query_gain_H))).unbind(2)
    query_BTNH = rotate(rms_norm(query_BTNH, query_gain_H, eps), cos_T1H, sin_T1H)
    key_BTNH = rotate(rms_norm(key_BTNH, key_gain_H, eps), cos_T1H, sin_T1H)
    return linear(attention(query_BTNH, key_BTNH, value_BTNH, scale), out_DD)


def attention(query_BTNH: Tensor, key_BTNH: Tensor, value_BTNH: Tensor, scale: float) -> Tensor:
    """Causal attention (B, T, N * H)."""
    query_BNTH, key_BNTH, value_BNTH = (x_BTNH.transpose(1, 2) for x_BTNH in (query_BTNH, key_BTNH, value_BTNH))
    mixed_BNTH = F.scaled_dot_product_attention(query_BNTH, key_BNTH, value_BNTH, is_causal=True, scale=scale)
    return mixed_BNTH.transpose(1, 2).flatten(2)


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * gain, the mean over the last dimension; gain (D,)."""
    if written_out(x):
        return _RMSNorm.apply(x, gain, eps)
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
        square = product(x, up_FD)
        cpu_kernels.square_relu(square.view(-1).numpy())
        return product(square, down_DF)
    return F.linear(F.relu(F.linear(x, up_FD)).square(), down_DF)
