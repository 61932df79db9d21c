"""The variants of a table: the column that tells them apart, their rows, and which of these are paired."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.errors import UserError
from harness.laws.noise.noise import Labels
from harness.laws.noise.pairs import Groups
from harness.laws.table.levels import SAME_PARAMS, budget_labels, grouped
from harness.laws.table.rows import Columns, read_rows
from harness.laws.table.table import ALIKE, BY_SHAPE, Table, check_comparable
from harness.laws.table.typed import TEXTS
from harness.laws.variants.joint import Arms
from harness.records import COLUMNS

# The column of a sweep's own lists of overrides, and of tables that are read together.
FIRST = ("variant", "source")
# What tells the runs of one variant apart, beside the budget.
RUN = ("width", "depth", "seed")
# Another text to train on is another floor.
DATA = ("data", "dataset", "train_set")
OF_LOSSES = ("loss", "bits_per_byte", "accuracy_", "exact_")
LEAST_ROWS = 3
# A column with more values than rows over this tells cells apart, not variants.
ROWS_A_VALUE = 3


def column_of(table: Table, column: str | None, columns: Columns) -> str:
    """The column whose values are compared; raises UserError where none varies, or several do and none is named."""
    frame = table.frame
    if column is not None:
        if column not in frame.columns:
            raise UserError(f"{table.source} has no column {column!r}: name the one that tells the variants apart")
        if frame[column].map(str).nunique() == 1:
            raise UserError(
                f"{table.source}, column {column} is {frame[column].iloc[0]} in every row, and variants are compared: "
                "name two tables in runs=a,b, or another column"
            )
        return column
    used = {name for name in vars(columns).values() if name is not None}
    found: dict[bytes, str] = {}
    for name in (name for name in dict.fromkeys((*FIRST, *ALIKE, *frame.columns)) if name in frame.columns):
        values = frame[name].map(str)
        if values.nunique() == 1 or name in used or not _may_be_setting(table, str(name)):
            continue
        if name in FIRST:
            return str(name)
        found.setdefault(pd.factorize(values)[0].tobytes(), str(name))
    if not found:
        raise UserError(
            f"no setting varies in {table.source}, and variants are compared: name their column with column=NAME, or "
            "two tables in runs=a,b"
        )
    if len(found) > 1:
        first, *_ = found.values()
        raise UserError(f"{table.source} varies in {', '.join(found.values())}: name one, as in column={first}")
    return next(iter(found.values()))


def _may_be_setting(table: Table, name: str) -> bool:
    """Whether a column can name variants: a known setting, an axis of a sweep, or few texts in somebody's table."""
    if name in (*FIRST, *ALIKE):
        return True
    if name in TEXTS or name in COLUMNS or name in RUN or name.startswith(OF_LOSSES):
        return False
    few = table.frame[name].map(str).nunique() * ROWS_A_VALUE <= len(table.frame)
    return few and (table.own or not pd.api.types.is_numeric_dtype(table.frame[name]))


def read_arms(
    table: Table, columns: Columns, law: str, column: str | None, baseline: str | None, tried: Sequence[str] = ()
) -> tuple[Table, str, Arms]:
    """The table with its rows by variant, the baseline's first, the column, and its numbers.

    `tried` are settings that may differ within a variant. Raises UserError where the variants cannot be compared.
    """
    table.numbers(columns.target)
    column = column_of(table, column, columns)
    values = table.frame[column].map(str)
    names = list(dict.fromkeys(values))
    if baseline is not None and baseline not in names:
        raise UserError(f"baseline={baseline} is no value of {column} in {table.source}: choose {' or '.join(names)}")
    names.sort(key=lambda name: name != baseline)
    place = {name: index for index, name in enumerate(names)}
    variant_R: Labels = np.array([place[value] for value in values], np.intp)
    order_R = np.argsort(variant_R, kind="stable")
    table, variant_R = _ordered(table, order_R), variant_R[order_R]
    used = {name for name in vars(columns).values() if name is not None}
    for variant, name in enumerate(names):
        part = replace(table.keep(variant_R == variant), source=f"{table.source}, {column} {name}")
        if len(part.frame) < LEAST_ROWS:
            raise UserError(f"{part.source} has {len(part.frame)} rows, and a multiplier needs {LEAST_ROWS}: add runs")
        check_comparable(part, {*used, *tried, *(BY_SHAPE if tried else ())})
    rows = read_rows(table, columns, law)
    arms = Arms(tuple(names), variant_R, rows, columns, _groups(table, column, variant_R, rows.cluster, columns))
    _check_ranges(arms, column, table.source)
    return table, column, arms


