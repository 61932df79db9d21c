"""The same cells trained in two ways: how their losses differ, and the exponents that each gives.

Shapes: R rows, C cells that both have.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import special

from harness.errors import UserError
from harness.laws.checks.moves import WATCHED
from harness.laws.fit import Fit, fit_rows
from harness.laws.forms import Array
from harness.laws.noise import intervals as ci
from harness.laws.settings import TableConfig
from harness.laws.table.entry import converted
from harness.laws.table.levels import budget_labels
from harness.laws.table.names import mapped
from harness.laws.table.rows import read_rows
from harness.laws.table.table import Table, check_comparable, filtered

SHAPE = ("width", "depth", "seed")


@dataclass(frozen=True)
class Comparison:
    """`ways` are the two values of the column, first and second; `difference_C` is log(second loss / first loss).

    `exponents` maps alpha, beta and a to the second's minus the first's, and its 95 % interval.
    """

    column: str
    ways: tuple[str, str]
    fits: tuple[Fit, Fit]
    cells: pd.DataFrame  # shape, tokens, both losses, difference; (C,)
    exponents: dict[str, tuple[float, float, float]]

    @property
    def difference_C(self) -> Array:
        return self.cells["difference"].to_numpy(float)

    def mean(self) -> tuple[float, float, float]:
        """The mean difference over trunks, each with all its budgets, and its 95 % interval by Student's t."""
        per_trunk = self.cells.groupby("shape")["difference"].mean().to_numpy(float)
        half = np.nan
        if len(per_trunk) > 1:
            error = per_trunk.std(ddof=1) / math.sqrt(len(per_trunk))
            half = special.stdtrit(len(per_trunk) - 1, ci.TAILS[1]) * error
        return float(per_trunk.mean()), float(per_trunk.mean() - half), float(per_trunk.mean() + half)

    def by_budget(self) -> list[tuple[float, float, float]]:
        """Tokens, mean difference and its standard error over shapes, one a budget."""
        label_C = budget_labels(self.cells["tokens"].to_numpy(float))
        tokens, difference = (self.cells[name].groupby(label_C) for name in ("tokens", "difference"))
        columns = (tokens.mean(), difference.mean(), difference.sem())
        return list(zip(*(column.tolist() for column in columns), strict=True))


def compare(table: Table, config: TableConfig, column: str) -> Comparison:
    """Fits both halves of a table that `column` tells apart, and pairs their cells by shape, seed and budget.

    The interval of a move of an exponent is that of two independent sets of runs: too wide where they share seeds.
    Raises UserError where the column has other than two values, no cell is in both, or a half cannot be fitted.
    """
    config.check()
    if not config.bootstrap:
        raise UserError("bootstrap=0 leaves no draws to compare: give 200 or more")
    table = filtered(table, config.filter)
    if column not in table.frame.columns:
        raise UserError(f"{table.source} has no column {column!r}: name the one that tells the two ways apart")
    values = list(dict.fromkeys(table.frame[column].map(str)))
    if len(values) == 1:
        raise UserError(
            f"{table.source}, column {column} is {values[0]} in every row, and two ways are compared: name both in "
            "runs=a,b, or another column"
        )
    if len(values) > 2:
        raise UserError(
            f"{table.source}, column {column} has {len(values)} values ({', '.join(values[:4])}): two are compared, "
            "so choose them with filter="
        )
    table, columns = mapped(table, config.columns, law := config.law_of(table))
    table, _ = converted(table, columns, law, config.units, config.target_unit, config.bytes_per_token)
    config = replace(config, columns=columns)
    halves = [table.keep((table.frame[column].map(str) == value).to_numpy()) for value in values]
    for half in halves:
        check_comparable(half, {name for name in vars(columns).values() if name is not None})
    first, second = (_fit(half, config, seed) for seed, half in enumerate(halves, config.seed))
    return Comparison(column, (values[0], values[1]), (first, second), _pairs(halves, config), _moves(first, second))


def _fit(table: Table, config: TableConfig, seed: int) -> Fit:
    law = config.law_of(table)
    rows = read_rows(table, config.columns, law)
    return fit_rows(rows, config.columns, law, config.loss, config.delta, config.bootstrap, seed, table.source)


def _moves(first: Fit, second: Fit) -> dict[str, tuple[float, float, float]]:
    assert first.draws is not None and second.draws is not None
    before, after = first.at(first.draws.theta_SP), second.at(second.draws.theta_SP)
    moves = {}
    for name in (name for name in WATCHED if name in first.estimates):
        low, high = ci.quantiles(after[name] - before[name])
        moves[name] = (second.estimates[name] - first.estimates[name], float(low), float(high))
    return moves


def _pairs(halves: list[Table], config: TableConfig) -> pd.DataFrame:
    columns = config.columns
    tokens = np.concatenate([half.numbers(columns.tokens) for half in halves])
    budgets = np.split(budget_labels(tokens), [len(halves[0].frame)])
    frames = []
    for half, budget_R in zip(halves, budgets, strict=True):
        named = [name for name in SHAPE if name in half.frame.columns] or [columns.params]
        shape = half.frame[named].astype(str).agg(" ".join, axis=1)
        frames.append(
            pd.DataFrame({
                "shape": shape, "budget": budget_R, "tokens": half.numbers(columns.tokens),
                "loss": half.numbers(columns.target),
            })
        )  # fmt: skip
    both = frames[0].merge(frames[1], on=["shape", "budget"], suffixes=("", "_second"))
    if not len(both):
        raise UserError(f"no cell of {halves[0].source} is in both halves: train the same shapes, seeds and budgets")
    return both.assign(difference=np.log(both["loss_second"] / both["loss"]))
