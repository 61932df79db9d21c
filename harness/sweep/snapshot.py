"""What a sweep is doing now, read from its files alone."""

import contextlib
import json
import math
import os
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.files import is_alive
from harness.records import SweepFolder, as_compared, axes_of, read_record, read_sweep, variant_of
from harness.slurm import job_of
from harness.training.energy import taken
from harness.training.turns import TrunkTime, makespan

ENDED = ("finished", "diverged", "failed")
# Without a new row for this long a cell is called quiet: no file tells a slow process from a dead one.
QUIET_SECONDS = 300.0
# The cooldown's share of a budget, where sweep.yaml does not give a cell's branch_step.
COOLDOWN = 0.2
# What one process occupies, where sweep.yaml does not say.
MACHINE = {"device": "cpu", "slots": 1, "ranks": 1, "gpus": 0, "threads": 1, "price_per_hour": None}
# Longer than any row of curve.jsonl, so that the end of the file holds a whole one.
TAIL_BYTES = 4096


@dataclass(frozen=True)
class CellState:
    """One cell; status is finished, diverged, failed, running, quiet or waiting.

    loss, in nats a token, is the final validation loss of a finished cell and the last training loss of
    any other.
    """

    cell: str
    label: str  # the cell's name without its hash, and its variant, where that is still unique
    trunk: str
    row: str  # the shape and seed, and the variant where there are several
    tokens: int
    status: str
    steps_done: int = 0
    steps: int = 1
    loss: float | None = None
    loss_se: float | None = None
    tokens_per_second: float | None = None
    utilization: float | None = None  # of the device's measured rate of matrix products
    evaluation_seconds: float = 0.0
    error: str | None = None
    job: str | None = None  # of SLURM, where one trains or trained it
    changed: float = 0.0  # seconds since the epoch: the record's age, or the last row's

    @property
    def done(self) -> float:
        """The share of its own steps that are trained."""
        return min(1.0, self.steps_done / self.steps)


@dataclass(frozen=True)
class Snapshot:
    """A sweep at one time. FLOPs and process_seconds count a trunk once; what is None nothing tells.

    utilization is that of the running cells, or of the finished ones where none runs; seconds are those of the last
    launch's wall clock.
    """

    name: str
    time: float
    cells: tuple[CellState, ...]
    flops_done: float
    flops_total: float
    tokens_per_second: float
    utilization: float | None
    seconds_left: float | None
    process_seconds: float  # of training and evaluation, over all processes
    machine: dict[str, Any]  # device, slots, ranks, gpus, threads
    launch: dict[str, Any]  # the last one: started, estimated_seconds, wall_seconds
    command: str  # that trains what is left
    joules: float | None = None  # of its GPUs while its jobs ran, where their driver counts

    def count(self, *statuses: str) -> int:
        return sum(cell.status in statuses for cell in self.cells)

    def of(self, *statuses: str) -> list[CellState]:
        return [cell for cell in self.cells if cell.status in statuses]

    @property
    def done(self) -> float:
        return self.flops_done / self.flops_total if self.flops_total else 1.0


def snapshot(sweep_dir: Path) -> Snapshot:
    """The sweep in `sweep_dir` now; raises UserError where that is no sweep."""
    return SweepReader(sweep_dir).snapshot()


