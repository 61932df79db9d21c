"""What a training process does for W&B, which is next to nothing.

A mirror is a process of its own (harness.tracking.process), so that no fault of W&B can reach the training.
"""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from harness.files import homeless
from harness.tracking.config import Mode, TrackingConfig, resolve_mode
from harness.tracking.log import COMPARE, FIT, FORECAST, PLAN, VIEW, last_words, say

FIT_SECONDS = 90.0


@dataclass(frozen=True)
class MirrorTask:
    """What a mirror is told: its runs are cells, by name, PLAN, FIT, COMPARE, FORECAST and VIEW; `why` says why it is
    offline.

    keep: whether what cannot be sent is kept as offline runs. beside: whether it runs beside training.
    """

    sweep_dir: str
    runs: list[str]
    mode: Mode
    why: str
    project: str | None
    entity: str | None
    keep: bool = True
    beside: bool = True


class Mirror:
    """The mirror of one training job; closing it, as the end of this process does too, tells it to finish."""

    def __init__(self, process: "subprocess.Popen[bytes] | None", sweep_dir: Path, mode: str = "") -> None:
        self._process, self._sweep_dir, self._mode = process, sweep_dir, mode
        if process is not None:
            threading.Thread(target=self._reap, name="mirror", daemon=True).start()

    def __enter__(self) -> "Mirror":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def follow(self, run: str) -> None:
        """Mirrors one more run. Never raises."""
        if self._process is not None and self._process.stdin is not None:
            say(self._sweep_dir, run, "started", self._mode)
            with contextlib.suppress(OSError):  # the mirror has ended, and said why
                os.write(self._process.stdin.fileno(), f"{run}\n".encode())

    def close(self) -> None:
        """Returns at once; the mirror finishes by itself."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    @property
    def pid(self) -> int | None:
        """The mirror's process id, None where there is no mirror."""
        return self._process.pid if self._process else None

    def kill(self) -> None:
        """Ends the mirror, with nothing more sent."""
        if self._process is not None:
            self._process.kill()

    def _reap(self) -> None:
        assert self._process
        if status := self._process.wait():
            say(self._sweep_dir, "-", "broken", f"the mirror ended with status {status}")


def start(tracking: TrackingConfig, sweep_dir: Path, runs: list[str]) -> Mirror:
    """Mirrors `runs`, names of cells or PLAN, to W&B until the result is closed. Never raises."""
    sweep_dir = Path(sweep_dir).resolve()
    tracking.settle()
    mode, why = resolve_mode(tracking)
    if mode == "none" or not runs:
        return Mirror(None, sweep_dir)
    return begin(MirrorTask(str(sweep_dir), runs, mode, why, tracking.project, tracking.entity), subprocess.PIPE)


def begin(task: MirrorTask, stdin: int) -> Mirror:
    """Starts the mirror of `task`, which takes names of more runs from `stdin` until its end. Never raises."""
    for run in task.runs:
        say(Path(task.sweep_dir), run, "started", task.mode)
    try:
        return Mirror(spawn(task, stdin), Path(task.sweep_dir), task.mode)
    except OSError as error:
        say(Path(task.sweep_dir), "-", "broken", f"the mirror could not be started: {error}")
        return Mirror(None, Path(task.sweep_dir))


def spawn(task: MirrorTask, stdin: Any) -> "subprocess.Popen[bytes]":
    """Starts harness.tracking.process on `task`; it holds the sweep's mirror lock from before this returns."""
    folder = Path(task.sweep_dir) / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "mirrors.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_SH)
        return subprocess.Popen(
            [sys.executable, "-m", "harness.tracking.process", json.dumps(asdict(task))],
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[lock],
            env=_environment(folder),
        )
    finally:
        os.close(lock)


def _environment(folder: Path) -> dict[str, str]:
    # WANDB_SERVICE names the service of the process that starts the mirror, which may be the one that failed.
    kept = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    quiet = {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "GOMAXPROCS": "1", "OMP_NUM_THREADS": "1"}
    if homeless():  # the client needs some folder
        kept["HOME"] = str(folder)
    return kept | quiet | {"WANDB_DATA_DIR": str(folder / "data"), "WANDB_CACHE_DIR": str(folder / "cache")}


def wait(sweep_dir: Path, timeout: float) -> list[str]:
    """Waits up to `timeout` seconds for the sweep's mirrors; sentences that say where its runs are."""
    ended = wait_for_mirrors(sweep_dir, timeout)
    return sentences(Path(sweep_dir), ended)


def wait_for_own(timeout: float) -> None:
    """Waits up to `timeout` seconds for the mirrors of this process, where they would not outlive it."""
    deadline = time.monotonic() + min(timeout, threading.TIMEOUT_MAX / 2)
    for thread in threading.enumerate():
        if thread.name == "mirror":
            thread.join(max(0.0, deadline - time.monotonic()))


