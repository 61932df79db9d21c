"""The exponents of the params against 4/d, in tasks of known dimension d.

The excess of a loss is what it has above the best predictor's, which sweep.yaml states of each dimension.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from harness.errors import UserError
from harness.laws.claims.measured import Evidence, Measured, Panel, Row
from harness.laws.fit import Fit, fit_rows
from harness.laws.forms import Array
from harness.laws.noise.intervals import TAILS
from harness.laws.table.levels import budget_labels
from harness.laws.table.pool import read_sources
from harness.laws.table.rows import Columns, read_rows
from harness.laws.table.table import Table
from harness.records import FLOORS, SweepFolder, read_sweep

DIMENSION = "data.dimension"
LAW = "kaplan_params"
COUNTS = ("params_non_embedding", "params_with_head", "params_total")  # the first decides
LEAST_SHAPES, CURVE_POINTS = 3, 31
# Params limit a loss where twice the tokens move the exponent by this part of 4/d at most.
STAYS = 0.1
EXCESS = "loss above the floor (nats)"
FARTHEST, LOWEST = "the farthest from 1, either way", "the lowest"


@dataclass(frozen=True)
class Exponent:
    """Of the params in one dimension, at one budget."""

    dimension: int
    fit: Fit

    @property
    def ends(self) -> tuple[float, float | None, float | None]:
        return self.fit.estimates["alpha"], *(self.fit.intervals["alpha"] or (None, None))

    def row(self, label: str) -> Row:
        """Over 4/d."""
        low, high = (None if end is None else end * self.dimension / 4 for end in self.ends[1:])
        return Row(f"d = {self.dimension}, {label}", self.ratio, low, high)

    @property
    def ratio(self) -> float:
        return self.fit.estimates["alpha"] * self.dimension / 4

    @property
    def tokens(self) -> float:
        return float(self.fit.rows.tokens.mean())


def against_dimension(evidence: Evidence) -> Measured:
    """The factor by which the exponent of the params differs from 4/d, either way, where it does so most.

    At the largest budget, by params without embeddings; beside it the lowest ratio, by which 4/d may still be a bound,
    and each dimension at half the budget and by other counts. Raises UserError.
    """
    floors = read_sweep(SweepFolder(evidence.folder)).get(FLOORS)
    if not floors:
        raise UserError(f"{evidence.folder} knows no floors by dimension: train data=manifold in several dimensions")
    table = read_sources(str(evidence.folder), "loss", None)
    known = {int(dimension): float(floor["nats"]) for dimension, floor in floors.items()}
    found = [exponents(table, dimension, nats) for dimension, nats in sorted(known.items())]
    own = [budgets[0] for budgets in found]
    ratios = [exponent.row(f"N = {COUNTS[0]}") for exponent in own]
    words = "factor by which the exponent of the params differs from 4/d, either way, where it does so most"
    dimensions = ", ".join(str(exponent.dimension) for exponent in own)
    method = (
        f"{own[0].fit.form.equation}; L = loss less the entropy of the answers, N = {COUNTS[0]}, at the largest "
        f"budget, in {dimensions} dimensions; {own[0].fit.interval_method}"
    )
    beside = [each.row(f"{each.tokens:.2g} tokens") for budgets in found for each in budgets[1:]]
    for count in COUNTS[1:]:
        beside += [
            exponents(table, dimension, nats, count)[0].row(f"N = {count}") for dimension, nats in sorted(known.items())
        ]
    panel, panels = _exponents(own), [_losses(own)]
    doubts = [doubt for budgets in found for doubt in _doubts(budgets)]
    number, lowest = farthest(ratios)
    rows = [*ratios, number, lowest, *beside]
    return Measured(words, method, number.estimate, number.low, number.high, rows, panel, doubts, panels=panels)


def _doubts(budgets: list[Exponent]) -> list[str]:
    """Why nothing hangs on the exponent at the largest budget, which is the first."""
    own, named = budgets[0], f"d = {budgets[0].dimension}"
    certificate = own.fit.certificate
    found = [] if certificate.certified else [f"the fit of {named} is not certified: {'; '.join(certificate.reasons)}"]
    if own.ends[1] is None or own.ends[1] <= 0:
        found.append(f"the exponent of {named} may be 0")
    if len(budgets) == 1:
        return [*found, f"{named} has one budget, so that nobody knows whether params limit its losses: add tokens"]
    moves = (own.ratio - budgets[1].ratio) / np.log2(own.tokens / budgets[1].tokens)
    if abs(moves) > STAYS:
        found.append(f"tokens still limit {named}: twice as many move its exponent by {moves:+.2f} of 4/d")
    return found


def exponents(table: Table, dimension: int, floor: float, params: str = COUNTS[0]) -> list[Exponent]:
    """Those at each budget, the largest first; raises UserError where cells cannot tell the largest one's."""
    keep_R = table.frame[DIMENSION].astype(int).to_numpy() == dimension
    some = table.drop(~keep_R, ["another dimension"] * len(keep_R))
    columns = Columns(params=params)
    rows = read_rows(some, columns, LAW)
    if not (rows.loss > floor).all():
        raise UserError(f"{table.source} has a cell at or below the floor of d = {dimension}: that cannot be")
    rows = replace(rows, loss=rows.loss - floor)
    budget_R = budget_labels(rows.tokens)
    found = []
    for budget in range(int(budget_R.max()), -1, -1):
        cells = rows.keep(budget_R == budget)
        if len({*cells.params}) >= LEAST_SHAPES:
            cells = replace(cells, cluster=None)  # one cell a trunk
            found.append(Exponent(dimension, fit_rows(cells, columns, LAW, "log_mse", source=table.source)))
        elif not found:  # of smaller budgets it need not be told
            raise UserError(f"{table.source} has not three shapes of d = {dimension} at its largest budget: add shapes")
    return found


