"""How much of their noise the runs of two variants share that have a shape, a seed and a budget in common.

They see the same batches, from the same initialisation where their parameters are the same. Shapes: R rows,
P parameters, C contrasts, S draws, G shares of trunks and of pairs, B groups that share no noise, N rows of one.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from harness.laws.forms import Array
from harness.laws.noise.noise import MANY_CLUSTERS, Labels, Noise, Wild, estimate, sums

# Shares of the noise that are tried, of trunks and of pairs each, so many from 0 to 1.
SHARES = 20
# Pairs may also look less alike than strangers, by chance: without such shares, intervals of a difference would be too
# narrow where pairs have nothing in common (93.7 % where 95 % are said). Over the partners that a run has.
LEAST_SHARE = -0.25


@dataclass(frozen=True)
class Block:
    """The rows of all groups with one covariance, that under each share by its root and its inverse."""

    rows_BN: NDArray[np.intp]
    root_GNN: Array
    inverse_GNN: Array
    determinant_G: Array  # its log


@dataclass(frozen=True)
class Shares:
    """The shares that are tried, of trunks and of pairs, and how likely each is beforehand, (G,)."""

    trunk_G: Array
    pair_G: Array
    prior_G: Array
    blocks: list[Block]


@dataclass(frozen=True)
class Groups:
    """Which rows are of one trunk, (R,), and which trunks and cells of several variants are paired.

    A row without a partner has labels of its own. `trunks` says whether the table tells its runs apart.
    """

    trunk_R: Labels
    pair_of_trunk_R: Labels
    pair_of_cell_R: Labels
    trunks: bool

    @property
    def paired(self) -> bool:
        """Whether any cell has a partner."""
        return len(np.unique(self.pair_of_cell_R)) < len(self.pair_of_cell_R)

    @cached_property
    def shares(self) -> Shares:
        share = (np.arange(SHARES) + 0.5) / SHARES
        below = LEAST_SHARE * (np.arange(SHARES // 4)[::-1] + 0.5) / (SHARES // 4) / _partners(self)
        trunk_share = share if self.trunks else np.zeros(1)
        trunk_G, pair_G = (grid.ravel() for grid in np.meshgrid(trunk_share, np.concatenate([below, share])))
        # Where the shares below 0 lie closer they count less.
        prior_G = np.where(pair_G < 0, -LEAST_SHARE * 4 / _partners(self), 1.0)
        return Shares(trunk_G, pair_G, prior_G, _blocks(self, trunk_G, pair_G))


@dataclass(frozen=True)
class Paired:
    """Normal noise of one variance, a share of it the trunk's, and a share of both common to the runs of a pair.

    `quadratic_G` is the generalised sum of squared residuals under each pair of shares, `weight_G` their probability
    given the residuals where all are as likely beforehand (restricted likelihood, Patterson and Thompson 1971).
    """

    groups: Groups
    weight_G: Array
    quadratic_G: Array
    freedom: float

    trunks_hidden = False

    @property
    def cluster_R(self) -> Labels:
        return self.groups.trunk_R

    words = (
        "normal noise of trunks and of cells, part of it common to paired runs, its size, the share of the trunks and "
        "that of the pairs drawn given the residuals"
    )
    curvature_words = (
        "one variance, the share of the trunks and that of the pairs given the residuals, any as likely beforehand"
    )

    def draw(self, draws: int, generator: np.random.Generator) -> tuple[Array, Array]:
        """Noise (S, R) and the standard deviation of a new run (S,)."""
        pick_S = generator.choice(len(self.weight_G), draws, p=self.weight_G)
        sd_S = np.sqrt(self.quadratic_G[pick_S] / generator.chisquare(self.freedom, draws))
        noise_SR = generator.standard_normal((draws, len(self.groups.trunk_R)))
        for shares in np.unique(pick_S):
            drawn_S = np.flatnonzero(pick_S == shares)
            for block in self.groups.shares.blocks:
                where = np.ix_(drawn_S, block.rows_BN.ravel())
                apart_SBN = noise_SR[where].reshape(len(drawn_S), *block.rows_BN.shape)
                noise_SR[where] = (apart_SBN @ block.root_GNN[shares].T).reshape(len(drawn_S), -1)
        return noise_SR * sd_S[:, None], sd_S

    @cached_property
    def _parts(self) -> list[tuple[Labels, Array]]:
        """The labels of what shares noise, and its part of the variance."""
        groups, trunk_G, pair_G = self.groups, self.groups.shares.trunk_G, self.groups.shares.pair_G
        alone_R = np.arange(len(groups.trunk_R))
        return [
            (groups.trunk_R, (1 - pair_G) * trunk_G),
            (alone_R, (1 - pair_G) * (1 - trunk_G)),
            (groups.pair_of_trunk_R, pair_G * trunk_G),
            (groups.pair_of_cell_R, pair_G * (1 - trunk_G)),
        ]

    def variances(self, contrast_CR: Array) -> Array:
        """Of contrasts of the rows under each share, in units of the noise's variance, (G, C)."""
        return sum(
            (share_G[:, None] * (sums(contrast_CR, label_R) ** 2).sum(1) for label_R, share_G in self._parts),
            np.zeros((len(self.weight_G), len(contrast_CR))),
        )

    def covariances(self, contrast_CR: Array) -> Array:
        """Likewise the covariances of the contrasts, (G, C, C)."""
        found = np.zeros((len(self.weight_G), len(contrast_CR), len(contrast_CR)))
        for label_R, share_G in self._parts:
            part_CK = sums(contrast_CR, label_R)
            found += share_G[:, None, None] * (part_CK @ part_CK.T)
        return found

    def spread(self, contrast_CR: Array) -> tuple[Array, Array]:
        """Standard deviation and degrees of freedom of contrasts, (C,) each, as of Components."""
        variance_GC = self.quadratic_G[:, None] * self.variances(contrast_CR) + 1e-120
        mean_C = self.weight_G @ (self.freedom / variance_GC)
        square_C = self.weight_G @ ((self.freedom**2 + 2 * self.freedom) / variance_GC**2)
        return 1 / np.sqrt(mean_C), 2 * mean_C**2 / (square_C - mean_C**2)

    @property
    def estimates(self) -> tuple[float, float]:
        total_G, trunk_G = self.quadratic_G / self.freedom, self.groups.shares.trunk_G
        return float(self.weight_G @ (trunk_G * total_G)), float(self.weight_G @ ((1 - trunk_G) * total_G))

    def share_of_pairs(self) -> tuple[float, float, float]:
        """The part of their noise that paired runs have in common: mean, and the central 95 %."""
        pair_G = self.groups.shares.pair_G
        order_G = np.argsort(pair_G, kind="stable")
        below_G = np.cumsum(self.weight_G[order_G]) - 0.5 * self.weight_G[order_G]
        low, high = np.maximum(np.interp([0.025, 0.975], below_G, pair_G[order_G]), 0.0)
        return max(float(self.weight_G @ pair_G), 0.0), float(low), float(high)


