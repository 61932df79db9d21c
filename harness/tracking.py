"""W&B as a mirror of a sweep's local files: what a training process does for it, which is next to nothing.

The mirror is a process of its own (harness.mirror), so that no fault of W&B can reach the training.
"""

import configparser
import contextlib
import fcntl
import json
import netrc
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml

from harness.errors import UserError

MODES = ("auto", "online", "offline", "none")
FIT_SECONDS = 90.0


@dataclass
class TrackingConfig:
    """auto: online with an API key, offline without one; WANDB_MODE decides first where it is set."""

    mode: str = "auto"  # auto | online | offline | none
    project: str = "scaling"
    entity: str | None = None

    def check(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"tracking.mode={self.mode} is not known: choose auto, online, offline or none")
        if not self.project or any(letter in self.project for letter in "/\\#?%:"):
            raise UserError(f"tracking.project={self.project} cannot name a W&B project: leave out / \\ # ? % and :")
        if self.mode == "online" and api_key() is None:
            raise UserError(
                "tracking.mode=online finds no W&B API key: set WANDB_API_KEY, run `wandb login`, or take "
                "tracking.mode=offline"
            )


Mode = Literal["online", "offline", "none"]


@dataclass(frozen=True)
class MirrorJob:
    """What a mirror is told. `why` says why it is offline; `cells` is empty where the fit is logged."""

    sweep_dir: str
    cells: list[str]
    mode: Mode
    why: str
    project: str
    entity: str | None


class Mirror:
    """The mirror of one job; closing it, as the end of this process does too, tells it to finish."""

    def __init__(self, process: "subprocess.Popen[bytes] | None", sweep_dir: Path) -> None:
        self._process = process
        self._sweep_dir = sweep_dir
        if process is not None:
            threading.Thread(target=self._reap, name="mirror", daemon=True).start()

    def __enter__(self) -> "Mirror":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Returns at once; the mirror finishes by itself."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def _reap(self) -> None:
        assert self._process
        if status := self._process.wait():
            say(self._sweep_dir, "-", "broken", f"the mirror ended with status {status}")


def start(tracking: TrackingConfig, sweep_dir: Path, cells: list[str]) -> Mirror:
    """Mirrors the run directories of `cells` to W&B until the result is closed. Never raises."""
    sweep_dir = Path(sweep_dir).resolve()
    mode, why = resolve_mode(tracking)
    if mode == "none" or not cells:
        return Mirror(None, sweep_dir)
    job = MirrorJob(str(sweep_dir), cells, mode, why, tracking.project, tracking.entity)
    for cell in cells:
        say(sweep_dir, cell, "started", mode)
    try:
        return Mirror(spawn(job, subprocess.PIPE), sweep_dir)
    except OSError as error:
        say(sweep_dir, "-", "broken", f"the mirror could not be started: {error}")
        return Mirror(None, sweep_dir)


def spawn(job: MirrorJob, stdin: Any) -> "subprocess.Popen[bytes]":
    """Starts harness.mirror on `job`; it holds the sweep's mirror lock from before this returns."""
    folder = Path(job.sweep_dir) / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "mirrors.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        return subprocess.Popen(
            [sys.executable, "-m", "harness.mirror", json.dumps(asdict(job))],
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
    return kept | quiet | {"WANDB_DATA_DIR": str(folder / "data"), "WANDB_CACHE_DIR": str(folder / "cache")}


def wait(sweep_dir: Path, timeout: float) -> list[str]:
    """Waits up to `timeout` seconds for the sweep's mirrors; sentences that say where its runs are."""
    sweep_dir = Path(sweep_dir)
    ended = _wait_for_mirrors(sweep_dir / "wandb" / "mirrors.lock", timeout)
    last = _last_words(sweep_dir)
    last.pop("fit", None)
    what, why = last.pop("-", ("", "the mirror was killed"))
    if what and not last:
        return [f"W&B: nothing is mirrored ({why}); the local files are complete"]
    if ended:
        last = {cell: ("broken", why) if said[0] == "started" else said for cell, said in last.items()}
    return [
        _sentence(f"{count} run{'s' * (count > 1)}", what, detail, sweep_dir)
        for (what, detail), count in Counter(last.values()).items()
    ]


