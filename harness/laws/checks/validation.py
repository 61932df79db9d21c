"""How far the exponents hang on the text that validates: a jackknife over parts of it.

All cells are evaluated on the same tokens, one sample of the corpus, whose luck no interval over runs counts.
Shapes: R rows, K parts.
"""

import re
from typing import Any

import numpy as np
from scipy import special

from harness.errors import UserError
from harness.laws.fit import Fit
from harness.laws.forms import Array
from harness.laws.noise import intervals as ci
from harness.laws.table.table import Table

WATCHED = ("alpha", "beta", "gamma", "a", "E")


def by_text(fit: Fit, table: Table) -> dict[str, Any] | None:
    """95 % half-widths around the mean over all texts of this kind, by the delete-a-group jackknife (Miller 1974,
    section 2), with Student's t.

    None where the losses that were fitted are not given by parts, a refit does not converge, or a parameter lies at a
    bound, where nothing moves.
    """
    low_P, high_P = fit.form.bounds()
    inside = bool(((fit.theta_P > low_P) & (fit.theta_P < high_P)).all())
    parts_RK = _parts(table, fit.columns.target) if inside else None
    if parts_RK is None:
        return None
    count = parts_RK.shape[1]
    mean_R1 = parts_RK.mean(1, keepdims=True)
    without_KR = ((count * mean_R1 - parts_RK) / ((count - 1) * mean_R1)).T * fit.problem.target
    drawn = ci.refit(fit.problem, fit.theta_P, iter([(without_KR, np.zeros(count))]))
    if drawn.converged < 1:
        return None
    found = fit.at(drawn.theta_SP)
    t = float(special.stdtrit(count - 1, 0.975))
    half = {}
    for name in (name for name in WATCHED if name in found and np.isfinite(found[name]).all()):
        spread = ((found[name] - found[name].mean()) ** 2).sum()
        half[name] = t * float(np.sqrt((count - 1) / count * spread))
    return {"parts": count, "half_width": half}


def parts_of(target: str) -> str | None:
    """The column of the parts of a loss: loss_parts, or loss_parts_code for loss_code; None for another quantity."""
    found = re.fullmatch(r"loss(_\w+)?", target)
    return f"loss_parts{found[1] or ''}" if found else None


def _parts(table: Table, target: str) -> Array | None:
    """The loss of each row on each part of the validation tokens, (R, K)."""
    column = parts_of(target)
    if column is None or column not in table.frame.columns:
        return None
    texts = table.frame[column].fillna("").map(str).str.split()
    if texts.map(len).nunique() > 1 or len(texts.iloc[0]) < 2:
        return None
    try:
        parts_RK = np.array(texts.tolist(), dtype=np.float64)
    except ValueError as error:
        raise UserError(f"{table.source}, column {column} holds more than numbers ({error}): leave it out") from error
    return parts_RK if np.isfinite(parts_RK).all() and (parts_RK > 0).all() else None


def sentence(found: dict[str, Any] | None) -> str | None:
    """The half-widths in words."""
    if found is None:
        return None
    shown = ", ".join(f"{name} {value:.3f}" for name, value in found["half_width"].items())
    return (
        f"the mean over all text of this kind lies within {shown} of these values (95 %, jackknife over "
        f"{found['parts']} parts of the validation tokens); the intervals hold for this text"
    )
