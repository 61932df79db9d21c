"""Loops for a CPU that numba compiles: each goes over memory once where a chain of torch's operators would five to ten
times. All arrays are contiguous float32; those that a loop fills come last in its arguments.

Written for the vectorizer: the innermost loops run along a row, indices are unsigned, and scratch rows have one
constant length, so that it can tell rows apart.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite.binding import get_host_cpu_name

MOST_TOKENS = 256  # a sequence that attention's scratch holds; longer ones are faster in blocks, as torch has them
MOST_FEATURES = 64  # of a head
TILE = 4  # tokens and features of a head come in multiples of this
ROW = MOST_TOKENS + 16  # not a power of two: rows would share the same lines of a cache

F, U = np.float32, np.uintp
U0, U1, U2, U3, U4 = (U(number) for number in range(5))
BLOCK = ~U(15)  # queries are taken from a multiple of 16 on, which needs no odd ends
LOWEST = F(-1e30)
LOG2_E = F(1.4426950408889634)
# 2^f = sum of (f log 2)^k / k!, to 1e-7 for f within .5 of 0
TAYLOR_1, TAYLOR_2, TAYLOR_3 = F(0.6931471805599453), F(0.2402265069591007), F(0.05550410866482158)
TAYLOR_4, TAYLOR_5, TAYLOR_6 = F(0.009618129107628477), F(0.0013333558146428443), F(0.00015403530393381608)

# Sums may be taken in any order; a loss that is not a number must stay one, so nnan and ninf are left out.
FAST: dict[str, Any] = {
    "fastmath": {"reassoc", "nsz", "arcp", "contract", "afn"},
    "error_model": "numpy",
    "nogil": True,
}


def _kept_in() -> str:
    """A folder for this text, numba and processor alone: in a shared one a file may hold code of an older text."""
    what = Path(__file__).read_bytes() + f"{numba.__version__} {get_host_cpu_name()}".encode()
    base = os.environ.get("NUMBA_CACHE_DIR") or Path(__file__).parent / "__pycache__"
    return str(Path(base) / f"kernels-{hashlib.sha256(what).hexdigest()[:12]}")


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled at its first call, and kept for other processes where a folder can be written to."""
    with suppress(RuntimeError):  # what numba says of a folder that it cannot write to
        return numba.njit(cache=True, **FAST)(function)
    return numba.njit(**FAST)(function)


numba.config.CACHE_DIR = _kept_in()  # type: ignore[attr-defined]
inlined: Callable[[Any], Any] = numba.njit(inline="always", **FAST)
# Not `compiled`: a process that had just compiled such a function and its caller ran another copy of it, of other last
# digits, than one that read the caller from the folder.
inlined_by_llvm: Callable[[Any], Any] = numba.njit(forceinline=True, **FAST)


def holds(count: int, size: int) -> bool:
    """Whether `attention` takes sequences of so many tokens and heads of so many features."""
    return count <= MOST_TOKENS and size <= MOST_FEATURES and count % TILE == size % TILE == 0


@compiled
def rms_norm(x_RD, gain_D, eps, out_RD, inverse_R):
    """out = x * inverse * gain, inverse = 1 / sqrt(mean(x^2) + eps)."""
    rows, size = x_RD.shape
    for r in range(rows):
        square = F(0)
        for d in range(size):
            square += x_RD[r, d] * x_RD[r, d]
        inverse = F(1) / np.sqrt(square / F(size) + eps)
        inverse_R[r] = inverse
        for d in range(size):
            out_RD[r, d] = x_RD[r, d] * inverse * gain_D[d]


