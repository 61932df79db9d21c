"""What settings cost beside those of the minimum: a fitted height, never the difference to the best run seen."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from harness.laws.forms import Array
from harness.laws.noise.intervals import CONFIDENCE, TAILS
from harness.laws.noise.wald import covariance
from harness.laws.tuning.basin import Basin

# Beyond this the root of a noncentral chi-square is normal.
LARGEST_SQUARES = 1e4


@dataclass(frozen=True)
class Penalty:
    """How much higher the loss is, as a part of it, with its 95 % interval."""

    estimate: float
    low: float
    high: float


def penalties(basin: Basin, setting_CK: Array) -> list[Penalty | None]:
    """What these log settings, (C, K), cost at each cell; None where no setting varies or one of them is nan."""
    return [penalty(basin, cell, setting_K) for cell, setting_K in enumerate(setting_CK)]


def mean_penalty(basin: Basin, setting_CK: Array) -> Penalty | None:
    """What these log settings, (C, K), cost in the mean over the cells where they cost something that is told."""
    held_CK = basin.bowl.place >= 0
    told_C = held_CK.any(1) & ~np.isnan(np.where(held_CK, setting_CK, 0.0)).any(1)
    if not told_C.any():
        return None
    away_CK = np.where(held_CK, setting_CK - np.nan_to_num(basin.best_CK), 0.0)[told_C]
    return _height(basin, np.flatnonzero(told_C), away_CK, np.arange(away_CK.shape[1]))


def penalty(basin: Basin, cell: int, setting_K: Array) -> Penalty | None:
    """What log settings cost at a cell, together."""
    held_K = basin.bowl.place[cell] >= 0
    if not held_K.any() or np.isnan(setting_K[held_K]).any():
        return None
    away_K = np.where(held_K, setting_K - np.nan_to_num(basin.best_CK[cell]), 0.0)
    return _height(basin, np.array([cell]), away_K[None], np.arange(len(away_K)))


def penalty_alone(basin: Basin, cell: int, setting: int, value: float) -> Penalty:
    """What one log setting costs at a cell where the others are as good as they can be beside it."""
    others = [k for k, place in enumerate(basin.bowl.place[cell]) if place >= 0 and k != setting]
    away_K = np.zeros(len(basin.H_KK))
    away_K[setting] = value - float(basin.best_CK[cell, setting])
    if others:
        follow = np.linalg.solve(basin.H_KK[np.ix_(others, others)], basin.H_KK[others, setting])
        away_K[others] = -follow * away_K[setting]
    return _height(basin, np.array([cell]), away_K[None], np.array([setting]))


def _height(basin: Basin, cells: NDArray[np.intp], away_CK: Array, free: NDArray[np.intp]) -> Penalty:
    """The mean height of bowls so far away from their minima; `free` are the settings that a minimum may lie elsewhere
    in, where they vary.

    A height over a minimum that noise has moved is too large by half the trace of H times the minimum's covariance,
    which is taken off. Its interval is that of the noncentrality of the distance's square, in units of the height.
    """
    bowl, H_KK, kappa_K = basin.bowl, basin.H_KK, basin.bowl.kappa(basin.theta_P)
    c_Q, k_Q = np.nonzero((bowl.place[cells] >= 0) & np.isin(np.arange(len(H_KK)), free))
    spread_QQ, freedom = covariance(basin.curvature.noise, basin.curvature.gain_PR[bowl.place[cells[c_Q], k_Q]])
    # H less what settings take up that follow these.
    stiff_KK = np.linalg.inv(np.linalg.inv(H_KK)[np.ix_(free, free)])
    stiff_QQ = stiff_KK[np.ix_(*([np.searchsorted(free, k_Q)] * 2))] * (c_Q[:, None] == c_Q)
    height = float((((away_CK @ H_KK) * away_CK).sum(1) / 2 + away_CK**3 @ kappa_K).mean())
    inflated = float((stiff_QQ * spread_QQ).sum()) / 2 / len(cells)
    away_Q = away_CK[c_Q, k_Q]
    solved_Q, _, rank, _ = np.linalg.lstsq(spread_QQ, away_Q)
    count = int(rank)  # less than Q where rows share their noise
    squares = float(away_Q @ solved_Q)
    if squares > count * special.fdtri(count, freedom, CONFIDENCE):
        # Far from the minimum the height moves along its gradient alone, and with the curvature.
        slope_CP = np.stack([_gradient(basin, cell, away_K) for cell, away_K in zip(cells, away_CK, strict=True)])
        sd_C, freedom_C = basin.curvature.spread(slope_CP.mean(0, keepdims=True))
        squares, count, freedom = (2 * height / float(sd_C[0])) ** 2, 1, float(freedom_C[0])
    # Near the minimum the direction is that of the noise: the mean over all directions.
    unit = (max(height, 0.0) + inflated) / (squares + count)
    low, high = noncentrality(squares, count, freedom)
    estimate = max(height - inflated, 0.0)
    ends = (estimate, min(unit * low, estimate), max(unit * high, estimate))
    return Penalty(*(float(np.expm1(value)) for value in ends))


def _gradient(basin: Basin, cell: int, away_K: Array) -> Array:
    """Of a height by theta, (P,)."""
    bowl = basin.bowl
    held_K = bowl.place[cell] >= 0
    found_P = np.zeros(len(basin.theta_P))
    slope_K = basin.H_KK @ away_K + 3 * bowl.kappa(basin.theta_P) * away_K**2
    found_P[bowl.place[cell][held_K]] = -slope_K[held_K]
    for number, (j, k) in enumerate(bowl.pairs):
        found_P[bowl.before + number] = away_K[j] * away_K[k] * (0.5 if j == k else 1.0)
    for number, k in enumerate(bowl.cubed):
        found_P[bowl.before + len(bowl.pairs) + number] = away_K[k] ** 3
    return found_P


def noncentrality(squares: float, count: int, freedom: float) -> tuple[float, float]:
    """The 95 % interval of the noncentrality behind a chi-square of `count`, in a noise that `freedom` estimate.

    As Student's t widens a normal interval, the root's is wider by the ratio of their quantiles.
    """
    root, wider = math.sqrt(squares), float(special.stdtrit(freedom, TAILS[1]) / special.ndtri(TAILS[1]))
    if squares > LARGEST_SQUARES:
        half = wider * float(special.ndtri(TAILS[1]))
        return (root - half) ** 2, (root + half) ** 2

    def end(tail: float) -> float:
        def below(value: float) -> float:
            return float(special.chndtr(squares, count, value)) - tail

        if below(0.0) <= 0:
            return 0.0
        return float(optimize.brentq(below, 0.0, (root + 10.0) ** 2, xtol=1e-6))

    low, high = (root + wider * (math.sqrt(end(tail)) - root) for tail in reversed(TAILS))
    return max(low, 0.0) ** 2 if end(TAILS[1]) else 0.0, high**2
