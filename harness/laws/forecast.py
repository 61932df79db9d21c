"""Forecasts: the configuration of scripts/forecast.py, and what a fit or a table says of cells that are not trained."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from harness import __version__
from harness.arguments import quoted
from harness.commands import compose_config
from harness.errors import UserError
from harness.laws.fit import fit_rows
from harness.laws.prediction.forecast import FOLDER, SCHEMA, Choice, Place, forecast, now, write
from harness.laws.prediction.ranking import ranking
from harness.laws.provenance import check_out, plain, versions
from harness.laws.settings import TEXTS, TableConfig
from harness.laws.study import MANY_ROWS, cells_of
from harness.laws.table.entry import prepared
from harness.laws.table.pool import read_sources, sources
from harness.laws.table.rows import Columns
from harness.laws.table.table import Table
from harness.laws.table.units import Units

# A fit that was made as fit.json says has its estimates to this.
SAME = 1e-4


@dataclass
class ForecastConfig(TableConfig):
    """What scripts/forecast.py reads: a sweep and a shape, or another table and params; how another table is read and
    fitted. Of a sweep that is as its fit.json says."""

    shape: str | None = None  # of a sweep: the shape that is forecast, such as w256-d4; w256-d4-s1 with its own seed
    params: Any = None  # of another table, instead of a shape: a number or a list
    tokens: Any = None  # the token budgets, a number or a list
    train: bool = False  # train the shape after that, as a sweep of its own
    out: str | None = None  # null: a file of its own in forecasts/ of the sweep; needed for another table

    def check(self) -> None:
        super().check()
        if (self.shape is None) == (self.params is None):
            given = "both given" if self.shape is not None else "both missing"
            raise UserError(
                f"shape and params are {given}: a sweep takes shape=w256-d4, another table params=1e9, and neither both"
            )
        if self.shape is not None and not re.fullmatch(r"w\d+-d\d+(-s\d+)?", self.shape):
            raise UserError(f"shape={self.shape} is not a shape: write w64-d4, or w64-d4-s1 to give its seed")
        numbers("tokens", self.tokens)
        if self.params is not None:
            numbers("params", self.params)
        if self.params is not None and self.train:
            raise UserError("train=true needs shape=: of another table nothing can be trained")

    def of_sweep(self) -> bool:
        """Whether it is the forecast of a sweep. Raises UserError where its keys are those of the other."""
        paths = sources(self.runs)
        folder = Path(paths[0])
        own = len(paths) == 1 and folder.is_dir()
        if not own and self.shape is not None:
            raise UserError(f"runs={self.runs} is no folder of a sweep, which shape= needs: give params=1e9, say")
        if own and self.params is not None:
            raise UserError(f"runs={self.runs} is a sweep, whose params follow from its shape: give shape=w256-d4, say")
        default, of_table = TableConfig(), [each.name for each in fields(TableConfig) if each.name != "runs"]
        if own and (given := [name for name in of_table if getattr(self, name) != getattr(default, name)]):
            raise UserError(
                f"{given[0]} is a key of another table: {folder} is forecast as its fit.json says, so fit it so, "
                "and leave the key out"
            )
        return own


ConfigStore.instance().store(name="forecast_schema", node=ForecastConfig)


def forecast_config(arguments: list[str]) -> ForecastConfig:
    """conf/forecast.yaml with the command line's overrides, checked; raises UserError."""
    texts = [*TEXTS, "shape", *(f"columns.{field.name}" for field in fields(Columns))]
    config = OmegaConf.to_object(compose_config("forecast", [quoted(argument, texts) for argument in arguments]))
    assert isinstance(config, ForecastConfig)
    config.check()
    return config


def numbers(key: str, value: Any) -> list[float]:
    """The values of a key; raises UserError where one is no number above 0."""
    if value is None:
        raise UserError(f"{key} has no value: give a number or a list, as in '{key}=[1e9,2e9]'")
    found = []
    for each in value if isinstance(value, list | tuple) else [value]:
        try:
            number = float(each) if not isinstance(each, bool) else np.nan
        except (TypeError, ValueError):
            number = np.nan
        if not (np.isfinite(number) and number > 0):
            raise UserError(f"{key}={each} is not a number above 0: give one, or a list, as in '{key}=[1e9,2e9]'")
        found.append(number)
    if not found:
        raise UserError(f"{key}=[] names nothing to forecast: give a number or a list of them")
    return found