@compiled
def rms_norm_gradient(grad_RD, x_RD, gain_D, inverse_R, grad_x_RD, grad_gain_D):
    """Adds to grad_gain."""
    rows, size = x_RD.shape
    for r in range(rows):
        inverse = inverse_R[r]
        projection = F(0)
        for d in range(size):
            product = grad_RD[r, d] * x_RD[r, d] * inverse
            grad_gain_D[d] += product
            projection += product * gain_D[d]
        projection *= inverse / F(size)
        for d in range(size):
            grad_x_RD[r, d] = (grad_RD[r, d] * gain_D[d] - x_RD[r, d] * projection) * inverse


@compiled
def squared_relu(x_N, square_N):
    """x = max(x, 0), square = x^2."""
    for i in range(x_N.shape[0]):
        x = F(0) if x_N[i] < F(0) else x_N[i]
        x_N[i] = x
        square_N[i] = x * x


@compiled
def square_relu(x_N):
    """x = max(x, 0)^2."""
    for i in range(x_N.shape[0]):
        x = F(0) if x_N[i] < F(0) else x_N[i]
        x_N[i] = x * x


@inlined
def exponentials(row, x_RT, shift_T, start, end):
    """x[row] = exp(x[row] - shift) from start to end, 0 below 2^-126."""
    for i in range(start, end):
        x = (x_RT[row, i] - shift_T[i]) * LOG2_E
        x = F(-127) if x < F(-127) else x
        whole = np.floor(x + F(0.5))
        f = x - whole
        high = TAYLOR_3 + f * (TAYLOR_4 + f * (TAYLOR_5 + f * TAYLOR_6))
        power = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(F)
        x_RT[row, i] = (F(1) + f * (TAYLOR_1 + f * (TAYLOR_2 + f * high))) * power


@inlined
def hide(j, y, y_RT, start):
    """Keys do not see the queries before them: of four keys from j on, in rows from y on."""
    for r in range(U0, U4):
        for i in range(start, j + r):
            y_RT[y + r, i] = LOWEST


@inlined
def column(a_HT, h, j):
    return a_HT[h, j], a_HT[h + U1, j], a_HT[h + U2, j], a_HT[h + U3, j]


@inlined
def row(a_HT, h, j):
    return a_HT[h, j], a_HT[h, j + U1], a_HT[h, j + U2], a_HT[h, j + U3]


@inlined
def add_tile(factors, x, x_RT, y, y_RT, start, end):
    """y[y + r] += sum over c of factors[r][c] * x[x + c], four rows from four."""
    (a0, a1, a2, a3), (b0, b1, b2, b3), (c0, c1, c2, c3), (d0, d1, d2, d3) = factors
    for i in range(start, end):
        x0, x1, x2, x3 = x_RT[x, i], x_RT[x + U1, i], x_RT[x + U2, i], x_RT[x + U3, i]
        y_RT[y, i] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
        y_RT[y + U1, i] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
        y_RT[y + U2, i] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
        y_RT[y + U3, i] += d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3


@inlined
def scores(size, j, key_HT, query_HT, y, y_RT, start, end):
    """y[y + r] = sum over features h of key[h, j + r] * query[h], for four keys from j on."""
    for i in range(start, end):
        y_RT[y, i] = y_RT[y + U1, i] = y_RT[y + U2, i] = y_RT[y + U3, i] = F(0)
    for h in range(U0, size, U4):
        factors = (
            column(key_HT, h, j),
            column(key_HT, h, j + U1),
            column(key_HT, h, j + U2),
            column(key_HT, h, j + U3),
        )
        add_tile(factors, h, query_HT, y, y_RT, start, end)


@inlined
def add_mix(size, j, value_HT, x, x_RT, y_HT, start, end):
    """y[h] += sum of value[h, j + c] * x[x + c] over four keys from j on."""
    for h in range(U0, size, U4):
        factors = row(value_HT, h, j), row(value_HT, h + U1, j), row(value_HT, h + U2, j), row(value_HT, h + U3, j)
        add_tile(factors, x, x_RT, h, y_HT, start, end)


