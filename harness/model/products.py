"""Matrix products on a CPU, through oneDNN where that is faster.

torch.mm goes to MKL, which keeps to half of the vector width of processors that are not Intel's. oneDNN writes its
kernels for the processor it finds; torch.compile calls it by the same operator. On Intel's own MKL is faster, for
gradients of narrow weights twice as fast.
"""

from __future__ import annotations

import platform
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from harness.model import cpu_kernels


def _processor() -> str:
    """A text that names the maker of this processor."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()


ONEDNN = (
    torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    and not (torch.backends.mkl.is_available() and "GenuineIntel" in _processor())
)


def by_onednn(*matrices: Tensor) -> bool:
    return ONEDNN and all(matrix.dtype is torch.float32 and matrix.device.type == "cpu" for matrix in matrices)


def product(a_MK: Tensor, b_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """a @ b.T + bias, (..., N); neither need be contiguous. Holds no graph."""
    if by_onednn(a_MK, b_NK):
        return torch.ops.mkldnn._linear_pointwise(a_MK, b_NK, bias_N, "none", [], "")
    product_MN = a_MK @ b_NK.t()
    return product_MN if bias_N is None else product_MN.add_(bias_N)


def add_product(sum_MN: Tensor, a_MK: Tensor, b_NK: Tensor) -> None:
    """Adds a @ b.T to the sum. Holds no graph."""
    if by_onednn(a_MK, b_NK, sum_MN):
        sum_MN.add_(torch.ops.mkldnn._linear_pointwise(a_MK, b_NK, None, "none", [], ""))
    else:
        sum_MN.addmm_(a_MK, b_NK.t())


def product_times(a_MK: Tensor, b_NK: Tensor, factor_MN: Tensor) -> Tensor:
    """(a @ b.T) * factor, (M, N), in one pass over the result. Holds no graph."""
    if by_onednn(a_MK, b_NK, factor_MN):
        return torch.ops.mkldnn._linear_pointwise.binary(a_MK, factor_MN, b_NK, None, "mul")
    return (a_MK @ b_NK.t()).mul_(factor_MN)


def weight_gradient(grad_TN: Tensor, x_TK: Tensor) -> Tensor:
    """grad.T @ x, (N, K), contiguous: a sum over rows T, taken with the longer side last where oneDNN does it."""
    if by_onednn(grad_TN, x_TK) and grad_TN.shape[1] > x_TK.shape[1]:
        return product(x_TK.t(), grad_TN.t()).t().contiguous()
    return product(grad_TN.t(), x_TK.t())


class Linear(torch.autograd.Function):
    """x (..., K) @ weight (N, K).T + bias (N,) or None."""

    @staticmethod
    def forward(ctx, x: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight_NK)
        return product(x, weight_NK, bias_N)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight_NK = ctx.saved_tensors
        grad_TN = grad.flatten(0, -2)
        grad_bias = grad_TN.sum(0) if ctx.needs_input_grad[2] else None
        return product(grad, weight_NK.t()), weight_gradient(grad_TN, x.flatten(0, -2)), grad_bias


class SquaredReLULayer(torch.autograd.Function):
    """max(x @ up.T, 0)^2 @ down.T of x (..., D), up (F, D), down (D, F).

    Of the (..., F) tensors the positive part and its square are kept.
    """

    @staticmethod
    def forward(ctx, x: Tensor, up_FD: Tensor, down_DF: Tensor) -> Tensor:
        positive = product(x, up_FD)
        square = torch.empty_like(positive)
        cpu_kernels.squared_relu(positive.view(-1).numpy(), square.view(-1).numpy())
        ctx.save_for_backward(x, up_FD, down_DF, positive, square)
        return product(square, down_DF)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, up_FD, down_DF, positive, square = ctx.saved_tensors
        x_TD, grad_TD, positive_TF, square_TF = (tensor.flatten(0, -2) for tensor in (x, grad, positive, square))
        grad_down_DF = weight_gradient(grad_TD, square_TF)
        grad_up_TF = product_times(grad_TD * 2, down_DF.t(), positive_TF)
        grad_x = product(grad_up_TF, up_FD.t()).view_as(x)
        return grad_x, weight_gradient(grad_up_TF, x_TD), grad_down_DF
