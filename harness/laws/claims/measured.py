"""What a claim's quantity is measured from, and what a measurement is."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.laws.compare import Comparison, compare_table
from harness.laws.fit import Fit, fit_rows
from harness.laws.settings import CompareConfig, FitConfig
from harness.laws.table.entry import Prepared, prepared
from harness.laws.table.pool import read_sources
from harness.laws.table.rows import read_rows
from harness.records import SweepFolder, read_sweep


@dataclass(frozen=True)
class Row:
    """A number beside others, as a figure shows them; `decides` marks the one that the claim hangs on."""

    label: str
    estimate: float
    low: float | None
    high: float | None
    decides: bool = False


@dataclass(frozen=True)
class Panel:
    """What the number comes from, as a figure: points by series, which may have `low` and `high`, and a line a series.

    x is drawn on a log axis, and y too where `log`.
    """

    x: str
    y: str
    series: str
    points: list[dict[str, Any]]
    lines: list[dict[str, Any]]
    log: bool = False


@dataclass(frozen=True)
class Measured:
    """A quantity with its 95 % interval. `doubts` say why nothing hangs on it; then there may be no interval."""

    words: str
    method: str
    estimate: float | None
    low: float | None
    high: float | None
    rows: list[Row] = field(default_factory=list)
    panel: Panel | None = None
    doubts: list[str] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)  # beside the first
    beside: str = ""  # what else a reader should know, in a sentence


@dataclass(frozen=True)
class Evidence:
    """The files of a sweep, read when they are asked for."""

    folder: Path

    @cached_property
    def ready(self) -> Prepared:
        """Its finished cells, as the fit of its law reads them; raises UserError."""
        config = self._config()
        table = read_sources(config.runs, config.columns.target, config.columns.cluster)
        return prepared(table, config.columns, config.law_of(table), "", None, config.units, None, None)

    @property
    def law(self) -> str:
        """The one that the sweep states."""
        return str(read_sweep(SweepFolder(self.folder)).get("law", "chinchilla"))

    def fit(self, params: str = "params_with_head") -> Fit:
        """The stated law by one count of params, with the intervals of scripts/fit.py."""
        config, law = self._config(), self.law
        columns = replace(self.ready.columns, params=params)
        rows = read_rows(self.ready.table, columns, law)
        return fit_rows(rows, columns, law, config.loss, config.delta, config.bootstrap, config.seed, str(self.folder))

    def comparison(self, shared: list[str] | None = None) -> Comparison:
        """The variants under the stated law, as scripts/compare.py sets them side by side; raises UserError."""
        config = CompareConfig(runs=str(self.folder), shared=shared)
        return compare_table(read_sources(config.runs, config.columns.target, config.columns.cluster), config)

    def content(self, name: str) -> dict[str, Any]:
        """fit.json or compare.json; raises UserError where it is missing, or of other cells."""
        path = self.folder / f"{name}.json"
        try:
            found = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            raise UserError(f"{path} is missing or damaged: run scripts/{name}.py runs={self.folder} first") from None
        table = SweepFolder(self.folder).table
        again = f"run scripts/{name}.py runs={self.folder} again"
        if found["source"]["sha256"] != hashlib.sha256(table.read_bytes()).hexdigest():
            raise UserError(f"{path} is of other cells than {table}: {again}")
        asked = {"law": self.law, "loss": self._config().loss, "target": self._config().columns.target}
        other = [key for key, value in asked.items() if found["choices"][key] != value]
        if other or found["source"]["filter"]:  # chosen after the cells were there
            what = f"{other[0]}={found['choices'][other[0]]}" if other else f"filter={found['source']['filter']}"
            raise UserError(f"{path} is by {what}, which the sweep did not state: {again} without it")
        return dict(found)

    def sources(self) -> list[dict[str, Any]]:
        """The run table with its digest."""
        table = SweepFolder(self.folder).table
        return [{"path": str(table), "sha256": hashlib.sha256(table.read_bytes()).hexdigest()}]

    def _config(self) -> FitConfig:
        return FitConfig(runs=str(self.folder))
