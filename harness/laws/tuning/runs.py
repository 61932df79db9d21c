"""The runs of a table as a design: which settings vary, within which cells, and what is left out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from harness.errors import UserError
from harness.laws.forms import Array
from harness.laws.noise.noise import Labels
from harness.laws.table.levels import budget_labels, shape_labels
from harness.laws.table.repeats import SEED, settings
from harness.laws.table.rows import Columns, Rows
from harness.laws.table.table import Table, check_comparable, settings_of
from harness.laws.tuning.basin import Design, Mask
from harness.laws.tuning.rules import Sizes
from harness.laws.tuning.window import varying
from harness.laws.tuning.zero import Zero

LEAST_VALUES = 3
# A setting that others give up to this part of its square is none of its own.
ALONE = 1e-4


@dataclass(frozen=True)
class Runs:
    """A table of runs, its settings by name, their design, the sizes of its cells, and the rows at a setting of 0."""

    table: Table
    names: tuple[str, ...]
    design: Design
    sizes: Sizes
    zeros: tuple[Zero, ...]
    notes: list[str]

    def only(self, setting: int) -> Design:
        """The rows as those of one setting, each where the others are alike a group of its own."""
        others_RK = np.delete(self.design.setting_RK, setting, axis=1)
        labels = [np.unique(np.round(other_R, 6), return_inverse=True)[1] for other_R in others_RK.T]
        return replace(
            self.design, setting_RK=self.design.setting_RK[:, [setting]], active_CK=self.design.active_CK[:, [setting]],
            group_R=_numbered(self.design.group_R, *labels),
        )  # fmt: skip


def named_settings(table: Table, rows: Rows, columns: Columns, wanted: Sequence[str]) -> list[str]:
    """The columns that are settings: those wanted, else the axes of a sweep, or what else was set and is a number.

    Raises UserError where there is none, or one is no column.
    """
    if wanted:
        for name in wanted:
            if name not in table.frame.columns:
                raise UserError(
                    f"{table.source} has no column {name!r}: name the settings that vary, as in settings=lr,batch_size"
                )
        return list(wanted)
    found = [name for name in settings_of(table) if table.own] or settings(table, rows, columns)
    numeric = [name for name in found if table.frame[name].nunique() > 1 and _numeric(table, name)]
    if not numeric:
        raise UserError(
            f"no setting varies between the runs of one params and tokens in {table.source}, and a minimum lies "
            "between three values or more: train sizes with several, or name the columns, as in settings=lr,batch_size"
        )
    return numeric


def _numeric(table: Table, name: str) -> bool:
    return bool(np.isfinite(pd.to_numeric(table.frame[name], errors="coerce")).all())


def read_design(
    table: Table, rows: Rows, columns: Columns, wanted: Sequence[str], left: Sequence[str] = ()
) -> Runs:
    """The design behind a table; raises UserError where its settings have no minimum that could be told.

    left: settings that vary too and are left out, with a note.
    """
    names = named_settings(table, rows, columns, wanted)
    value_RK = np.stack([table.numbers(name, positive=False) for name in names], axis=1)
    for name, value_R in zip(names, value_RK.T, strict=True):
        if (value_R < 0).any():
            raise UserError(f"{table.source}, column {name} has negative values, and a setting has none: correct them")
        if len(np.unique(value_R)) == 1:
            raise UserError(f"{table.source}, column {name} is {value_R[0]:g} in every row: leave it out of settings=")
    notes, whole_table, whole, zero_R = [], table, rows, (value_RK == 0).any(1)
    if zero_R.any():
        shown = " and ".join(name for name, value_R in zip(names, value_RK.T, strict=True) if (value_R == 0).any())
        if zero_R.all():
            raise UserError(
                f"{table.source}: {shown} is 0 in every row, and a bowl in logs does not reach there: leave out of "
                "settings= what is 0, or add runs"
            )
        notes.append(f"{int(zero_R.sum())} rows at {shown} of 0 are no part of the bowl: logs do not reach there.")
        table = table.drop(zero_R, ["a setting of 0"] * len(zero_R))
        rows = rows.keep(~zero_R)
    check_comparable(table, _known(table, [*names, *left], columns))
    if left:
        notes.append(f"{' and '.join(left)}: no minimum beside the others; what it does to the loss counts as noise.")
    elif others := [name for name in settings(table, rows, columns) if name not in names]:
        more = ", ".join(others)
        notes.append(f"Runs of one size differ in {more} too: name them in settings=, or filter one value.")
    cell_R = _numbered(shape_labels(whole_table.frame, whole.params), budget_labels(whole.tokens), first_R=~zero_R)
    every = Design(
        np.log(whole.loss), np.log(np.where(value_RK == 0, 1.0, value_RK)), cell_R,
        _groups(whole_table, cell_R, names, ~zero_R), whole.cluster,
        np.ones((int(cell_R[~zero_R].max()) + 1, len(names)), bool), np.ones(len(whole)),
    )  # fmt: skip
    design = every.keep((~zero_R).astype(float))
    design = replace(design, active_CK=varying(design, LEAST_VALUES))
    _check_values(table, names, design, shape_labels(table.frame, rows.params))
    _check_apart(table, names, design)
    params_C, tokens_C = (
        np.asarray(pd.Series(value_R[~zero_R]).groupby(design.cell_R).median(), float)
        for value_R in (whole.params, whole.tokens)
    )
    sizes = Sizes(params_C, tokens_C)
    return Runs(table, tuple(names), design, sizes, _zeros(every, value_RK, len(params_C)), notes)


def _zeros(every: Design, value_RK: Array, cells: int) -> tuple[Zero, ...]:
    """The rows of each setting at which it alone is 0, at sizes that have others too."""
    found = []
    for setting in range(value_RK.shape[1]):
        alone_R = (value_RK[:, setting] == 0) & ((value_RK == 0).sum(1) == 1) & (every.cell_R < cells)
        if alone_R.any():
            found.append(Zero(setting, every.keep(alone_R.astype(float))))
    return tuple(found)


def _known(table: Table, names: Sequence[str], columns: Columns) -> set[str]:
    """Columns that may vary: those that mean something, the settings, and a sweep's axis that sets one of them."""
    known = {name for name in vars(columns).values() if name is not None} | set(names)
    short = {name.removesuffix(".value").rpartition(".")[2] for name in names}
    twins = {name for name in settings_of(table) if name.removesuffix(".value").rpartition(".")[2] in short}
    return known | short | twins


