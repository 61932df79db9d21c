"""The process that mirrors run directories to W&B: python -m harness.tracking.process JOB, JOB a MirrorJob in JSON.

Standard input is a pipe from the training process. Its end, however that process ended, tells the mirror to
send what is on disk and to leave. What cannot be sent is kept as offline runs, made from the same files.
"""

import importlib
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from harness.tracking.account import without_key
from harness.tracking.log import last_words, say
from harness.tracking.mirrors import MirrorJob, spawn
from harness.tracking.probe import probe

# From the end of the job to the end of its mirror, where W&B neither answers nor fails.
ONLINE_SECONDS, OFFLINE_SECONDS = 60.0, 300.0


def main(argument: str) -> None:
    for interruption in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(interruption, signal.SIG_IGN)  # the job may have something to say after them
    os.nice(19)
    # wandb's temporary folders go where this process, which leaves without wandb's exit hooks, can remove them.
    os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="mirror-")
    job = MirrorJob(**json.loads(argument))
    if job.mode == "online" and (problem := probe()):
        job = replace(job, mode="offline", why=problem)
    try:
        run_job = importlib.import_module("harness.tracking.cells" if job.cells else "harness.tracking.fits")
        threading.Thread(
            target=watch, args=[job], daemon=True
        ).start()  # not before: on a busy machine that import alone can take a minute
        run_job.run(job)
    except Exception as error:
        give_up(job, f"{type(error).__name__}: {error}")
    leave()


def leave() -> NoReturn:
    """Without wandb's own exit hooks, which wait for the network."""
    shutil.rmtree(tempfile.gettempdir(), ignore_errors=True)
    os._exit(0)


def watch(job: MirrorJob) -> None:
    """Ends the mirror when the job has ended and W&B keeps it waiting."""
    select.select([0], [], [])
    time.sleep(ONLINE_SECONDS if job.mode == "online" else OFFLINE_SECONDS)
    give_up(job, "no answer in time")
    leave()


_leaving = threading.Lock()
# Where a mirror that follows this one makes its own temporary folder.
USER_TEMPORARY = {"TMPDIR": tempfile.gettempdir()}


def give_up(job: MirrorJob, error: str) -> None:
    """Hands what is left to a mirror that stays offline; wandb's service dies with this process."""
    _leaving.acquire()  # for good: the watchdog and the main thread may both come here
    if job.mode == "online":
        why = probe() or without_key(error)
        left = unfinished(job)
        if left or not job.cells:
            os.environ.update(USER_TEMPORARY)
            spawn(replace(job, cells=left, mode="offline", why=why), 0)
    else:
        for cell in unfinished(job) if job.cells else ["fit"]:
            say(Path(job.sweep_dir), cell, "broken", without_key(error))


def unfinished(job: MirrorJob) -> list[str]:
    """The cells of the job whose last word in tracking.log is that they were started."""
    last = last_words(Path(job.sweep_dir))
    return [cell for cell in job.cells if last.get(cell, ("started", ""))[0] == "started"]


if __name__ == "__main__":
    main(sys.argv[1])
