"""A sweep on a SLURM cluster: what it would refuse, which jobs have ended, where their logs are, leaving it alone."""

import importlib
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness import tracking
from harness.errors import UserError

POLL_SECONDS = 30.0
MIRROR_SECONDS = 60.0
# Of a job that does not say: torch.compile starts a process a core, and a job on a GPU computes with one.
CORES_A_GPU = 4
# Keys of conf/hydra/launcher/slurm.yaml that sbatch knows by another name; those below by the same.
RENAMED = {"timeout_min": "time", "mem_gb": "mem", "tasks_per_node": "ntasks-per-node"}
WHERE = ("partition", "account", "qos")
WHAT = (
    "constraint", "exclude", "nodes", "cpus_per_task", "cpus_per_gpu", "gpus_per_node", "gpus_per_task", "gres",
    "mem_per_cpu", "mem_per_gpu",
)  # fmt: skip

Launcher = Mapping[str, Any]
_in_job = False


def device(launcher: Launcher) -> str:
    """What the jobs train on: cuda where they ask for GPUs, else cpu. A login node may have neither."""
    return "cuda" if gpus(launcher) else "cpu"


def gpus(launcher: Launcher) -> int:
    """How many GPUs a job asks for: 2, "a100:2" and "gpu:a100:2" are two."""
    asked = launcher["gpus_per_node"] or launcher["gpus_per_task"]
    listed = [str(asked)] if asked else [part for part in (launcher["gres"] or "").split(",") if "gpu" in part]
    counts = [part.split(":")[-1] for part in listed]
    return sum(int(count) if count.isdigit() else 1 for count in counts)


def cores(launcher: Launcher, busy: int, on_gpus: bool) -> int | None:
    """cpus_per_task: where it is null, as many as are `busy` at once, and on GPUs enough to compile with."""
    if launcher["cpus_per_task"] or launcher["cpus_per_gpu"]:
        return launcher["cpus_per_task"]
    return max(busy, CORES_A_GPU * max(1, gpus(launcher))) if on_gpus else busy


def check_gpus(launcher: Launcher, device: str, wanted: int) -> None:
    """Raises UserError where a job is to train on more GPUs than it asks SLURM for."""
    if not device.startswith("cuda") or not 0 < gpus(launcher) < wanted:
        return
    key = next(key for key in ("gpus_per_node", "gpus_per_task", "gres") if launcher[key])
    raise UserError(f"gpus={wanted} is more than hydra.launcher.{key}={launcher[key]}: raise that, or lower gpus")


def flags(launcher: Launcher, keys: Sequence[str]) -> list[str]:
    """The flags of sbatch that `keys` of the launcher stand for."""
    names = {key: RENAMED.get(key, key).replace("_", "-") for key in keys}
    values = {key: launcher[key] for key in keys if launcher[key] is not None}
    return [f"--{names[key]}={value}{'GB' * (key == 'mem_gb')}" for key, value in values.items()]


def check(launcher: Launcher, jobs: int) -> None:
    """Raises UserError where SLURM would not run the jobs of a sweep; none is left in its queue."""
    if shutil.which("sbatch") is None:
        raise UserError("hydra/launcher=slurm finds no sbatch here: run it on a login node, or take another launcher")
    leave_job()
    asked = flags(launcher, [*WHERE, *WHAT, *RENAMED])
    for key, value in launcher["additional_parameters"].items():
        asked.append(f"--{key}" if value is True else f"--{key}={value}")
    array = [f"--array=0-{jobs - 1}"] if jobs > 1 else []
    _sbatch(["--test-only", *asked, *array], "#!/bin/sh\n")
    _check_time(launcher)


def _sbatch(arguments: Sequence[str], script: str) -> str:
    done = subprocess.run(["sbatch", *arguments], input=script, capture_output=True, text=True)
    if done.returncode:
        noise = r"^(sbatch: )?(error: |fatal: |allocation failure: )?"
        lines = [re.sub(noise, "", line).strip() for line in done.stderr.splitlines()]
        said = "; ".join(dict.fromkeys(line for line in lines if line))
        asked = " ".join(argument for argument in arguments if argument != "--test-only")
        raise UserError(
            f"SLURM refuses the jobs ({said}; asked for {asked}): change hydra.launcher.partition, .gpus_per_node "
            "and so on as conf/hydra/launcher/slurm.yaml names them"
        )
    return done.stdout


