"""Which law predicts best what it has not seen: the laws of params and tokens on the same hold-outs."""

from typing import Any

import numpy as np

from harness.errors import UserError
from harness.laws.fit import Fit, fit_rows
from harness.laws.holdout import Grid, splits

LAWS = ("chinchilla", "chinchilla_tied", "chinchilla_coupled", "kaplan_joint")


def ranking(grid: Grid, fit: Fit) -> tuple[list[dict[str, Any]], list[str]]:
    """The section `ranking` of fit.json, best first by mean error over the hold-outs, and a note on the best law.

    Only laws that are certified with all rows and without each test set are ranked; the others come last, with why.
    """
    entries = [_entry(grid, fit, law) for law in LAWS]
    entries.sort(key=lambda entry: (entry["left_out"] is not None, entry["mean_relative_error"] or 0.0))
    ranked = {entry["law"]: entry for entry in entries if entry["left_out"] is None}
    best, notes = entries[0], []
    if fit.law in ranked and best["law"] != fit.law:
        low, high = best["a"]["low"], best["a"]["high"]
        notes.append(
            f"Held-out cells are predicted best by {best['law']}: mean error {best['mean_relative_error']:.2%}, "
            f"against {ranked[fit.law]['mean_relative_error']:.2%} of {fit.law}; its a is {best['a']['value']:.3f} "
            f"({low:.3f} to {high:.3f})."
        )
    return entries, notes


def _entry(grid: Grid, fit: Fit, law: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"law": law, "equation": None, "a": None, "errors": {}}
    entry |= {"rms_residual": None, "mean_relative_error": None, "left_out": None}
    rows = grid.rows
    try:
        whole = fit_rows(rows, fit.columns, law, fit.loss, fit.delta)
        parts = [(name, test_R, fit_rows(rows.keep(~test_R), fit.columns, law, fit.loss, fit.delta))
                 for name, _, test_R in splits(grid)]  # fmt: skip
    except UserError as error:
        return entry | {"left_out": str(error)}
    doubts = [reason for part in (whole, *(part for _, _, part in parts)) for reason in part.certificate.reasons]
    # A law whose exponents are one has a = 1/2 without any doubt.
    a = whole.intervals["a"] or ((0.5, 0.5) if "beta" not in whole.estimates else None)
    if doubts or a is None:
        return entry | {"left_out": doubts[0] if doubts else "a has no finite interval"}
    low, high = a
    residual_R = np.log(rows.loss / whole.predict(rows.params, rows.tokens))
    errors = {
        name: float(np.abs(part.predict(rows.params, rows.tokens) / rows.loss - 1)[test_R].mean())
        for name, test_R, part in parts
    }
    return entry | {
        "equation": whole.form.equation,
        "a": {"value": whole.estimates["a"], "low": low, "high": high, "method": whole.interval_method},
        "errors": errors,
        "rms_residual": float(np.sqrt((residual_R**2).mean())),
        "mean_relative_error": float(np.mean(list(errors.values()))),
    }
