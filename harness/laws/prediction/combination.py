"""Several laws as one prediction, each weighted by what it predicted of cells that it had not seen.

Which law extrapolates best differs from table to table, and no fit shows it. Each law is refitted on the rows of the
least compute and judged on the others, at several cuts. Shapes: L laws, R rows, X places.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.errors import UserError
from harness.laws.fit import Fit, fit_rows
from harness.laws.forms import Array
from harness.laws.table.entry import admitted, converted
from harness.laws.table.rows import Columns, Rows
from harness.laws.table.table import as_table
from harness.laws.table.units import Units

# Each contains the one before it, with one exponent less.
LAWS = ("chinchilla_tied", "chinchilla", "chinchilla_coupled")
# Shares of the rows, by compute, that the laws are refitted on.
CUTS = (0.5, 0.6, 0.7, 0.8, 0.9)
# Weights are errors^-2, as of independent estimates, times this for each exponent more. It and the doubt below were
# chosen on published tables; docs/laws.md says how, and what they do on tables that had no part in it.
PARSIMONY = 0.1
# Errors below this are run-to-run noise.
LEAST_ERROR = 0.003
# What no table shows of the laws beyond it, relative loss for each factor e of compute.
DOUBT = 0.003


@dataclass(frozen=True)
class Member:
    """A law with its weight and its mean relative error beyond each cut; nan where the rows carried no fit."""

    fit: Fit
    weight: float
    errors: dict[float, float]


@dataclass(frozen=True)
class Combination:
    """The geometric mean of the laws by their weights; `most_flops` is the largest C of the rows."""

    members: list[Member]
    most_flops: float
    left_out: dict[str, str]

    @property
    def recommended(self) -> Member:
        return max(self.members, key=lambda member: member.weight)

    def predict(self, params: Any, tokens: Any) -> Array:
        """Losses at arrays of params and tokens that broadcast."""
        logs_LX = [np.log(member.fit.predict(params, tokens)) for member in self.members]
        return np.exp(np.tensordot(self._weights, logs_LX, 1))

    def predict_interval(self, params: Any, tokens: Any, level: float = 0.95) -> tuple[Array, Array]:
        """Interval of the loss of a new run: that of each law, their disagreement, and doubt that grows with log C."""
        centre = np.log(self.predict(params, tokens))
        scale = special.ndtri((1 + level) / 2)
        variance = np.zeros_like(centre)
        for member in self.members:
            low, high = (np.log(end) for end in member.fit.predict_interval(params, tokens, level))
            variance += member.weight * (((high - low) / 2 / scale) ** 2 + ((high + low) / 2 - centre) ** 2)
        flops = self.members[0].fit.rows.flops_per_product * np.asarray(params, float) * np.asarray(tokens, float)
        beyond = np.maximum(np.log(flops / self.most_flops), 0.0)
        half = scale * np.sqrt(variance + (DOUBT * beyond) ** 2)
        return np.exp(centre - half), np.exp(centre + half)

    @property
    def _weights(self) -> Array:
        return np.array([member.weight for member in self.members])

    @property
    def reason(self) -> str:
        """Why the recommended law has most of the weight, in a sentence."""
        others = [member for member in self.members if member is not self.recommended]
        error = _mean(self.recommended.errors)
        shown = ", ".join(f"{member.fit.law} {_mean(member.errors):.2%}" for member in others)
        return (
            f"{self.recommended.fit.law} has {self.recommended.weight:.0%} of the weight: it predicted the cells of "
            f"more compute to {error:.2%}" + (f" ({shown}), at {PARSIMONY:g} for each exponent more." if shown else ".")
        )

    def to_dict(self) -> dict[str, Any]:
        """The section `combination` of fit.json."""
        laws = [
            {"law": member.fit.law, "weight": member.weight, "a": member.fit.estimates["a"]}
            | {"errors": {str(cut): error for cut, error in member.errors.items()}}
            | {"certified": member.fit.certificate.certified}
            for member in self.members
        ]
        return {"recommended": self.recommended.fit.law, "reason": self.reason, "laws": laws, "left_out": self.left_out}


def combine(
    table: Any,
    loss: str = "huber",
    delta: float = 1e-3,
    *,
    filter: str = "",
    bootstrap: int = 0,
    target_unit: str | None = None,
    bytes_per_token: float | None = None,
    units: Mapping[str, Any] | None = None,
    **columns: Any,
) -> Combination:
    """Weighs the laws of params and tokens by their hold-outs; arguments as of `fit`.

    Raises UserError where no law can be fitted to the table and to part of it.
    """
    checked, named = admitted(as_table(table), Columns(**columns), "chinchilla", filter)
    _, rows = converted(checked, named, "chinchilla", Units(**(units or {})), target_unit, bytes_per_token)
    return combine_rows(rows, named, loss, delta, bootstrap)


def combine_rows(
    rows: Rows, columns: Columns, loss: str, delta: float, bootstrap: int = 0, seed: int = 0
) -> Combination:
    """`combine` on numbers that are read already."""
    found: list[tuple[Fit, float, dict[float, float]]] = []
    left_out = {}
    for index, law in enumerate(LAWS):
        try:
            whole = fit_rows(rows, columns, law, loss, delta, bootstrap, seed)
        except UserError as error:
            left_out[law] = str(error)
            continue
        errors = {cut: _error(rows, columns, law, loss, delta, cut) for cut in CUTS}
        if np.isnan(list(errors.values())).all():
            left_out[law] = "no part of the rows can carry it"
            continue
        skill = PARSIMONY**index * max(_mean(errors), LEAST_ERROR) ** -2
        found.append((whole, skill, errors))
    if not found:
        raise UserError(f"combine=holdout finds no law that can be judged: {'; '.join(left_out.values())}")
    total = sum(skill for _, skill, _ in found)
    members = [Member(whole, skill / total, errors) for whole, skill, errors in found]
    return Combination(members, float(rows.flops.max()), left_out)


def _error(rows: Rows, columns: Columns, law: str, loss: str, delta: float, cut: float) -> float:
    """Mean relative error beyond the cut of the law fitted below it; nan where that is not possible."""
    below_R = least_compute(rows, cut)
    try:
        part = fit_rows(rows.keep(below_R), columns, law, loss, delta)
    except UserError:
        return float("nan")
    predicted_R = part.predict(**rows.at(part.form))
    return float(np.abs(np.log(predicted_R / rows.loss))[~below_R].mean())


def least_compute(rows: Rows, share: float) -> NDArray[np.bool_]:
    """The rows of least compute, a share of them."""
    below_R = np.zeros(len(rows), bool)
    below_R[np.argsort(rows.flops, kind="stable")[: round(share * len(rows))]] = True
    return below_R


def _mean(errors: dict[float, float]) -> float:
    return float(np.nanmean(list(errors.values())))
