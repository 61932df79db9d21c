"""A fit as a person reads it: digits that its intervals allow, a table for the terminal and one for a notebook.

A fit comes here as the FIT object of fit.json.
"""

import math
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

FitEntry = Mapping[str, Any]

WIDTH = 120
MOST_PLACES = 6


def digits(value: float, interval: Sequence[float] | None) -> list[str]:
    """A value and the ends of its interval, with two digits of the narrower half; four digits where there is none."""
    if interval is None:
        return [f"{value:.4g}"]
    shown = [value, *interval]
    half = min(value - interval[0], interval[1] - value)
    if max(map(abs, shown)) >= 1e5 or 0 < abs(value) < 1e-3:
        return [f"{each:.3g}" for each in shown]
    # A value may lie on or outside the ends of its own interval.
    half = half if half > 0 else interval[1] - interval[0]
    places = 1 - math.floor(math.log10(half)) if half > 0 else MOST_PLACES
    return [f"{each:.{min(max(places, 0), MOST_PLACES)}f}" for each in shown]


def seal(certificate: Mapping[str, Any]) -> str:
    """What a certificate says, in one line."""
    if not certificate["certified"]:
        return f"NOT certified: {'; '.join(certificate['reasons'])}"
    return (
        f"certified: gradient {certificate['gradient_norm']:.0e}, {certificate['starts_agree']} of "
        f"{certificate['starts']} starts agree, condition {certificate['condition']:.0f}"
    )


def short(fit: FitEntry) -> str:
    """One line without intervals."""
    numbers = ", ".join(f"{name}={value:.4g}" for name, value in fit["estimates"].items())
    verdict = "certified" if fit["certificate"]["certified"] else "NOT certified"
    return f"Fit({fit['law']}, {fit['loss']}, {fit['rows']} rows, {verdict}: {numbers})"


def text(fit: FitEntry) -> str:
    """The fit as a table of plain text."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for title in _header(fit):
        table.add_column(title, no_wrap=True)
    for row in _rows(fit):
        table.add_row(*map(escape, row))
    console = Console(file=StringIO(), width=WIDTH, color_system=None)
    console.print(f"{fit['law']}: {fit['predicts']}", soft_wrap=True, markup=False)
    console.print(table)
    for line in _lines(fit):
        console.print(line, soft_wrap=True, markup=False)
    written = console.file
    assert isinstance(written, StringIO)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())


def html(fit: FitEntry) -> str:
    """The fit as a table for a notebook; everything in it is escaped."""
    head = Markup("").join(Markup("<th>{}</th>").format(title) for title in _header(fit))
    rows = [Markup("").join(Markup("<td>{}</td>").format(part) for part in row) for row in _rows(fit)]
    body = Markup("").join(Markup("<tr>{}</tr>").format(row) for row in rows)
    lines = Markup("").join(Markup("<p>{}</p>").format(line) for line in _lines(fit))
    title = Markup("<p><b>{}</b>: {}</p>").format(fit["law"], fit["predicts"])
    return str(title + Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(head, body) + lines)


def _header(fit: FitEntry) -> list[str]:
    return ["", "estimate" if fit["certificate"]["certified"] else "estimate (NOT certified)", "95 % interval"]


def _rows(fit: FitEntry) -> list[list[str]]:
    rows = []
    for name, value in fit["estimates"].items():
        shown = digits(value, fit["intervals"][name])
        rows.append([name, shown[0], " to ".join(shown[1:]) or "none"])
    return rows


def _lines(fit: FitEntry) -> list[str]:
    delta = f" (delta {fit['delta']:g})" if fit["loss"] == "huber" else ""
    return [
        f"objective: {fit['objective']:.7g}, the sum of {fit['loss']}{delta} over {fit['rows']} rows",
        f"intervals: {fit['interval_method']}",
        seal(fit["certificate"]),
    ]
