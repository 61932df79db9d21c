"""Which runs are near enough to the minimum of their cell for a bowl to describe them."""

from dataclasses import replace

import numpy as np

from harness.laws.forms import Array
from harness.laws.tuning.basin import Basin, Bowl, Design, Mask, fit_basin

# Rows whose loss is more above the lowest of their cell are none of its bowl: those of runs that nearly diverged.
FAR = 0.1
MOST_ROUNDS, SETTLED = 60, 1e-4
# Less than that is nothing.
LEAST_WEIGHT = 0.05


def settle(design: Design, within: float, cubed: tuple[int, ...] = ()) -> Basin | None:
    """The basin of the rows whose settings lie within a factor of the minimum that it has; None where there is none.

    Rows count by their settings, not by their losses, whose noise would be chosen too; and the less the farther they
    lie (Cleveland's tricube), so that noise which moves a minimum moves no row in or out at a stroke. A minimum beyond
    what was tried counts as at its end.
    """
    low_C = np.full(len(design.active_CK), np.inf)
    np.minimum.at(low_C, design.cell_R, design.loss_R)
    near_R = design.loss_R <= low_C[design.cell_R] + np.log1p(FAR)
    low_CK, high_CK = ranges(design.keep(near_R.astype(float)))
    centre_CK = np.clip(lowest(design), low_CK, high_CK)
    basin = None
    for _ in range(MOST_ROUNDS):
        gap_RK = np.abs(design.setting_RK - centre_CK[design.cell_R]) / np.log(within)
        gap_RK = np.where(design.active_CK[design.cell_R], gap_RK, 0.0)
        weight_R = ((1 - np.minimum(gap_RK, 1.0) ** 3) ** 3).prod(1) * near_R
        kept = still_varying(design.keep(np.where(weight_R >= LEAST_WEIGHT, weight_R, 0.0)))
        basin = fit_basin(Bowl(kept, kept.told_apart(), cubed))
        if basin is None:
            return None
        best_CK = np.clip(np.where(np.isnan(basin.best_CK), centre_CK, basin.best_CK), low_CK, high_CK)
        moved, centre_CK = float(np.abs(best_CK - centre_CK).max()), best_CK
        if moved < SETTLED:
            break
    return basin


def ranges(design: Design) -> tuple[Array, Array]:
    """The least and the largest setting of each cell, (C, K) both."""
    low_CK, high_CK = np.full(design.active_CK.shape, np.inf), np.full(design.active_CK.shape, -np.inf)
    np.minimum.at(low_CK, design.cell_R, design.setting_RK)
    np.maximum.at(high_CK, design.cell_R, design.setting_RK)
    return low_CK, high_CK


def bracketed(design: Design, basin: Basin) -> Mask:
    """Whether the interval of each cell's minimum lies within what was tried, (C, K)."""
    low_CK, high_CK = ranges(design)
    inside_CK = (low_CK < basin.best_CK - basin.half_CK) & (basin.best_CK + basin.half_CK < high_CK)
    return np.asarray(inside_CK, bool)


def lowest(design: Design) -> Array:
    """The settings of the row of lowest loss in each cell, (C, K)."""
    order_R = np.lexsort((design.loss_R, design.cell_R))
    first_C = order_R[np.searchsorted(design.cell_R[order_R], np.arange(len(design.active_CK)))]
    return design.setting_RK[first_C]


def still_varying(design: Design) -> Design:
    """The design with the settings that have three values or more left in a cell as those that vary there."""
    return replace(design, active_CK=design.active_CK & varying(design))


def varying(design: Design, least: int = 3) -> Mask:
    values_RK = np.round(design.setting_RK, 6)
    counted_CK = np.zeros(design.active_CK.shape, int)
    for cell in range(len(counted_CK)):
        own_RK = values_RK[design.cell_R == cell]
        counted_CK[cell] = [len(np.unique(own_RK[:, k])) for k in range(own_RK.shape[1])]
    return counted_CK >= least