def _check_time(launcher: Launcher) -> None:
    """Unless EnforcePartLimits is set, SLURM takes a job that asks for too much time, and never starts it."""
    done = subprocess.run(["sinfo", "--noheader", "--format=%P %l"], capture_output=True, text=True)
    partitions = [line.split() for line in done.stdout.splitlines()]
    asked = launcher["partition"] or next((name[:-1] for name, _ in partitions if name.endswith("*")), "")
    allowed = [minutes(limit) for name, limit in partitions if name.rstrip("*") in asked.split(",")]
    if allowed and launcher["timeout_min"] > max(allowed):
        raise UserError(
            f"hydra.launcher.timeout_min={launcher['timeout_min']} is more than the {max(allowed):g} minutes of "
            f"partition {asked}: lower it, a job that runs into its limit goes on from its checkpoint"
        )


def minutes(limit: str) -> float:
    """A time limit as SLURM prints it, [days-][[hours:]minutes:]seconds, or a word for none."""
    if not limit[0].isdigit():
        return float("inf")
    days, _, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    hours, mins, seconds = [0] * (3 - len(parts)) + parts
    return int(days or 0) * 1440 + hours * 60 + mins + seconds / 60


def leave_job() -> None:
    """Forgets the job that this process itself may be: its variables would shape the jobs that it submits."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "SLURMD_", "SRUN_")) and name not in ("SLURM_CONF", "SLURM_JWT"):
            del os.environ[name]


@contextmanager
def watching() -> Iterator[None]:
    """Within it submitit asks the queue, instead of an accounting database that a cluster may not have.

    Where waiting for the jobs ends with an exception, that of one without a result, waits for the others too.
    """
    submitit = importlib.import_module("submitit.slurm.slurm")
    logging.getLogger("submitit").setLevel(logging.ERROR)

    class Queue(submitit.SlurmInfoWatcher):  # type: ignore[name-defined]
        def _make_command(self) -> list[str]:
            return ["squeue", "--noheader", "--me", "--array", "--format=%i"]

        def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
            listed = set((string if isinstance(string, str) else string.decode()).split())
            return {job: {"State": "RUNNING" if job in listed else "GONE"} for job in self._registered}

    watcher = submitit.SlurmJob.watcher = Queue(delay_s=POLL_SECONDS)
    try:
        yield
    except Exception as error:
        while watcher._registered - watcher._finished:
            time.sleep(POLL_SECONDS / 10)
            watcher.update()
        if found := re.match(r"Job (\S+) .* has not produced any output", str(error).replace("\n", " ")):
            raise UserError(f"job {found[1]} ended without a result: killed, or out of memory?") from error
        raise


def submit_parent(launcher: Launcher, arguments: Sequence[str], folder: Path) -> str:
    """Submits this very command as a small job, which submits those of the sweep; a sentence that says where it is.

    Raises UserError where SLURM refuses it.
    """
    logs = folder / "slurm"
    logs.mkdir(exist_ok=True)
    command = shlex.join([sys.executable, os.path.abspath(sys.argv[0]), *arguments, "detach=false"])
    script = "\n".join(["#!/bin/bash", *(launcher["setup"] or []), command, ""])
    job = _sbatch(
        ["--parsable", f"--job-name={folder.name}", f"--output={logs.resolve()}/parent-%j.out", "--ntasks=1",
         "--cpus-per-task=1", "--no-requeue", *flags(launcher, WHERE)],
        script,
    )  # fmt: skip
    job = job.strip().split(";")[0]
    return f"SLURM job {job} submits the sweep, and says how it goes in {folder}/slurm/parent-{job}.out"


def begin_job() -> None:
    """Says that this process is a job that a sweep of ours submitted: variables may be those of somebody else's."""
    global _in_job
    _in_job = True


def in_job() -> bool:
    return _in_job


def end_mirrors() -> None:
    """In a job that has trained all, waits for its mirrors: SLURM kills what a job leaves behind.

    One that is stopped has no time for it, and the mirror of the next tells all of its rows.
    """
    if in_job():
        tracking.wait_for_own(MIRROR_SECONDS)


def link_log(trunk_folder: Path) -> None:
    """Makes `trunk_folder`/log the log of the job that trains it, and removes it where that is none of SLURM's."""
    link = trunk_folder / "log"
    if not in_job():
        link.unlink(missing_ok=True)
        return
    paths = importlib.import_module("submitit").JobEnvironment().paths
    fresh = trunk_folder / f".log.{os.getpid()}.tmp"
    with suppress(FileNotFoundError):  # removed as a temporary file by a process that is about to link its own log
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.path.relpath(paths.stdout, trunk_folder))
        fresh.replace(link)  # at once, since cooldowns of one trunk are trained by several processes


def job_of(trunk_folder: Path) -> str | None:
    """The SLURM job that last trained a trunk."""
    try:
        return Path(os.readlink(trunk_folder / "log")).parent.name
    except OSError:
        return None
