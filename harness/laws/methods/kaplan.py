"""Kaplan's three single power laws on the rows where the other variable does not bind."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.laws.fit import Fit, fit_rows
from harness.laws.table.rows import Cells

Restriction = Callable[[Cells], tuple[NDArray[np.bool_], str]]


def largest_budget(cells: Cells) -> tuple[NDArray[np.bool_], str]:
    keep_R = cells.budget_R == cells.budget_R.max()
    return keep_R, f"the cells of the largest budget, {cells.rows.tokens[keep_R].mean():.3g} tokens"


def largest_shape(cells: Cells) -> tuple[NDArray[np.bool_], str]:
    keep_R = cells.shape_R == cells.shape_R.max()
    return keep_R, f"the cells of the largest shape, {cells.rows.params[keep_R].mean():.3g} params"


def envelope(cells: Cells) -> tuple[NDArray[np.bool_], str]:
    """Cells that no other cell beats with as much compute or less."""
    rows = cells.rows
    order_R = np.lexsort((rows.loss, rows.flops))
    best_R = np.minimum.accumulate(rows.loss[order_R])
    first_R = np.concatenate([[True], rows.loss[order_R][1:] < best_R[:-1]])
    keep_R = np.zeros(len(rows), bool)
    keep_R[order_R[first_R]] = True
    return keep_R, "the lower envelope, where no cell of less compute has a lower loss"


LAWS: dict[str, tuple[str, Restriction]] = {
    "params": ("kaplan_params", largest_budget),
    "tokens": ("kaplan_tokens", largest_shape),
    "flops": ("kaplan_flops", envelope),
}


def kaplan_fits(cells: Cells, fit: Fit, bootstrap: int, seed: int) -> tuple[dict[str, Any], list[str]]:
    """The three fits (None where the rows are too few) and the notes that say which rows they used."""
    section: dict[str, Any] = {}
    notes = []
    for key, (law, restriction) in LAWS.items():
        section[key] = None
        if not cells.rows.knows(*(("flops",) if key == "flops" else ("params", "tokens"))):
            continue
        keep_R, words = restriction(cells)
        count = f"{int(keep_R.sum())} of {len(cells.rows)} rows"
        try:
            part = fit_rows(cells.rows.keep(keep_R), fit.columns, law, fit.loss, fit.delta, bootstrap, seed)
        except UserError as error:
            notes.append(f"Kaplan's law in {key} is left out: on {words} ({count}), {error}.")
            continue
        section[key] = part.to_dict() | {"rows_used": words}
        notes.append(f"Kaplan's law in {key} uses {words} ({count}); it has no floor, so alpha is a local slope.")
    return section, notes
