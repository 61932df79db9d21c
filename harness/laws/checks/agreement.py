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


def disagreement(cells: Cells, fits: Sequence[Fit], quality: dict[str, Any]) -> dict[str, Any] | None:
    """The two losses and the exponent that lie furthest apart, in half-widths of their difference, beyond 1; None
    where all agree.

    Their intervals count as independent, which is cautious: the rows are the same. `quality` names the rows that lie
    off the law, or else those that steer it; `without` are both exponents refitted without them.
    """
    apart = [found for pair in combinations(fits, 2) for found in map(lambda name, pair=pair: _apart(name, *pair), WATCHED)
             if found is not None and found[0] > 1]  # fmt: skip
    if not apart:
        return None
    _, name, first, second = max(apart, key=lambda found: found[0])
    names = [cells.table.name(row) for row in range(len(cells.rows))]
    outlying = [entry["cell"] for entry in quality["outliers"]["rows"]]
    rows = outlying or [entry["cell"] for entry in quality["influence"]["rows"][:MOST_NAMES]]
    keep_R = np.array([named not in rows for named in names])
    without = []
    for fit in (first, second):
        try:
            part = fit_rows(fit.rows.keep(keep_R), fit.columns, fit.law, fit.loss, fit.delta)
        except UserError:
            break
        without.append(part.estimates[name])
    section: dict[str, Any] = {"of": name, "rows": rows, "lie_off": bool(outlying)}
    section["losses"] = [
        {"loss": fit.loss, "value": fit.estimates[name], "interval": list(fit.intervals[name] or ())}
        for fit in (first, second)
    ]
    return section | {"without": without if len(without) == 2 else None}


def _apart(name: str, first: Fit, second: Fit) -> tuple[float, str, Fit, Fit] | None:
    ends = [fit.intervals.get(name) for fit in (first, second)]
    if any(end is None for end in ends):
        return None
    half = float(np.hypot(*((end[1] - end[0]) / 2 for end in ends if end is not None)))
    gap = abs(first.estimates[name] - second.estimates[name])
    # Of a table that the law fits exactly only rounding is left.
    return (gap / max(half, 1e-6), name, first, second) if np.isfinite(half) else None


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
    who = (f"lie{'' if many else 's'} off the law" if found["lie_off"] else f"steer{'' if many else 's'} it most")
    without = ""
    if found["without"]:
        values = " and ".join(f"{value:.3f}" for value in found["without"])
        without = f", and without {'them' if many else 'it'} they give {values}"
    return (
        f"The fitting losses disagree beyond their intervals: {found['of']} is {first} and {second}; {named} "
        f"{who}{without}. Look at {'these rows' if many else 'this row'} before any exponent is quoted."
    )