@inlined
def dots(size, x, x_RT, y_HT, start, end, j, out_HT):
    """out[h, j + r] = x[x + r] . y[h], for four keys from j on."""
    for h in range(U0, size, U2):
        a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = F(0)
        for i in range(start, end):
            x0, x1, x2, x3 = x_RT[x, i], x_RT[x + U1, i], x_RT[x + U2, i], x_RT[x + U3, i]
            y0, y1 = y_HT[h, i], y_HT[h + U1, i]
            a0 += x0 * y0
            a1 += x1 * y0
            a2 += x2 * y0
            a3 += x3 * y0
            b0 += x0 * y1
            b1 += x1 * y1
            b2 += x2 * y1
            b3 += x3 * y1
        out_HT[h, j], out_HT[h, j + U1], out_HT[h, j + U2], out_HT[h, j + U3] = a0, a1, a2, a3
        out_HT[h + U1, j], out_HT[h + U1, j + U1], out_HT[h + U1, j + U2], out_HT[h + U1, j + U3] = b0, b1, b2, b3


@inlined
def taken(x_WR, first, first_column, count, size, out_HT):
    """out[h, t] = x[first + h, first_column + t]: rows of one constant length."""
    for h in range(size):
        for t in range(count):
            out_HT[h, t] = x_WR[first + h, first_column + t]


@inlined
def put(x_HT, first, first_column, count, size, out_WR):
    for h in range(size):
        for t in range(count):
            out_WR[first + h, first_column + t] = x_HT[h, t]


@inlined
def turned(x_TH, count, size, out_HT):
    for t in range(count):
        for h in range(size):
            out_HT[h, t] = x_TH[t, h]


@inlined_by_llvm
def norm_and_rotate(x_HT, gain_H, cos_HT, sin_HT, count, size, eps, scale, gained_HT, out_HT, inverse_T):
    """out = the features x of a head normed, times gain and scale, turned by their position's angle; x stays normed.

    inverse is the factor that normed x. Few arrays a loop: of more the compiler does not tell whether they overlap.
    """
    half = size // 2
    for t in range(count):
        inverse_T[t] = F(0)
    for h in range(size):
        for t in range(count):
            inverse_T[t] += x_HT[h, t] * x_HT[h, t]
    for t in range(count):
        inverse_T[t] = F(1) / np.sqrt(inverse_T[t] / F(size) + eps)
    for h in range(size):
        gain = gain_H[h] * scale
        for t in range(count):
            x_HT[h, t] *= inverse_T[t]
            gained_HT[h, t] = x_HT[h, t] * gain
    for h in range(size):
        other = h + half if h < half else h - half
        for t in range(count):
            out_HT[h, t] = gained_HT[h, t] * cos_HT[h, t] + gained_HT[other, t] * sin_HT[h, t]


@inlined_by_llvm
def norm_and_rotate_gradient(
    grad_HT, normed_HT, gain_H, cos_HT, sin_HT, inverse_T, count, size, scale, turned_HT, projection_T, grad_gain_H
):
    """Fills turned_HT with the gradient by what was normed, and adds to grad_gain."""
    half = size // 2
    for t in range(count):
        projection_T[t] = F(0)
    for h in range(size):
        other = h + half if h < half else h - half
        for t in range(count):
            turned_HT[h, t] = grad_HT[h, t] * cos_HT[h, t] + grad_HT[other, t] * sin_HT[other, t]
        gain, total = gain_H[h] * scale, F(0)
        for t in range(count):
            product = turned_HT[h, t] * normed_HT[h, t]
            total += product
            projection_T[t] += product * gain
        grad_gain_H[h] += total * scale
    for t in range(count):
        projection_T[t] /= F(size)
    for h in range(size):
        gain = gain_H[h] * scale
        for t in range(count):
            turned_HT[h, t] = (turned_HT[h, t] * gain - normed_HT[h, t] * projection_T[t]) * inverse_T[t]


@inlined
def zero(count, size, out_HT):
    for h in range(size):
        for t in range(count):
            out_HT[h, t] = F(0)


