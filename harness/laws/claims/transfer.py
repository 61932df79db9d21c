"""How far the best learning rate moves with width and with depth under each parametrization.

The best rates are the minima of `scripts/tune.py` (harness.laws.tuning) with one curvature for all sizes, and follow
rate = value (size / reference)^exponent. Shapes: C sizes; 3 an estimate and the ends of its interval.
"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import UserError
from harness.laws.claims.measured import Evidence, Measured, Panel, Row
from harness.laws.forms import Array
from harness.laws.settings import TuneConfig
from harness.laws.table.entry import converted
from harness.laws.table.names import mapped
from harness.laws.table.pool import read_sources
from harness.laws.table.rows import Columns
from harness.laws.table.table import Table, filtered
from harness.laws.table.units import Units
from harness.laws.tuning.basin import Basin
from harness.laws.tuning.choice import SIGNIFICANT, chosen
from harness.laws.tuning.rules import ABOUT, Sizes, fitted_rules, misfit, nearest_rules
from harness.laws.tuning.runs import Runs
from harness.laws.tuning.shape import curvature_shared
from harness.laws.tuning.window import bracketed

ALONG = {"width": "depth", "depth": "width"}  # and what stays the same
DECIDES = ("mup", "width")
RATE, LAW = "learning_rate", "chinchilla"  # of params and tokens, by which the columns of a table are read
SIZE = ("params",)  # whose place the width or the depth takes in a rule
LEAST_SIZES = 3


@dataclass(frozen=True)
class Move:
    """The best rates of one parametrization along width or depth, at one `stays` of the other.

    best_3C are rates with their 95 % intervals, nan where a size tells none. rate = value (size / reference)^exponent,
    the exponent with its interval behind it. `doubts` say why nothing hangs on it.
    """

    parametrization: str
    along: str
    stays: int
    size_C: Array
    best_3C: Array
    value: float
    exponent_3: Array
    doubts: list[str]
    cells: int
    residual_sd: float

    @property
    def reference(self) -> float:
        return float(np.exp(np.log(self.size_C).mean()))

    @property
    def factor(self) -> tuple[float, float, float]:
        """By how much the rate of the rule changes over the sizes, either way: 1 and more, with its 95 % interval."""
        value, *ends = (np.abs(self.exponent_3) * np.log(self.size_C.max() / self.size_C.min())).tolist()
        least = 0.0 if self.exponent_3[1] <= 0 <= self.exponent_3[2] else min(ends)
        return math.exp(value), math.exp(least), math.exp(max(ends))

    @property
    def label(self) -> str:
        doubted = ", not certified" if self.doubts else ""
        return f"{self.parametrization}, {self.along} {self.size_C.min():g} to {self.size_C.max():g}{doubted}"

    def points(self) -> list[dict[str, object]]:
        """Of a figure: the best rate of each size."""
        ends = zip(self.size_C.tolist(), *self.best_3C.tolist(), strict=True)
        return [
            {"series": self.parametrization, "x": x, "y": y, "low": low, "high": high}
            for x, y, low, high in ends
            if math.isfinite(y)
        ]

    def line(self) -> list[dict[str, object]]:
        """Of a figure: the rule at both ends."""
        ends = (float(self.size_C.min()), float(self.size_C.max()))
        power = float(self.exponent_3[0])
        return [
            {"series": self.parametrization, "x": x, "y": self.value * (x / self.reference) ** power} for x in ends
        ]


def transfer(evidence: Evidence) -> Measured:
    """The factor by which the best rate of mup moves over the widths tried, beside those of other parametrizations and
    over depths. Raises UserError where the run table cannot be read."""
    table = read_sources(str(evidence.folder), "loss", None)
    if "parametrization" not in table.frame.columns:
        raise UserError(f"{table.source} has no column parametrization, by whose values rates are compared: add it")
    words = "factor by which the best learning rate moves with the width under mup"
    try:
        own = moved(table, *DECIDES)
    except UserError as error:
        return Measured(words, "no best rates", None, None, None, doubts=[str(error)])
    moves = []
    for along in ALONG:
        for name in dict.fromkeys(table.frame["parametrization"]):
            with contextlib.suppress(UserError):
                moves.append(own if (name, along) == DECIDES else moved(table, name, along))
    words += f", over widths of {own.size_C.min():g} to {own.size_C.max():g} at depth {own.stays}"
    method = (
        "minima of the loss over the learning rate that follow a power of the size, as scripts/tune.py fits them, with "
        f"one curvature for all sizes; {own.cells} cells decide, residuals {own.residual_sd:.2%}"
    )
    rows = [Row(move.label, *move.factor, decides=move is own) for move in moves]
    first, *others = (_panel(along, [move for move in moves if move.along == along]) for along in ALONG)
    return Measured(
        words, method, *own.factor, rows, first, own.doubts, panels=[each for each in others if each is not None]
    )


def moved(table: Table, parametrization: str, along: str) -> Move:
    """The best rates of the cells of one parametrization along width or depth, where the other is that of most sizes.

    Raises UserError where these cells tell no best rates at three sizes.
    """
    what, stays = f"{parametrization} along {along}", ALONG[along]
    cells = table.frame[table.frame["parametrization"] == parametrization]
    if cells.empty:
        raise UserError(f"{table.source} has no cells of {parametrization}: train them too")
    many = cells.groupby(stays)[along].nunique()
    if many.max() < LEAST_SIZES:
        raise UserError(f"{table.source} has not three sizes of {what}: add shapes")
    at = int(many.index.to_numpy()[many.to_numpy().argmax()])
    some = filtered(table, f"parametrization=={parametrization} and {stays}=={at}")
    some, columns = mapped(some, Columns(), LAW)
    some, rows = converted(some, columns, LAW, Units(), None, None)
    try:
        runs, basin = chosen(some, rows, columns, [RATE], TuneConfig.within)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None
    if runs.sizes.varied("tokens"):
        raise UserError(f"{what}: {table.source} has several budgets, and rates are compared at one: give one tokens=")
    size_R, cell_R = runs.table.numbers(along), runs.design.cell_R
    size_C = np.array([size_R[cell_R == cell][0] for cell in range(len(runs.sizes.params_C))])
    sizes = Sizes(size_C, runs.sizes.tokens_C)  # the width or the depth in the place of params
    best_C, half_C = basin.best_CK[:, 0], basin.half_CK[:, 0]
    if np.isfinite(best_C).sum() < LEAST_SIZES:
        raise UserError(f"{what}: {table.source} tells a best rate at fewer than three sizes: try more rates")
    rule = (fitted_rules(basin, sizes, SIZE) or nearest_rules(basin, sizes, SIZE)).rule(0)
    doubts = [f"{what}: {doubt}" for doubt in _doubts(runs, basin, sizes, along)]
    with np.errstate(over="ignore"):  # of one that may lie anywhere
        best_3C = np.exp(np.stack([best_C, best_C - half_C, best_C + half_C]))
    exponent_3 = np.array([rule["params_exponent"][key] for key in ABOUT])
    return Move(
        parametrization, along, at, size_C, best_3C, rule["value"]["estimate"], exponent_3, doubts, len(rows),
        basin.residual_sd,
    )  # fmt: skip


def _doubts(runs: Runs, basin: Basin, sizes: Sizes, along: str) -> list[str]:
    """What keeps scripts/tune.py from certifying minima; `sizes` have the width or the depth in the place of params."""
    tried_C, found = bracketed(runs.design, basin)[:, 0], []
    if not tried_C.all():
        which = ", ".join(f"{along} {size:g}" for size in sizes.params_C[~tried_C])
        found.append(f"the best rate is not bracketed by those tried at {which}: try more on both sides")
    tests = {
        f"the best rates follow no power of the {along}": misfit(basin, SIZE, sizes)[0],
        f"the curvature is not the same at all {along}s": curvature_shared(basin, sizes),
    }
    return found + [f"{said} (p = {p:.1g})" for said, p in tests.items() if p is not None and p < SIGNIFICANT]


def _panel(along: str, moves: Sequence[Move]) -> Panel | None:
    if not moves:
        return None
    points, lines = ([each for move in moves for each in of(move)] for of in (Move.points, Move.line))
    return Panel(f"{along}, at {ALONG[along]} {moves[0].stays}", "best learning rate", "", points, lines, log=True)
