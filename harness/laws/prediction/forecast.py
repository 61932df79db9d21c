"""Losses of cells that are not trained yet, by several laws, and the file that says so before they are.

The name of the file ends in a hash of its content, so that one that was changed later is known.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.files import make_folder, write_atomically
from harness.laws.fit import Fit, fit_rows
from harness.laws.forms import FORMS
from harness.laws.prediction.growth import growth, widened
from harness.laws.table.rows import VARIABLES, Columns, read_rows
from harness.laws.table.table import Table

SCHEMA = 1
LEVELS = (0.5, 0.9, 0.95)
# Beyond so many times the most compute of a table, a forecast is said to be a guess.
FAR = 1000.0
# In a sweep's folder.
FOLDER = "forecasts"
# The first digits of sha256 that a file's name ends in.
DIGITS = 16


@dataclass(frozen=True)
class Place:
    """A cell that is forecast: its variables, of which a foreign table may lack width, depth and unique_tokens, and
    what else its entry says."""

    variables: dict[str, float]
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """How every law is fitted, as in fit.json."""

    loss: str
    delta: float
    bootstrap: int
    seed: int


def forecast(
    table: Table, columns: Columns, laws: Sequence[str], choice: Choice, places: Sequence[Place]
) -> tuple[list[dict[str, Any]], dict[str, str], dict[str, Fit]]:
    """The entries `cells` of a forecast, law after law; laws that cannot give one, with why; and the fits.

    The first law is that of the headline. Raises UserError where it cannot be fitted, or uses what no place has.
    """
    entries, left_out, fits = [], {}, {}
    for law in dict.fromkeys(laws):
        missing = [use for use in FORMS[law].uses if any(use not in place.variables for place in places)]
        if missing:
            left_out[law] = f"it needs {' and '.join(missing)}, which no forecast by params and tokens has"
            continue
        try:
            rows = read_rows(table, columns, law)
            fit = fit_rows(rows, columns, law, choice.loss, choice.delta, choice.bootstrap, choice.seed, table.source)
        except UserError as error:
            if law == laws[0]:
                raise
            left_out[law] = str(error)
            continue
        fits[law] = fit
        grown = growth(rows, columns, law, choice.loss, choice.delta)
        entries += [
            entry(fit, place, grown.by_e) | {"growth": {"by_e": grown.by_e, "own": grown.own, "cuts": grown.cuts}}
            for place in places
        ]
    if not entries:
        raise UserError(f"{laws[0]} cannot forecast: {left_out[laws[0]]}")
    return entries, left_out, fits


def entry(fit: Fit, place: Place, by_e: float) -> dict[str, Any]:
    """One cell by one law, with its intervals by their levels."""
    at = {use: place.variables[use] for use in fit.form.uses}
    beyond = place.variables["flops"] / float(fit.rows.flops.max()) if fit.rows.knows("flops") else 1.0
    predicted = fit.predict(**at)
    intervals = {}
    for level in LEVELS:
        ends = fit.predict_interval(level=level, **at)
        low, high = widened(predicted, ends, np.asarray(beyond), by_e, level)
        intervals[f"{level:g}"] = [float(low), float(high)]
    known = {use: place.variables[use] for use in VARIABLES}
    found = {"law": fit.law, "loss": float(predicted), "intervals": intervals, "target": fit.columns.target}
    return {**known, "beyond": beyond, **place.about, **found, "certified": fit.certificate.certified}


def write(content: Mapping[str, Any], out: Path | None, folder: Path) -> Path:
    """Writes a forecast to `out`, else to a file of its own in `folder`; the content says when it was made."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    if out is None:
        when = datetime.fromisoformat(content["created"]).strftime("%Y%m%dT%H%M%SZ")
        out = make_folder(folder) / f"{when}-{digest(text.encode())}.json"
    write_atomically(out, text)
    return out


def now() -> str:
    """The time as `created` has it: of UTC, in whole seconds."""
    return datetime.now(timezone.utc).replace(microsecond=0).isoformat()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def read_all(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The forecasts of a sweep's folder, oldest first; raises UserError for one that was changed or is of another
    schema."""
    return [(path, read(path)) for path in sorted((folder / FOLDER).glob("*.json"))]


def read(path: Path) -> dict[str, Any]:
    """A forecast in a file that is named by its content; raises UserError."""
    content = path.read_bytes()
    if path.stem.rpartition("-")[2] != digest(content):
        raise UserError(
            f"{path} is not what was forecast: its content has the hash {digest(content)}, which its name lacks; put "
            "back the file as it was, or move it away"
        )
    found: dict[str, Any] = json.loads(content)
    if found.get("schema") != SCHEMA:
        raise UserError(f"{path} has schema {found.get('schema')}, this version reads {SCHEMA}: move it away")
    return found


def lines(content: Mapping[str, Any]) -> list[str]:
    """A forecast as it is printed: a block a cell, a row a law."""
    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for each in content["cells"]:
        cells.setdefault((each["params"], each["tokens"]), []).append(each)
    wide = max(len(each["law"]) for each in content["cells"]) + 2
    found = []
    for (params, tokens), each_law in cells.items():
        first = each_law[0]
        where = f"w{first['width']}-d{first['depth']}, " if "width" in first else ""
        found.append(f"{where}{params:.4g} params, {tokens:.4g} tokens: {_compute(first)}")
        found.append(f"{'':{wide}}{'loss':8}" + "".join(f"{100 * level:g} %".ljust(15) for level in LEVELS).rstrip())
        for each in each_law:
            ends = "".join(f"{low:.3f}-{high:.3f}".ljust(15) for low, high in each["intervals"].values())
            doubt = "" if each["certified"] else "not certified"
            found.append(f"{each['law']:{wide}}{each['loss']:<8.3f}{ends}{doubt}".rstrip())
        if first["beyond"] > FAR:
            low, high = first["intervals"]["0.95"]
            found.append(
                f"that is beyond {FAR:g} times the compute of the table, where no law was measured: a guess, said with "
                f"its 95 % interval of {low:.3f} to {high:.3f}"
            )
    return found + [f"{law} is left out: {why}" for law, why in content["left_out"].items()]


def _compute(cell: Mapping[str, Any]) -> str:
    if cell["beyond"] <= 1:
        return "within the compute of the table"
    return f"{cell['beyond']:.3g} times the most compute of the table"
