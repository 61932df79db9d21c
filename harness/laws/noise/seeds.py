"""Run-to-run noise, measured where one shape and budget was trained with more than one seed."""

from typing import Any

import numpy as np

from harness.laws.forms import Array
from harness.laws.noise.noise import Labels


def seed_noise(loss_R: Array, shape_R: Labels, budget_R: Labels, cluster_R: Labels | None) -> dict[str, Any] | None:
    """The pooled standard deviation between seeds; None where no cell repeats.

    With trunks of several budgets it is split, by the analysis of variance of trunk x budget within each
    shape, into the part that the cells of a trunk share and the part of each cell.
    """
    log_R = np.log(loss_R)
    cell_R = np.unique(shape_R * (int(budget_R.max()) + 1) + budget_R, return_inverse=True)[1]
    count_G = np.bincount(cell_R)
    repeated_R = count_G[cell_R] > 1
    if not repeated_R.any():
        return None
    groups = int((count_G > 1).sum())
    freedom = int((count_G[count_G > 1] - 1).sum())

    def pooled(values_R: Array) -> float:
        mean_G = np.bincount(cell_R, weights=values_R) / np.maximum(count_G, 1)
        return float(np.sqrt(((values_R - mean_G[cell_R])[repeated_R] ** 2).sum() / freedom))

    trunk, cell = _components(log_R, shape_R, budget_R, cluster_R)
    return {
        "sd_nats": pooled(loss_R),
        "sd_relative": pooled(log_R),
        "groups": groups,
        "degrees_of_freedom": freedom,
        "trunk_sd_relative": trunk,
        "cell_sd_relative": cell,
    }


def _components(
    log_R: Array, shape_R: Labels, budget_R: Labels, cluster_R: Labels | None
) -> tuple[float | None, float | None]:
    """Trunk and cell standard deviations over the shapes whose trunks all reached the same budgets."""
    if cluster_R is None:
        return None, None
    between = within = between_freedom = within_freedom = expected = 0.0
    for shape in np.unique(shape_R):
        rows_R = shape_R == shape
        trunks, budgets = np.unique(cluster_R[rows_R]), np.unique(budget_R[rows_R])
        k, m = len(trunks), len(budgets)
        if k < 2 or m < 2 or rows_R.sum() != k * m:
            continue
        log_KB = np.full((k, m), np.nan)
        log_KB[np.searchsorted(trunks, cluster_R[rows_R]), np.searchsorted(budgets, budget_R[rows_R])] = log_R[rows_R]
        if np.isnan(log_KB).any():
            continue
        log_KB = log_KB - log_KB.mean(0)
        mean_K1 = log_KB.mean(1, keepdims=True)
        between += m * float((mean_K1**2).sum())
        within += float(((log_KB - mean_K1) ** 2).sum())
        between_freedom += k - 1
        within_freedom += (k - 1) * (m - 1)
        expected += (k - 1) * m
    if not within_freedom:
        return None, None
    cell = within / within_freedom
    trunk = max((between - between_freedom * cell) / expected, 0.0)
    return float(np.sqrt(trunk)), float(np.sqrt(cell))
