"""95 % intervals of a fit: from the curvature, or from simulated tables that are fitted like the real one.

The design is held fixed: a sweep has too few trunks to resample them. Shapes: S draws, R rows, P parameters.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.laws.forms import Array
from harness.laws.forms.repeated import REPEATS
from harness.laws.noise.noise import Noise, estimate
from harness.laws.solving.losses import Loss
from harness.laws.solving.solver import Problem, solve

CONFIDENCE = 0.95
TAILS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
# Simulated targets held in memory at once.
CHUNK = 2_000_000
DRAW_ITERATIONS, DRAW_TOLERANCE = 60, 1e-5
LAD_DRAW_DELTA = 1e-5
COEFFICIENTS = ("A", "B", "G", "Nc", "Dc", "Cc", "N1", "D1", "C1", "f", *REPEATS)
# Simulated log losses stay where float64 can say them, however wild the noise of a hopeless table.
LARGEST_LOG = 100.0


@dataclass(frozen=True)
class Draws:
    """Parameters fitted to simulated tables, theta_SP, and the noise of a new run in each, sd_S."""

    theta_SP: Array
    sd_S: Array
    converged: float


@dataclass(frozen=True)
class Curvature:
    """Linearised fit: the free parameters' gain (P, R) on the rows' noise, zero where a parameter is held."""

    gain_PR: Array
    noise: Noise

    def spread(self, gradient_CP: Array) -> tuple[Array, Array]:
        """Standard deviation and degrees of freedom of functions with these gradients, (C,) each."""
        return self.noise.spread(gradient_CP @ self.gain_PR)


def linearise(
    problem: Problem, theta_P: Array, groups: Any, estimator: Callable[[Array, Array, Any], Noise] = estimate
) -> Curvature:
    """The curvature at a solution; `estimator` takes gradient, influences and groups, the labels of trunks or None."""
    J_RP, xi_R = influence(problem, theta_P)
    low_P, high_P = problem.form.bounds()
    free_P = (theta_P > low_P) & (theta_P < high_P)
    gain_PR = np.zeros((len(theta_P), len(xi_R)))
    gain_PR[free_P] = np.linalg.pinv(J_RP[:, free_P], rcond=1e-9)
    return Curvature(gain_PR, estimator(J_RP[:, free_P], xi_R, groups))


def influence(problem: Problem, theta_P: Array) -> tuple[Array, Array]:
    """Whitened gradient and the influence of each row: huber's and lad's by their influence functions.

    theta moves by gain @ xi, where xi is slope(residual) / mean curvature of the loss (Huber 1964).
    """
    J_RP, residual_R = whitened(problem, theta_P)
    xi_R = residual_R
    if problem.loss.kind in ("huber", "lad"):
        size_R = np.abs(residual_R)
        # The share of rows within delta is too noisy to be counted where delta is small: widen it.
        band = max(problem.loss.delta, 1.5 * float(np.median(size_R)) * len(size_R) ** -0.2, 1e-12)
        delta = problem.loss.delta if problem.loss.kind == "huber" else 1e-12
        xi_R = np.clip(residual_R, -delta, delta) / (delta / band * max((size_R <= band).mean(), 0.05))
    return J_RP, xi_R


def whitened(problem: Problem, theta_P: Array) -> tuple[Array, Array]:
    """Gradient of the prediction and residual, both times the root of the weight, in the loss's own space."""
    f_MR, J_MRP = problem.form.derivatives(theta_P[None], problem.at)
    root_R = np.sqrt(problem.weight_R)
    J_RP = J_MRP[0] if problem.loss.in_logs else J_MRP[0] * np.exp(f_MR[0])[:, None]
    return J_RP * root_R[:, None], problem.residual(theta_P[None])[0] * root_R


def row_noise(
    problem: Problem, theta_P: Array, groups: Any, estimator: Callable[[Array, Array, Any], Noise] = estimate
) -> Noise:
    """The noise of the (whitened) residuals of a fit; `estimator` and `groups` as of `linearise`."""
    J_RP, residual_R = whitened(problem, theta_P)
    low_P, high_P = problem.form.bounds()
    return estimator(J_RP[:, (theta_P > low_P) & (theta_P < high_P)], residual_R, groups)


