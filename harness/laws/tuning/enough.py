"""How far the best of the settings that were tried lies from the optimum, and how that falls with their number.

Of k random settings the best lies above the minimum of a bowl in p settings by a height that falls as k^(-2/p): of
heights whose distribution is (h/h0)^(p/2), the least of k is on average h0 G(1 + 2/p) G(k + 1) / G(k + 1 + 2/p), G the
gamma function. Shapes: R rows, C cells, N counts, J sets of settings.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from harness.laws.forms import Array
from harness.laws.noise.intervals import TAILS
from harness.laws.noise.noise import Labels
from harness.laws.tuning.basin import Basin, Design
from harness.laws.tuning.penalty import mean_penalty
from harness.laws.tuning.rules import ABOUT, NOTHING
from harness.laws.tuning.window import lowest

# p is told by counts of up to this part of a cell's rows: more hang on its few lowest ones.
PART = 1 / 3
# A mean height below is none.
LEAST = 1e-12
# What 2/p may be.
POWERS = (0.05, 10.0)


def enough(design: Design, basin: Basin, within: float) -> dict[str, Any]:
    """What the settings of the lowest row of each cell cost in the mean, the effective number p of settings, and by k
    what those of the best of k random rows cost, as parts of the loss.

    design: all rows, also those that no bowl describes. p, with the 95 % interval of a jackknife over the settings, is
    None where the cells have too few rows, or where costs do not fall as those of a bowl.
    """
    height_R, size_C = heights(design, basin, within), np.bincount(design.cell_R)
    told_C = np.bincount(basin.bowl.design.cell_R, minlength=len(size_C)) > 0
    least = int(size_C[told_C].min())
    count_N = 2 ** np.arange(int(np.log2(least)) + 1)
    gap_CN = gaps(height_R, design, count_N)
    gap_N, told_N = np.nanmean(gap_CN, axis=0), (count_N > 1) & (count_N <= PART * least)
    p = low = high = None
    if told_N.sum() > 1 and (gap_N[told_N] > 0).all():
        p = effective(gap_N[told_N], count_N[told_N])
        low, high = _interval(p, height_R, design, gap_CN[:, told_N], count_N[told_N])
    best = mean_penalty(basin, lowest(design))
    return {
        "settings": [least, int(size_C[told_C].max())],
        "gap": asdict(best) if best else NOTHING,
        "effective_settings": dict(zip(ABOUT, (p, low, high), strict=True)),
        "with_twice_as_many": best.estimate * 2 ** (-2 / p) if best and p else None,
        "by_count": [
            {"count": int(count), "gap": float(np.expm1(gap))}
            for count, gap in zip(count_N, gap_N, strict=True)
        ],
    }


def heights(design: Design, basin: Basin, within: float) -> Array:
    """How far the log loss of each row lies above the minimum of its cell, (R,): the bowl's height, which has no noise
    of the row's own, and beyond a factor `within` of the minimum, where there is no bowl, the loss less the minimum.
    nan in a cell without a bowl."""
    kept, theta_P = basin.bowl.design, basin.theta_P
    bowl = replace(basin.bowl, design=replace(design, active_CK=kept.active_CK))
    weight_C = np.bincount(kept.cell_R, kept.weight_R, len(kept.active_CK))
    sum_C = np.bincount(kept.cell_R, kept.weight_R * basin.bowl.floors(theta_P), len(weight_C))
    floor_C = np.where(weight_C > 0, sum_C / np.maximum(weight_C, LEAST), np.nan)
    above_R = design.loss_R - floor_C[design.cell_R]
    near_R = (np.abs(bowl.offsets(theta_P)) < np.log(within)).all(1) & np.isfinite(above_R)
    return np.where(near_R, design.loss_R - bowl.floors(theta_P), above_R)


def gaps(height_R: Array, design: Design, count_N: Labels) -> Array:
    """The expected height of the row of lowest loss among so many random ones of a cell, without putting back, (C, N).

    Of n rows the i-th lowest, from 0, is the lowest of k in C(n - 1 - i, k - 1) of the C(n, k) choices.
    """
    return np.stack([_gap(height_R[rows], count_N) for rows in _ordered(design)])


def effective(gap_N: Array, count_N: Labels) -> float:
    """p of mean heights that fall with the count as those of the best of random settings."""

    def misfit(power: float) -> float:
        return float(np.var(np.log(gap_N) + special.gammaln(count_N + 1 + power) - special.gammaln(count_N + 1)))

    return 2 / float(optimize.minimize_scalar(misfit, bounds=POWERS, method="bounded").x)


def _interval(p: float, height_R: Array, design: Design, gap_CN: Array, count_N: Labels) -> tuple[float, float]:
    """The 95 % interval of p: the jackknife's of log p, each set of settings left out of all cells at once."""
    label_R = np.unique(np.round(design.setting_RK, 6), axis=0, return_inverse=True)[1].ravel()
    ordered, found = _ordered(design), []
    for label in np.unique(label_R):
        without_CN = gap_CN.copy()
        for cell in np.unique(design.cell_R[label_R == label]):
            rest = ordered[cell][label_R[ordered[cell]] != label]
            without_CN[cell] = _gap(height_R[rest], count_N) if len(rest) >= count_N[-1] else np.nan
        found.append(math.log(effective(np.maximum(np.nanmean(without_CN, axis=0), LEAST), count_N)))
    away_J = np.array(found) - np.mean(found)
    variance, sets = float((away_J**2).mean()), len(away_J)
    # Where few sets make the variance, it is known as badly as from few: its degrees of freedom by their fourth moment.
    freedom = 2 * sets / max(float((away_J**4).mean()) / max(variance**2, 1e-300) - 1, 2 * sets / (sets - 1))
    half = math.sqrt((sets - 1) * variance) * float(special.stdtrit(freedom, TAILS[1]))
    return p * math.exp(-half), p * math.exp(half)


def _ordered(design: Design) -> list[NDArray[np.intp]]:
    """The rows of each cell from the lowest loss to the highest."""
    order_R = np.lexsort((design.loss_R, design.cell_R))
    return np.split(order_R, np.cumsum(np.bincount(design.cell_R))[:-1])


def _gap(height_R: Array, count_N: Labels) -> Array:
    """Of one cell, (N,), whose rows are in the order of their losses."""
    rows = len(height_R)
    weight_NR = special.comb(rows - 1 - np.arange(rows), count_N[:, None] - 1) / special.comb(rows, count_N)[:, None]
    return np.asarray(weight_NR @ height_R)


def sentence(found: Mapping[str, Any]) -> str:
    """What is said of it behind what the best run of each size costs."""
    p = found["effective_settings"]
    if p["estimate"] is None:
        return ""
    shown = "k^(-2/p), p = {estimate:.1f} ({low:.1f} to {high:.1f}) effective settings".format(**p)
    return f"; that of k random ones falls as {shown}: twice as many would leave {found['with_twice_as_many']:.2%}"
