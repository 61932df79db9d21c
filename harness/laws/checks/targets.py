"""The law of each text that a sweep's cells were evaluated on: one set of runs has as many exponents as texts."""

from dataclasses import replace

from harness.errors import UserError
from harness.laws.checks.validation import parts_of
from harness.laws.fit import Fit, fit_rows
from harness.laws.table.rows import read_rows
from harness.laws.table.table import Table


def targets_of(table: Table) -> list[str]:
    """The columns of losses on a text, that of the text that trains first; none of anybody else's table."""
    named = [name for name in map(str, table.frame.columns) if name == "loss" or name.startswith("loss_")]
    return [name for name in named if parts_of(name) in table.frame.columns] if table.own else []


def by_target(table: Table, fit: Fit, bootstrap: int, seed: int) -> tuple[list[Fit], list[str]]:
    """The headline fit to the losses on each text, and notes on those that cannot be; nothing where there is but one.

    All fits are to the same cells: a text on which one of them has no loss is left out.
    """
    targets = targets_of(table)
    if len(targets) < 2 or fit.columns.target not in targets:
        return [], []
    fits, notes = [], []
    for target in targets:
        if target == fit.columns.target:
            fits.append(fit)
            continue
        columns = replace(fit.columns, target=target)
        try:
            rows = read_rows(table, columns, fit.law)
            fits.append(fit_rows(rows, columns, fit.law, fit.loss, fit.delta, bootstrap, seed, table.source))
        except UserError as error:
            notes.append(f"The exponents by text leave {target} out: {error}.")
    return fits, notes
