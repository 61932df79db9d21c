"""The fitted E beside the loss of the best predictor, where a sweep knows it."""

from typing import Any

from harness.laws.fit import Fit
from harness.laws.table.table import Table


def by_floor(fit: Fit, table: Table) -> dict[str, Any] | None:
    """fit.json's `floor`: what sweep.yaml knows, the estimate of E, its 95 % interval and whether that covers it.

    None where no floor is known, the law has no E, or another column than the loss is fitted.
    """
    if table.floor is None or fit.columns.target != "loss" or "E" not in fit.estimates:
        return None
    known = table.floor["nats"]
    interval = fit.intervals["E"]
    low, high = interval or (None, None)
    return {
        "known": known,
        "expected": table.floor["expected"],
        "estimate": fit.estimates["E"],
        "low": low,
        "high": high,
        "inside": interval and interval[0] <= known <= interval[1],
        "certified": fit.certificate.certified,
    }


def sentence(found: dict[str, Any] | None) -> str:
    """One line for the terminal; empty where no floor is known."""
    if not found:
        return ""
    known = f"known floor: {found['known']:.4f} nats; E {found['estimate']:.4f}"
    if not found["certified"]:
        return f"{known} (that fit is not certified)"
    if found["inside"] is None:
        return f"{known} (no interval)"
    return f"{known} ({found['low']:.4f} to {found['high']:.4f}): {'inside' if found['inside'] else 'OUTSIDE'}"
