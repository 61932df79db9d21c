"""Real sweeps that are stopped, lose a worker, or are launched twice at once: each ends in the same bits."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from harness.data.tokens import TokenStore
from harness.grid import Trunk, make_trunks
from harness.records import SweepFolder, is_final, read_record
from harness.sweep.compose import compose_sweep
from harness.sweep.run import train
from harness.training.checkpoint import load
from harness.training.device import Device
from harness.training.worker import run_trunk

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
SHAPES = ("w64-d2", "w48-d2")  # a job of some seconds each
BUDGETS = "tokens=[60e3,90e3]"


def losses(folder: SweepFolder, trunks: list[Trunk], store: TokenStore) -> dict[str, float]:
    """Trains in this process what a folder still lacks, and gives the losses by cell."""
    for trunk in trunks:
        run_trunk(trunk, store, Device(CPU, "float32", False), folder, "test")
    return {cell.name: read_record(folder.run(cell.name))["loss"] for trunk in trunks for cell in trunk.cells}


@pytest.fixture(scope="module")
def trunks(corpus, store) -> list[Trunk]:
    jobs = compose_sweep(["-m", *corpus, BUDGETS, "tracking=none", f"shape={','.join(SHAPES)}"]).jobs
    return [trunk for job in jobs for trunk in make_trunks(job, store.vocab_size, store.recipe_hash, "float32")]


@pytest.fixture(scope="module")
def undisturbed(trunks, store, tmp_path_factory) -> dict[str, float]:
    return losses(SweepFolder(tmp_path_factory.mktemp("whole")), trunks, store)


POOL = ["-m", f"shape={','.join(SHAPES)}", "slots=2"]


def command(corpus: list[str], folder: Path, *arguments: str) -> list[str]:
    return [
        sys.executable, "scripts/train.py", *arguments, *corpus, BUDGETS, "tracking=none",
        f"output_directory={folder.parent}", f"name={folder.name}",
    ]  # fmt: skip


def start(arguments: list[str], folder: Path, begun: int) -> subprocess.Popen:
    """A training process in a group of its own, once it has written a row of `begun` of its trunks."""
    before = {path: path.stat().st_size for path in folder.glob("trunks/*/curve.jsonl")}
    process = subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while sum(path.stat().st_size > before.get(path, 0) for path in folder.glob("trunks/*/curve.jsonl")) < begun:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    return process


def workers(process: subprocess.Popen) -> list[int]:
    """The processes of its pool."""
    pool = []
    with suppress(FileNotFoundError, ProcessLookupError):  # of a process that has just ended
        for path in Path(f"/proc/{process.pid}/task").glob("*/children"):
            children = map(int, path.read_text().split())
            pool += [pid for pid in children if b"popen_loky" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return pool


def end(process: subprocess.Popen) -> tuple[int, str]:
    """Exit status and error lines of a process that leaves within seconds, without those of a long measurement."""
    _, errors = process.communicate(timeout=60)
    return process.returncode, re.sub(r"measuring the pace of .*\n", "", errors)


def kept_steps(folder: SweepFolder, trunks: list[Trunk]) -> list[int]:
    """The newest step of each trunk, or of its cooldowns, that a checkpoint holds; 0 without one."""
    steps = []
    for trunk in trunks:
        paths = [*folder.trunk(trunk.name).glob("step-*.pt")]
        paths += [folder.run(cell.name) / "checkpoint.pt" for cell in trunk.cells]
        states = [state for path in paths if (state := load(path)) is not None]
        steps.append(max((state["step"] for state in states), default=0))
    return steps


def test_a_sweep_that_is_stopped_again_and_again_has_checkpoints_and_goes_on(
    corpus, trunks, store, undisturbed, tmp_path
):
    folder, kept = SweepFolder(tmp_path / "stopped"), [0, 0]
    for number, to in ((signal.SIGTERM, "launcher"), (signal.SIGUSR2, "worker"), (signal.SIGINT, "group")):
        process = start(command(corpus, folder.path, *POOL), folder.path, begun=2)
        pool = workers(process)
        assert len(pool) == 2
        if to == "group":
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid if to == "launcher" else pool[0], number)
        said = f"stopped by {number.name}; the same command goes on from here\n"
        assert end(process) == (128 + number, said)
        steps = kept_steps(folder, trunks)
        for trunk, step, before in zip(trunks, steps, kept, strict=True):
            assert step > before or all(is_final(folder.run(cell.name)) for cell in trunk.cells)
        kept = steps
        assert not all(is_final(folder.run(cell.name)) for trunk in trunks for cell in trunk.cells)
        assert not list(folder.path.glob(".stop-*"))
    assert losses(folder, trunks, store) == undisturbed


def test_a_stopped_job_goes_on_with_the_same_command(corpus, trunks, undisturbed, tmp_path):
    folder = SweepFolder(tmp_path / "stopped")
    arguments = command(corpus, folder.path, f"shape={SHAPES[0]}")
    process = start(arguments, folder.path, begun=1)
    process.send_signal(signal.SIGUSR2)
    assert end(process) == (140, "stopped by SIGUSR2; the same command goes on from here\n")
    (step,) = kept_steps(folder, trunks[:1])
    assert 0 < step < 351
    assert train(arguments[2:]) == 0
    for cell in trunks[0].cells:
        assert read_record(folder.run(cell.name))["loss"] == undisturbed[cell.name]


def test_the_jobs_of_a_killed_launcher_save_and_leave(corpus, trunks, tmp_path):
    folder = SweepFolder(tmp_path / "orphaned")
    process = start(command(corpus, folder.path, *POOL), folder.path, begun=2)
    pool = workers(process)
    process.kill()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pool):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert all(step > 0 for step in kept_steps(folder, trunks))
    assert not all(is_final(folder.run(cell.name)) for trunk in trunks for cell in trunk.cells)
    process.communicate()


def recorded(folder: SweepFolder, trunks: list[Trunk]) -> dict[str, float]:
    return {cell.name: read_record(folder.run(cell.name))["loss"] for trunk in trunks for cell in trunk.cells}


def test_a_killed_worker_does_not_end_its_sweep(corpus, trunks, undisturbed, tmp_path):
    folder = SweepFolder(tmp_path / "killed")
    process = start(command(corpus, folder.path, *POOL), folder.path, begun=2)
    os.kill(workers(process)[1], signal.SIGKILL)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    assert output.count("what is left is launched again") == 1
    assert recorded(folder, trunks) == undisturbed


def test_a_cooldown_beside_its_trunk_is_lost_with_its_worker_and_trained_again(corpus, trunks, undisturbed, tmp_path):
    folder, trunk = SweepFolder(tmp_path / "beside"), trunks[0]
    process = start(command(corpus, folder.path, "-m", f"shape={SHAPES[0]}", "slots=2"), folder.path, begun=1)
    small, large = (folder.run(cell.name) / "running" for cell in trunk.cells)
    pids: list[str] = []
    deadline = time.monotonic() + 300
    while not all(pids) or not pids:
        assert process.poll() is None and time.monotonic() < deadline
        with suppress(FileNotFoundError):
            pids = [small.read_text(), large.read_text()]
        time.sleep(0.005)
    assert pids[0] != pids[1]
    os.kill(int(pids[0].split()[0]), signal.SIGKILL)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    assert output.count("what is left is launched again") == 1
    assert recorded(folder, [trunk]) == {cell.name: undisturbed[cell.name] for cell in trunk.cells}


def test_a_sweep_whose_workers_always_die_says_so(corpus, tmp_path):
    folder = tmp_path / "dying"
    process = start(command(corpus, folder, *POOL), folder, begun=0)
    killed: set[int] = set()
    deadline = time.monotonic() + 300
    while process.poll() is None:
        assert time.monotonic() < deadline
        for pid in set(workers(process)) - killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        time.sleep(0.01)
    output, errors = process.communicate()
    assert process.returncode == 1, output + errors
    assert output.count("what is left is launched again") == 2
    assert "the launcher stopped: a worker was killed 3 times before it had begun" in output
    assert "4 cells have no record" in output


def test_a_trunk_that_always_kills_its_worker_costs_no_other_its_cells(corpus, trunks, undisturbed, tmp_path):
    folder = SweepFolder(tmp_path / "killer")
    process = start(command(corpus, folder.path, *POOL), folder.path, begun=2)
    mark = folder.trunk(trunks[0].name) / "running"
    killed: set[int] = set()
    deadline = time.monotonic() + 300
    while process.poll() is None:
        assert time.monotonic() < deadline
        with suppress(FileNotFoundError, IndexError, ProcessLookupError):  # empty before it is written
            pid = int(mark.read_text().split()[0])
            if pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        time.sleep(0.01)
    output, errors = process.communicate()
    assert process.returncode == 1, output + errors
    records = [[read_record(folder.run(cell.name)) for cell in trunk.cells] for trunk in trunks]
    assert [record["status"] for record in records[0]] == ["failed", "failed"]
    assert records[0][0]["error"] == f"its process was killed {len(killed)} times: is there enough memory?"
    assert 2 <= len(killed) <= 4
    assert [record["loss"] for record in records[1]] == [undisturbed[cell.name] for cell in trunks[1].cells]
    assert "2 of 4 cells finished" in output
    assert f"what is left, and no other cell: python scripts/train.py -m shape={','.join(SHAPES)}" in output


def test_two_launchers_at_once_train_each_cell_once(corpus, trunks, undisturbed, tmp_path):
    folder = SweepFolder(tmp_path / "shared")
    both = [start(command(corpus, folder.path, *POOL), folder.path, begun=0) for _ in range(2)]
    records: dict[str, set[tuple[int, int]]] = {cell: set() for cell in undisturbed}
    deadline = time.monotonic() + 300
    while any(process.poll() is None for process in both):
        assert time.monotonic() < deadline
        for cell, seen in records.items():
            with suppress(FileNotFoundError):
                stat = os.stat(folder.run(cell) / "run.json")
                seen.add((stat.st_ino, stat.st_mtime_ns))
        time.sleep(0.005)
    for process in both:
        output, errors = process.communicate()
        assert process.returncode == 0, output + errors
        assert "4 of 4 cells finished" in output
    assert [len(seen) for seen in records.values()] == [1, 1, 1, 1]
    assert recorded(folder, trunks) == undisturbed
