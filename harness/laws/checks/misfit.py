"""Noise and misfit told apart: what seeds measure against what the law leaves over, and the intervals under each noise.

Shapes: R rows, S draws.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from harness.laws.fit import Fit
from harness.laws.forms import Array
from harness.laws.noise import intervals as ci
from harness.laws.noise.intervals import whitened
from harness.laws.noise.noise import Labels, Noise

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Measured:
    """Normal noise of the size that seeds measured, of trunks and of cells; its variance is drawn from a chi-square.

    `freedom` are the degrees of freedom of the measurement, infinite where the noise is known.
    """

    trunk_sd: float
    cell_sd: float
    freedom: float
    cluster_R: Labels

    def draw(self, draws: int, generator: np.random.Generator) -> tuple[Array, Array]:
        """Noise (S, R) and the standard deviation of a new run (S,)."""
        known = np.isinf(self.freedom)
        widen_S = np.ones(draws) if known else np.sqrt(self.freedom / generator.chisquare(self.freedom, draws))
        noise_SR = self.cell_sd * generator.standard_normal((draws, len(self.cluster_R)))
        shared_SK = self.trunk_sd * generator.standard_normal((draws, int(self.cluster_R.max()) + 1))
        sd = float(np.hypot(self.trunk_sd, self.cell_sd))
        return (noise_SR + shared_SK[:, self.cluster_R]) * widen_S[:, None], sd * widen_S


def lack_of_fit(fit: Fit, shape_R: Labels, budget_R: Labels) -> dict[str, Any] | None:
    """The F test of the law against the spread of cells that were trained more than once (Draper and Smith 1998,
    section 2.1); None without such cells, or where the loss of the fit is not of log residuals."""
    if not fit.problem.loss.in_logs:
        return None
    J_RP, residual_R = whitened(fit.problem, fit.theta_P)
    low_P, high_P = fit.form.bounds()
    count = int(((fit.theta_P > low_P) & (fit.theta_P < high_P)).sum())
    cell_R = np.unique(shape_R * (int(budget_R.max()) + 1) + budget_R, return_inverse=True)[1]
    weight_R = fit.problem.weight_R
    mean_G = np.bincount(cell_R, weights=weight_R * np.log(fit.rows.loss)) / np.bincount(cell_R, weights=weight_R)
    pure = float((weight_R * (np.log(fit.rows.loss) - mean_G[cell_R]) ** 2).sum())
    freedom = len(cell_R) - len(mean_G)
    rest = len(residual_R) - count - freedom
    if freedom < 1 or rest < 1 or pure == 0:
        return None
    of_law = max(float((residual_R**2).sum()) - pure, 0.0) / rest
    ratio = of_law / (pure / freedom)
    return {
        "f": ratio,
        "degrees_of_freedom": [rest, freedom],
        "p": float(special.fdtrc(rest, freedom, ratio)),
        "noise_sd": float(np.sqrt(pure / freedom)),
        "misfit_sd": float(np.sqrt(max(of_law - pure / freedom, 0.0))),
    }


def sentence(test: dict[str, Any] | None) -> list[str]:
    """What a test that fails means for the reader."""
    if test is None or test["p"] > SIGNIFICANT:
        return []
    first, second = test["degrees_of_freedom"]
    return [
        f"The law misfits by more than seeds explain: {test['misfit_sd']:.2%} beside a noise of {test['noise_sd']:.2%} "
        f"(F = {test['f']:.1f} with {first} and {second} degrees of freedom, p = {test['p']:.2g}). The intervals count "
        "the misfit as noise."
    ]


def by_noise(fit: Fit, seeds: dict[str, Any] | None, draws: int, seed: int) -> list[dict[str, Any]]:
    """The intervals under each noise: of independent rows, of trunks and cells, and as measured between seeds.

    The first two are estimated from the residuals, so misfit counts as noise; the third holds if the law is exact.
    """
    labels_R = np.arange(len(fit.rows)) if fit.rows.cluster is None else fit.rows.cluster
    rows = ci.row_noise(fit.problem, fit.theta_P, None)
    kinds: list[tuple[str, Noise | Measured]] = [("independent rows", rows)]
    if fit.rows.cluster is not None:
        kinds.append(("trunks and cells", fit.noise))
    if seeds is not None and fit.problem.loss.in_logs:
        split = seeds["trunk_sd_relative"] is not None
        trunk, cell = (seeds[f"{kind}_sd_relative"] if split else value for kind, value in
                       (("trunk", 0.0), ("cell", seeds["sd_relative"])))  # fmt: skip
        kinds.append(("measured between seeds", Measured(trunk, cell, seeds["degrees_of_freedom"], labels_R)))
    section = []
    for name, noise in kinds:
        drawn = fit.draws if noise is fit.noise else None
        drawn = drawn or ci.refit(fit.problem, fit.theta_P, ci.simulate(fit.problem, fit.theta_P, noise, draws, seed))
        found = ci.percentile_intervals(fit.problem, drawn)
        section.append({"noise": name, "intervals": {key: part and list(part) for key, part in found.items()}})
    return section