class Drawn(Protocol):
    """A noise that tables can be simulated with."""

    def draw(self, draws: int, generator: np.random.Generator) -> tuple[Array, Array]: ...


def simulate(problem: Problem, theta_P: Array, noise: Drawn, draws: int, seed: int) -> Iterator[tuple[Array, Array]]:
    """Simulated targets (s, R) around the fit with the noise of a new run (s,), in chunks; the same each time."""
    generator = np.random.default_rng(seed)
    f_R = problem.form.log_prediction(theta_P[None], problem.at)[0]
    root_R = np.sqrt(problem.weight_R)
    left, most = draws, max(1, CHUNK // len(f_R))
    while left > 0:
        noise_SR, sd_S = noise.draw(min(left, most), generator)
        left -= len(sd_S)
        noise_SR = noise_SR / root_R
        if problem.loss.in_logs:
            yield np.exp(np.clip(f_R + noise_SR, -LARGEST_LOG, LARGEST_LOG)), sd_S
        else:
            yield np.maximum(np.exp(f_R) + noise_SR, 1e-12), sd_S


def refit(problem: Problem, theta_P: Array, targets: Iterator[tuple[Array, Array]]) -> Draws:
    """Fits every simulated table, starting from the fit of the real one.

    lad is fitted as Huber with a delta far below any noise: its exact kinks cost much and move no quantile.
    """
    if problem.loss.kind == "lad":
        problem = replace(problem, loss=Loss("huber", LAD_DRAW_DELTA))
    parts, sds, converged = [], [], []
    for target_SR, sd_S in targets:
        starts_SP = np.repeat(theta_P[None], len(target_SR), axis=0)
        solution = solve(replace(problem, target=target_SR), starts_SP, DRAW_ITERATIONS, DRAW_TOLERANCE)
        parts.append(solution.theta_MP)
        sds.append(sd_S)
        converged.append(solution.converged_M)
    return Draws(np.concatenate(parts), np.concatenate(sds), float(np.concatenate(converged).mean()))


def curvature_intervals(
    problem: Problem, theta_P: Array, curvature: Curvature
) -> dict[str, tuple[float, float] | None]:
    """Student's t intervals of the natural parameters; on the log where the parameter is a coefficient.

    None where a bound holds the parameter, or where the rows leave no finite interval.
    """
    step_PP = 1e-5 * np.eye(len(theta_P))
    here, up, down = (_natural(problem, theta_P + step) for step in (np.zeros((1, 1)), step_PP, -step_PP))
    intervals: dict[str, tuple[float, float] | None] = {}
    for name in here:
        # Coefficients such as A span orders of magnitude.
        on_log = name in COEFFICIENTS
        # What a hopeless table leaves undetermined may be infinite on the way, and then has no interval.
        with np.errstate(all="ignore"):
            value, above_P, below_P = (np.log(part[name]) if on_log else part[name] for part in (here, up, down))
            gradient_P = (above_P - below_P) / 2e-5
            sd_C, freedom_C = curvature.spread(gradient_P[None])
            half = float(sd_C[0] * special.stdtrit(max(freedom_C[0], 1.0), TAILS[1]))
            ends = value[0] + np.array([-half, half])
            ends = np.exp(ends) if on_log else ends
        fixed = not np.any(gradient_P @ curvature.gain_PR)
        intervals[name] = None if fixed or not np.isfinite(ends).all() else (float(ends[0]), float(ends[1]))
    return intervals


def percentile_intervals(problem: Problem, draws: Draws) -> dict[str, tuple[float, float] | None]:
    """The central 95 % of the natural parameters over the simulated tables."""
    intervals: dict[str, tuple[float, float] | None] = {}
    for name, value_S in _natural(problem, draws.theta_SP).items():
        low, high = quantiles(value_S)
        intervals[name] = (float(low), float(high)) if np.isfinite([low, high]).all() else None
    return intervals


def quantiles(value_S: Array, level: float = CONFIDENCE) -> NDArray[np.float64]:
    """The two ends of the central part along the first axis."""
    return np.quantile(value_S, ((1 - level) / 2, (1 + level) / 2), axis=0)


def _natural(problem: Problem, theta_MP: Array) -> dict[str, Array]:
    return problem.form.natural(theta_MP, problem.at)