def sentences(sweep_dir: Path, ended: bool) -> list[str]:
    """Where the runs of a sweep are; `ended`: no mirror is at work any more."""
    last = last_words(sweep_dir)
    for name in (FIT, COMPARE, FORECAST, VIEW):
        last.pop(name, None)
    what, why = last.pop("-", ("", "the mirror was killed"))
    if what and not last:
        return [f"W&B: nothing is mirrored ({why}); the local files are complete"]
    if ended:
        last = {run: ("broken", why) if said[0] == "started" else said for run, said in last.items()}
    plan = last.pop(PLAN, None)
    said = [
        _sentence(f"{count} run{'s' * (count > 1)}", what, detail, sweep_dir)
        for (what, detail), count in Counter(last.values()).items()
    ]
    return said + ([_sentence("the plan", *plan, sweep_dir)] if plan and plan not in last.values() else [])


def _sentence(runs: str, what: str, detail: str, sweep_dir: Path) -> str:
    folder = _shown(sweep_dir)
    if what == "uploaded":
        return f"W&B: {runs} at {detail}"
    if what == "offline":
        return f"W&B: {runs} not uploaded ({detail}); `python scripts/sync.py runs={folder}` uploads what is kept"
    if what == "started":
        return f"W&B: {runs} still being finished; {folder}/tracking.log will say how it went"
    return f"W&B: {runs} not mirrored ({detail}); the local files are complete"


def log_fit(sweep_dir: Path) -> list[str]:
    """Logs the fit of a sweep, where it has one, as a run of its own, with a view of all; sentences that say where.

    Never raises.
    """
    return _log(Path(sweep_dir).resolve(), FIT, "the fit")


def log_comparison(sweep_dir: Path) -> list[str]:
    """Logs the comparison of a sweep's variants as `log_fit` does the fit. Never raises."""
    return _log(Path(sweep_dir).resolve(), COMPARE, "the comparison")


def log_forecast(sweep_dir: Path) -> list[str]:
    """Logs the forecasts from a sweep's fit, each as a run, as `log_fit` does the fit. Never raises."""
    return _log(Path(sweep_dir).resolve(), FORECAST, "the forecast")


def forecasts_of(sweep_dir: Path) -> list[Path]:
    """The forecasts from a sweep's fit, oldest first."""
    return sorted((sweep_dir / "forecasts").glob("*.json"))


def _log(sweep_dir: Path, run: str, words: str) -> list[str]:
    if not ((sweep_dir / f"{run}.json").exists() or run == FORECAST and forecasts_of(sweep_dir)):
        return []
    tracking = tracking_of(sweep_dir)
    mode, why = resolve_mode(tracking) if tracking else ("none", "")
    if tracking is None or mode == "none":
        return []
    runs = [run, VIEW] if mode == "online" else [run]
    task = MirrorTask(str(sweep_dir), runs, mode, why, tracking.project, tracking.entity, beside=False)
    begin(task, subprocess.DEVNULL)
    wait_for_mirrors(sweep_dir, FIT_SECONDS)
    last = last_words(sweep_dir)
    what, why = last.get(run, ("started", ""))
    return [_sentence(words, what, why, sweep_dir)] + [view_sentence(sweep_dir)] * (what == "uploaded")


def view_sentence(sweep_dir: Path) -> str:
    """Where the saved view of a sweep is, or why there is none."""
    what, detail = last_words(sweep_dir).get(VIEW, ("broken", "it was not made"))
    if what == "started":
        return f"W&B: its view still being made; {_shown(sweep_dir)}/tracking.log will say how it went"
    return f"W&B: its view at {detail}" if what == "uploaded" else f"W&B: no view ({detail})"


def tracking_of(sweep_dir: Path) -> TrackingConfig | None:
    for path in sorted(sweep_dir.glob("runs/*/config.yaml")):
        with contextlib.suppress(OSError, yaml.YAMLError, KeyError, TypeError):
            return TrackingConfig(**yaml.safe_load(path.read_text())["job"]["tracking"])
    return None


def wait_for_mirrors(sweep_dir: Path, timeout: float) -> bool:
    """Whether no mirror of the sweep is at work any more."""
    deadline = time.monotonic() + timeout
    try:
        descriptor = os.open(Path(sweep_dir) / "wandb" / "mirrors.lock", os.O_RDWR)
    except OSError:
        return True
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                pass
            except OSError:  # a file system without locks, on which those of other processes cannot be waited for
                wait_for_own(timeout)
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
    finally:
        os.close(descriptor)


def _shown(path: Path) -> Path:
    with contextlib.suppress(ValueError):
        return path.resolve().relative_to(Path.cwd())
    return path
