"""What a fit can say for itself: that it is a minimum, the only one found, and that the rows determine it."""

from dataclasses import dataclass

import numpy as np

from harness.laws.forms import Array, Form
from harness.laws.forms.penalized import PENALTY
from harness.laws.forms.repeated import REPEATS
from harness.laws.solving.solver import Problem, Solution

# A range of D/N below this factor leaves alpha and beta to be told apart by noise.
NARROW_RATIO = 1.5
AGREEING_STARTS = 2
# As they are quoted, whatever the form works with inside.
EXPONENTS = ("alpha", "beta", "gamma")
# Of the unit-diagonal curvature; below it a direction is lost to rounding.
SMALLEST_EIGENVALUE = 1e-11


@dataclass(frozen=True)
class Certificate:
    """`certified` only where everything else holds; otherwise `reasons` says what does not, in sentences."""

    certified: bool
    converged: bool
    gradient_norm: float
    tolerance: float
    starts: int
    starts_agree: int
    moved: bool
    at_bound: list[str]
    rank: int
    condition: float | None
    identified: bool
    reasons: list[str]


def certify(
    problem: Problem, starts_MP: Array, solution: Solution, intervals: dict[str, tuple[float, float] | None]
) -> Certificate:
    """Judges the best of the solutions; `intervals` are those of the curvature at it."""
    form, best = problem.form, int(np.argmin(solution.objective_M))
    theta_P = solution.theta_MP[best]
    agree_M = solution.objective_M <= solution.objective_M[best] * (1 + 1e-6) + 1e-20 + _slack(problem)
    distance_M = np.abs(solution.theta_MP - starts_MP).max(1)
    moved = bool((distance_M[agree_M] > 1e-6).any())
    converged = bool(solution.converged_M[best])
    low_P, high_P = form.bounds()
    at_bound = [
        name
        for name, value, low, high in zip(form.internal, theta_P, low_P, high_P, strict=True)
        if low < high and (value <= low + 1e-9 or value >= high - 1e-9 or (value < -30 and name in form.bounded_below))
    ]
    rank, condition, lost = _curvature(problem, theta_P)
    doubts = _identification(problem, lost, at_bound, intervals)
    norm, tolerance = float(solution.gradient_M[best]), problem.loss.tolerance
    reasons = []
    if not converged:
        reasons.append(f"it did not converge: the relative gradient {norm:.1e} is above {tolerance:.0e}")
    if not moved:
        reasons.append("it did not move from its start")
    if agree_M.sum() < min(AGREEING_STARTS, len(starts_MP)):
        reasons.append(f"only {int(agree_M.sum())} of {len(starts_MP)} starts found this minimum")
    reasons += doubts
    return Certificate(
        certified=not reasons,
        converged=converged,
        gradient_norm=norm,
        tolerance=tolerance,
        starts=len(starts_MP),
        starts_agree=int(agree_M.sum()),
        moved=moved,
        at_bound=at_bound,
        rank=rank,
        condition=condition,
        identified=not doubts,
        reasons=reasons,
    )


def _slack(problem: Problem) -> float:
    """How far starts of lad may lie above the exact kink: its smooth stages end within the last delta a row."""
    return problem.loss.stages()[-1].delta * len(problem.weight_R) if problem.loss.kind == "lad" else 0.0


def _curvature(problem: Problem, theta_P: Array) -> tuple[int, float | None, list[str]]:
    """Rank and condition of the unit-diagonal Gauss-Newton curvature of free parameters, and those it cannot see."""
    _, J_MRP = problem.form.derivatives(theta_P[None], problem.at)
    low_P, high_P = problem.form.bounds()
    free = np.flatnonzero(low_P < high_P)
    J_RP = J_MRP[0][:, free] * np.sqrt(problem.weight_R)[:, None]
    size_P = np.linalg.norm(J_RP, axis=0)
    seen_P = size_P > 1e-12 * size_P.max()
    unit_RP = J_RP / np.where(seen_P, size_P, 1.0)
    eigenvalue_P, basis_PP = np.linalg.eigh(unit_RP.T @ unit_RP)
    alive_P = eigenvalue_P > SMALLEST_EIGENVALUE * eigenvalue_P[-1]
    weight_P = np.abs(basis_PP[:, ~alive_P]).max(1) if (~alive_P).any() else np.zeros(len(free))
    lost = [
        problem.form.internal[index]
        for index, seen, weight in zip(free.tolist(), seen_P, weight_P, strict=True)
        if not seen or weight > 0.3
    ]
    condition = float(eigenvalue_P[-1] / eigenvalue_P[0]) if alive_P.all() and eigenvalue_P[0] > 0 else None
    return int(alive_P.sum()), condition, lost


def _identification(
    problem: Problem,
    lost: list[str],
    at_bound: list[str],
    intervals: dict[str, tuple[float, float] | None],
) -> list[str]:
    """Sentences that say which parameters the rows do not determine, and why."""
    form: Form = problem.form
    doubts = []
    vanished = [name for name in at_bound if name in form.bounded_below and name != PENALTY]
    if vanished:
        verb = "are" if len(vanished) > 1 else "is"
        doubts.append(f"{' and '.join(vanished)} {verb} at the lower bound 0")
    doubts += [f"{name} is at a bound of its range" for name in at_bound if name not in form.bounded_below]
    if PENALTY in at_bound and PENALTY not in lost:
        doubts.append(f"{PENALTY} is at the lower bound 0: in these rows repeats cost nothing, as in Chinchilla's law")
    if form.uses[:2] == ("params", "tokens"):
        log_ratio_R = np.diff(problem.at.x_KR[:2], axis=0)[0] + np.diff(problem.at.centre_K[:2])[0]
        low, high = np.exp([log_ratio_R.min(), log_ratio_R.max()])
        if high / low < NARROW_RATIO:
            span = f"D/N between {low:.3g} and {high:.3g}"
            doubts.append(f"alpha and beta are not identified: all rows have {span}")
    unshown = [name for name in form.internal if name in REPEATS]
    unshown = [name for name in unshown if name in (*at_bound, *lost) or _endless(intervals.get(name))]
    unshown += [PENALTY] if PENALTY in lost else []
    doubts = [doubt for doubt in doubts if doubt.split()[0] not in unshown]
    doubts += [f"{name} is not identified: these rows do not show what repeating costs" for name in unshown]
    unseen = [name for name in lost if name not in (*at_bound, *REPEATS, PENALTY)]
    if unseen and len(doubts) == 0:
        doubts.append(f"{' and '.join(unseen)} cannot be told apart: the curvature has not full rank")
    for name in EXPONENTS:
        interval = intervals.get(name)
        if interval is not None and interval[0] <= 0 and not doubts:
            span = f"{interval[0]:.2g} to {interval[1]:.2g}"
            doubts.append(f"{name} is not identified: its 95 % interval from curvature is {span}")
    return doubts


def _endless(interval: tuple[float, float] | None) -> bool:
    """Whether 1 / R may be 0: the interval of log R, whose half is that of R / R, reaches 1 on either side."""
    return interval is not None and interval[1] > interval[0] * np.exp(2)
