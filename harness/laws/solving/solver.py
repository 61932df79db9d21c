"""Damped Newton steps on many fits at once: every start and every simulated table is one problem of a batch.

Shapes: M problems, R rows, P parameters.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.laws.forms import Array, Form, Variables
from harness.laws.solving.kinks import linear_step
from harness.laws.solving.losses import Loss

# Residuals below this are rounding, not misfit; float64 leaves up to a tenth of it in the best fit of exact losses.
FLOOR, ROUNDING = 1e-13, 0.1
LARGEST_DAMPING = 1e12
LONGEST_STEP = 1.0
# Problems times rows worked on at once: larger temporaries leave the cache, and memory would grow with the table.
BLOCK = 30_000
# In a table of more than twice as many rows, the starts descend on a sample of this size.
SAMPLE_ROWS = 1_000
# Minima of the sample that lie closer than this are one; at most so many are followed.
SAME_MINIMUM, MOST_MINIMA = 1e-3, 8
# Steps of the linear programmes of lad, in internal parameters; in larger tables they take too long.
FIRST_RADIUS, LEAST_RADIUS = 0.05, 1e-9
MOST_LINEAR_STEPS, MOST_LINEAR_ROWS = 60, 3_000
# Newton's method at a kink ends soon or never.
MOST_NEWTON_STEPS, FAR = 12, 1e-2
# The best starts of lad that are followed to their kink: the smooth stages may strand at another one.
POLISHED = 4


@dataclass(frozen=True)
class Problem:
    """Minimise sum_r weight_r loss(target_mr - law(theta_m)_r); targets relative to the scale.

    `target` is (M, R) or (1, R), `weight_R` positive with mean 1.
    """

    form: Form
    at: Variables
    target: Array
    weight_R: Array
    loss: Loss

    def take(self, which_M: NDArray[np.intp]) -> "Problem":
        return self if len(self.target) == 1 else replace(self, target=self.target[which_M])

    def rows(self, keep_R: NDArray[np.bool_] | NDArray[np.intp] | slice) -> "Problem":
        """The same problems on some of the rows, with their weights as they are."""
        target, weight_R = self.target[:, keep_R], self.weight_R[keep_R]
        return replace(self, at=self.at.rows(keep_R), target=target, weight_R=weight_R)

    def blocks(self) -> Iterator["Problem"]:
        for first in range(0, len(self.weight_R), BLOCK):
            yield self if len(self.weight_R) <= BLOCK else self.rows(slice(first, first + BLOCK))

    def residual(self, theta_MP: Array) -> Array:
        f_MR = self.form.log_prediction(theta_MP, self.at)
        return np.log(self.target) - f_MR if self.loss.in_logs else self.target - np.exp(f_MR)

    def objective(self, theta_MP: Array) -> Array:
        with np.errstate(all="ignore"):
            value_M = np.sum(
                [part.loss.value(part.residual(theta_MP)) @ part.weight_R for part in self.blocks()], axis=0
            )
        return np.where(np.isfinite(value_M), value_M, np.inf)

    def natural(self, theta_MP: Array) -> Array:
        """The sum of the loss itself, (M,)."""
        return np.sum([part.loss.natural(part.residual(theta_MP)) @ part.weight_R for part in self.blocks()], axis=0)


@dataclass(frozen=True)
class Solution:
    """theta_MP with the objective, the relative gradient norm and whether it is within the tolerance, (M,)."""

    theta_MP: Array
    objective_M: Array
    gradient_M: Array
    converged_M: NDArray[np.bool_]


@dataclass(frozen=True)
class LocalModel:
    """Gradient and curvature of the objective in parameters scaled to a unit majorizer, bounds held."""

    gradient_MP: Array
    hessian_MPP: Array
    unit_MP: Array
    norm_M: Array


def local_model(problem: Problem, theta_MP: Array) -> LocalModel:
    """The quadratic model at theta_MP.

    The gradient norm is relative to the sum of the absolute contributions of the rows: 1 where all rows pull
    the same way, 0 where they balance. Parameters at a bound that the gradient pushes against are held.
    """
    parts = [_sums(part, theta_MP) for part in problem.blocks()]
    gradient_MP, hessian_MPP, pull_MP, floor_MP, square_MP = (
        sum(sums[1:], sums[0]) for sums in zip(*parts, strict=True)
    )
    unit_MP = np.sqrt(square_MP) + 1e-150
    low_P, high_P = problem.form.bounds()
    held_MP = ((theta_MP <= low_P) & (gradient_MP > 0)) | ((theta_MP >= high_P) & (gradient_MP < 0))
    excess_MP = np.maximum(np.abs(gradient_MP) - ROUNDING * floor_MP, 0.0)
    relative_MP = np.where(held_MP, 0.0, excess_MP / (pull_MP + floor_MP + 1e-300))
    scaled_MPP = hessian_MPP / unit_MP[:, :, None] / unit_MP[:, None, :]
    free_MPP = ~(held_MP[:, :, None] | held_MP[:, None, :])
    scaled_MPP = np.where(free_MPP, scaled_MPP, np.eye(theta_MP.shape[1]))
    gradient_MP = np.where(held_MP, 0.0, gradient_MP / unit_MP)
    return LocalModel(gradient_MP, scaled_MPP, unit_MP, relative_MP.max(1))


def _sums(problem: Problem, theta_MP: Array) -> tuple[Array, ...]:
    """Sums over the rows: gradient, curvature, absolute contributions to the gradient, those of residuals at the
    floor, squared majorizing unit."""
    loss, weight_R = problem.loss, problem.weight_R
    f_MR, J_MRP = problem.form.derivatives(theta_MP, problem.at)
    if loss.in_logs:
        residual_MR = np.log(problem.target) - f_MR
        slope_MR, bend_MR = loss.slope(residual_MR) * weight_R, loss.curvature(residual_MR) * weight_R
        G_MRP = J_MRP
    else:
        law_MR = np.exp(f_MR)
        residual_MR = problem.target - law_MR
        slope_MR = loss.slope(residual_MR) * weight_R * law_MR
        bend_MR = loss.curvature(residual_MR) * weight_R * law_MR**2 - slope_MR
        G_MRP = J_MRP * law_MR[..., None]
    gradient_MP = -(slope_MR[:, None, :] @ J_MRP)[:, 0]
    hessian_MPP = (J_MRP * bend_MR[..., None]).transpose(0, 2, 1) @ J_MRP
    hessian_MPP -= problem.form.second(J_MRP, slope_MR, problem.at, theta_MP)
    floor_R = np.abs(loss.slope(np.full(1, FLOOR))) * weight_R
    size_MRP = np.abs(J_MRP)
    pull_MP, floor_MP = (np.abs(slope_MR)[:, None, :] @ size_MRP)[:, 0], floor_R @ size_MRP
    majorizer_MR = loss.majorizer(residual_MR) * weight_R
    return gradient_MP, hessian_MPP, pull_MP, floor_MP, (majorizer_MR[:, None, :] @ G_MRP**2)[:, 0]


def minimise(problem: Problem) -> tuple[Array, Solution]:
    """The starts of the form (M, P) and where each ends; the best of lad at the exact kink where that is found."""
    rows = len(problem.weight_R)
    if rows > 2 * SAMPLE_ROWS:
        sample = problem.rows(np.random.default_rng(0).choice(rows, SAMPLE_ROWS, replace=False))
        starts_MP = problem.form.starts(sample.target[0], sample.at)
        solution = _continued(problem, solve(sample, starts_MP).theta_MP)
    else:
        starts_MP = problem.form.starts(problem.target[0], problem.at)
        solution = solve(problem, starts_MP)
    if problem.loss.kind == "lad":
        for start in np.argsort(solution.objective_M, kind="stable")[:POLISHED]:
            theta_P, norm = polish_lad(problem, solution.theta_MP[start])
            solution.theta_MP[start], solution.gradient_M[start] = theta_P, norm
            solution.converged_M[start] = norm <= problem.loss.tolerance
            solution.objective_M[start] = problem.natural(theta_P[None])[0]
    return starts_MP, solution


def _continued(problem: Problem, theta_MP: Array) -> Solution:
    """Where the minima of a sample of the rows lead with all rows; the best of them are followed."""
    near_MM = np.abs(theta_MP[:, None] - theta_MP).max(2) < SAME_MINIMUM
    first_M = near_MM.argmax(1)
    minima = np.unique(first_M)
    objective_M = np.full(len(theta_MP), np.inf)
    objective_M[minima] = problem.objective(theta_MP[minima])
    minima = minima[np.argsort(objective_M[minima])][:MOST_MINIMA]
    theta_MP, objective_M = theta_MP[first_M], objective_M[first_M]
    gradient_M, converged_M = np.full(len(theta_MP), np.inf), np.zeros(len(theta_MP), bool)
    solution = solve(problem, theta_MP[minima])
    for index, minimum in enumerate(minima):
        which_M = first_M == minimum
        theta_MP[which_M], objective_M[which_M] = solution.theta_MP[index], solution.objective_M[index]
        gradient_M[which_M], converged_M[which_M] = solution.gradient_M[index], solution.converged_M[index]
    return Solution(theta_MP, objective_M, gradient_M, converged_M)


def solve(problem: Problem, starts_MP: Array, max_iterations: int = 200, tolerance: float | None = None) -> Solution:
    """Minimises every problem of the batch from its own start, through the stages of its loss.

    `tolerance` is of the relative gradient (default: the loss's own).
    """
    size = max(1, BLOCK // len(problem.weight_R))
    blocks = [np.arange(first, min(first + size, len(starts_MP))) for first in range(0, len(starts_MP), size)]
    parts = [_solve_block(problem.take(block), starts_MP[block], max_iterations, tolerance) for block in blocks]
    return Solution(*(np.concatenate(part) for part in zip(*(vars(part).values() for part in parts), strict=True)))


def _solve_block(problem: Problem, starts_MP: Array, max_iterations: int, tolerance: float | None) -> Solution:
    low_P, high_P = problem.form.bounds()
    theta_MP = np.clip(starts_MP, low_P, high_P)
    stages = problem.loss.stages()
    # A stage is left once the gradient is within what one row can pull; a looser one strands lad on large tables.
    enough = min(1e-3, 1 / len(problem.weight_R))
    for stage in stages[:-1]:
        theta_MP = _descend(replace(problem, loss=stage), theta_MP, min(max_iterations, 30), enough).theta_MP
    last = replace(problem, loss=stages[-1])
    solution = _descend(last, theta_MP, max_iterations, tolerance or problem.loss.tolerance)
    return replace(solution, objective_M=problem.natural(solution.theta_MP))


def _descend(problem: Problem, theta_MP: Array, max_iterations: int, tolerance: float) -> Solution:
    M = len(theta_MP)
    theta_MP = theta_MP.copy()
    value_M = problem.objective(theta_MP)
    damping_M, norm_M = np.full(M, 1e-2), np.full(M, np.inf)
    running = np.arange(M)
    low_P, high_P = problem.form.bounds()
    for iteration in range(max_iterations + 1):
        part = problem.take(running)
        here_MP = theta_MP[running]
        model = local_model(part, here_MP)
        norm_M[running] = model.norm_M
        going = (model.norm_M > tolerance) & (damping_M[running] < LARGEST_DAMPING)
        if not going.any() or iteration == max_iterations:
            break
        step_MP = _step(model, damping_M[running])
        trial_MP = np.clip(here_MP + step_MP, low_P, high_P)
        trial_M = part.objective(trial_MP)
        # Near the minimum a full step gains less than rounding shows; it is taken nevertheless.
        better = going & (trial_M <= value_M[running] * (1 + 1e-12))
        theta_MP[running[better]] = trial_MP[better]
        value_M[running[better]] = trial_M[better]
        damping_M[running] *= np.where(better, 0.1, 8.0)
        damping_M[running] = np.maximum(damping_M[running], 1e-14)
        running = running[going]
    return Solution(theta_MP, value_M, norm_M, norm_M <= tolerance)


def _step(model: LocalModel, damping_M: Array) -> Array:
    """The damped Newton step; directions of negative curvature are followed downhill."""
    eigenvalue_MP, basis_MPP = np.linalg.eigh(model.hessian_MPP)
    along_MP = (basis_MPP.transpose(0, 2, 1) @ model.gradient_MP[..., None])[..., 0]
    along_MP /= np.maximum(np.abs(eigenvalue_MP), 1e-13) + damping_M[:, None]
    step_MP = -(basis_MPP @ along_MP[..., None])[..., 0] / model.unit_MP
    longest_M = np.abs(step_MP).max(1)
    return step_MP * np.minimum(1.0, LONGEST_STEP / (longest_M + 1e-300))[:, None]


def polish_lad(problem: Problem, theta_P: Array) -> tuple[Array, float]:
    """The exact least-absolute-deviation optimum next to a smooth one, and its relative gradient norm.

    Steps of a linear programme, within a radius that shrinks where they do not lower the objective, find the rows
    that the law passes through; Newton's method on the optimality conditions then ends there. Where that leads nowhere
    better, nothing changes.
    """
    smooth = replace(problem, loss=problem.loss.stages()[-1])
    exact = replace(problem, loss=replace(problem.loss, delta=1e-300))
    residual_R = problem.residual(theta_P[None])[0]
    found = _at_kinks(problem, theta_P, np.abs(residual_R) < smooth.loss.delta, smooth.loss.slope(residual_R))
    low_P, high_P = problem.form.bounds()
    here_P, radius, value = theta_P, FIRST_RADIUS, float(exact.objective(theta_P[None])[0])
    for _ in range(MOST_LINEAR_STEPS if len(residual_R) <= MOST_LINEAR_ROWS else 0):
        if found is not None or radius < LEAST_RADIUS:
            break
        f_MR, J_MRP = problem.form.derivatives(here_P[None], problem.at)
        residual_R = (np.log(problem.target) - f_MR)[0]
        low, high = np.maximum(low_P - here_P, -radius), np.minimum(high_P - here_P, radius)
        linear = linear_step(J_MRP[0], residual_R, problem.weight_R, low, high)
        if linear is None:
            break
        step_P, slope_R, zero_R = linear
        trial_P = np.clip(here_P + step_P, low_P, high_P)
        trial = float(exact.objective(trial_P[None])[0])
        if trial < value:
            here_P, value, radius = trial_P, trial, min(2 * radius, LONGEST_STEP)
        else:
            radius /= 4
        found = _at_kinks(problem, here_P, zero_R, slope_R)
    if found is not None and exact.objective(found[0][None])[0] <= exact.objective(theta_P[None])[0] + 1e-12:
        return found
    return theta_P, float(local_model(smooth, theta_P[None]).norm_M[0])


def _at_kinks(
    problem: Problem, theta_P: Array, zero_R: NDArray[np.bool_], slope_R: Array
) -> tuple[Array, float] | None:
    """Where the rows of `zero_R` have residual 0 and a multiplier between -1 and 1 and the others keep their slope;
    None where Newton's method finds no such place."""
    low_P, high_P = problem.form.bounds()
    free_P = (theta_P > low_P) & (theta_P < high_P)
    count, zeros = int(free_P.sum()), int(zero_R.sum())
    here_P, norm = theta_P.copy(), np.inf
    slope_R = np.where(zero_R, slope_R, np.sign(problem.residual(theta_P[None])[0]))
    for iteration in range(MOST_NEWTON_STEPS):
        _, J_MRP = problem.form.derivatives(here_P[None], problem.at)
        J_RP, weighted_R = J_MRP[0], slope_R * problem.weight_R
        gradient_P = -(weighted_R @ J_RP)[free_P]
        residual_Z = problem.residual(here_P[None])[0, zero_R]
        norm = float((np.abs(gradient_P) / ((problem.weight_R @ np.abs(J_RP))[free_P] + 1e-300)).max(initial=0.0))
        if norm < 1e-12 and np.abs(residual_Z).max(initial=0.0) < FLOOR:
            break
        if iteration > 2 and norm > FAR:
            return None
        H_PP = -problem.form.second(J_MRP, weighted_R[None], problem.at, here_P[None])[0]
        J_ZP = J_RP[zero_R][:, free_P]
        system = np.zeros((count + zeros, count + zeros))
        system[:count, :count] = H_PP[np.ix_(free_P, free_P)]
        system[:count, count:] = -(J_ZP * problem.weight_R[zero_R, None]).T
        system[count:, :count] = J_ZP
        move = np.linalg.lstsq(system, np.concatenate([-gradient_P, residual_Z]), rcond=None)[0]
        here_P[free_P] += move[:count]
        if not ((here_P >= low_P) & (here_P <= high_P)).all():
            return None
        slope_R[zero_R] += move[count:]
    residual_R = problem.residual(here_P[None])[0]
    kept = (np.sign(residual_R[~zero_R]) == slope_R[~zero_R]).all()
    if (
        norm < 1e-9
        and np.abs(slope_R).max() <= 1 + 1e-9
        and kept
        and np.abs(residual_R[zero_R]).max(initial=0.0) < 1e-9
    ):
        return here_P, norm
    return None
