"""Forecasts from a sweep's fit as W&B runs: each law's loss for each cell, with its intervals, as a table."""

import hashlib
import json
from pathlib import Path
from typing import Any

import wandb

from harness.tracking.log import FORECAST
from harness.tracking.mirrors import MirrorTask, forecasts_of
from harness.tracking.run import finish_run, open_run


def log(task: MirrorTask) -> None:
    """Logs forecasts/*.json, a run each; the same forecast is the same run."""
    folder = Path(task.sweep_dir)
    for path in forecasts_of(folder):
        text = path.read_text()
        content = json.loads(text)
        run = open_run(
            task,
            id=hashlib.sha256(f"{folder.name} {FORECAST} {text}".encode()).hexdigest()[:8],
            name=f"{folder.name} {FORECAST} {path.stem}",
            group=folder.name,
            job_type=FORECAST,
            tags=list(dict.fromkeys(cell["law"] for cell in content["cells"])),
            config={key: content.get(key) for key in ("fit_sha256", "table_sha256", "code_version", "created")},
        )
        rows = [numbers(cell) for cell in content["cells"]]
        columns: list[Any] = list(dict.fromkeys(key for row in rows for key in row))
        data: list[Any] = [[row.get(key) for key in columns] for row in rows]
        run.log({"forecasts": wandb.Table(columns=columns, data=data)})
        finish_run(run, task, FORECAST, exit_code=0)


def numbers(cell: dict[str, Any]) -> dict[str, Any]:
    """A cell of a forecast, flat, each interval as two numbers."""
    flat = {key: value for key, value in cell.items() if not isinstance(value, dict)}
    for level, (low, high) in cell["intervals"].items():
        flat |= {f"low_{level}": low, f"high_{level}": high}
    return flat