class SweepReader:
    """Reads a sweep again and again; a file that has not changed is not opened twice."""

    def __init__(self, sweep_dir: Path) -> None:
        self.folder = SweepFolder(Path(sweep_dir))
        self._read_at: tuple[int, int] | None = None
        self._content: dict[str, Any] = {}
        self._variants: dict[str, str] = {}
        self._labels: dict[str, str] = {}
        self._read: dict[Path, tuple[tuple[int, int], dict[str, Any] | None]] = {}

    def snapshot(self, now: float | None = None) -> Snapshot:
        now = time.time() if now is None else now
        self._read_sweep()
        listed = self._content["cells"]
        try:
            begun = set(os.listdir(self.folder.path / "runs"))
        except FileNotFoundError:
            begun = set()
        found = {cell["cell"]: self._cell(cell) if cell["cell"] in begun else self._waiting(cell) for cell in listed}
        trunks = defaultdict(list)
        for cell in listed:
            trunks[cell["trunk"]].append(cell)
        for members in trunks.values():
            self._name_running([cell["cell"] for cell in members], found, now)
            _name_job(self.folder.trunk(members[0]["trunk"]), [cell["cell"] for cell in members], found)
        work = [_trunk_work(members, found) for members in trunks.values()]
        cells = tuple(found.values())
        launch = (self._content.get("launches") or [{}])[-1]
        return Snapshot(
            name=self._content["sweep"],
            time=now,
            cells=cells,
            flops_done=sum(trunk.done for trunk in work),
            flops_total=sum(trunk.total for trunk in work),
            tokens_per_second=sum(cell.tokens_per_second or 0 for cell in cells if cell.status == "running"),
            utilization=_utilization(cells, "running") or _utilization(cells, "finished"),
            seconds_left=_seconds_left(work, self._content.get("slots") or 1, launch.get("estimated_seconds")),
            process_seconds=sum(trunk.seconds for trunk in work),
            machine={key: self._content.get(key, value) for key, value in MACHINE.items()},
            launch=launch,
            command=self._content.get("command", ""),
            joules=taken(self.folder.path),
        )

    def _read_sweep(self) -> None:
        stamp = _stamp(self.folder.sweep_yaml)
        if stamp is None or stamp != self._read_at:
            self._content = read_sweep(self.folder)
            self._read_at = stamp
            self._variants = {cell["cell"]: variant_of(cell, axes_of(self._content)) for cell in self._content["cells"]}
            self._labels = _labels(self._variants)

    def _waiting(self, cell: dict[str, Any], **known: Any) -> CellState:
        state = {"status": "waiting", "steps": cell["steps"]} | known
        row = f"w{cell['width']}-d{cell['depth']}-s{cell['seed']} {self._variants[cell['cell']]}".rstrip()
        return CellState(cell["cell"], self._labels[cell["cell"]], cell["trunk"], row, cell["tokens"], **state)

    def _cell(self, cell: dict[str, Any]) -> CellState:
        folder = self.folder.run(cell["cell"])
        record, record_time = self._unchanged(folder / "run.json", lambda path: read_record(path.parent))
        row, row_time = self._unchanged(folder / "curve.jsonl", last_row)
        # A failed cell is tried again: rows younger than its record belong to the next attempt.
        if record is not None and not (record["status"] == "failed" and row_time > record_time):
            finished = record["status"] == "finished"
            steps = cell["steps"] if finished else row["step"] if row else 0
            keys = ("status", "loss", "loss_se", "tokens_per_second", "error")
            shown = as_compared(record, self._content)
            known = {key: shown[key] for key in keys} | {"utilization": record["flops_utilization"]}
            if finished and record["wall_seconds"] and record["tokens_per_second"]:
                known["evaluation_seconds"] = record["wall_seconds"] - record["tokens"] / record["tokens_per_second"]
            return self._waiting(cell, **known, steps_done=steps, changed=record_time)
        if row is None:
            return self._waiting(cell)
        return self._waiting(
            cell,
            status="begun",
            steps_done=int(row["step"]),
            loss=row.get("train_loss"),
            tokens_per_second=row.get("tokens_per_second"),
            utilization=row.get("flops_utilization"),
            changed=row_time,
        )

    def _name_running(self, members: list[str], found: dict[str, CellState], now: float) -> None:
        """Of a trunk's begun cells those are trained that a process has claimed; the others wait."""
        for state in [found[cell] for cell in members if found[cell].status == "begun"]:
            claimed = is_alive(self.folder.run(state.cell) / "running")
            status = "waiting" if not claimed else "quiet" if now - state.changed > QUIET_SECONDS else "running"
            found[state.cell] = replace(state, status=status)

    def _unchanged(self, path: Path, read: Any) -> tuple[dict[str, Any] | None, float]:
        """What `read` made of the file as it is now, and when that changed last (0 where it is missing)."""
        stamp = _stamp(path)
        if stamp is None:
            return None, 0.0
        known = self._read.get(path)
        if known is None or known[0] != stamp:
            known = (stamp, read(path))
            self._read[path] = known
        return known[1], stamp[0] / 1e9


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return stat.st_mtime_ns, stat.st_size