def _ordered(table: Table, order_R: NDArray[np.intp]) -> Table:
    written = None if table.written is None else table.written.iloc[order_R].reset_index(drop=True)
    lines = [table.lines[index] for index in order_R.tolist()]
    return replace(table, frame=table.frame.iloc[order_R].reset_index(drop=True), lines=lines, written=written)


def _check_ranges(arms: Arms, column: str, source: str) -> None:
    """Raises UserError where a variant and the baseline have no range in common, so that only the law would compare."""
    for variant, name in enumerate(arms.names[1:], 1):
        for use, values_R in (("params", arms.rows.params), ("tokens", arms.rows.tokens)):
            first_R, second_R = values_R[arms.variant_R == 0], values_R[arms.variant_R == variant]
            if first_R.max() < second_R.min() or second_R.max() < first_R.min():
                raise UserError(
                    f"{source}: the {use} of {column} {arms.names[0]} ({first_R.min():.3g} to {first_R.max():.3g}) and "
                    f"{name} ({second_R.min():.3g} to {second_R.max():.3g}) do not overlap: train cells in both ranges"
                )


def cell_labels(table: Table, column: str, columns: Columns) -> tuple[Labels, Labels]:
    """The labels of a row's shape and seed, and of its budget, the same in all variants."""
    named = [name for name in RUN if name in table.frame.columns and name != column]
    if {"width", "depth"} & set(named):
        run_R = table.frame[named].astype(str).agg(" ".join, axis=1)
    else:
        run_R = pd.Series(grouped(table.numbers(columns.params), SAME_PARAMS)).astype(str)
        for name in named:
            run_R = run_R + " " + table.frame[name].astype(str)
    return np.unique(run_R, return_inverse=True)[1], budget_labels(table.numbers(columns.tokens))


def _groups(table: Table, column: str, variant_R: Labels, cluster_R: Labels | None, columns: Columns) -> Groups:
    run_R, budget_R = cell_labels(table, column, columns)
    alone_R = np.arange(len(run_R))
    trunk_R = alone_R if cluster_R is None else _numbered(variant_R, cluster_R)
    # Where a variant has a run twice, nobody knows which of the two a partner belongs to.
    frame = pd.DataFrame({"variant": variant_R, "run": run_R, "budget": budget_R})
    twice_R = frame.duplicated(keep=False).groupby(run_R).transform("any").to_numpy()
    own_R = np.where(twice_R, alone_R, -1)
    cell_R = _numbered(run_R, budget_R, own_R)
    # Trunks that share nothing with others still are blocks of their own.
    block_R = _numbered(run_R, np.where(twice_R, trunk_R, -1)) if cluster_R is not None else cell_R
    return Groups(trunk_R, block_R, cell_R, cluster_R is not None)


def _numbered(*labels: Labels) -> Labels:
    """One label for each combination, from 0."""
    return np.unique(np.stack(labels), axis=1, return_inverse=True)[1].ravel()


def differing(table: Table, column: str, arms: Arms) -> list[str]:
    """Other settings in which the variants differ."""
    found = []
    for name in (name for name in (*ALIKE, "batch_tokens") if name in table.frame.columns and name != column):
        values = table.frame[name].map(str).groupby(arms.variant_R).agg(lambda part: " ".join(sorted(set(part))))
        if values.nunique() > 1 and name not in vars(arms.columns).values():
            found.append(name)
    return found


def other_text(table: Table, column: str, arms: Arms) -> bool:
    """Whether the variants train on different texts."""
    return column in DATA or bool(set(differing(table, column, arms)) & set(DATA))