@inlined
def column_dots(x_HT, y_HT, count, size, out_T):
    """out[t] = sum over features h of x[h, t] * y[h, t]."""
    for t in range(count):
        out_T[t] = F(0)
    for h in range(size):
        for t in range(count):
            out_T[t] += x_HT[h, t] * y_HT[h, t]


@compiled
def attention(qkv_WR, query_gain_H, key_gain_H, cos_TH, sin_TH, eps, scale, out_DR, sums_BNT):
    """Causal attention over queries and keys that are normed and rotated first; a head at a time.

    sums is the log of each query's sum of exponentials. Scores are kept by key, so that all loops run along queries.
    """
    count, size = cos_TH.shape
    width = out_DR.shape[0]
    end, features = U(count), U(size)
    cos_HT, sin_HT = np.empty((MOST_FEATURES, ROW), F), np.empty((MOST_FEATURES, ROW), F)
    x_HT, query_HT = np.empty((MOST_FEATURES, ROW), F), np.empty((MOST_FEATURES, ROW), F)
    key_HT, value_HT = np.empty((MOST_FEATURES, ROW), F), np.empty((MOST_FEATURES, ROW), F)
    score_TT, mixed_HT = np.empty((MOST_TOKENS, ROW), F), np.empty((MOST_FEATURES, ROW), F)
    inverse_T, top_T, sum_T = np.empty(ROW, F), np.empty(ROW, F), np.empty(ROW, F)
    turned(cos_TH, count, size, cos_HT)
    turned(sin_TH, count, size, sin_HT)
    for b in range(qkv_WR.shape[1] // count):
        first_column = b * count
        for n in range(width // size):
            first = n * size
            taken(qkv_WR, first, first_column, count, size, x_HT)
            norm_and_rotate(x_HT, query_gain_H, cos_HT, sin_HT, count, size, eps, scale, mixed_HT, query_HT, inverse_T)
            taken(qkv_WR, width + first, first_column, count, size, x_HT)
            norm_and_rotate(x_HT, key_gain_H, cos_HT, sin_HT, count, size, eps, F(1), mixed_HT, key_HT, inverse_T)
            taken(qkv_WR, 2 * width + first, first_column, count, size, value_HT)
            for t in range(count):
                top_T[t], sum_T[t] = LOWEST, F(0)
            zero(count, size, mixed_HT)
            for j in range(U0, end, U4):
                start = j & BLOCK
                scores(features, j, key_HT, query_HT, j, score_TT, start, end)
                hide(j, j, score_TT, start)
                for i in range(start, end):
                    top = max(score_TT[j, i], score_TT[j + U1, i])
                    top_T[i] = max(max(top_T[i], top), max(score_TT[j + U2, i], score_TT[j + U3, i]))
            for j in range(U0, end, U4):
                start = j & BLOCK
                for r in range(j, j + U4):
                    exponentials(r, score_TT, top_T, start, end)
                for i in range(start, end):
                    pair = score_TT[j, i] + score_TT[j + U1, i]
                    sum_T[i] += pair + (score_TT[j + U2, i] + score_TT[j + U3, i])
                add_mix(features, j, value_HT, j, score_TT, mixed_HT, start, end)
            for t in range(count):
                sums_BNT[b, n, t] = top_T[t] + np.log(sum_T[t])
                sum_T[t] = F(1) / sum_T[t]
            for h in range(size):
                for t in range(count):
                    out_DR[first + h, first_column + t] = mixed_HT[h, t] * sum_T[t]


@compiled
def attention_gradient(
    grad_DR, out_DR, sums_BNT, qkv_WR, query_gain_H, key_gain_H, cos_TH, sin_TH, eps, scale,
    grad_qkv_WR, grad_query_gain_H, grad_key_gain_H,
):  # fmt: skip
    """Adds to the gradients of the gains; scores are made again."""
    count, size = cos_TH.shape
    width = out_DR.shape[0]
    end, features = U(count), U(size)
    cos_HT, sin_HT = np.empty((MOST_FEATURES, ROW), F), np.empty((MOST_FEATURES, ROW), F)
    x_HT, query_HT = np.empty((MOST_FEATURES, ROW), F), np.empty((MOST_FEATURES, ROW), F)
    y_HT, key_HT = np.empty((MOST_FEATURES, ROW), F), np.empty((MOST_FEATURES, ROW), F)
    value_HT, grad_HT = np.empty((MOST_FEATURES, ROW), F), np.empty((MOST_FEATURES, ROW), F)
    grad_query_HT, grad_key_HT = np.empty((MOST_FEATURES, ROW), F), np.empty((MOST_FEATURES, ROW), F)
    grad_value_HT, share_RT = np.empty((MOST_FEATURES, ROW), F), np.empty((TILE, ROW), F)
    grad_score_RT, sum_T, projection_T = np.empty((TILE, ROW), F), np.empty(ROW, F), np.empty(ROW, F)
    query_inverse_T, key_inverse_T = np.empty(ROW, F), np.empty(ROW, F)
    turned(cos_TH, count, size, cos_HT)
    turned(sin_TH, count, size, sin_HT)
    for b in range(qkv_WR.shape[1] // count):
        first_column = b * count
        for n in range(width // size):
            first = n * size
            taken(qkv_WR, first, first_column, count, size, x_HT)
            norm_and_rotate(
                x_HT, query_gain_H, cos_HT, sin_HT, count, size, eps, scale, grad_HT, query_HT, query_inverse_T
            )
            taken(qkv_WR, width + first, first_column, count, size, y_HT)
            norm_and_rotate(y_HT, key_gain_H, cos_HT, sin_HT, count, size, eps, F(1), grad_HT, key_HT, key_inverse_T)
            taken(qkv_WR, 2 * width + first, first_column, count, size, value_HT)
            taken(grad_DR, first, first_column, count, size, grad_HT)
            taken(out_DR, first, first_column, count, size, grad_value_HT)
            column_dots(grad_HT, grad_value_HT, count, size, projection_T)
            for t in range(count):
                sum_T[t] = sums_BNT[b, n, t]
            zero(count, size, grad_query_HT)
            for j in range(U0, end, U4):
                start = j & BLOCK
                scores(features, j, key_HT, query_HT, U0, share_RT, start, end)
                hide(j, U0, share_RT, start)
                for r in range(U0, U4):
                    exponentials(r, share_RT, sum_T, start, end)
                dots(features, U0, share_RT, grad_HT, start, end, j, grad_value_HT)
                scores(features, j, value_HT, grad_HT, U0, grad_score_RT, start, end)
                for r in range(U0, U4):
                    for i in range(start, end):
                        grad_score_RT[r, i] = share_RT[r, i] * (grad_score_RT[r, i] - projection_T[i])
                dots(features, U0, grad_score_RT, query_HT, start, end, j, grad_key_HT)
                add_mix(features, j, key_HT, U0, grad_score_RT, grad_query_HT, start, end)
            put(grad_value_HT, 2 * width + first, first_column, count, size, grad_qkv_WR)
            norm_and_rotate_gradient(
                grad_query_HT, x_HT, query_gain_H, cos_HT, sin_HT, query_inverse_T, count, size, scale, grad_HT,
                projection_T, grad_query_gain_H,
            )  # fmt: skip
            put(grad_HT, first, first_column, count, size, grad_qkv_WR)
            norm_and_rotate_gradient(
                grad_key_HT, y_HT, key_gain_H, cos_HT, sin_HT, key_inverse_T, count, size, F(1), grad_HT,
                projection_T, grad_key_gain_H,
            )  # fmt: skip
            put(grad_HT, width + first, first_column, count, size, grad_qkv_WR)
