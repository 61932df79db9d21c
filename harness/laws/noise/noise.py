"""How much of the misfit the runs of one trunk share, and how well a few trunks can tell.

Shapes: R rows, P parameters, K clusters (trunks), C contrasts, S draws.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.laws.forms import Array

Labels = NDArray[np.intp]
# From this many independent clusters on, their residuals speak for themselves.
MANY_CLUSTERS = 40
SHARES = 400


@dataclass(frozen=True)
class Components:
    """Normal noise: a variance that a trunk shares and a variance of each cell, both estimated.

    `squares_J` are the sums of squared residuals between and within trunks, `freedom_J` their degrees of
    freedom; `mixing_JC` maps the variances (trunk, cell) to the expected squares. J is 1 where the law takes up all
    that trunks differ by, so that only cells show their noise, and C is 1 where rows count as independent.
    """

    squares_J: Array
    freedom_J: Array
    mixing_JC: Array
    cluster_R: Labels

    @property
    def independent(self) -> bool:
        return self.mixing_JC.shape[1] == 1

    @property
    def trunks_hidden(self) -> bool:
        """Whether the residuals say nothing of what trunks share, as of three trunks under a law with three terms."""
        return not self.independent and len(self.squares_J) == 1

    @property
    def words(self) -> str:
        if self.independent:
            return "independent normal noise of the rows, its variance drawn too"
        if self.trunks_hidden:
            return "normal noise of trunks and of cells, any share of the trunks as likely: too few trunks to show it"
        return "normal noise of trunks and of cells, its size and the share of the trunks drawn given the residuals"

    @property
    def curvature_words(self) -> str:
        if self.independent:
            return "the residual variance"
        if self.trunks_hidden:
            return "the variance of cells and any share of the trunks as likely: too few trunks to show it"
        return "variances of trunks and of cells estimated from the residuals, any share of the trunks as likely"

    def variances(self, squares_SJ: Array) -> tuple[Array, Array]:
        """Trunk and cell variances, (S,); a negative one is set to 0 and the squares are pooled.

        Where trunks hide theirs, it counts as large as that of cells, the median of what is possible.
        """
        if len(self.squares_J) == 1:
            cell_S = squares_SJ[:, 0] / self.freedom_J[0]
            return cell_S if self.trunks_hidden else np.zeros(len(squares_SJ)), cell_S
        variance_SC = squares_SJ @ np.linalg.inv(self.mixing_JC).T
        proper_S = (variance_SC > 0).all(1)
        pooled_S = squares_SJ.sum(1) / self.freedom_J.sum()
        return np.where(proper_S, variance_SC[:, 0], 0.0), np.where(proper_S, variance_SC[:, 1], pooled_S)

    @property
    def estimates(self) -> tuple[float, float]:
        trunk_S, cell_S = self.variances(self.squares_J[None])
        return float(trunk_S[0]), float(cell_S[0])

    def shares(self) -> tuple[Array, Array, Array]:
        """Possible shares of the trunks in the variance, their probabilities, and the total variance times chi-square
        under each, (G,).

        The total's scale and the share are unknown, and any share is as likely beforehand: a few trunks alone would
        leave their variance almost without an upper end.
        """
        if self.independent:
            return np.zeros(1), np.ones(1), self.squares_J
        share_G = (np.arange(SHARES) + 0.5) / SHARES
        expected_GJ = np.stack([share_G, 1 - share_G], axis=1) @ self.mixing_JC.T
        scaled_G = (self.squares_J * self.freedom_J / expected_GJ).sum(1)
        total_freedom = self.freedom_J.sum()
        log_G = -0.5 * ((self.freedom_J * np.log(expected_GJ)).sum(1) + total_freedom * np.log(scaled_G + 1e-300))
        weight_G = np.exp(log_G - log_G.max())
        return share_G, weight_G / weight_G.sum(), scaled_G

    def draw(self, draws: int, generator: np.random.Generator) -> tuple[Array, Array]:
        """Noise (S, R) and the standard deviation of a new run (S,); the variances are drawn, as Student's t does."""
        share_G, weight_G, scaled_G = self.shares()
        pick_S = generator.choice(len(share_G), draws, p=weight_G)
        total_S = scaled_G[pick_S] / generator.chisquare(self.freedom_J.sum(), draws)
        trunk_S, cell_S = share_G[pick_S] * total_S, (1 - share_G[pick_S]) * total_S
        noise_SR = generator.standard_normal((draws, len(self.cluster_R))) * np.sqrt(cell_S)[:, None]
        if trunk_S.any():
            shared_SK = generator.standard_normal((draws, int(self.cluster_R.max()) + 1))
            noise_SR += (shared_SK * np.sqrt(trunk_S)[:, None])[:, self.cluster_R]
        return noise_SR, np.sqrt(trunk_S + cell_S)

    def spread(self, contrast_CR: Array) -> tuple[Array, Array]:
        """Standard deviation and degrees of freedom of contrasts of the rows, (C,) each: Student's t whose inverse
        variance has the mean and variance that these have over the shares of the trunks."""
        cell_C = (contrast_CR**2).sum(1)
        freedom = float(self.freedom_J.sum())
        if self.independent:
            return np.sqrt(self.squares_J[0] / freedom * cell_C), np.full(len(contrast_CR), freedom)
        trunk_C = (sums(contrast_CR, self.cluster_R) ** 2).sum(1)
        share_G, weight_G, scaled_G = self.shares()
        variance_GC = scaled_G[:, None] * (share_G[:, None] * trunk_C + (1 - share_G[:, None]) * cell_C) + 1e-120
        mean_C = weight_G @ (freedom / variance_GC)
        square_C = weight_G @ ((freedom**2 + 2 * freedom) / variance_GC**2)
        return 1 / np.sqrt(mean_C), 2 * mean_C**2 / (square_C - mean_C**2)


