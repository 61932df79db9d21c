"""How fast the errors of a law grow with compute beyond its table, and intervals that are wider by that.

The interval of a fit holds the noise of a run and the doubt of the estimates, if the law is exact; that a law bends
beyond the rows it does not hold. So the law is refitted below cuts in compute and judged beyond them, within the table
itself. Shapes: R rows, X places.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from harness.errors import UserError
from harness.laws.fit import fit_rows
from harness.laws.forms import Array
from harness.laws.prediction.combination import least_compute
from harness.laws.table.rows import Columns, Rows

# Shares of the rows, by compute, that a law is refitted on.
CUTS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# What published tables show, and how many cuts it counts for; docs/forecasts.md says how both were measured.
PRIOR, PRIOR_CUTS = 0.00857, 6.0
# Whose half-width is one standard deviation of a normal distribution.
ONE_SD = 0.6827
# Where an interval has no lower end above 0.
LEAST_LOSS = 1e-12


@dataclass(frozen=True)
class Growth:
    """The standard deviation of log loss for each factor e of compute beyond the rows: `by_e`.

    `own` is what hold-outs of the table alone show, at `cuts` cuts; None where none of them carries the law.
    """

    by_e: float
    own: float | None
    cuts: int


@dataclass(frozen=True)
class Beyond:
    """What a law fitted below a cut does beyond it: mean squared error of log loss less that which its interval
    expects, and the mean squared log of compute over the most of the cut."""

    excess: float
    distance: float


def growth(rows: Rows, columns: Columns, law: str, loss: str, delta: float) -> Growth:
    """What the hold-outs of a table show, drawn towards PRIOR, which counts for PRIOR_CUTS of them."""
    tried = (beyond_cut(rows, columns, law, loss, delta, share) for share in CUTS)
    return of_cuts([found for found in tried if found is not None])


def of_cuts(found: list[Beyond], prior: float | None = None, counts: float | None = None) -> Growth:
    """The growth that these cuts show, of which one alone says little: their errors are those of nested fits."""
    prior, counts = PRIOR if prior is None else prior, PRIOR_CUTS if counts is None else counts
    if not found:
        return Growth(prior, None, 0)
    own = max(0.0, sum(each.excess for each in found)) / sum(each.distance for each in found)
    square = (len(found) * own + counts * prior**2) / (len(found) + counts)
    return Growth(float(np.sqrt(square)), float(np.sqrt(own)), len(found))


def beyond_cut(rows: Rows, columns: Columns, law: str, loss: str, delta: float, share: float) -> Beyond | None:
    """None where the rows below the cut carry no fit, or none lies beyond it."""
    below_R = least_compute(rows, share)
    distance_R = np.log(rows.flops[~below_R] / rows.flops[below_R].max()) if below_R.any() else np.zeros(0)
    if not distance_R.any():
        return None
    try:
        part = fit_rows(rows.keep(below_R), columns, law, loss, delta)
    except UserError:
        return None
    beyond = rows.keep(~below_R)
    at = beyond.at(part.form)
    low_R, high_R = part.predict_interval(level=ONE_SD, **at)
    error_R = np.log(beyond.loss / part.predict(**at))
    expected_R = (np.log(high_R / np.maximum(low_R, LEAST_LOSS)) / 2) ** 2
    excess = float((error_R**2 - expected_R).mean())
    return Beyond(excess, float((distance_R**2).mean())) if np.isfinite(excess) else None


def widened(
    predicted_X: Array, ends_X: tuple[Array, Array], beyond_X: Array, by_e: float, level: float
) -> tuple[Array, Array]:
    """An interval of losses, wider by the growth `by_e`; beyond_X is compute over the most of the table.

    Each end's log distance d from the prediction becomes the root of d^2 + (z by_e log beyond)^2, where z is the normal
    quantile of the level; nothing changes within the table's compute.
    """
    log_X = np.log(predicted_X)
    grown_X = special.ndtri((1 + level) / 2) * by_e * np.log(np.maximum(beyond_X, 1.0))
    low_X, high_X = (np.log(np.maximum(end_X, LEAST_LOSS)) for end_X in ends_X)
    return np.exp(log_X - np.hypot(log_X - low_X, grown_X)), np.exp(log_X + np.hypot(high_X - log_X, grown_X))