@dataclass(frozen=True)
class Fitted:
    """A sweep with its fit: the run table, what fit.json says of how it was made, its digest, and the laws to forecast
    by, the stated one first."""

    table: Table
    sha256: str
    columns: Columns
    filter: str
    headline: str
    estimates: dict[str, float]
    choice: Choice
    laws: list[str]


def read_fitted(folder: Path) -> Fitted:
    """The rows and the fit of a sweep; raises UserError where it has no fit, or runs.csv has changed since."""
    again = f"fit it first, by `python scripts/fit.py runs={folder}`"
    table = read_sources(str(folder))
    stated = table.law or "chinchilla"
    try:
        text = (folder / "fit.json").read_bytes()
        content = json.loads(text)
        source, choices = content["source"], content["choices"]
        ranked = [each["law"] for each in content["ranking"] if each["left_out"] is None]
        found = Fitted(
            table=table,
            sha256=hashlib.sha256(text).hexdigest(),
            columns=Columns(**source["columns"]),
            filter=source["filter"],
            headline=choices["law"],
            estimates=content["fit"]["estimates"],
            choice=Choice(choices["loss"], choices["delta"], choices["bootstrap"], choices["seed"]),
            laws=list(dict.fromkeys([stated, *ranked])),
        )
    except FileNotFoundError:
        raise UserError(f"{folder} has no fit.json: {again}") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder}/fit.json is none that this version reads: {again}") from None
    if source.get("sha256") != table.sha256:
        raise UserError(f"{folder}/runs.csv has changed since fit.json was made: {again}")
    return found


def of_sweep(fitted: Fitted, places: Sequence[Place], code_version: str) -> dict[str, Any]:
    """The content of a forecast by the laws of a sweep's fit; raises UserError where its rows do not give that fit."""
    ready = prepared(fitted.table, fitted.columns, fitted.headline, fitted.filter, None, Units(), None, None)
    cells, left_out, fits = forecast(ready.table, ready.columns, fitted.laws, fitted.choice, places)
    again = fits.get(fitted.headline)
    if again is not None and any(
        not np.isclose(again.estimates[key], value, rtol=SAME, atol=0) for key, value in fitted.estimates.items()
    ):
        raise UserError(
            f"{fitted.table.source}, fitted again, gives other estimates than its fit.json: fit it anew, without "
            "best_of= and units, which a forecast does not know"
        )
    return _content(cells, left_out, fitted.sha256, fitted.table, code_version)


def of_table(config: ForecastConfig) -> dict[str, Any]:
    """The content of a forecast from another table, by its own law and those of a ranking; raises UserError."""
    table = read_sources(config.runs, config.columns.target, config.columns.cluster)
    law = config.law_of(table)
    wishes = (config.filter, None, config.units, config.target_unit, config.bytes_per_token)
    ready = prepared(table, config.columns, law, *wishes)
    if not ready.rows.knows("params", "tokens"):
        raise UserError(f"{table.source} has no column of params or none of tokens: name them as in columns.params=N")
    many = len(ready.rows) > MANY_ROWS
    choice = Choice(config.loss, config.delta, 0 if many else config.bootstrap, config.seed)
    kappa = ready.rows.flops_per_product
    places = [
        Place({"params": params, "tokens": tokens, "flops": kappa * params * tokens})
        for params in numbers("params", config.params)
        for tokens in numbers("tokens", config.tokens)
    ]
    headline = fit_rows(ready.rows, ready.columns, law, choice.loss, choice.delta, source=table.source)
    ranked = [] if many else ranking(cells_of(ready.table, ready.rows), headline)[0]
    laws = [law, *(each["law"] for each in ranked if each["left_out"] is None)]
    cells, left_out, _ = forecast(ready.table, ready.columns, laws, choice, places)
    return _content(cells, left_out, None, table, __version__)


def _content(
    cells: list[dict[str, Any]], left_out: dict[str, str], fit: str | None, table: Table, code_version: str
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "cells": plain(cells),
        "left_out": left_out,
        "fit_sha256": fit,
        "table": table.source,
        "table_sha256": table.sha256,
        "code_version": code_version,
        "versions": versions(),
        "created": now(),
    }


def write_forecast(config: ForecastConfig, content: dict[str, Any]) -> Path:
    """Writes a forecast where the configuration says, for a sweep in its folder by default."""
    return write(content, Path(config.out) if config.out else None, Path(config.runs) / FOLDER)


def check_place(config: ForecastConfig, own: bool) -> None:
    """Raises UserError where a forecast cannot be written."""
    if config.out:
        check_out(Path(config.out))
    elif not own:
        raise UserError("out has no value: name the file of the forecast, as in out=forecast.json")