@dataclass(frozen=True)
class Wild:
    """The residuals themselves, each cluster with a random sign; for many clusters, any distribution."""

    residual_R: Array
    cluster_R: Labels
    freedom: float

    trunks_hidden = False
    words = "wild bootstrap: the residuals, one random sign a run"
    curvature_words = "its cluster-robust sandwich"

    def draw(self, draws: int, generator: np.random.Generator) -> tuple[Array, Array]:
        sign_SK = generator.choice([-1.0, 1.0], (draws, int(self.cluster_R.max()) + 1))
        sd = float(np.sqrt((self.residual_R**2).mean()))
        return self.residual_R * sign_SK[:, self.cluster_R], np.full(draws, sd)

    def spread(self, contrast_CR: Array) -> tuple[Array, Array]:
        score_CK = sums(contrast_CR * self.residual_R, self.cluster_R)
        return np.sqrt((score_CK**2).sum(1)), np.full(len(contrast_CR), self.freedom)

    @property
    def estimates(self) -> tuple[float, float]:
        return 0.0, float((self.residual_R**2).mean())


class Noise(Protocol):
    """What residuals say of the noise behind them."""

    @property
    def cluster_R(self) -> Labels: ...

    @property
    def trunks_hidden(self) -> bool:
        """Whether the residuals say nothing of what trunks share."""

    @property
    def words(self) -> str: ...

    @property
    def curvature_words(self) -> str: ...

    @property
    def estimates(self) -> tuple[float, float]:
        """The variances of trunks and of cells."""

    def draw(self, draws: int, generator: np.random.Generator) -> tuple[Array, Array]:
        """Noise (S, R) and the standard deviation of a new run (S,)."""

    def spread(self, contrast_CR: Array) -> tuple[Array, Array]:
        """Standard deviation and degrees of freedom of contrasts of the rows, (C,) each."""


def estimate(J_RP: Array, residual_R: Array, cluster_R: Labels | None) -> Noise:
    """The noise behind residuals of a fit whose gradient is J_RP (full column rank, R > P)."""
    rows, count = J_RP.shape
    alone = cluster_R is None
    labels_R = np.arange(rows) if cluster_R is None else np.unique(cluster_R, return_inverse=True)[1]
    clusters = int(labels_R.max()) + 1
    Q_RP, _ = np.linalg.qr(J_RP)
    if clusters >= max(MANY_CLUSTERS, 3 * count):
        leverage_R = np.minimum((Q_RP**2).sum(1), 0.9)
        # HC3 of MacKinnon and White (1985): without it 95 % intervals of 60 rows cover 92.6 %.
        return Wild(residual_R / (1 - leverage_R), labels_R, float(clusters - count))
    total = float((residual_R**2).sum())
    independent = Components(np.array([total]), np.array([float(rows - count)]), np.ones((1, 1)), labels_R)
    if alone or clusters == rows:
        return independent
    return _two_components(Q_RP, residual_R, labels_R) or independent


def _two_components(Q_RP: Array, residual_R: Array, labels_R: Labels) -> Components | None:
    """Henderson's method 3 on the linearised fit; None where cells leave no degree of freedom within their trunks."""
    rows, count = Q_RP.shape
    size_K = np.bincount(labels_R).astype(float)
    sums_KP = sums(Q_RP.T, labels_R).T
    means_KP = sums_KP / np.sqrt(size_K)[:, None]
    # The projection on trunks, between the residual projection, seen from trunk sums and from trunk means.
    shared_KK = np.diag(np.sqrt(size_K)) - means_KP @ sums_KP.T
    between_KK = np.eye(len(size_K)) - means_KP @ means_KP.T
    between_freedom = float(np.trace(between_KK))
    within_freedom = rows - count - between_freedom
    if within_freedom < 0.9:
        return None
    shared_between = float((shared_KK**2).sum())
    shared_total = float(size_K.sum() - (sums_KP**2).sum())
    mixing_JC = np.array([[shared_between, between_freedom], [max(shared_total - shared_between, 0.0), within_freedom]])
    between = float((sums(residual_R[None], labels_R)[0] ** 2 / size_K).sum())
    squares_J = np.array([between, max(float((residual_R**2).sum()) - between, 0.0)])
    if between_freedom < 0.9:
        return Components(squares_J[1:], np.array([within_freedom]), mixing_JC[1:], labels_R)
    draft = Components(squares_J, np.array([between_freedom, within_freedom]), mixing_JC, labels_R)
    trunk, cell = draft.estimates
    law_KK = trunk * shared_KK @ shared_KK.T + cell * between_KK
    spread = float((law_KK**2).sum())
    effective = float(np.trace(law_KK)) ** 2 / spread if spread > 0 else between_freedom
    return Components(squares_J, np.array([effective, within_freedom]), mixing_JC, labels_R)


def sums(values_CR: Array, labels_R: Labels) -> Array:
    """Sums over the rows of each cluster, (C, K)."""
    return np.stack([np.bincount(labels_R, weights=values_R) for values_R in values_CR])