def estimate_paired(J_RP: Array, residual_R: Array, groups: Groups) -> Noise:
    """The noise behind residuals of a fit whose gradient is J_RP (full column rank, R > P)."""
    if not groups.paired:
        return estimate(J_RP, residual_R, groups.trunk_R if groups.trunks else None)
    clusters = len(np.unique(groups.pair_of_trunk_R))
    if clusters >= max(MANY_CLUSTERS, 3 * J_RP.shape[1]):
        wild = estimate(J_RP, residual_R, groups.pair_of_trunk_R)
        assert isinstance(wild, Wild)
        return wild
    freedom, shares = float(len(residual_R) - J_RP.shape[1]), groups.shares
    Z_RP = np.column_stack([J_RP / np.linalg.norm(J_RP, axis=0), residual_R])
    log_G, count = np.zeros(len(shares.trunk_G)), Z_RP.shape[1]
    cross_GPP = np.zeros((len(log_G), count, count))
    for block in shares.blocks:
        groups_B, size = block.rows_BN.shape
        log_G += groups_B * block.determinant_G
        Z_BX = Z_RP[block.rows_BN].reshape(groups_B, -1)
        outer = (Z_BX.T @ Z_BX).reshape(size, count, size, count).transpose(0, 2, 1, 3).reshape(size**2, -1)
        cross_GPP += (block.inverse_GNN.reshape(len(log_G), -1) @ outer).reshape(cross_GPP.shape)
    X_GPP, y_GP = cross_GPP[:, :-1, :-1], cross_GPP[:, :-1, -1]
    fitted_G = (y_GP * np.linalg.solve(X_GPP, y_GP[..., None])[..., 0]).sum(1)
    quadratic_G = np.maximum(cross_GPP[:, -1, -1] - fitted_G, 1e-300)
    log_G = -0.5 * (log_G + np.linalg.slogdet(X_GPP)[1] + freedom * np.log(quadratic_G))
    weight_G = shares.prior_G * np.exp(log_G - log_G.max())
    return Paired(groups, weight_G / weight_G.sum(), quadratic_G, freedom)


def _partners(groups: Groups) -> int:
    """The most partners that a trunk or a cell has."""
    pairs = np.unique(np.stack([groups.pair_of_trunk_R, groups.trunk_R]), axis=1)[0] if groups.trunks else []
    sizes = [int(np.bincount(labels).max()) for labels in (groups.pair_of_cell_R, pairs) if len(labels)]
    return max(sizes) - 1


def _blocks(groups: Groups, trunk_G: Array, pair_G: Array) -> list[Block]:
    alike: dict[bytes, list[NDArray[np.intp]]] = {}
    for rows_N in np.split(np.argsort(groups.pair_of_trunk_R, kind="stable"),
                           np.cumsum(np.bincount(groups.pair_of_trunk_R))[:-1]):  # fmt: skip
        alike.setdefault(_same(groups, rows_N).tobytes(), []).append(rows_N)
    found = []
    for blocks in alike.values():
        trunk_NN, cell_NN = _same(groups, blocks[0])
        one_NN, alone_NN = np.ones_like(trunk_NN), np.eye(len(trunk_NN))
        trunk_G11, pair_G11 = trunk_G[:, None, None], pair_G[:, None, None]
        own_GNN = trunk_G11 * trunk_NN + (1 - trunk_G11) * alone_NN
        common_GNN = trunk_G11 * one_NN + (1 - trunk_G11) * cell_NN
        covariance_GNN = (1 - pair_G11) * own_GNN + pair_G11 * common_GNN
        root_GNN = np.asarray(np.linalg.cholesky(covariance_GNN), float)
        determinant_G = 2 * np.log(np.diagonal(root_GNN, axis1=1, axis2=2)).sum(1)
        found.append(Block(np.array(blocks), root_GNN, np.linalg.inv(covariance_GNN), determinant_G))
    return found


def _same(groups: Groups, rows_N: NDArray[np.intp]) -> Array:
    """Which rows of a group are of one trunk, and which of one pair of cells, (2, N, N)."""
    labels = np.stack([groups.trunk_R[rows_N], groups.pair_of_cell_R[rows_N]])
    return (labels[:, :, None] == labels[:, None, :]).astype(float)
