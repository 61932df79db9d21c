"""How well the cells of little compute predict those of much."""

import contextlib
from dataclasses import dataclass

import numpy as np
from scipy import special

from harness.errors import UserError
from harness.laws.claims.measured import Evidence, Measured, Panel, Row
from harness.laws.fit import Fit, fit_rows
from harness.laws.forms import Array
from harness.laws.noise.intervals import TAILS
from harness.laws.noise.noise import Labels
from harness.laws.table.levels import shape_labels
from harness.laws.table.rows import Rows

# Of the most compute of the table, what the law is fitted to; and other parts that are shown beside it.
PART, OTHERS = 1 / 8, (1 / 4, 1 / 2)


@dataclass(frozen=True)
class Beyond:
    """A law fitted to the cells of a part of the compute, and its relative errors on the others, of which runs."""

    fit: Fit
    rows: Rows
    error_R: Array
    run_R: Labels

    @property
    def certified(self) -> str:
        return "certified" if self.fit.certificate.certified else "not certified"

    def mean(self) -> tuple[float, float, float]:
        """The mean size of the errors over runs, and its 95 % interval by Student's t."""
        mean_K = np.bincount(self.run_R, np.abs(self.error_R)) / np.bincount(self.run_R)
        half = special.stdtrit(len(mean_K) - 1, TAILS[1]) * mean_K.std(ddof=1) / np.sqrt(len(mean_K))
        return float(mean_K.mean()), float(max(0.0, mean_K.mean() - half)), float(mean_K.mean() + half)


def extrapolation(evidence: Evidence) -> Measured:
    """The mean relative error of the stated law, fitted to cells of an eighth of the compute, on all others.

    The law needs no identified exponents to predict, so that its certificate is told and decides nothing. Raises
    UserError where these cells cannot carry it.
    """
    found = beyond(evidence, PART)
    rows = [_row(found, PART, True)]
    for part in OTHERS:
        with contextlib.suppress(UserError):
            rows.append(_row(beyond(evidence, part), part, False))
    many = f"{len(found.error_R)} cells of {int(found.run_R.max()) + 1} runs"
    fitted = f"{found.fit.predicts}, fitted to {len(found.fit.rows)} cells ({found.certified})"
    shown = zip(found.rows.params, found.rows.flops, 100 * found.error_R, strict=True)
    points = [{"series": f"{params / 1e3:.0f} k params", "x": float(x), "y": float(y)} for params, x, y in shown]
    panel = Panel("training compute C (FLOPs)", "predicted over measured loss, less 1 (%)", "", points, [])
    words = "mean relative error on cells beyond an eighth of the compute"
    own = rows[0]
    method = f"{fitted}, against {many}; Student's t over these runs"
    return Measured(words, method, own.estimate, own.low, own.high, rows, panel)


def beyond(evidence: Evidence, part: float) -> Beyond:
    """The stated law on what lies beyond a part of the compute; raises UserError where that cannot be told."""
    rows, label = evidence.ready.rows, f"1/{1 / part:.0f} of the compute"
    below_R = rows.flops <= part * rows.flops.max()
    try:
        fit = fit_rows(rows.keep(below_R), evidence.ready.columns, evidence.law, "log_mse", source=str(evidence.folder))
    except UserError as error:
        raise UserError(f"the cells of {label} cannot carry the law: {error}") from None
    rest = rows.keep(~below_R)
    runs_R = shape_labels(evidence.ready.table.frame, rows.params) if rows.cluster is None else rows.cluster
    names, run_R = np.unique(runs_R[~below_R], return_inverse=True)
    if len(names) < 2:
        raise UserError(f"{evidence.folder} has fewer than two runs beyond {label}: add shapes")
    return Beyond(fit, rest, fit.predict(**rest.at(fit.form)) / rest.loss - 1, run_R)


def _row(found: Beyond, part: float, decides: bool) -> Row:
    label = f"from 1/{1 / part:.0f} of the compute ({len(found.fit.rows)} cells, {found.certified})"
    return Row(label, *found.mean(), decides)
