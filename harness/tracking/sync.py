"""Sending a sweep that was mirrored offline, or in part: its runs are made anew from the local files."""

import subprocess
import time
from pathlib import Path

from harness.errors import UserError
from harness.records import SweepFolder, read_sweep
from harness.tracking.config import TrackingConfig, api_key
from harness.tracking.log import COMPARE, FIT, FORECAST, PLAN, VIEW, last_words, read_log
from harness.tracking.mirrors import (
    MirrorTask,
    begin,
    forecasts_of,
    sentences,
    tracking_of,
    view_sentence,
    wait_for_mirrors,
)

# How many runs one process is told of: its command line has a limit.
BATCH = 500


def sync(sweep_dir: Path, project: str | None = None, entity: str | None = None) -> tuple[list[str], bool]:
    """Sends what W&B does not have of a sweep; sentences that say where its runs are, and whether all are sent.

    What is there is not sent again, unless another project or entity is asked for. Raises UserError.
    """
    sweep_dir = sweep_dir.resolve()
    tracking = _online(sweep_dir, project, entity)
    made = [run for run in (FIT, COMPARE) if (sweep_dir / f"{run}.json").exists()]
    made += [FORECAST] if forecasts_of(sweep_dir) else []
    runs = [PLAN, *_cells(sweep_dir), *made]
    sent = set() if project or entity else _sent(sweep_dir)
    left = [run for run in runs if run not in sent]
    for first in range(0, len(left), BATCH):
        _send(sweep_dir, left[first : first + BATCH], tracking)
    last = last_words(sweep_dir)
    return sentences(sweep_dir, True), all(last.get(run, ("", ""))[0] == "uploaded" for run in runs)


def make_view(sweep_dir: Path, project: str | None = None, entity: str | None = None) -> tuple[str, bool]:
    """Saves a view of a sweep's runs, and a report of its fit, in its project; a sentence that says where, and whether
    it is there. Raises UserError."""
    sweep_dir = sweep_dir.resolve()
    _send(sweep_dir, [VIEW], _online(sweep_dir, project, entity))
    return view_sentence(sweep_dir), last_words(sweep_dir).get(VIEW, ("", ""))[0] == "uploaded"


def _online(sweep_dir: Path, project: str | None, entity: str | None) -> TrackingConfig:
    """Where a sweep is sent to: as it was trained, or as asked. Raises UserError where it cannot be."""
    read_sweep(SweepFolder(sweep_dir))
    if api_key() is None:
        raise UserError(f"runs={sweep_dir} needs a W&B API key to be sent: set WANDB_API_KEY, or run `wandb login`")
    if not wait_for_mirrors(sweep_dir, 0):
        raise UserError(f"runs={sweep_dir} is being mirrored by a running job: wait for its end")
    trained = tracking_of(sweep_dir) or TrackingConfig()
    tracking = TrackingConfig("online", project or trained.project, entity or trained.entity)
    tracking.settle()
    tracking.check()
    return tracking


def _send(sweep_dir: Path, runs: list[str], tracking: TrackingConfig) -> None:
    task = MirrorTask(str(sweep_dir), runs, "online", "", tracking.project, tracking.entity, keep=False, beside=False)
    with begin(task, subprocess.DEVNULL) as mirror:
        try:
            wait_for_mirrors(sweep_dir, float("inf"))
        except BaseException:
            mirror.kill()
            raise


def _cells(sweep_dir: Path) -> list[str]:
    """The cells that have anything to send."""
    folders = sorted((sweep_dir / "runs").glob("*"))
    return [folder.name for folder in folders if (folder / "curve.jsonl").exists() or (folder / "run.json").exists()]


def _sent(sweep_dir: Path) -> set[str]:
    """The cells that were uploaded after their record was written."""
    uploaded = {run: when for when, run, what, _ in read_log(sweep_dir) if what == "uploaded"}
    sent = set()
    for run, when in uploaded.items():
        record = sweep_dir / "runs" / run / "run.json"
        if last_words(sweep_dir)[run][0] == "uploaded" and record.exists():
            written = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(record.stat().st_mtime))
            sent |= {run} if written <= when else set()
    return sent