def last_row(path: Path) -> dict[str, Any] | None:
    """The last whole row of a curve.jsonl: a line without its newline is still being written."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            return row
    return None


def _labels(variants: dict[str, str]) -> dict[str, str]:
    """What cells are called, from their names and variants."""
    short = {cell: f"{re.sub(r'-[0-9a-f]{8}$', '', cell)} {variant}".rstrip() for cell, variant in variants.items()}
    unique = len(set(short.values())) == len(short)
    return short if unique else {cell: cell for cell in short}


def _name_job(trunk_folder: Path, members: list[str], found: dict[str, CellState]) -> None:
    for cell in members:
        if found[cell].status in ("running", "quiet", "failed"):
            found[cell] = replace(found[cell], job=job_of(trunk_folder))


@dataclass(frozen=True)
class TrunkWork:
    """FLOPs of one trunk with its cooldowns, and FLOPs a second of a process where it has run.

    left: of each cell that has not ended, those of the trunk to its branch and of its cooldown.
    """

    done: float
    total: float
    flops_per_token: float
    rate: float | None
    running: bool
    seconds: float  # of its processes, as far as files tell
    left: tuple[tuple[float, float], ...]


def _trunk_work(members: list[dict[str, Any]], found: dict[str, CellState]) -> TrunkWork:
    shared = len(members) > 1
    shared_steps = shared_done = own_steps = own_done = own_trained = 0.0
    branches = [cell.get("branch_step", round(cell["steps"] * (1 - COOLDOWN)) if shared else cell["steps"])
                for cell in members]  # fmt: skip
    for cell, branch in zip(members, branches, strict=True):
        state, steps = found[cell["cell"]], cell["steps"]
        shared_steps = max(shared_steps, branch)
        shared_done = max(shared_done, min(state.steps_done, branch))
        own_steps += steps - branch
        trained = max(0, state.steps_done - branch)
        own_trained += trained
        own_done += steps - branch if state.status in ENDED else trained
    states = [found[cell["cell"]] for cell in members]
    trained_steps = shared_done + own_trained
    if all(state.status in ENDED for state in states):
        shared_done = shared_steps
    left = [(max(0, branch - shared_done), state.steps - max(branch, state.steps_done))
            for state, branch in zip(states, branches, strict=True) if state.status not in ENDED]  # fmt: skip
    if left and members[0].get("gpus", 1) > 1:  # which trains its cooldowns itself
        left = [(max(branch for branch, _ in left) + sum(cooldown for _, cooldown in left), 0.0)]
    per_step = members[0]["flops"] / members[0]["steps"]
    per_token = members[0]["flops"] / members[0]["tokens"]
    timed = [state for state in states if state.tokens_per_second and math.isfinite(state.tokens_per_second)]
    newest = max(timed, key=lambda state: (state.status == "running", state.changed), default=None)
    rate = newest.tokens_per_second * per_token if newest and newest.tokens_per_second else None
    seconds = (trained_steps * per_step / rate if rate else 0.0) + sum(state.evaluation_seconds for state in states)
    return TrunkWork(
        done=(shared_done + own_done) * per_step,
        total=(shared_steps + own_steps) * per_step,
        flops_per_token=per_token,
        rate=rate,
        running=any(state.status == "running" for state in states),
        left=tuple((steps * per_step, cooldown * per_step) for steps, cooldown in left),
        seconds=seconds * members[0].get("gpus", 1),
    )


def _utilization(cells: Sequence[CellState], status: str) -> float | None:
    """Its mean over the cells of that status."""
    known = [cell.utilization for cell in cells if cell.status == status and cell.utilization]
    return sum(known) / len(known) if known else None


def _seconds_left(work: list[TrunkWork], slots: int, estimate: float | None) -> float | None:
    """Wall seconds until the last cell ends: trunks that run go on, the others follow as slots become free.

    A trunk that has not run yet is given the speed in FLOPs of the one nearest to it in FLOPs a token.
    """
    left = [trunk for trunk in work if trunk.left]
    timed = [trunk for trunk in work if trunk.rate]
    if not left:
        return 0.0
    if not timed:
        total = sum(trunk.total for trunk in work)
        return estimate * sum(trunk.total - trunk.done for trunk in left) / total if estimate else None
    times = []
    for trunk in sorted(left, key=lambda trunk: not trunk.running):
        alike = min(timed, key=lambda other: abs(math.log(other.flops_per_token / trunk.flops_per_token)))
        rate = trunk.rate or alike.rate
        assert rate
        times.append(TrunkTime(0.0, [(branch / rate, cooldown / rate) for branch, cooldown in trunk.left]))
    return makespan(times, slots)


def disk_bytes(sweep_dir: Path) -> int:
    """What the files of a sweep take, W&B's included."""
    total = 0
    for folder, _, files in os.walk(sweep_dir):
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, file)).st_size
    return total
