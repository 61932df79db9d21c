"""The cells of a job as W&B runs, one a cell, made from their run directories."""

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import yaml

from harness.errors import UserError
from harness.records import TEXTS, SweepFolder, as_compared, axes_of, read_record, read_sweep, text_losses, variant_of
from harness.tracking.log import RECORD, say
from harness.tracking.mirrors import MirrorTask
from harness.tracking.run import finish_run, open_run


class CurveReader:
    """Yields the whole rows of a curve.jsonl from training step `first` on, each step once, however it is rewritten."""

    def __init__(self, path: Path, first: int) -> None:
        self.path, self.first = path, first
        self._inode = self._offset = 0

    def rows(self) -> list[dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError), open(self.path, "rb") as file:
            stat = os.fstat(file.fileno())
            if stat.st_ino != self._inode or stat.st_size < self._offset:
                self._inode, self._offset = stat.st_ino, 0
            file.seek(self._offset)
            whole = file.read().rpartition(b"\n")[0]
            if whole:
                try:
                    rows = [json.loads(line) for line in whole.split(b"\n")]
                except ValueError:  # rewritten and longer than before: the offset falls inside a row
                    self._inode = 0
                    return []
                self._offset += len(whole) + 1
                new = [row for row in rows if row["step"] >= self.first]
                self.first = max([self.first, *(row["step"] + 1 for row in new)])
                return new
        return []


class CellMirror:
    """One cell as one W&B run, whose step is the training step: each is sent once, whatever a resume rewrites."""

    def __init__(self, task: MirrorTask, name: str) -> None:
        self.task, self.name = task, name
        self.folder = SweepFolder(Path(task.sweep_dir)).run(name)
        self._run: Any = None
        self._curve: CurveReader | None = None
        self._lock: int | None = None

    def advance(self, last: bool) -> bool:
        """Sends what is new; whether the run has ended. `last`: nothing will follow."""
        if self._run is None and not self._open(last):
            return last
        assert self._curve
        record = read_record(self.folder)  # before the rows: it is written after them
        for row in self._curve.rows():
            self._run.log(row, step=row["step"], commit=True)
        if record is not None:
            # A null takes away what an earlier attempt left. W&B rounds some numbers; the text keeps them all.
            shown = as_compared(record, self._content())
            flat = {key: value for key, value in shown.items() if key != TEXTS} | text_losses(record)
            self._run.summary.update(flat | {RECORD: json.dumps(record)})
        if record is not None or last:
            lost = record is None or record["status"] == "failed"
            finish_run(self._run, self.task, self.name, exit_code=int(lost))
        return record is not None or last

    def _open(self, last: bool) -> bool:
        curve = self.folder / "curve.jsonl"
        if not curve.exists() and not (self.folder / "run.json").exists():
            if last:
                say(Path(self.task.sweep_dir), self.name, "untrained", "the job ended before it")
            return False
        if not self._locked(wait=last):
            return False
        about = yaml.safe_load((self.folder / "config.yaml").read_text())
        named = {key: about[key] for key in ("sweep", "cell", "trunk", "config_hash")}
        variant = self._variant()
        self._run = open_run(
            self.task,
            id=about["run_id"],
            name=f"{self.name} {variant}".rstrip(),
            group=about["sweep"],
            job_type="cell",
            tags=about["tags"],
            config=about["job"] | about["derived"] | named | ({"variant": variant} if variant else {}),
        )
        self._run.summary.update({RECORD: None})  # of an earlier attempt
        self._run.define_metric("tokens")
        self._run.define_metric("flops")
        self._run.define_metric("*", step_metric="tokens")
        self._curve = CurveReader(curve, first=self._run.starting_step)
        return True

    def _variant(self) -> str:
        """What the sweep calls that in which this cell differs from others of its shape, seed and budget, if any."""
        content = self._content()
        axes, cells = axes_of(content), content.get("cells", [])
        return next((variant_of(cell, axes) for cell in cells if cell.get("cell") == self.name), "")

    def _content(self) -> dict[str, Any]:
        """That of sweep.yaml."""
        try:
            return read_sweep(SweepFolder(Path(self.task.sweep_dir)))
        except UserError:  # of one job, for which nobody wrote it
            return {}

    def _locked(self, wait: bool) -> bool:
        """Whether no older mirror, of a job that was killed, still writes this run."""
        if self._lock is None:
            path = Path(self.task.sweep_dir) / "wandb" / f"{self.name}.lock"
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            pass
        return True
