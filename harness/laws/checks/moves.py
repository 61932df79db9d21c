"""How far the exponents move when the smallest width or the smallest budget is left out."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.laws.fit import Fit, fit_rows
from harness.laws.noise import intervals as ci
from harness.laws.table.levels import budget_labels
from harness.laws.table.rows import Cells

WATCHED = ("alpha", "beta", "a")
# Where the intervals of the fit come from its curvature, a move still needs simulations.
LEAST_DRAWS = 1000
# Of a table that the law fits exactly, only this much is left of the interval and of the move.
ROUNDING = 1e-6


def drops(cells: Cells) -> list[tuple[str, NDArray[np.bool_]]]:
    """What is left out, in words, and the rows that stay."""
    rows, width_R = cells.rows, cells.table.spare("width")
    found = []
    if not rows.knows("params", "tokens") and rows.knows("flops"):
        budget_R = budget_labels(rows.flops)
        found.append((f"smallest compute, {rows.flops[budget_R == 0].mean():.3g} FLOPs", budget_R > 0))
    if width_R is not None:
        found.append((f"smallest width {width_R.min():g}", width_R > width_R.min()))
    elif rows.knows("params"):
        found.append((f"smallest shape, {rows.params.min():.3g} params", cells.shape_R > 0))
    if rows.knows("tokens"):
        found.append((f"smallest budget, {rows.tokens[cells.budget_R == 0].mean():.3g} tokens", cells.budget_R > 0))
    return found


def move(fit: Fit, dropped: str, keep_R: NDArray[np.bool_], bootstrap: int, seed: int) -> dict[str, Any]:
    """The refit on the rows that stay, with 95 % intervals of the move that noise alone makes.

    Each simulated table is fitted with all rows and with the rows that stay, so the interval is paired.
    Raises UserError where the rows that stay cannot carry the law.
    """
    try:
        part = fit_rows(fit.rows.keep(keep_R), fit.columns, fit.law, fit.loss, fit.delta)
    except UserError as error:
        raise UserError(f"the move without the {dropped} is left out: {error}") from error
    problem, draws = fit.problem, fit.draws
    count = bootstrap or LEAST_DRAWS
    if draws is None:
        draws = ci.refit(problem, fit.theta_P, ci.simulate(problem, fit.theta_P, fit.noise, count, seed))
    fewer = replace(
        problem,
        at=problem.at.rows(keep_R),
        target=problem.target[:, keep_R],
        weight_R=problem.weight_R[keep_R] / problem.weight_R[keep_R].mean(),
    )
    targets = ci.simulate(problem, fit.theta_P, fit.noise, count, seed)
    paired = ci.refit(fewer, fit.theta_P, ((target_SR[:, keep_R], sd_S) for target_SR, sd_S in targets))
    whole, rest = fit.at(draws.theta_SP), fit.at(paired.theta_SP)
    section: dict[str, Any] = {
        "dropped": dropped,
        "rows": len(part.rows),
        "certified": part.certificate.certified,
        "certificate_reasons": part.certificate.reasons,
    }
    for name in (name for name in WATCHED if name in fit.estimates):
        low, high = ci.quantiles(rest[name] - whole[name])
        moved = part.estimates[name] - fit.estimates[name]
        section[name] = {
            "value": part.estimates[name],
            "move": moved,
            "low": float(low),
            "high": float(high),
            "inside": bool(low - ROUNDING <= moved <= high + ROUNDING),
        }
    return section