def _sentence(runs: str, what: str, detail: str, sweep_dir: Path) -> str:
    folder = _shown(sweep_dir)
    if what == "uploaded":
        return f"W&B: {runs} at {detail}"
    if what == "offline":
        command = f"wandb sync {folder}/wandb/offline-run-*"
        return f"W&B: {runs} not uploaded ({detail}); `{command}` uploads what is kept there"
    if what == "started":
        return f"W&B: {runs} still being finished; {folder}/tracking.log will say how it went"
    return f"W&B: {runs} not mirrored ({detail}); the local files are complete"


def log_fit(sweep_dir: Path) -> list[str]:
    """Logs the fit of a sweep as a run of its own; sentences that say where it is. Never raises."""
    sweep_dir = Path(sweep_dir).resolve()
    tracking = _tracking_of(sweep_dir)
    mode, why = resolve_mode(tracking) if tracking else ("none", "")
    if tracking is None or mode == "none":
        return []
    say(sweep_dir, "fit", "started", mode)
    try:
        spawn(MirrorJob(str(sweep_dir), [], mode, why, tracking.project, tracking.entity), subprocess.DEVNULL)
    except OSError as error:
        say(sweep_dir, "fit", "broken", f"the mirror could not be started: {error}")
    _wait_for_mirrors(sweep_dir / "wandb" / "mirrors.lock", FIT_SECONDS)
    return [_sentence("the fit", *_last_words(sweep_dir).get("fit", ("started", "")), sweep_dir)]


def _last_words(sweep_dir: Path) -> dict[str, tuple[str, str]]:
    return {cell: (what, detail) for _, cell, what, detail in read_log(sweep_dir)}


def _tracking_of(sweep_dir: Path) -> TrackingConfig | None:
    for path in sorted(sweep_dir.glob("runs/*/config.yaml")):
        with contextlib.suppress(OSError, yaml.YAMLError, KeyError, TypeError):
            return TrackingConfig(**yaml.safe_load(path.read_text())["job"]["tracking"])
    return None


def _wait_for_mirrors(lock: Path, timeout: float) -> bool:
    """Whether no mirror holds the lock any more."""
    deadline = time.monotonic() + timeout
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except OSError:
        return True
    try:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
    finally:
        os.close(descriptor)


def resolve_mode(tracking: TrackingConfig) -> tuple[Mode, str]:
    """(online | offline | none, why): the configuration, then WANDB_MODE, then whether there is a key."""
    if tracking.mode == "none":
        return "none", ""
    if tracking.mode == "offline":
        return "offline", "tracking.mode=offline"
    wanted = os.environ.get("WANDB_MODE", "") if tracking.mode == "auto" else "online"
    if wanted == "disabled":
        return "none", ""
    if wanted in ("offline", "dryrun"):
        return "offline", f"WANDB_MODE={wanted}"
    return ("online", "") if api_key() else ("offline", "no API key")


def base_url() -> str:
    """The W&B server: WANDB_BASE_URL, or what `wandb login --host` left, or the public one."""
    settings = configparser.ConfigParser()
    folder = os.environ.get("WANDB_CONFIG_DIR") or Path.home() / ".config" / "wandb"
    with contextlib.suppress(configparser.Error, OSError):
        settings.read(Path(folder) / "settings")
    kept = settings.get("default", "base_url", fallback="https://api.wandb.ai")
    return (os.environ.get("WANDB_BASE_URL") or kept).rstrip("/")


def api_key() -> str | None:
    """The key of that server: WANDB_API_KEY or the netrc file."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    host = urlsplit(base_url()).netloc
    for path in [os.environ.get("NETRC") or "~/.netrc", "~/_netrc"]:
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            if entry := netrc.netrc(Path(path).expanduser()).hosts.get(host):
                return entry[2]
    return None


def say(sweep_dir: Path, cell: str, what: str, detail: str) -> None:
    """One line for tracking.log: started, uploaded, offline or broken, and where or why."""
    line = "\t".join([time.strftime("%Y-%m-%dT%H:%M:%S"), cell, what, " ".join(detail.split())])
    with contextlib.suppress(OSError), open(sweep_dir / "tracking.log", "a") as file:
        file.write(line + "\n")


def read_log(sweep_dir: Path) -> list[tuple[str, str, str, str]]:
    """The lines of tracking.log as (time, cell, what, detail)."""
    try:
        lines = (sweep_dir / "tracking.log").read_text().splitlines()
    except OSError:
        return []
    split = [line.split("\t") for line in lines]
    return [(words[0], words[1], words[2], words[3]) for words in split if len(words) == 4]


def _shown(path: Path) -> Path:
    with contextlib.suppress(ValueError):
        return path.resolve().relative_to(Path.cwd())
    return path
