"""The fit of a sweep as one W&B run: exponents, figures and the run table."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import wandb

from harness.records import SweepFolder
from harness.tracking.log import FIT
from harness.tracking.mirrors import MirrorTask
from harness.tracking.run import finish_run, open_run


def log(task: MirrorTask) -> None:
    """Logs fit.json, figures/*.png and runs.csv, those that are there; the same fit is the same run."""
    folder = SweepFolder(Path(task.sweep_dir))
    text = (folder.path / "fit.json").read_text()
    fitted = json.loads(text)
    name = folder.path.name
    fit_run = open_run(
        task,
        id=run_id(name, text),
        name=f"{name} fit",
        group=name,
        job_type=FIT,
        tags=[str(fitted["choices"]["law"])],
        config={key: fitted.get(key) for key in ("source", "choices", "versions")},
    )
    fit_run.summary.update(summary_of(fitted))
    figures = sorted((folder.path / "figures").glob("*.png"))
    logged: dict[str, Any] = {f"figures/{path.stem}": wandb.Image(str(path)) for path in figures}
    if folder.table.exists():
        logged["runs"] = _table(folder.table)
        artifact = wandb.Artifact(f"{name}-runs", type="run-table")
        artifact.add_file(str(folder.table))
        fit_run.log_artifact(artifact)
    if table := exponents(fitted):
        logged["exponents"] = wandb.Table(
            columns=[*table], data=[list(row) for row in zip(*table.values(), strict=True)]
        )
    if logged:
        fit_run.log(logged)
    finish_run(fit_run, task, FIT, exit_code=0)


def run_id(sweep: str, text: str) -> str:
    """Of the run of a fit; text is its fit.json."""
    return hashlib.sha256(f"{sweep} fit {text}".encode()).hexdigest()[:8]


def summary_of(fitted: dict[str, Any]) -> dict[str, Any]:
    """The numbers of fit.json that a reader of W&B compares between fits, flat."""
    fit = fitted["fit"]
    summary = {"law": fit["law"], "rows": fit["rows"], "certified": fit["certificate"]["certified"]}
    summary |= _numbers_of(fit)
    for holdout in fitted.get("holdouts") or []:
        for key in ("mean_relative_error", "competitor_mean_relative_error"):
            summary[f"{holdout['name']}/{key}"] = holdout[key]
    return summary


def exponents(fitted: dict[str, Any]) -> dict[str, list[Any]]:
    """The fits under every count of params, every loss and to every text that validates, a list a column.

    A number that a fit has not is None; the column `target` says which text, where there are several.
    """
    of_texts = fitted.get("by_text") or []
    fits = [*(fitted.get("by_params") or []), *(fitted.get("by_loss") or []), *of_texts]
    heads = ("params", "loss", "law", "target")[: 4 if of_texts else 3]
    keys = [{"certified": fit["certificate"]["certified"]} | _numbers_of(fit) for fit in fits]
    names = dict.fromkeys(name for row in keys for name in row)
    rows = [{key: fit[key] for key in heads} | row for fit, row in zip(fits, keys, strict=True)]
    return {name: [row.get(name) for row in rows] for name in (*heads, *names)} if rows else {}


def _numbers_of(fit: dict[str, Any]) -> dict[str, float | None]:
    """The estimates, each with the ends of its interval where it has one."""
    numbers = {}
    for key, value in fit["estimates"].items():
        numbers[key] = value
        if ends := (fit.get("intervals") or {}).get(key):
            numbers |= dict(zip((f"{key}_low", f"{key}_high"), ends, strict=True))
    return numbers


def _table(path: Path) -> wandb.Table:
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    columns = [_numbers(column) for column in zip(*rows, strict=True)] if rows else []
    return wandb.Table(columns=[*header], data=[list(row) for row in zip(*columns, strict=True)])


def _numbers(column: tuple[str, ...]) -> list[float | None] | list[str | None]:
    """A column as numbers, where all its values are; an empty field is None."""
    try:
        return [float(value) if value else None for value in column]
    except ValueError:
        return [value or None for value in column]
