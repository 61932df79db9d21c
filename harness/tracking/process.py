"""The process that mirrors run directories to W&B: python -m harness.tracking.process TASK, TASK a MirrorTask in JSON.

Standard input is a pipe from the training process, which names more runs there, each on a line. Its end, however that
process ended, tells the mirror to send what is on disk and to leave. What cannot be sent is kept as offline runs, made
from the same files.
"""

import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from harness.tracking.config import without_key
from harness.tracking.log import last_words, say
from harness.tracking.mirrors import MirrorTask, spawn
from harness.tracking.probe import probe

POLL_SECONDS = 2.0
PIPE_BYTES = 65536  # all that a pipe holds, so that no line is cut
MOST_LETTERS = 300  # of an error in tracking.log
# From the end of the job, or of its last run, to the end of its mirror where W&B neither answers nor fails.
ONLINE_SECONDS, OFFLINE_SECONDS = 60.0, 300.0


def main(argument: str) -> None:
    for interruption in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(interruption, signal.SIG_IGN)  # the job may have something to say after them
    # wandb's temporary folders go where this process, which leaves without wandb's exit hooks, can remove them.
    os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="mirror-")
    task = MirrorTask(**json.loads(argument))
    # A tenth of a busy core: at 19 it is a hundredth, and wandb is imported after more than a minute.
    os.nice(10 if task.beside else 0)
    problem = probe() if task.mode == "online" else None
    try:
        if problem and not task.keep:
            raise Unreachable(problem)
        run(replace(task, mode="offline", why=problem) if problem else task)
    except Exception as error:
        give_up(task, said(error))
    leave()


class Unreachable(Exception):
    """The server cannot be used."""


def said(error: Exception) -> str:
    """What an error says, in a few words that hold no key."""
    text = without_key(" ".join(str(error).split()))[:MOST_LETTERS]
    if "permission denied" in text or "not found during upsertBucket" in text:
        return "no permission to write to that project"
    return text if isinstance(error, Unreachable) else f"{type(error).__name__}: {text}"


def run(task: MirrorTask) -> None:
    """Mirrors the runs as their files grow, until the training job has ended."""
    mirror_of = importlib.import_module("harness.tracking.run_types").mirror_of
    # Not before: on a busy machine that import alone can take a minute.
    threading.Thread(target=watch, args=[task], daemon=True).start()
    mirrors, begun, pause, ended = [], 0, 0.0, False
    while not ended:
        ended = _ended.wait(pause)
        names = [*task.runs, *_named]
        mirrors += [mirror_of(task, name) for name in names[begun:]]
        mirrors, begun = [mirror for mirror in mirrors if not advance(task, mirror, last=ended)], len(names)
        pause = POLL_SECONDS


def advance(task: MirrorTask, mirror: Any, last: bool) -> bool:
    """Sends what is new of one run; whether it has ended. Raises where the whole task cannot go on as it is."""
    global _progress
    try:
        ended = bool(mirror.advance(last))
    except Exception as error:
        if task.mode == "online" and (problem := probe()):
            raise Unreachable(problem) from error
        if task.mode == "online" and task.keep:
            raise
        say(Path(task.sweep_dir), mirror.name, "broken", said(error))
        ended = True
    if ended:
        _progress = time.monotonic()
    return ended


def leave() -> NoReturn:
    """Without wandb's own exit hooks, which wait for the network."""
    shutil.rmtree(tempfile.gettempdir(), ignore_errors=True)
    os._exit(0)


def watch(task: MirrorTask) -> None:
    """Takes the names that the job sends; when that has ended and W&B keeps the mirror waiting, ends it."""
    while lines := os.read(0, PIPE_BYTES):
        _named.extend(lines.decode().split())
    _ended.set()
    ended = time.monotonic()
    limit = ONLINE_SECONDS if task.mode == "online" else OFFLINE_SECONDS
    while (left := max(ended, _progress) + limit - time.monotonic()) > 0:
        time.sleep(left)
    give_up(task, probe() or "no answer in time" if task.mode == "online" else "no answer in time")
    leave()


_named: list[str] = []  # runs, by the job
_ended = threading.Event()  # the job
_progress = 0.0  # when a run was last brought to its end
_leaving = threading.Lock()
# Where a mirror that follows this one makes its own temporary folder.
USER_TEMPORARY = {"TMPDIR": tempfile.gettempdir()}


def give_up(task: MirrorTask, why: str) -> None:
    """Hands what is left to a mirror that stays offline; wandb's service dies with this process."""
    _leaving.acquire()  # for good: the watchdog and the main thread may both come here
    left = unfinished(task)
    if task.mode == "online" and task.keep:
        if left:
            os.environ.update(USER_TEMPORARY)
            spawn(replace(task, runs=left, mode="offline", why=why), 0)
    else:
        for name in left:
            say(Path(task.sweep_dir), name, "broken", why)


def unfinished(task: MirrorTask) -> list[str]:
    """The runs of the task whose last word in tracking.log is that they were started."""
    last = last_words(Path(task.sweep_dir))
    return [name for name in [*task.runs, *_named] if last.get(name, ("started", ""))[0] == "started"]


if __name__ == "__main__":
    main(sys.argv[1])
