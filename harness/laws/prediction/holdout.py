"""Cells that a fit has not seen, predicted by the law and by the plainest competitor.

Shapes: R rows, S shapes, B budgets.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.laws.fit import Fit, fit_rows
from harness.laws.forms import Array
from harness.laws.noise.intervals import CONFIDENCE
from harness.laws.noise.noise import Labels
from harness.laws.table.levels import level_values
from harness.laws.table.rows import Cells, Rows

MOST_COMPUTE = 0.2


def splits(cells: Cells) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """Name, description and test rows of each hold-out that the rows know of: by params, by tokens and by compute."""
    rows = cells.rows
    largest_R, longest_R = cells.shape_R == cells.shape_R.max(), cells.budget_R == cells.budget_R.max()
    count = max(1, round(MOST_COMPUTE * len(rows)))
    most_R = rows.flops >= np.sort(rows.flops)[-count]
    named = [
        ("largest_shape", "the largest shape with all its budgets, predicted from the other shapes", largest_R),
        ("largest_budget", "the largest budget with all its shapes, predicted from the smaller budgets", longest_R),
        ("most_compute", f"the {int(most_R.sum())} cells with the most compute, predicted from the rest", most_R),
    ]
    return [entry for entry, use in zip(named, ("params", "tokens", "flops"), strict=True) if rows.knows(use)]


def hold_out(cells: Cells, fit: Fit, name: str, description: str, test_R: NDArray[np.bool_]) -> dict[str, Any]:
    """The hold-out entry of fit.json; raises UserError where the other rows cannot carry the law."""
    rows = cells.rows
    try:
        part = fit_rows(rows.keep(~test_R), fit.columns, fit.law, fit.loss, fit.delta)
    except UserError as error:
        raise UserError(f"hold-out {name} is left out: without {description.split(',')[0]}, {error}") from error
    predicted_R = part.predict(**rows.at(part.form))
    low_R, high_R = part.predict_interval(level=CONFIDENCE, **rows.at(part.form))
    competitor_R = additive_prediction(rows, cells.shape_R, cells.budget_R, ~test_R)
    held_out: list[dict[str, Any]] = []
    for index in np.flatnonzero(test_R).tolist():
        loss = float(rows.loss[index])
        held_out.append(
            {
                "cell": cells.table.name(index),
                "width": cells.number("width", index),
                "depth": cells.number("depth", index),
                "params": float(rows.params[index]),
                "tokens": float(rows.tokens[index]),
                "flops": float(rows.flops[index]),
                "loss": loss,
                "predicted": float(predicted_R[index]),
                "low": float(low_R[index]),
                "high": float(high_R[index]),
                "relative_error": float(predicted_R[index] / loss - 1),
                "competitor_predicted": float(competitor_R[index]),
                "competitor_relative_error": float(competitor_R[index] / loss - 1),
            }
        )
    return {
        "name": name,
        "description": description,
        "n_train": int((~test_R).sum()),
        "n_test": len(held_out),
        "mean_relative_error": float(np.mean([abs(cell["relative_error"]) for cell in held_out])),
        "competitor_mean_relative_error": float(np.mean([abs(cell["competitor_relative_error"]) for cell in held_out])),
        "inside": sum(cell["low"] <= cell["loss"] <= cell["high"] for cell in held_out),
        "certified": part.certificate.certified,
        "certificate_reasons": part.certificate.reasons,
        "rows": held_out,
    }


def additive_prediction(rows: Rows, shape_R: Labels, budget_R: Labels, train_R: NDArray[np.bool_]) -> Array:
    """Losses of all rows from an additive table of shape and budget effects in log loss, fitted on some rows.

    An unseen shape's effect is the straight line of the training shapes' effects in log params, an unseen
    budget's that of the training budgets' in log tokens. Where the rows do not form a connected grid, so that
    the table is not determined, a plane in log params and log tokens, or in what the rows know, takes its place.
    """
    log_loss_R = np.log(rows.loss)
    known = [use for use in ("params", "tokens") if rows.knows(use)] or ["flops"]
    shapes, budgets = np.unique(shape_R[train_R]), np.unique(budget_R[train_R])
    design = np.zeros((len(rows), len(shapes) + len(budgets)))
    design[:, : len(shapes)] = shape_R[:, None] == shapes
    design[:, len(shapes) :] = budget_R[:, None] == budgets
    trained = design[train_R]
    connected = np.linalg.matrix_rank(trained) == len(shapes) + len(budgets) - 1
    if len(known) < 2 or not connected or len(shapes) < 2 or len(budgets) < 2:
        plane = np.stack([np.ones_like(log_loss_R), *(np.log(rows.of(use)) for use in known)], axis=1)
        slope = np.linalg.lstsq(plane[train_R], log_loss_R[train_R], rcond=None)[0]
        return np.exp(plane @ slope)
    effect: Array = np.linalg.lstsq(trained, log_loss_R[train_R], rcond=None)[0].astype(float)
    shape_S = np.log(level_values(rows.params, shape_R))
    budget_B = np.log(level_values(rows.tokens, budget_R))
    of_shape_S = _extended(effect[: len(shapes)], shapes, shape_S)
    of_budget_B = _extended(effect[len(shapes) :], budgets, budget_B)
    return np.exp(of_shape_S[shape_R] + of_budget_B[budget_R])


def _extended(effect: Array, known: Labels, log_value: Array) -> Array:
    """Effects of all levels: the known ones as measured, the others on the straight line through them."""
    slope, intercept = np.polyfit(log_value[known], effect, 1)
    extended = intercept + slope * log_value
    extended[known] = effect
    return extended
