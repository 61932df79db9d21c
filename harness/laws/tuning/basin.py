"""The loss around its minimum over settings of training: a minimum of each cell, or one that moves by a rule.

    log L = c + v H v / 2 + sum_k kappa_k v_k^3,    v = log x - log x*

with a c of each group of rows that only settings tell apart, and one H and one kappa for all. Shapes: R rows,
K settings, C cells, G groups, F factors of a rule (1, log N, log D), P parameters, Q columns.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from harness.laws.forms import Array
from harness.laws.noise.intervals import TAILS, Curvature
from harness.laws.noise.noise import Labels, estimate

Mask = NDArray[np.bool_]
Pairs = tuple[tuple[int, int], ...]
# A column that less than this part of its square tells from others is one of them.
TOLD = 1e-6
# Rows that scatter less, by rounding alone, tell nothing of noise.
NOISELESS = 1e-9


@dataclass(frozen=True)
class Design:
    """Rows of log losses and log settings, the cell of each, and which settings vary within a cell.

    group_R labels rows that differ in settings alone, as of one cell and seed; cluster_R those of one trunk. weight_R
    is above 0 and says how much a row counts, not how noisy it is.
    """

    loss_R: Array
    setting_RK: Array
    cell_R: Labels
    group_R: Labels
    cluster_R: Labels | None
    active_CK: Mask
    weight_R: Array

    def keep(self, weight_R: Array) -> "Design":
        """The rows whose weight is above 0, with that weight."""
        keep_R = weight_R > 0
        cluster = None if self.cluster_R is None else self.cluster_R[keep_R]
        return replace(
            self, loss_R=self.loss_R[keep_R], setting_RK=self.setting_RK[keep_R], cell_R=self.cell_R[keep_R],
            group_R=self.group_R[keep_R], cluster_R=cluster, weight_R=weight_R[keep_R],
        )  # fmt: skip

    @cached_property
    def label_G(self) -> Labels:
        """The labels of the groups that have rows."""
        return np.unique(self.group_R)

    @cached_property
    def groups_RG(self) -> Array:
        return (self.group_R[:, None] == self.label_G).astype(float)

    def within(self, column_RQ: Array) -> Array:
        """Columns less their means within each group, times the root of the weights."""
        weighted_RG = self.groups_RG * self.weight_R[:, None]
        mean_GQ = (weighted_RG.T @ column_RQ) / weighted_RG.sum(0)[:, None]
        return (column_RQ - self.groups_RG @ mean_GQ) * np.sqrt(self.weight_R)[:, None]

    def told_apart(self) -> Pairs:
        """The entries of H that the rows tell from each cell's own minimum, and from each other: squares first."""
        settings = range(self.setting_RK.shape[1])
        cells_RC = np.eye(len(self.active_CK))[self.cell_R]
        slope_RQ = (cells_RC[:, :, None] * self.setting_RK[:, None, :]).reshape(len(self.loss_R), -1)
        known_RQ, found = self.within(slope_RQ), []
        for j, k in sorted(((j, k) for j in settings for k in settings if j <= k), key=lambda pair: pair[0] != pair[1]):
            column_R = self.within((self.setting_RK[:, j] * self.setting_RK[:, k])[:, None])[:, 0]
            rest_R = column_R - known_RQ @ np.linalg.lstsq(known_RQ, column_R, rcond=1e-9)[0]
            if (rest_R**2).sum() > TOLD * max(float((column_R**2).sum()), TOLD):
                found.append((j, k))
                known_RQ = np.concatenate([known_RQ, column_R[:, None]], axis=1)
        return tuple(sorted(found))


