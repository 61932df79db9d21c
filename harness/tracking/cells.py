"""The cells of a job as W&B runs, one a cell, made from their run directories."""

import contextlib
import fcntl
import json
import os
import select
from pathlib import Path
from typing import Any

import yaml

from harness.records import SweepFolder, read_record
from harness.tracking.log import say
from harness.tracking.mirrors import MirrorJob
from harness.tracking.run import finish_run, open_run

POLL_SECONDS = 2.0


def run(job: MirrorJob) -> None:
    """Mirrors the cells as their files grow, until all have ended or the job has."""
    mirrors = [CellMirror(job, cell) for cell in job.cells]
    ended = False
    while not ended and not all(mirror.done for mirror in mirrors):
        ended = bool(select.select([0], [], [], POLL_SECONDS)[0])
        for mirror in mirrors:
            mirror.advance(last=ended)


class CurveReader:
    """Yields each whole row of a curve.jsonl once, by its number, however the file is rewritten."""

    def __init__(self, path: Path, skip: int) -> None:
        self.path = path
        self.sent = skip
        self._inode = self._offset = self._row = 0

    def rows(self) -> list[dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError), open(self.path, "rb") as file:
            stat = os.fstat(file.fileno())
            if stat.st_ino != self._inode or stat.st_size < self._offset:
                self._inode, self._offset, self._row = stat.st_ino, 0, 0
            file.seek(self._offset)
            whole = file.read().rpartition(b"\n")[0]
            if whole:
                try:
                    rows = [json.loads(line) for line in whole.split(b"\n")]
                except ValueError:  # rewritten and longer than before: the offset falls inside a row
                    self._inode = 0
                    return []
                self._offset += len(whole) + 1
                return self._new(rows)
        return []

    def _new(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        new = rows[max(0, self.sent - self._row) :]
        self._row += len(rows)
        self.sent = max(self.sent, self._row)
        return new


class CellMirror:
    """One cell as one W&B run, whose step is the row's number in curve.jsonl."""

    def __init__(self, job: MirrorJob, cell: str) -> None:
        self.job, self.cell = job, cell
        self.folder = SweepFolder(Path(job.sweep_dir)).run(cell)
        self.done = False
        self._run: Any = None
        self._curve: CurveReader | None = None
        self._lock: int | None = None

    def advance(self, last: bool) -> None:
        """Sends what is new; `last`: nothing will follow."""
        if self.done or not self._open(last):
            return
        assert self._curve
        record = read_record(self.folder)  # before the rows: it is written after them
        for row in self._curve.rows():
            self._run.log(row)
        if record is not None:
            self._run.summary.update({key: value for key, value in record.items() if value is not None})
        if record is not None or last:
            lost = record is None or record["status"] == "failed"
            finish_run(self._run, self.job, self.cell, exit_code=int(lost))
            self.done = True

    def _open(self, last: bool) -> bool:
        if self._run is not None:
            return True
        curve = self.folder / "curve.jsonl"
        if not curve.exists() and not (self.folder / "run.json").exists():
            if last:
                say(Path(self.job.sweep_dir), self.cell, "untrained", "the job ended before it")
            return False
        if not self._locked(wait=last):
            return False
        about = yaml.safe_load((self.folder / "config.yaml").read_text())
        named = {key: about[key] for key in ("sweep", "cell", "trunk", "config_hash")}
        self._run = open_run(
            self.job,
            id=about["run_id"],
            name=self.cell,
            group=about["sweep"],
            job_type="cell",
            tags=about["tags"],
            config=about["job"] | about["derived"] | named,
        )
        self._run.define_metric("tokens")
        self._run.define_metric("flops")
        self._run.define_metric("*", step_metric="tokens")
        self._curve = CurveReader(curve, skip=self._run.starting_step)
        return True

    def _locked(self, wait: bool) -> bool:
        """Whether no older mirror, of a job that was killed, still writes this run."""
        if self._lock is None:
            path = Path(self.job.sweep_dir) / "wandb" / f"{self.cell}.lock"
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            return True
        return False
