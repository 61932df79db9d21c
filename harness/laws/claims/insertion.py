"""How much of the entropy that symbols add to a text a fitted floor rises by.

Shapes: M sets of parameters.
"""

from typing import Any

import numpy as np

from harness.errors import UserError
from harness.laws.claims.functions import doubts
from harness.laws.claims.measured import Evidence, Measured, Panel, Row
from harness.laws.fit import Fit
from harness.laws.forms import Array
from harness.laws.table.pool import read_sources
from harness.laws.table.table import Table
from harness.laws.variants.joint import TESTED
from harness.laws.variants.multiplier import SIGNIFICANT
from harness.records import INSERTED, SweepFolder, read_sweep

OWN, SHARED = "exponents of its own", "exponents of all"
Known = dict[str, tuple[float, float]]  # by variant: the share of symbols, and the nats a token that they add


def insertion(evidence: Evidence) -> Measured:
    """What the floors of a joint law find of the symbols' entropy, in parts of it, in the variant with the most of it.

    A share q of symbols that add H nats makes (1 - q) E + H of a text's E, so that is (E_v - (1 - q) E) / H: by one set
    of exponents, or where their test rejects that, by each variant's own. Raises UserError where the sweep has no such
    variants, or no text without symbols.
    """
    by_corpus = read_sweep(SweepFolder(evidence.folder)).get(INSERTED)
    if not by_corpus:
        raise UserError(f"{evidence.folder} has no shares of symbols: train data.inserted=0.2 beside plain text")
    found, table = evidence.comparison(), read_sources(str(evidence.folder), "loss", None)
    corpora = dict(zip(table.frame[found.column].map(str), table.frame["data"], strict=True))
    known = {name: (by_corpus[corpus]["share"], by_corpus[corpus]["nats"]) for name, corpus in corpora.items()}
    if known[found.baseline][0]:
        raise UserError(f"{evidence.folder}: the baseline {found.baseline} has symbols too: list the plain text first")
    freed = evidence.comparison([name for name in found.shared if name not in TESTED])
    with_symbols = [name for name, (share, _) in known.items() if share]
    most = max(with_symbols, key=lambda name: known[name][1])
    apart = any(each.shared is not None and each.shared < SIGNIFICANT for each in found.worth.values())
    rows = []
    for words, fit in ((OWN, freed.fit), (SHARED, found.fit)):
        decisive = most if apart == (words == OWN) else None
        rows += [_row(fit, name, *known[name], words, name == decisive) for name in with_symbols]
    (own,) = (row for row in rows if row.decides)
    fit = freed.fit if apart else found.fit
    words = f"floor of {most} above (1 - q) E of {found.baseline}, over the {known[most][1]:.4f} nats of its symbols"
    method = f"{fit.predicts}, an E of each, {OWN if apart else SHARED}; {fit.interval_method}"
    panel = _panel(table, found.column, known)
    return Measured(words, method, own.estimate, own.low, own.high, rows, panel, doubts(fit))


def _row(fit: Fit, name: str, share: float, nats: float, words: str, decides: bool) -> Row:
    def part(theta_MP: Array) -> Array:
        natural = fit.at(theta_MP)
        return np.asarray(((natural[f"E of {name}"] - (1 - share) * natural["E"]) / nats)[:, None])

    low, high = (float(end[0]) for end in fit.interval(part))
    return Row(f"{name}, {words}", float(part(fit.theta_P[None])[0, 0]), low, high, decides)


def _panel(table: Table, column: str, known: Known) -> Panel:
    """The cells less what their symbols add, a token of the text: of an ideal learner one curve for each run."""
    frame = table.frame.assign(**{name: table.numbers(name) for name in ("tokens", "loss")})
    points: list[dict[str, Any]] = []
    for (name, *run), cells in frame.groupby([column, "width", "depth", "seed"], sort=False):
        share, nats = known[str(name)]
        line = "w{}-d{}-s{}".format(*run)
        for tokens, loss in zip(cells["tokens"], cells["loss"], strict=True):
            each = {"series": str(name), "x": (1 - share) * tokens, "y": (loss - nats) / (1 - share), "line": line}
            points.append(each)
    points.sort(key=lambda point: point["x"])
    shown = [{key: point[key] for key in ("series", "x", "y")} for point in points]
    return Panel("training tokens of the text itself", "loss less the symbols' entropy (nats a token of the text)", "",
                 shown, points)  # fmt: skip