def farthest(ratios: list[Row]) -> tuple[Row, Row]:
    """The largest factor away from 1, either way, which decides, and the lowest ratio.

    The end of an interval that any of several may err beyond is widened so that together they err as often as one
    (Bonferroni, Student's t taken for a normal in the log). Without intervals where one of the ratios may be 0.
    """
    if any(row.low is None or row.low <= 0 for row in ratios):
        sizes = [max(row.estimate, 1 / row.estimate) for row in ratios]
        return Row(FARTHEST, max(sizes), None, None, True), Row(LOWEST, min(row.estimate for row in ratios), None, None)
    wider = special.ndtri(1 - TAILS[0] / len(ratios)) / special.ndtri(1 - TAILS[0])
    value_K, low_K, high_K = (np.log([getattr(row, name) for row in ratios]) for name in ("estimate", "low", "high"))
    below_K, above_K = value_K - wider * (value_K - low_K), value_K + wider * (high_K - value_K)
    least_K = np.where((below_K <= 0) & (above_K >= 0), 0.0, np.minimum(np.abs(below_K), np.abs(above_K)))
    most = np.maximum(np.abs(low_K), np.abs(high_K)).max()
    factor = _row(FARTHEST, np.abs(value_K).max(), least_K.max(), most)
    return replace(factor, decides=True), _row(LOWEST, value_K.min(), low_K.min(), above_K.min())


def _row(label: str, value: float, low: float, high: float) -> Row:
    """Of logs."""
    return Row(label, math.exp(value), math.exp(low), math.exp(high))


def _exponents(own: list[Exponent]) -> Panel:
    """Each with its interval, and the curve 4/d."""
    points = []
    for exponent in own:
        alpha, low, high = exponent.ends
        points.append({"series": "measured", "x": exponent.dimension, "y": alpha, "low": low, "high": high})
    d_X = np.geomspace(own[0].dimension, own[-1].dimension, CURVE_POINTS)
    lines = [{"series": "4 / d", "x": float(d), "y": float(4 / d)} for d in d_X]
    return Panel("dimension d", "exponent of the params", "", points, lines, log=True)


def _losses(own: list[Exponent]) -> Panel:
    """The cells that decide, and the fitted lines."""
    points, lines = [], []
    for exponent in own:
        rows, series = exponent.fit.rows, f"d = {exponent.dimension}"
        points += [
            {"series": series, "x": float(x), "y": float(y)} for x, y in zip(rows.params, rows.loss, strict=True)
        ]
        ends: Array = np.array([rows.params.min(), rows.params.max()])
        fitted = zip(ends.tolist(), exponent.fit.predict(params=ends).tolist(), strict=True)
        lines += [{"series": series, "x": x, "y": y} for x, y in fitted]
    return Panel(f"N = {COUNTS[0]}", EXCESS, "", points, lines, log=True)
