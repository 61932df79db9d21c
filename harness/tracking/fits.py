"""The fit of a sweep as one W&B run: exponents, figures and the run table."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import wandb

from harness.records import SweepFolder
from harness.tracking.log import FIT
from harness.tracking.mirrors import MirrorJob
from harness.tracking.run import finish_run, open_run


def log(job: MirrorJob) -> None:
    """Logs fit.json, figures/*.png and runs.csv, those that are there; the same fit is the same run."""
    folder = SweepFolder(Path(job.sweep_dir))
    text = (folder.path / "fit.json").read_text()
    fitted = json.loads(text)
    name = folder.path.name
    fit_run = open_run(
        job,
        id=hashlib.sha256(f"{name} fit {text}".encode()).hexdigest()[:8],
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
    if logged:
        fit_run.log(logged)
    finish_run(fit_run, job, FIT, exit_code=0)


def summary_of(fitted: dict[str, Any]) -> dict[str, Any]:
    """The numbers of fit.json that a reader of W&B compares between fits, flat."""
    fit = fitted["fit"]
    summary = {"law": fit["law"], "rows": fit["rows"], "certified": fit["certificate"]["certified"]}
    summary |= fit["estimates"]
    for key, (low, high) in (fit.get("intervals") or {}).items():
        summary |= {f"{key}_low": low, f"{key}_high": high}
    for holdout in fitted.get("holdouts") or []:
        for key in ("mean_relative_error", "competitor_mean_relative_error"):
            summary[f"{holdout['name']}/{key}"] = holdout[key]
    return summary


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
