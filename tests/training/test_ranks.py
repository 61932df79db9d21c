"""Several processes that train one trunk: the bits of one process, whatever ends them, and none that stays."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rank_faults
import torch

from harness.grid import Trunk, make_trunks
from harness.records import SweepFolder, is_final, read_record
from harness.stop import Stopped, stop
from harness.training import spawn
from harness.training.checkpoint import newest_step
from harness.training.device import Device
from harness.training.spawn import on_ranks, run_trunk_on_ranks, steps_done
from harness.training.worker import Worker, run_trunk

CPU = Device(torch.device("cpu"), "float32", False)
ROOT = Path(__file__).parents[2]
BUDGETS = "tokens=[10e3,20e3]"  # 39 and 78 steps of 8 rows, branches after 31 and 62
LARGER = ("tokens=[30e3,60e3]", "shape=w64-d2")  # seconds: 117 and 234 steps, branches after 94 and 187


@pytest.fixture(scope="session", autouse=True)
def importable():
    """For the ranks, which are given our sys.path."""
    assert str(Path(__file__).parent) in sys.path


@pytest.fixture
def trunk_of(compose, corpus, store):
    def make(*arguments: str) -> Trunk:
        (trunk,) = make_trunks(compose(*corpus, *arguments), store.vocab_size, store.recipe_hash, "float32")
        return trunk

    return make


def ranks_of(pid: int) -> list[int]:
    """The processes of the ranks that `pid` has started, rank 0 first."""
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [child for child in map(int, path.read_text().split()) if is_rank(child)]
    return sorted(found)


def is_rank(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return b"harness.training.spawn" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def losses(folder: SweepFolder, trunk: Trunk) -> list[float]:
    records = [read_record(folder.run(cell.name)) for cell in trunk.cells]
    assert [record["status"] for record in records] == ["finished"] * len(records), [r["error"] for r in records]
    return [record["loss"] for record in records]


@pytest.fixture(scope="module")
def apart(tmp_path_factory) -> SweepFolder:
    return SweepFolder(tmp_path_factory.mktemp("one"))


@pytest.fixture
def one_process(trunk_of, store, apart):
    """The losses of a process alone that goes over each batch in two parts, which it adds up as two ranks do."""

    def train(*arguments: str) -> list[float]:
        trunk = trunk_of("optimizer.micro_batch_tokens=128", *arguments)
        run_trunk(trunk, store, CPU, apart, "test")  # what another test has trained is kept
        return losses(apart, trunk)

    return train


def test_gradients_are_those_of_the_whole_batch(trunk_of, store):
    trunk = trunk_of(BUDGETS, "gpus=3")  # 8 rows in 2, 3, 3
    loss, grads = on_ranks(partial(rank_faults.gradients, trunk, 5), trunk, [CPU] * 3)
    expected_loss, expected = rank_faults.gradients(trunk_of(BUDGETS), 5, store, CPU)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert len(grads) == len(expected) > 5
    whole, apart = (np.concatenate([np.ravel(grad) for grad in of]) for of in (expected, grads))
    assert np.linalg.norm(apart - whole) <= 1e-6 * np.linalg.norm(whole)
    assert ranks_of(os.getpid()) == []


def test_a_trunk_has_the_bits_of_a_process_that_adds_up_the_same_parts(trunk_of, store, one_process, tmp_path):
    """Its ranks train the cooldowns too, beside a worker that waits."""
    trunk, folder, calls = trunk_of(BUDGETS, "gpus=2"), SweepFolder(tmp_path / "two"), []

    def on_ranks(*arguments):
        calls.append(threading.current_thread())
        run_trunk_on_ranks(*arguments)

    began = time.time()
    workers = [Worker([trunk], store, folder, "test", on_ranks, since=began, slots=2) for _ in range(2)]
    threads = [threading.Thread(target=worker.work) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
        assert not thread.is_alive()
    assert len(calls) == 1 and ranks_of(os.getpid()) == []
    found = losses(folder, trunk)
    assert found == one_process(BUDGETS)
    whole = trunk_of(BUDGETS)
    run_trunk(whole, store, CPU, SweepFolder(tmp_path / "whole"), "test")
    assert found == pytest.approx(losses(SweepFolder(tmp_path / "whole"), whole), rel=1e-4)
    assert list(tmp_path.glob("two/*/*/running")) == []
    assert sorted(path.name for path in folder.trunk(trunk.name).iterdir()) == [
        "curve.jsonl", "lock", "ranks.lock", "step-31.pt", "step-62.pt",
    ]  # fmt: skip
    row = json.loads((folder.run(trunk.cells[1].name) / "curve.jsonl").read_text().splitlines()[-1])
    assert (row["step"], row["tokens"]) == (78, 78 * 256)


def test_ranks_that_cannot_be_connected_say_so(trunk_of, store, tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "none0")
    trunk, folder = trunk_of(BUDGETS, "gpus=2"), SweepFolder(tmp_path)
    run_trunk_on_ranks(trunk, store, [CPU, CPU], folder, "test")
    errors = [read_record(folder.run(cell.name))["error"] for cell in trunk.cells]
    assert errors[0] == errors[1]
    assert errors[0].startswith("gpus=2: gloo cannot connect them here (") and errors[0].endswith("): set gpus=1")


Act = Callable[[list[int]], None]


def while_it_runs(folder: SweepFolder, trunk: Trunk, *acts: tuple[int, Act]) -> threading.Thread:
    """Acts on the ranks, each time once they have come to a step, in this order."""

    def watch() -> None:
        for moment, act in acts:
            acted = False
            while not acted:
                time.sleep(0.005)
                ranks = ranks_of(os.getpid())
                if len(ranks) == 2 and steps_done(trunk, folder) >= moment:
                    act(ranks)
                    acted = True
            while ranks_of(os.getpid()) == ranks:
                time.sleep(0.005)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def kill(rank: int) -> Act:
    return lambda ranks: os.kill(ranks[rank], signal.SIGKILL)


def test_kills_and_a_stop_of_any_rank_at_any_moment_cost_no_bits(trunk_of, store, one_process, tmp_path):
    trunk, folder, chance = trunk_of(*LARGER, "gpus=2"), SweepFolder(tmp_path / "two"), random.Random(1)
    order = [chance.choice((0, 1)) for _ in range(3)]
    assert set(order) == {0, 1}
    thread = while_it_runs(
        folder, trunk, (0, kill(order[0])), (40, kill(order[1])), (60, lambda ranks: os.kill(ranks[1], signal.SIGUSR2))
    )
    with pytest.raises(Stopped, match="SIGUSR2"), stop.listening(), stop.deferred(tmp_path):
        run_trunk_on_ranks(trunk, store, [CPU, CPU], folder, "test")
    thread.join(10)
    assert not thread.is_alive() and ranks_of(os.getpid()) == []
    assert 0 < newest_step(folder.trunk(trunk.name)) <= 187
    assert not any(is_final(folder.run(cell.name)) for cell in trunk.cells[1:])
    thread = while_it_runs(folder, trunk, (2 * 187 + 20, kill(order[2])))
    run_trunk_on_ranks(trunk, store, [CPU, CPU], folder, "test")
    thread.join(10)
    assert not thread.is_alive() and ranks_of(os.getpid()) == []
    assert losses(folder, trunk) == one_process(*LARGER)


def test_ranks_that_are_always_killed_are_a_failure(trunk_of, store, tmp_path):
    trunk, folder = trunk_of(*LARGER, "gpus=2"), SweepFolder(tmp_path)
    thread = while_it_runs(folder, trunk, (0, kill(1)), (0, kill(1)))
    run_trunk_on_ranks(trunk, store, [CPU, CPU], folder, "test")
    thread.join(10)
    errors = [read_record(folder.run(cell.name))["error"] for cell in trunk.cells]
    assert errors == ["its process was killed 2 times: is there enough memory?"] * 2


@pytest.fixture
def fault(monkeypatch, tmp_path):
    """Has a step of a rank fail so many times."""
    monkeypatch.setattr(spawn, "run_trunk", rank_faults.run_trunk)

    def of(rank: int, step: int, times: int, memory: bool = False) -> None:
        what = {"rank": rank, "step": step, "times": times, "memory": memory, "seen": str(tmp_path / "seen")}
        monkeypatch.setenv("RANK_FAULT", json.dumps(what))

    return of


def test_a_rank_that_raises_fails_the_cells_that_wait_for_the_trunk(fault, trunk_of, store, tmp_path):
    trunk, folder = trunk_of(BUDGETS, "gpus=2"), SweepFolder(tmp_path)
    fault(1, step=50, times=1)
    run_trunk_on_ranks(trunk, store, [CPU, CPU], folder, "test")
    first, second = (read_record(folder.run(cell.name)) for cell in trunk.cells)
    assert (first["status"], second["status"]) == ("finished", "failed")
    assert second["error"] == "ZeroDivisionError: of this rank"
    assert 'raise ZeroDivisionError("of this rank")' in (folder.trunk(trunk.name) / "error.txt").read_text()
    assert ranks_of(os.getpid()) == []


def test_ranks_out_of_memory_go_on_with_half_and_then_fail_one_cell(fault, trunk_of, store, one_process, tmp_path):
    trunk, folder = trunk_of(BUDGETS, "gpus=2"), SweepFolder(tmp_path / "two")
    fault(0, step=70, times=2, memory=True)  # of the second one's cooldown, which comes first, whole and halved
    run_trunk_on_ranks(trunk, store, [CPU, CPU], folder, "test")
    first, second = (read_record(folder.run(cell.name)) for cell in trunk.cells)
    why = "out of memory, also with half the micro-batch: CUDA out of memory. Tried to allocate 12.27 GiB"
    assert (first["status"], second["status"], second["error"]) == ("finished", "failed", why)
    expected = one_process(BUDGETS)[0]
    assert first["loss"] == pytest.approx(expected, rel=1e-4) and first["loss"] != expected
    said = "a step did not fit into memory: half the micro-batch is taken, which moves last digits\n"
    assert (folder.run(trunk.cells[0].name) / "notes.txt").read_text() == said


def test_the_ranks_of_a_killed_job_save_and_leave(corpus, trunk_of, tmp_path):
    arguments = [*LARGER, "gpus=2", f"output_directory={tmp_path}", "name=killed", "tracking=none"]
    command = [sys.executable, "scripts/train.py", *corpus, *arguments]
    trunk, folder = trunk_of(*arguments), SweepFolder(tmp_path / "killed")
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not steps_done(trunk, folder):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    ranks = ranks_of(process.pid)
    assert len(ranks) == 2
    process.kill()
    process.wait()
    while any(map(is_rank, ranks)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert newest_step(folder.trunk(trunk.name)) > 0 and list(tmp_path.glob("ranks-*")) == []
    assert not is_final(folder.run(trunk.cells[1].name))