def _numbered(*labels: Labels, first_R: Mask | None = None) -> Labels:
    """One label for each combination; those that `first_R` has come first."""
    label_R = np.unique(np.stack(labels), axis=1, return_inverse=True)[1].ravel()
    if first_R is None:
        return label_R
    first = np.unique(label_R[first_R])
    order = np.concatenate([first, np.setdiff1d(label_R, first)])
    return np.argsort(order)[label_R]


def _groups(table: Table, cell_R: Labels, names: Sequence[str], fitted_R: Mask) -> Labels:
    """Rows that differ in settings alone: of one cell, and of one seed where seeds are common to settings."""
    for name in (name for name in table.frame.columns if SEED.search(str(name)) and name not in names):
        seed_R = pd.factorize(table.frame[name].map(str))[0]
        groups_R = _numbered(cell_R, seed_R)
        if np.unique(groups_R[fitted_R], return_counts=True)[1].min() >= LEAST_VALUES:
            return groups_R
    return cell_R


def _check_values(table: Table, names: Sequence[str], design: Design, shape_R: Labels) -> None:
    for name, setting_R, active_C in zip(names, design.setting_RK.T, design.active_CK.T, strict=True):
        if active_C.any():
            continue
        values_R = np.round(setting_R, 6)
        if any(len(np.unique(values_R[shape_R == shape])) >= LEAST_VALUES for shape in np.unique(shape_R)):
            raise UserError(
                f"{table.source}: the tokens differ between the values of {name}, and a minimum lies between "
                f"{LEAST_VALUES} values at the same tokens: train each value to the same budgets"
            )
        raise UserError(
            f"{table.source}: no params and tokens have {LEAST_VALUES} values of {name}, and a minimum lies between "
            "three or more: add runs, at the same budgets for each value, or leave it out of settings="
        )


def _check_apart(table: Table, names: Sequence[str], design: Design) -> None:
    """Raises UserError where a setting follows from others in every cell, so that neither can be told."""
    setting_RK = np.where(design.active_CK[design.cell_R], design.setting_RK, 0.0)
    moved_RK = setting_RK - _means(setting_RK, design.cell_R)
    for k, name in enumerate(names):
        others = [j for j in range(len(names)) if j != k]
        left = 0.0
        for cell in np.flatnonzero(design.active_CK[:, k]):
            own_RK = moved_RK[design.cell_R == cell]
            rest_R = own_RK[:, k]
            if others:
                rest_R = rest_R - own_RK[:, others] @ np.linalg.lstsq(own_RK[:, others], rest_R, rcond=1e-6)[0]
            left += float((rest_R**2).sum())
        if left <= ALONE * float((moved_RK[:, k] ** 2).sum()):
            follows = [names[j] for j in others if abs(np.corrcoef(moved_RK[:, k], moved_RK[:, j])[0, 1]) > 0.99]
            raise UserError(
                f"{table.source}: {name} and {' and '.join(follows or [names[j] for j in others])} vary together, so "
                "that none of them can be told: vary one at a time, or name one in settings="
            )


def _means(value_RK: Array, label_R: Labels) -> Array:
    size_G = np.bincount(label_R)
    return np.stack([np.bincount(label_R, column_R) / size_G for column_R in value_RK.T], axis=1)[label_R]
