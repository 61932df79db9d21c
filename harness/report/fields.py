"""The fields of a report's tables: every number carries the certificate of the fit that it comes from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.laws.checks.epochs import COSTS
from harness.report.style import scientific

SYMBOLS = {"alpha": "α", "beta": "β", "gamma": "γ", "a": "a = β/(α+β)", "E": "E", "A": "A", "B": "B"}
SYMBOLS |= dict(zip(COSTS, COSTS, strict=True))
PLACES = {"alpha": 3, "beta": 3, "gamma": 3, "a": 3, "E": 2}


@dataclass(frozen=True)
class Field:
    """One field of a table or of the text; `doubt` where it comes from a fit that is not certified."""

    text: str
    doubt: bool = False
    mark: str = ""  # a CSS class: bad, muted
    interval: str = ""


@dataclass(frozen=True)
class Table:
    """A table with its caption; the first column names the rows."""

    key: str
    title: str
    caption: str
    header: list[str]
    rows: list[list[Field]]


def doubtful(fit: dict[str, Any]) -> bool:
    return not fit["certificate"]["certified"]


def number(value: float | None, places: int | None = None) -> str:
    """A number with its decimals, or with three digits; a dash where there is none."""
    if value is None or value != value:
        return "–"
    if places is not None:
        return f"{value:.{places}f}".replace("-", "−")
    if 1e3 <= abs(value) < 1e5:
        return f"{float(f'{value:.3g}'):.0f}"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e5 or value == 0 else scientific(value)


def estimate(fit: dict[str, Any], key: str) -> Field:
    """An estimate with its interval, as in 0.395 [0.362, 0.429]."""
    places = PLACES.get(key)
    interval = (fit["intervals"] or {}).get(key)
    if interval is None or None in interval:
        shown = "(no interval)"
    else:
        shown = f"[{number(interval[0], places)}, {number(interval[1], places)}]"
    return Field(number(fit["estimates"].get(key), places), doubtful(fit), interval=shown)


def exponent(entry: dict[str, Any] | None, doubt: bool = False) -> Field:
    if not entry or entry.get("value") is None:
        return Field("–", mark="muted")
    low, high = entry.get("low"), entry.get("high")
    interval = "(no interval)" if low is None or high is None else f"[{number(low, 3)}, {number(high, 3)}]"
    return Field(number(entry["value"], 3), doubt, interval=interval)


def percent(value: float | None, places: int) -> str:
    return "–" if value is None else f"{100 * value:.{places}f} %"


def fit_rows(fits: list[dict[str, Any]], keys: list[str], name: Callable[[dict[str, Any]], str]) -> list[list[Field]]:
    return [
        [
            Field(name(fit)),
            *(estimate(fit, key) for key in keys),
            Field(number(fit["objective"]), doubtful(fit)),
            seal(fit),
        ]
        for fit in fits
    ]


def seal(fit: dict[str, Any]) -> Field:
    if not doubtful(fit):
        return Field("yes")
    return Field("NO: " + "; ".join(fit["certificate"]["reasons"]), mark="bad")
