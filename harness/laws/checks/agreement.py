"""Whether the fitting losses agree: where they do not, a few rows make the number, not the law."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.laws.checks.quality import MOST_NAMES
from harness.laws.fit import Fit, fit_rows
from harness.laws.table.rows import Cells

WATCHED = ("a", "alpha", "beta")
# Of a table that the law fits exactly, only this much is left of the intervals.
ROUNDING = 1e-6


def disagreement(cells: Cells, fits: Sequence[Fit], quality: dict[str, Any]) -> dict[str, Any] | None:
    """The two losses and the exponent that lie furthest apart; None where all agree.

    They disagree where they are further apart than their intervals, as if independent, allow; where rows lie off the
    law, which widens the interval of squares, where one lies outside the narrower interval of the other. `quality`
    names the rows that lie off the law, or else those that steer it; `without` are both refitted without them.
    """
    outlying = [entry["cell"] for entry in quality["outliers"]["rows"]]
    apart = [found for name in WATCHED for first, second in combinations(fits, 2)
             if (found := _apart(name, first, second, bool(outlying))) is not None]  # fmt: skip
    if not apart:
        return None
    _, beyond, name, first, second = max(apart, key=lambda found: found[0])
    names = [cells.table.name(row) for row in range(len(cells.rows))]
    rows = outlying or [entry["cell"] for entry in quality["influence"]["rows"][:MOST_NAMES]]
    keep_R = np.array([named not in rows for named in names])
    without = []
    for fit in (first, second):
        try:
            part = fit_rows(fit.rows.keep(keep_R), fit.columns, fit.law, fit.loss, fit.delta)
        except UserError:
            break
        without.append(part.estimates[name])
    section: dict[str, Any] = {"of": name, "beyond_both": beyond, "rows": rows, "lie_off": bool(outlying)}
    section["losses"] = [
        {"loss": fit.loss, "value": fit.estimates[name], "interval": list(fit.intervals[name] or ())}
        for fit in (first, second)
    ]
    return section | {"without": without if len(without) == 2 else None}


def _apart(name: str, first: Fit, second: Fit, narrow: bool) -> tuple[float, bool, str, Fit, Fit] | None:
    """How far two fits lie apart in half-widths, and whether beyond both intervals; None where they agree."""
    ends = (first.intervals.get(name), second.intervals.get(name))
    if ends[0] is None or ends[1] is None:
        return None
    halves = [(end[1] - end[0]) / 2 for end in (ends[0], ends[1])]
    both = float(np.hypot(halves[0], halves[1]))
    gap = abs(first.estimates[name] - second.estimates[name])
    if not np.isfinite(both) or gap < ROUNDING or gap <= (min(halves) if narrow else both):
        return None
    return gap / max(min(halves) if narrow else both, ROUNDING), gap > both, name, first, second


def sentence(found: dict[str, Any] | None) -> str | None:
    """What a reader must know before any of the numbers."""
    if found is None:
        return None
    first, second = (
        f"{entry['value']:.3f} ({entry['interval'][0]:.3f} to {entry['interval'][1]:.3f}) by {entry['loss']}"
        for entry in found["losses"]
    )
    rows, many = found["rows"], len(found["rows"]) > 1
    named = ", ".join(rows[:MOST_NAMES]) + (f" and {len(rows) - MOST_NAMES} more" if len(rows) > MOST_NAMES else "")
    who = ("lie" if many else "lies") + " off the law" if found["lie_off"] else ("steer" if many else "steers") + " it"
    without = ""
    if found["without"]:
        values = " and ".join(f"{value:.3f}" for value in found["without"])
        without = f", and without {'them' if many else 'it'} they give {values}"
    beyond = " beyond their intervals" if found["beyond_both"] else ""
    return (
        f"The fitting losses disagree{beyond}: {found['of']} is {first} and {second}; {named} {who}{without}. Look at "
        f"{'these rows' if many else 'this row'} before any exponent is quoted."
    )
