"""Somebody else's estimates of a law, judged on their own table beside a fit of ours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.laws.fit import Fit, fit
from harness.laws.forms import Array
from harness.laws.solving.solver import local_model

# Estimates rounded for print cost less of the objective than this; a fit that stopped early costs more.
BEATEN = 1e-3
# A term below this share of the loss is as good as none.
VANISHED = 1e-6
# Start points are printed with few digits.
SAME_START = 1e-4


@dataclass(frozen=True)
class Audit:
    """`objective` and `gradient` (relative, 1 at most) are at the estimates that are judged, `fit` is ours.

    `excess` is their objective over ours, less 1; `vanished` names their terms that are 0; `start` is the number of
    the start point that they equal; `verdict` says all that in sentences, and `sound` that none of it speaks
    against them.
    """

    estimates: dict[str, float]
    objective: float
    excess: float
    gradient: float
    vanished: list[str]
    start: int | None
    sound: bool
    verdict: list[str]
    fit: Fit

    def __str__(self) -> str:
        return " ".join(self.verdict)


def audit(
    table: Any,
    law: str,
    estimates: Mapping[str, float],
    loss: str = "huber",
    delta: float = 1e-3,
    starts: Sequence[Mapping[str, float]] = (),
    **columns: Any,
) -> Audit:
    """Judges the `estimates` of a law that others fitted to a table by minimising `loss`.

    estimates: the law's parameters in natural units, under the names that our fit of it gives them. starts: points
    that their optimiser started from, where they are known. columns: as in `fit`, with its filter.
    Raises UserError where the table does not carry the law or a parameter is missing.
    """
    ours = fit(table, law, loss, delta, **columns)
    needed = [name for name in ours.estimates if name != "a"]
    missing = [name for name in needed if not np.isfinite(estimates.get(name, np.nan))]
    if missing:
        raise UserError(f"audit: the estimates of {law} lack {missing[0]}: give {', '.join(needed)} as finite numbers")
    values = {name: float(estimates[name]) for name in needed}
    wrong = [name for name, value in values.items() if value < 0 or (value == 0 and name in ours.form.exponents)]
    if wrong:
        raise UserError(f"audit: {wrong[0]}={values[wrong[0]]:g} is no value of {law}: give one above 0")
    problem = ours.problem
    theta_P = ours.form.from_natural(values, problem.at)
    # A coefficient of 0 is the lower bound of its log; derivatives need a finite one.
    theta_P = np.where(np.isneginf(theta_P), ours.form.bounds()[0], theta_P)
    smooth = replace(problem, loss=problem.loss.stages()[-1])
    gradient = float(local_model(smooth, theta_P[None]).norm_M[0])
    scale = problem.at.scale**2 if loss == "mse" else 1.0
    objective = float(problem.natural(theta_P[None])[0]) * scale
    excess = objective / max(ours.objective, 1e-300) - 1
    vanished = _vanished(ours, theta_P)
    start = next((index for index, point in enumerate(starts) if _same(values, point)), None)
    verdict = _against(ours, objective, excess, gradient, vanished, None if start is None else starts[start])
    sound = not verdict
    if sound:
        verdict = [
            f"Nothing speaks against them: their objective is {objective:.7g}, {max(excess, 0):.2%} above the one "
            "that is reached here."
        ]
    if not ours.certificate.certified:
        verdict.append(f"Our own fit is not certified: {'; '.join(ours.certificate.reasons)}.")
    return Audit(values, objective, excess, gradient, vanished, start, sound, verdict, ours)


def _vanished(ours: Fit, theta_P: Array) -> list[str]:
    """Terms that nowhere reach a share of the loss that counts."""
    _, J_MRP = ours.form.derivatives(theta_P[None], ours.problem.at)
    # The gradient in the log of a coefficient is its term's share; E enters itself.
    share_P = np.abs(J_MRP[0]).max(0) * np.where(np.array(ours.form.internal) == "E", theta_P, 1.0)
    named = zip(ours.form.internal, share_P, strict=True)
    return [name for name, share in named if name in ours.form.bounded_below and share < VANISHED]


def _same(values: Mapping[str, float], start: Mapping[str, float]) -> bool:
    return all(abs(values[name] - start[name]) <= SAME_START * abs(start[name]) for name in values if name in start)


def _against(
    ours: Fit,
    objective: float,
    excess: float,
    gradient: float,
    vanished: list[str],
    start: Mapping[str, float] | None,
) -> list[str]:
    sentences = []
    if start is not None:
        point = ", ".join(f"{name} = {value:.5g}" for name, value in start.items())
        sentences.append(f"They equal a start point of the optimiser ({point}): it did not move.")
    if excess > BEATEN:
        above = f"{excess:.2%} above" if excess < 1 else f"{excess + 1:.3g} times"
        sentences.append(
            f"They are not at the minimum: their objective is {objective:.7g}, {above} the {ours.objective:.7g} that "
            f"is reached here, and the relative gradient is {gradient:.1e} instead of 0."
        )
    if excess < -1e-9:
        sentences.append(
            f"Their objective is {objective:.7g}, below the {ours.objective:.7g} that is reached here: our fit is "
            "not the minimum."
        )
    sentences += [f"{name} is 0: that term has vanished from the law." for name in vanished]
    return sentences
