"""Which law predicts best what it has not seen: the laws that a table can carry on the same hold-outs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.laws.fit import Fit, fit_rows
from harness.laws.forms import FORMS
from harness.laws.forms.smooth import Smooth
from harness.laws.noise.intervals import CONFIDENCE
from harness.laws.prediction.holdout import splits
from harness.laws.table.rows import VARIABLES, Cells, check_levels, read_rows


@dataclass(frozen=True)
class Recommendation:
    """A law of the ranking, or None where none could be ranked, and why."""

    law: str | None
    reason: str


def ranking(cells: Cells, fit: Fit) -> tuple[list[dict[str, Any]], Recommendation]:
    """The section `ranking` of fit.json, best first by mean error over the hold-outs, and the law that it speaks for.

    Only laws that are certified with all rows and without each test set are ranked; the others come last, with why.
    Hold-outs that leave too few levels for Chinchilla's law are no part of it.
    """
    held_out = _held_out(cells, fit)
    if not held_out:
        return [], Recommendation(None, "No law can be recommended: no hold-out leaves rows that carry one.")
    entries = [_entry(cells, fit, law, held_out) for law in FORMS if _carried(cells, fit, law)]
    entries.sort(key=lambda entry: (entry["left_out"] is not None, entry["mean_relative_error"] or 0.0))
    return entries, _recommendation(entries, fit.law)


def _carried(cells: Cells, fit: Fit, law: str) -> bool:
    """Whether the table has the columns of a law; the slow ones, and those that count repeats, are tried beside a law
    of the same variables only."""
    form, rows, columns = FORMS[law], cells.rows, set(cells.table.frame.columns)
    if (isinstance(form, Smooth) or "unique_tokens" in form.uses) and form.uses != fit.form.uses:
        return False
    return all(rows.knows(use) if use in VARIABLES else getattr(fit.columns, use) in columns for use in form.uses)


def _held_out(cells: Cells, fit: Fit) -> dict[str, NDArray[np.bool_]]:
    """The hold-outs that leave three levels of params and tokens, and rows enough for Chinchilla's law, or for the
    headline's where the rows do not know both."""
    form = FORMS["chinchilla"] if cells.rows.knows("params", "tokens") else fit.form
    found = {}
    for name, _, test_R in splits(cells):
        try:
            check_levels(cells.rows.keep(~test_R), fit.columns, form, name)
        except UserError:
            continue
        found[name] = test_R
    return found


def _entry(cells: Cells, fit: Fit, law: str, held_out: dict[str, NDArray[np.bool_]]) -> dict[str, Any]:
    entry: dict[str, Any] = {"law": law, "equation": FORMS[law].equation, "a": None, "errors": {}, "inside": None}
    entry |= {"n_test": None, "rms_residual": None, "mean_relative_error": None, "left_out": None}
    parts = []
    try:
        rows = read_rows(cells.table, fit.columns, law)
        whole = fit_rows(rows, fit.columns, law, fit.loss, fit.delta)
        if not whole.certificate.certified:
            return entry | {"left_out": whole.certificate.reasons[0]}
        for name, test_R in held_out.items():
            part = fit_rows(rows.keep(~test_R), fit.columns, law, fit.loss, fit.delta)
            if not part.certificate.certified:
                return entry | {"left_out": f"without {name}, {part.certificate.reasons[0]}"}
            parts.append((name, test_R, part))
    except UserError as error:
        return entry | {"left_out": str(error)}
    errors, inside = {}, 0
    for name, test_R, part in parts:
        tested = rows.keep(test_R)
        predicted_R = part.predict(**tested.at(part.form))
        errors[name] = float(np.abs(predicted_R / tested.loss - 1).mean())
        low_X, high_X = part.predict_interval(level=CONFIDENCE, **tested.at(part.form))
        inside += int(((low_X <= tested.loss) & (tested.loss <= high_X)).sum())
    residual_R = np.log(rows.loss / whole.predict(**rows.at(whole.form)))
    return entry | {
        "a": _a(whole),
        "errors": errors,
        "inside": inside,
        "n_test": int(sum(test_R.sum() for _, test_R, _ in parts)),
        "rms_residual": float(np.sqrt((residual_R**2).mean())),
        "mean_relative_error": float(np.mean(list(errors.values()))),
    }


def _a(fit: Fit) -> dict[str, Any] | None:
    if "a" not in fit.estimates:
        return None
    # A law whose exponents are one has a = 1/2 without any doubt.
    low, high = fit.intervals["a"] or ((0.5, 0.5) if "beta" not in fit.estimates else (None, None))
    return {"value": fit.estimates["a"], "low": low, "high": high, "method": fit.interval_method}


def _recommendation(entries: list[dict[str, Any]], headline: str) -> Recommendation:
    """The headline law where none predicts better by more than the noise that the best one leaves, else that one."""
    ranked = {entry["law"]: entry for entry in entries if entry["left_out"] is None}
    left_out = {entry["law"]: entry["left_out"] for entry in entries if entry["left_out"] is not None}
    if not ranked:
        why = f": {headline}, {left_out[headline]}" if headline in left_out else ""
        return Recommendation(None, f"No law can be recommended: none is certified without each hold-out{why}.")
    best, own = entries[0], ranked.get(headline)
    shown = f"{best['law']} predicts held-out cells best, to {best['mean_relative_error']:.3%}{_largest(best)}"
    if own is best:
        others = ", ".join(f"{law} {entry['mean_relative_error']:.3%}" for law, entry in [*ranked.items()][1:4])
        return Recommendation(headline, f"{shown}{f' ({others})' if others else ''}.")
    if own is None:
        why = left_out.get(headline, "it is not a law of these columns")
        return Recommendation(best["law"], f"{shown}{_exponent(best)}; {headline} is not ranked: {why}.")
    against = f"{own['mean_relative_error']:.3%} of {headline}"
    if own["mean_relative_error"] - best["mean_relative_error"] <= best["rms_residual"]:
        noise = f"within the {best['rms_residual']:.3%} that it leaves as noise"
        return Recommendation(headline, f"{shown}, but {against} is {noise}.")
    return Recommendation(best["law"], f"{shown}, against {against}{_exponent(best)}.")


def _largest(entry: dict[str, Any]) -> str:
    error = entry["errors"].get("largest_shape")
    return "" if error is None else f" (the largest shape to {error:.2%})"


def _exponent(entry: dict[str, Any]) -> str:
    a = entry["a"]
    if a is None:
        return ""
    interval = "no finite interval" if a["low"] is None else f"{a['low']:.3f} to {a['high']:.3f}"
    return f"; its a is {a['value']:.3f} ({interval})"
