"""What a setting of 0 costs beside the best above it: logs do not reach 0, so its rows are no part of the bowl.

    log L(0, x) = c + h + g (x - x*) + height(x - x*),    x the other settings

so that the minimum over them may lie elsewhere at 0. Shapes: as of `basin`; Z cells that have rows at 0.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import special

from harness.laws.forms import Array
from harness.laws.noise.intervals import TAILS
from harness.laws.noise.noise import Labels, estimate
from harness.laws.noise.wald import covariance
from harness.laws.tuning.basin import Basin, Design
from harness.laws.tuning.rules import ABOUT, Sizes


@dataclass(frozen=True)
class Zero:
    """The rows of a table at which one setting is 0 and the others are not; its log counts as 0 in `design`."""

    setting: int
    design: Design


def zero_cost(basin: Basin, zero: Zero, sizes: Sizes, within: float) -> dict[str, Any] | None:
    """How much higher the lowest loss at 0 is than the fitted minimum, as a part of it: in the mean and at each cell.

    None where no cell tells both: rows at 0 near the best other settings, and a minimum above it.
    """
    rows = _comparable(basin, zero, within)
    if rows is None:
        return None
    before, k = len(basin.bowl.design.loss_R), zero.setting
    every = _joined(basin.bowl.design, rows)
    bowl = replace(basin.bowl, design=every)
    slope_RP = bowl.slopes(basin.theta_P)
    cell_R = every.cell_R[before:]
    # The setting lies at 0, wherever the best above it does.
    slope_RP[np.arange(before, len(slope_RP)), bowl.place[cell_R, k]] = 0.0
    offset_RK = bowl.offsets(basin.theta_P)[before:]
    cells_Z = np.unique(cell_R)
    place_R = np.searchsorted(cells_Z, cell_R)
    free = [j for j in range(offset_RK.shape[1]) if j != k and _varies(offset_RK[:, j], place_R)]
    own_RQ = np.zeros((len(slope_RP), len(cells_Z) + len(free)))
    own_RQ[before:] = np.concatenate([np.eye(len(cells_Z))[place_R], offset_RK[:, free]], axis=1)
    column_RQ = np.concatenate([every.groups_RG, -slope_RP, own_RQ], axis=1)
    if len(column_RQ) <= column_RQ.shape[1]:
        return None
    root_R = np.sqrt(every.weight_R)
    gain_QR = np.linalg.pinv(column_RQ * root_R[:, None], rcond=1e-9)[-own_RQ.shape[1] :] * root_R
    floor_R = bowl.floors(basin.theta_P)
    basis_RQ = np.linalg.qr(column_RQ)[0]
    noise = estimate(column_RQ, floor_R - basis_RQ @ (basis_RQ.T @ floor_R), every.cluster_R)
    value_Q, count = gain_QR @ floor_R, len(cells_Z)
    others = [j for j in range(offset_RK.shape[1]) if j != k]
    loose_KK = np.linalg.inv(basin.H_KK[np.ix_(others, others)]) if others else np.zeros((0, 0))
    loose_FF = loose_KK[np.ix_(*([[others.index(j) for j in free]] * 2))]
    lean_F = loose_FF @ value_Q[count:]
    # The square of a slope is too large by its variance.
    excess = float(np.trace(loose_FF @ covariance(noise, gain_QR[count:])[0])) if free else 0.0
    lower = max(float(value_Q[count:] @ lean_F) - excess, 0.0) / 2
    own_ZQ = np.concatenate([np.eye(count), np.tile(-lean_F, (count, 1))], axis=1)
    weight_CQ = np.concatenate([own_ZQ.mean(0, keepdims=True), own_ZQ])
    value_C = np.append(value_Q[:count].mean(), value_Q[:count]) - lower
    sd_C, freedom_C = noise.spread(weight_CQ @ gain_QR)
    half_C = sd_C * special.stdtrit(np.maximum(freedom_C, 1.0), TAILS[1])
    with np.errstate(over="ignore"):
        about_C = np.expm1(np.stack([value_C, value_C - half_C, value_C + half_C], axis=1)).tolist()
    mean, *of_cells = (dict(zip(ABOUT, about, strict=True)) for about in about_C)
    places = [{"params": float(sizes.params_C[cell]), "tokens": float(sizes.tokens_C[cell])} for cell in cells_Z]
    return mean | {"rows": len(cell_R), "cells": [place | own for place, own in zip(places, of_cells, strict=True)]}


def _comparable(basin: Basin, zero: Zero, within: float) -> Design | None:
    """The rows at 0 of groups and cells that have a minimum above it, whose other settings are near it; with the
    setting where that minimum is, and so no height along it."""
    rows, bowl = zero.design, basin.bowl
    best_RK = basin.best_CK[rows.cell_R]
    away_RK = np.abs(np.nan_to_num(rows.setting_RK - best_RK))
    away_RK[:, zero.setting] = 0.0
    near_R = (away_RK < np.log(within)).all(1) & (bowl.place[rows.cell_R, zero.setting] >= 0)
    near_R &= np.isin(rows.group_R, bowl.design.label_G)
    if not near_R.any():
        return None
    setting_RK = rows.setting_RK.copy()
    setting_RK[:, zero.setting] = best_RK[:, zero.setting]
    return replace(rows, setting_RK=setting_RK).keep(near_R.astype(float))


def _joined(design: Design, rows: Design) -> Design:
    """Rows of two designs as one."""
    names = ("loss_R", "setting_RK", "cell_R", "group_R", "weight_R")
    both = {name: np.concatenate([getattr(design, name), getattr(rows, name)]) for name in names}
    alone = design.cluster_R is None or rows.cluster_R is None
    cluster = None if alone else np.concatenate([design.cluster_R, rows.cluster_R])
    return replace(design, **both, cluster_R=cluster)


def _varies(value_R: Array, place_R: Labels) -> bool:
    """Whether a setting differs between rows of one cell."""
    return any(np.ptp(value_R[place_R == place]) > 1e-6 for place in np.unique(place_R))


def sentence(name: str, cost: dict[str, Any]) -> str:
    """What tune.json says of a setting of 0."""
    judged = "worse" if cost["low"] > 0 else "better" if cost["high"] < 0 else "as good, as far as the runs tell"
    return (
        f"{name} = 0 is {judged}: it costs {cost['estimate']:.2%} of the loss ({cost['low']:.2%} to "
        f"{cost['high']:.2%}) beside the best above 0"
    )
