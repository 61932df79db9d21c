"""What training on the same tokens again costs, by each law that counts it with one number, and without any."""

from typing import Any

import numpy as np

from harness.errors import UserError
from harness.laws.display import digits
from harness.laws.fit import Fit, fit_rows
from harness.laws.forms.penalized import PENALTY, Penalized
from harness.laws.forms.repeated import REPEATS, Repeated
from harness.laws.prediction.holdout import hold_out, splits
from harness.laws.table.rows import Cells

COSTS = (*REPEATS, PENALTY)
# The last takes repeats for fresh text.
LAWS = (Repeated.name, Penalized.name, "chinchilla")


def by_epochs(fit: Fit, cells: Cells, bootstrap: int, seed: int) -> list[dict[str, Any]] | None:
    """fit.json's `epochs`, an entry a law, the headline first: its coefficients of repeats with their intervals, the
    objective, the root mean square of the log residuals, and the mean relative errors of the hold-outs that all carry.

    None where the headline does not count unique tokens.
    """
    if "unique_tokens" not in fit.form.uses:
        return None
    others = [law for law in LAWS if law != fit.law]
    fits = [fit_rows(fit.rows, fit.columns, law, fit.loss, fit.delta, bootstrap, seed) for law in others]
    entries = [_entry(each, cells) for each in (fit, *fits)]
    common = set.intersection(*(set(entry["errors"]) for entry in entries))
    errors = [{name: error for name, error in entry["errors"].items() if name in common} for entry in entries]
    return [entry | {"errors": own} for entry, own in zip(entries, errors, strict=True)]


def _entry(fit: Fit, cells: Cells) -> dict[str, Any]:
    residual_R = np.log(fit.rows.loss / fit.predict(**fit.rows.at(fit.form)))
    costs = {}
    for name in (name for name in COSTS if name in fit.estimates):
        low, high = fit.intervals[name] or (None, None)
        costs[name] = {"value": fit.estimates[name], "low": low, "high": high}
    held_out = []
    for name, description, test_R in splits(cells):
        try:
            held_out.append(hold_out(cells, fit, name, description, test_R))
        except UserError:  # too few rows for this law: then no law is judged by it
            continue
    return {
        "law": fit.law,
        "costs": costs,
        "objective": fit.objective,
        "rms_residual": float(np.sqrt((residual_R**2).mean())),
        "errors": {split["name"]: split["mean_relative_error"] for split in held_out},
        "errors_certified": all(split["certified"] for split in held_out),
        "certified": fit.certificate.certified,
        "reasons": fit.certificate.reasons,
    }


def mean_error(entry: dict[str, Any]) -> float | None:
    """Over the hold-outs, each with all its cells; None without one."""
    return float(np.mean(list(entry["errors"].values()))) if entry["errors"] else None


def sentence(found: list[dict[str, Any]] | None) -> str:
    """One line for the terminal and a claim; empty where the headline does not count unique tokens."""
    if not found:
        return ""
    parts = []
    for entry in found:
        shown = [f"{name} {_number(cost)}" for name, cost in entry["costs"].items()] or ["repeats as fresh text"]
        error = mean_error(entry)
        told = "" if error is None else f", held-out cells {error:.2%}{_doubt(entry['errors_certified'])}"
        said = f"{', '.join(shown)}{_doubt(entry['certified'])}, residuals {entry['rms_residual']:.2%}{told}"
        parts.append(f"{entry['law']} {said}")
    return f"what repeats cost: {'; '.join(parts)}"


def _doubt(certified: bool) -> str:
    return "" if certified else " (NOT certified)"


def _number(cost: dict[str, float | None]) -> str:
    assert cost["value"] is not None
    if cost["low"] is None or cost["high"] is None:
        return f"{cost['value']:.4g} (no interval)"
    value, low, high = digits(cost["value"], [cost["low"], cost["high"]])
    return f"{value} ({low} to {high})"
