"""The fitted data exponent against the known one."""

import numpy as np

from harness.errors import UserError
from harness.laws.claims.measured import Evidence, Measured, Panel, Row
from harness.laws.forms import Array
from harness.records import FLOOR, SweepFolder, read_sweep

CURVE_POINTS = 31


def above_exponent(evidence: Evidence) -> Measured:
    """The exponent of the tokens at the largest shape, less that of an ideal learner; raises UserError.

    The loss of answers has no floor, so that it is Kaplan's law in tokens of fit.json. Beside it stands beta gamma of
    the coupled law on all cells.
    """
    known = (read_sweep(SweepFolder(evidence.folder)).get(FLOOR) or {}).get("exponent")
    if known is None:
        raise UserError(f"{evidence.folder} knows no data exponent of its text: train it on data=facts")
    found = evidence.content("fit")["kaplan"]["tokens"]
    if found is None:
        raise UserError(f"{evidence.folder} has too few budgets at its largest shape for an exponent: add tokens")
    alpha, (low, high) = found["estimates"]["alpha"], found["intervals"]["alpha"] or (None, None)
    low, high = (None if end is None else end - known for end in (low, high))
    rows = [Row(f"alpha of {found['rows_used']}", alpha - known, low, high, True), *_coupled(evidence, known)]
    certificate = found["certificate"]
    doubts = [] if certificate["certified"] else [f"the fit is not certified: {'; '.join(certificate['reasons'])}"]
    own = rows[0]
    words = f"exponent of the tokens at the largest shape, {alpha:.4f}, less the known {known:.4f}"
    method = f"{found['predicts']}; {found['interval_method']}"
    return Measured(words, method, own.estimate, own.low, own.high, rows, _panel(evidence, known), doubts)


def _coupled(evidence: Evidence, known: float) -> list[Row]:
    """beta gamma, by which the loss falls where params do not bind, less the known exponent; of a certified fit."""
    if evidence.law != "chinchilla_coupled" or not (fit := evidence.fit()).certificate.certified:
        return []

    def product(theta_MP: Array) -> Array:
        natural = fit.at(theta_MP)
        return np.asarray((natural["beta"] * natural["gamma"] - known)[:, None])

    low, high = (float(end[0]) for end in fit.interval(product))
    return [Row("beta gamma of all cells", float(product(fit.theta_P[None])[0, 0]), low, high)]


def _panel(evidence: Evidence, known: float) -> Panel:
    """The cells by params, and through the middle of the largest shape's a line of the known exponent."""
    rows = evidence.ready.rows
    points = [
        {"series": f"{params / 1e3:.0f} k params", "x": float(x), "y": float(y)}
        for params, x, y in zip(rows.params, rows.tokens, rows.loss, strict=True)
    ]
    largest_R = rows.params == rows.params.max()
    tokens, loss = (np.exp(np.log(values[largest_R]).mean()) for values in (rows.tokens, rows.loss))
    x_X = np.geomspace(rows.tokens.min(), rows.tokens.max(), CURVE_POINTS)
    series = f"{rows.params.max() / 1e3:.0f} k params"
    lines = [{"series": series, "x": float(x), "y": float(loss * (x / tokens) ** -known)} for x in x_X]
    return Panel("training tokens D", "loss of answers (nats); line: the known exponent", "params", points, lines)
