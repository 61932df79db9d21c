"""The process that mirrors run directories to W&B: python -m harness.mirror JOB, JOB a MirrorJob in JSON.

Standard input is a pipe from the training process. Its end, however that process ended, tells the mirror to
send what is on disk and to leave. What cannot be sent is kept as offline runs, made from the same files.
"""

import base64
import importlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from harness import tracking
from harness.tracking import MirrorJob

PROBE_SECONDS, PROBE_PAUSE_SECONDS = 10.0, 3.0
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
        run_job = importlib.import_module("harness.cell_mirror" if job.cells else "harness.fit_mirror")
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
            tracking.spawn(replace(job, cells=left, mode="offline", why=why), 0)
    else:
        for cell in unfinished(job) if job.cells else ["fit"]:
            tracking.say(Path(job.sweep_dir), cell, "broken", without_key(error))


def unfinished(job: MirrorJob) -> list[str]:
    """The cells of the job whose last word in tracking.log is that they were started."""
    last = {line[1]: line[2] for line in tracking.read_log(Path(job.sweep_dir))}
    return [cell for cell in job.cells if last.get(cell, "started") == "started"]


def without_key(text: str) -> str:
    key = tracking.api_key()
    return text.replace(key, "...") if key else text


def probe() -> str | None:
    """Why the server cannot be used, in a few words, or None where it answers, at the second try at most."""
    problem = _probe_once()
    if problem and problem.startswith("HTTP"):
        time.sleep(PROBE_PAUSE_SECONDS)
        problem = _probe_once()
    return problem


def _probe_once() -> str | None:
    body = json.dumps({"operationName": "Viewer", "query": "query Viewer { viewer { id } }", "variables": {}})
    key = base64.b64encode(f"api:{tracking.api_key()}".encode()).decode()
    request = urllib.request.Request(
        tracking.base_url() + "/graphql",
        body.encode(),
        {"Content-Type": "application/json", "Authorization": f"Basic {key}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=PROBE_SECONDS) as answer:
            return None if (json.load(answer).get("data") or {}).get("viewer") else "the API key was refused"
    except urllib.error.HTTPError as error:
        return "the API key was refused" if error.code in (401, 403) else f"HTTP {error.code}"
    except urllib.error.URLError as error:
        return _network_problem(error.reason)
    except (OSError, ValueError) as error:
        return _network_problem(error)


def _network_problem(reason: object) -> str:
    if isinstance(reason, ConnectionRefusedError):
        return "connection refused"
    if isinstance(reason, TimeoutError):
        return f"no answer in {PROBE_SECONDS:g} s"
    if isinstance(reason, socket.gaierror):
        return f"host {tracking.base_url()} not found"
    return "connection lost" if isinstance(reason, ConnectionError) else str(reason)


if __name__ == "__main__":
    main(sys.argv[1])
