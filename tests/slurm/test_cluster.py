"""Real sweeps on a real SLURM of one machine, whose processes die with their job, without an accounting database."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch

from harness.errors import UserError
from harness.grid import Trunk, make_trunks
from harness.records import SweepFolder, read_record
from harness.sweep.compose import compose_sweep, open_store
from harness.sweep.run import train
from harness.sweep.snapshot import snapshot
from harness.training.device import Device
from harness.training.worker import run_trunk

ROOT = Path(__file__).parents[2]
CPU = Device(torch.device("cpu"), "float32", False)


def command(folder: Path, *arguments: str) -> list[str]:
    return ["-m", *arguments, f"output_directory={folder.parent}", f"name={folder.name}"]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "scripts/train.py", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def wait_until(true: Callable[[], object], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def trunks_of(arguments: list[str]) -> list[Trunk]:
    jobs = compose_sweep(arguments).jobs
    store = open_store(jobs)
    return [trunk for job in jobs for trunk in make_trunks(job, store.vocab_size, store.recipe_hash, "float32")]


def losses(folder: SweepFolder, trunks: list[Trunk]) -> dict[str, float]:
    return {cell.name: read_record(folder.run(cell.name))["loss"] for trunk in trunks for cell in trunk.cells}


def has_rows(folder: SweepFolder, trunk: Trunk) -> bool:
    path = folder.trunk(trunk.name) / "curve.jsonl"
    return path.is_file() and path.stat().st_size > 0


def job_of(folder: SweepFolder, trunk: Trunk) -> str:
    return Path(os.readlink(folder.trunk(trunk.name) / "log")).parent.name


def described(job: str) -> str:
    return subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout


def submitted(folder: SweepFolder) -> set[str]:
    """The tasks of arrays and single jobs that a sweep has submitted so far."""
    return {path.parent.name for path in folder.path.glob("slurm/*/*_submitted.pkl")}


@dataclass(frozen=True)
class Interrupted:
    """A sweep of two jobs: one was requeued, the other is held still until SLURM says that its time is over."""

    folder: SweepFolder
    trunks: list[Trunk]
    jobs: list[str]
    process: subprocess.Popen[str]
    watch: threading.Thread


@pytest.fixture(scope="module")
def interrupted(corpus, tmp_path_factory) -> Iterator[Interrupted]:
    """Begins with the first test that asks for it: SLURM looks at time limits every half a minute only."""
    folder = SweepFolder(tmp_path_factory.mktemp("outputs") / "interrupted")
    arguments = command(folder.path, *corpus, "shape=w64-d2,w48-d2", "tokens=[30e3,45e3]")
    # It warns these between 25 and 55 s, once they surely listen.
    limits = ["hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=5", "tracking.mode=offline"]
    process = start([*arguments, *limits])
    trunks = trunks_of(arguments)
    wait_until(lambda: all(has_rows(folder, trunk) for trunk in trunks))
    jobs = [job_of(folder, trunk) for trunk in trunks]
    subprocess.run(["scontrol", "requeue", jobs[0]], check=True)
    # SLURM lets it go: it sends SIGCONT before its notice.
    held = pid_of(jobs[1])
    os.kill(held, signal.SIGSTOP)
    watch = threading.Thread(target=lift_limits, args=[jobs, held], daemon=True)
    watch.start()
    yield Interrupted(folder, trunks, jobs, process, watch)
    process.kill()
    process.wait()


def lift_limits(jobs: list[str], held: int) -> None:
    """Lets the jobs end once each was interrupted: on a busy machine, a minute is soon over again, and again."""
    wait_until(lambda: all(re.search("Restarts=[1-9]", described(job)) for job in jobs))
    with suppress(ProcessLookupError):  # where it had been warned before it was held
        os.kill(held, signal.SIGCONT)
    for job in jobs:  # one may have ended
        subprocess.run(["scontrol", "update", f"JobId={job}", "TimeLimit=60"], capture_output=True)


def pid_of(job: str) -> int:
    """The process of a job or of a task of an array; srun, which started it, has the same words in its command."""
    array, _, task = job.partition("_")
    wanted = {f"SLURM_ARRAY_JOB_ID={array}", f"SLURM_ARRAY_TASK_ID={task}"} if task else {f"SLURM_JOB_ID={job}"}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (path / "cmdline").read_text().split("\0")
            environment = set((path / "environ").read_text().split("\0"))
            if words[0] == sys.executable and "submitit.core._submit" in words and wanted <= environment:
                return int(path.name)
    raise AssertionError(f"{job} has no process")


def workers_of(job: str) -> list[int]:
    """The processes of a task's pool."""
    pool = []
    for path in Path(f"/proc/{pid_of(job)}/task").glob("*/children"):
        children = map(int, path.read_text().split())
        pool += [pid for pid in children if b"popen_loky" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return pool


def test_a_task_of_two_slots_that_is_killed_and_requeued_ends_in_the_same_bits(corpus, tmp_path):
    folder = SweepFolder(tmp_path / "packed")
    arguments = command(
        folder.path, *corpus, "shape=w64-d2,w64-d2-s1,w48-d2,w48-d2-s1", "tokens=[30e3,45e3]", "tracking=none",
        "hydra.launcher.cpus_per_task=2", "hydra.launcher.array_parallelism=1",
    )  # fmt: skip
    process = start(arguments)
    trunks = trunks_of(arguments)

    def begun() -> int:
        return sum(has_rows(folder, trunk) for trunk in trunks)

    def rows() -> int:
        return sum(path.stat().st_size for path in folder.path.glob("*/*/curve.jsonl"))

    wait_until(lambda: begun() == 2)
    job = job_of(folder, trunks[0])
    log = folder.path / f"slurm/{job}/{job}_0_log.out"
    assert len(workers_of(job)) == 2
    os.kill(workers_of(job)[0], signal.SIGKILL)
    wait_until(lambda: begun() > 2)
    subprocess.run(["scontrol", "requeue", job], check=True)
    wait_until(lambda: "Restarts=1" in described(job) and log.read_text().count("jobs in this task") == 2)
    before = rows()
    wait_until(lambda: rows() > before)
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output + log.read_text()
    assert "1 task of SLURM, each with up to 2 jobs at a time" in output and "8 of 8 cells finished" in output
    said = log.read_text()
    assert said.count("4 jobs in this task, 2 at a time") >= 1 and said.count("what is left is launched again") == 1
    assert "Bypassing signal SIGTERM" in said and "Caught signal SIGUSR2" in said
    assert submitted(folder) == {job} and "Restarts=2" in described(job)
    assert {job_of(folder, trunk) for trunk in trunks} == {job}
    assert not list(folder.path.glob(".stop-*"))
    undisturbed = SweepFolder(tmp_path / "undisturbed")
    for trunk in trunks:
        run_trunk(trunk, open_store([trunk.job]), CPU, undisturbed, "test")
    assert losses(folder, trunks) == losses(undisturbed, trunks)


def test_a_failed_and_a_killed_job_stop_no_other(interrupted, corpus, tmp_path, cluster):
    folder = SweepFolder(tmp_path / "mixed")
    arguments = command(
        folder.path, *corpus, "shape=w64-d2,w32-d1,w24-d1", "tokens=[10e3,20e3,40e3]", "tracking=none",
        "hydra.launcher.array_parallelism=2",
    )  # fmt: skip
    killed, failed, _ = trunks_of(arguments)
    blocked = folder.trunk(failed.name) / "curve.jsonl"
    blocked.mkdir(parents=True)
    process = start(arguments)
    wait_until(lambda: has_rows(folder, killed))
    named = {cell.job for cell in snapshot(folder.path).cells if cell.status == "running"}
    subprocess.run(["scancel", job_of(folder, killed)], check=True)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 1, output
    assert "3 of 9 cells finished" in output
    assert output.count("\nfailed: w32-d1-") == 3 and "IsADirectoryError" in output
    assert f"job {job_of(folder, killed)} ended without a result" in output
    assert "3 cells have no record" in output
    table = pd.read_csv(folder.table)
    assert sorted(table["status"]) == ["failed"] * 3 + ["finished"] * 3
    assert job_of(folder, killed) in named
    first = submitted(folder)
    assert len(first) == 3 and at_once(cluster, first) == 2

    blocked.rmdir()
    done = subprocess.run([sys.executable, "scripts/train.py", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 of 9 cells finished" in done.stdout
    assert len(submitted(folder) - first) == 2  # the third has nothing left to train
    for trunk in (killed, failed):
        assert job_of(folder, trunk) not in first
    done = subprocess.run(
        [sys.executable, "scripts/fit.py", f"runs={folder.path}", "bootstrap=0"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder.path / "fit.json").exists()


def at_once(cluster: Path, jobs: set[str]) -> int:
    """How many of these jobs ran at the same time, by SLURM's own list of jobs that ended."""
    spans = []
    for line in (cluster / "ended.txt").read_text().splitlines():
        fields = dict(re.findall(r"(\w+)=(\S*)", line))
        if f"{fields.get('ArrayJobId')}_{fields.get('ArrayTaskId')}" in jobs:
            spans.append((fields["StartTime"], fields["EndTime"]))
    assert len(spans) == len(jobs)
    return max(sum(start <= when < end for start, end in spans) for when, _ in spans)


def test_two_submissions_at_once_train_each_cell_once(corpus, tmp_path):
    folder = SweepFolder(tmp_path / "shared")
    # Steps of one sequence, so that neither submission is through before the other has planned.
    arguments = command(
        folder.path, *corpus, "shape=w64-d2,w48-d2", "tokens=[20e3,60e3]", "tracking=none",
        "optimizer.batch_tokens.value=32",
    )  # fmt: skip
    cells = [cell.name for trunk in trunks_of(arguments) for cell in trunk.cells]
    left_alone = subprocess.run(
        [sys.executable, "scripts/train.py", *arguments, "detach=true"], cwd=ROOT, capture_output=True, text=True
    )
    assert left_alone.returncode == 0, left_alone.stdout + left_alone.stderr
    (parent,) = re.findall(r"SLURM job (\d+) submits the sweep", left_alone.stdout)
    process = start(arguments)
    records: dict[str, set[tuple[int, int]]] = {cell: set() for cell in cells}

    def ended() -> bool:
        for cell, seen in records.items():
            with suppress(FileNotFoundError):
                stat = os.stat(folder.run(cell) / "run.json")
                seen.add((stat.st_ino, stat.st_mtime_ns))
        return process.poll() is not None and "JobState=COMPLETED" in described(parent)

    wait_until(ended)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    log = (folder.path / f"slurm/parent-{parent}.out").read_text()
    for said in (output, log):
        assert "4 of 4 cells finished" in said
    assert [len(seen) for seen in records.values()] == [1, 1, 1, 1]
    assert len(submitted(folder)) == 4  # two of each, so that neither submission left anything to the other


def test_jobs_that_slurm_interrupts_end_in_the_same_bits(interrupted, tmp_path):
    folder, trunks, jobs = interrupted.folder, interrupted.trunks, interrupted.jobs
    interrupted.watch.join()
    undisturbed = SweepFolder(tmp_path / "undisturbed")
    for trunk in trunks:
        trunk.job.tracking.mode = "none"
        run_trunk(trunk, open_store([trunk.job]), CPU, undisturbed, "test")
    output, _ = interrupted.process.communicate(timeout=400)
    assert interrupted.process.returncode == 0, output
    logs = [(folder.path / f"slurm/{job}/{job}_0_log.out").read_text() for job in jobs]
    assert "DUE TO JOB REQUEUE" in logs[0] and "Bypassing signal SIGTERM" in logs[0]
    assert "Caught signal SIGUSR2" in logs[1]
    assert losses(folder, trunks) == losses(undisturbed, trunks)
    assert "broken" not in (folder.path / "tracking.log").read_text()
    assert "4 runs not uploaded (tracking.mode=offline)" in output


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("hydra.launcher.partition=nope", r"^SLURM refuses the jobs \(.*nope.*--partition=nope"),
        ("hydra.launcher.gpus_per_node=1", r"^SLURM refuses the jobs \(.*--gpus-per-node=1"),
        ("hydra.launcher.cpus_per_task=99", r"^SLURM refuses the jobs \(.*not available.*--cpus-per-task=99"),
        ("hydra.launcher.partition=short", "timeout_min=240 is more than the 5 minutes of partition short"),
    ],
)
def test_what_slurm_would_refuse_is_refused_before_any_work(override, said, corpus, tmp_path):
    with pytest.raises(UserError, match=said) as caught:
        train(command(tmp_path / "outputs" / "refused", *corpus, "shape=w32-d1,w24-d1", "tokens=20e3", override))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