@dataclass(frozen=True)
class Bowl:
    """What is fitted to a design: `pairs` are the entries of H, `cubed` the settings with a kappa.

    factor_CF is what a rule is a sum of at each cell; None where each cell has minima of its own. theta_P holds the
    minima, the entries of H and the kappas.
    """

    design: Design
    pairs: Pairs
    cubed: tuple[int, ...] = ()
    factor_CF: Array | None = None

    @cached_property
    def place(self) -> NDArray[np.intp]:
        """Where theta has what belongs to a cell, or to a factor, and a setting; -1 where it has none."""
        active_CK = self.design.active_CK
        if self.factor_CF is not None:
            return np.arange(self.factor_CF.shape[1] * active_CK.shape[1]).reshape(-1, active_CK.shape[1])
        place_CK = np.full(active_CK.shape, -1)
        place_CK[active_CK] = np.arange(int(active_CK.sum()))
        return place_CK

    @property
    def before(self) -> int:
        """How many parameters place the minima."""
        return int(self.place.max()) + 1

    def minima(self, theta_P: Array) -> Array:
        """Log settings of each cell's minimum, (C, K); nan where a setting does not vary."""
        if self.factor_CF is not None:
            return np.where(self.design.active_CK, self.factor_CF @ theta_P[self.place], np.nan)
        return np.where(self.place >= 0, theta_P[np.maximum(self.place, 0)], np.nan)

    def bend(self, theta_P: Array) -> Array:
        """H, (K, K)."""
        H_KK = np.zeros((self.design.setting_RK.shape[1],) * 2)
        for number, (j, k) in enumerate(self.pairs):
            H_KK[j, k] = H_KK[k, j] = theta_P[self.before + number]
        return H_KK

    def kappa(self, theta_P: Array) -> Array:
        kappa_K = np.zeros(self.design.setting_RK.shape[1])
        kappa_K[list(self.cubed)] = theta_P[len(theta_P) - len(self.cubed) :]
        return kappa_K

    def offsets(self, theta_P: Array) -> Array:
        """v, (R, K); 0 where a setting does not vary in a cell."""
        return np.nan_to_num(self.design.setting_RK - self.minima(theta_P)[self.design.cell_R])

    def floors(self, theta_P: Array) -> Array:
        """The log losses of rows less their height over the minimum, (R,)."""
        v_RK = self.offsets(theta_P)
        return self.design.loss_R - ((v_RK @ self.bend(theta_P)) * v_RK).sum(1) / 2 - v_RK**3 @ self.kappa(theta_P)

    def residuals(self, theta_P: Array) -> Array:
        return self.design.within(self.floors(theta_P)[:, None])[:, 0]

    def gradient(self, theta_P: Array) -> Array:
        """Of the residuals, (R, P)."""
        return self.design.within(self.slopes(theta_P))

    def slopes(self, theta_P: Array) -> Array:
        """Of the floors by theta, (R, P)."""
        v_RK = self.offsets(theta_P)
        down_RK = v_RK @ self.bend(theta_P) + 3 * v_RK**2 * self.kappa(theta_P)
        J_RP = np.zeros((len(v_RK), self.before + len(self.pairs) + len(self.cubed)))
        J_RP[:, : self.before] = self.spread(down_RK)
        for number, (j, k) in enumerate(self.pairs):
            J_RP[:, self.before + number] = -v_RK[:, j] * v_RK[:, k] * (0.5 if j == k else 1.0)
        for number, k in enumerate(self.cubed):
            J_RP[:, self.before + len(self.pairs) + number] = -(v_RK[:, k] ** 3)
        return J_RP

    def spread(self, value_RK: Array) -> Array:
        """A value of each row and setting as columns of the parameters that place the minima, (R, before)."""
        cell_R, rows = self.design.cell_R, np.arange(len(value_RK))
        column_RP = np.zeros((len(rows), self.before))
        for k in range(value_RK.shape[1]):
            held_R = self.design.active_CK[cell_R, k]
            if self.factor_CF is not None:
                column_RP[:, self.place[:, k]] = self.factor_CF[cell_R] * (held_R * value_RK[:, k])[:, None]
            else:
                column_RP[rows[held_R], self.place[cell_R[held_R], k]] = value_RK[held_R, k]
        return column_RP

    def start(self) -> Array | None:
        """theta where nothing is cubic, whose slopes and H are a linear problem; None where H has no minimum."""
        u_RK = np.where(self.design.active_CK[self.design.cell_R], self.design.setting_RK, 0.0)
        bend_RQ = [u_RK[:, j] * u_RK[:, k] * (0.5 if j == k else 1.0) for j, k in self.pairs]
        columns_RP = self.design.within(np.concatenate([self.spread(u_RK), np.stack(bend_RQ, axis=1)], axis=1))
        loss_R = self.design.within(self.design.loss_R[:, None])[:, 0]
        theta_P = np.asarray(np.linalg.lstsq(columns_RP, loss_R, rcond=1e-10)[0], float)
        H_KK = self.bend(theta_P)
        if not (np.linalg.eigvalsh(H_KK) > 0).all():
            return None
        for place_K in self.place:
            held_K = place_K >= 0
            if held_K.any():
                theta_P[place_K[held_K]] = -np.linalg.solve(H_KK[np.ix_(held_K, held_K)], theta_P[place_K[held_K]])
        return np.concatenate([theta_P, np.zeros(len(self.cubed))])


@dataclass(frozen=True)
class Basin:
    """A fitted bowl; `residual_sd` is that of a row about it."""

    bowl: Bowl
    theta_P: Array
    curvature: Curvature
    residual_sd: float

    @property
    def noiseless(self) -> bool:
        return self.residual_sd < NOISELESS

    @property
    def best_CK(self) -> Array:
        return self.bowl.minima(self.theta_P)

    @cached_property
    def half_CK(self) -> Array:
        """Half the 95 % interval of each cell's minimum, (C, K); nan where a setting does not vary."""
        place_CK = self.bowl.place
        sd_P, freedom_P = self.curvature.spread(np.eye(len(self.theta_P)))
        half_P = sd_P * special.stdtrit(np.maximum(freedom_P, 1.0), TAILS[1])
        return np.where(place_CK >= 0, half_P[np.maximum(place_CK, 0)], np.nan)

    @property
    def H_KK(self) -> Array:
        return self.bowl.bend(self.theta_P)


def fit_basin(bowl: Bowl) -> Basin | None:
    """The basin of least squared residuals; None where the loss does not curve upward in every setting, or the rows
    are too few."""
    rows, free = bowl.design.groups_RG.shape
    start_P = bowl.start() if bowl.pairs and bowl.before else None
    if start_P is None or rows < free + len(start_P) + 1:
        return None
    found = optimize.least_squares(bowl.residuals, start_P, bowl.gradient, method="lm")
    theta_P = found.x
    if not (np.isfinite(theta_P).all() and (np.linalg.eigvalsh(bowl.bend(theta_P)) > 0).all()):
        return None
    root_R = np.sqrt(bowl.design.weight_R)
    weighted_RP = -bowl.gradient(theta_P)
    gain_PR = np.asarray(np.linalg.pinv(weighted_RP, rcond=1e-9) * root_R, float)
    # All rows are as noisy, whatever they count: their noise is that of what no column explains.
    own_RP = np.concatenate([bowl.design.groups_RG, weighted_RP / root_R[:, None]], axis=1)
    basis_RP = np.linalg.qr(own_RP)[0]
    plain_R = found.fun / root_R
    residual_R = plain_R - basis_RP @ (basis_RP.T @ plain_R)
    noise = estimate(own_RP, residual_R, bowl.design.cluster_R)
    sd = float(np.sqrt((residual_R**2).sum() / (rows - own_RP.shape[1])))
    return Basin(bowl, theta_P, Curvature(gain_PR, noise), sd)
