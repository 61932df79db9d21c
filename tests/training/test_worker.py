"""Processes that share trunks and cooldowns: who takes what, who waits, and that no loss depends on it."""

import contextlib
import heapq
import itertools
import json
import threading
import time
import types

import pytest
import torch

from harness.config import TrainConfig
from harness.grid import Trunk, make_trunks
from harness.records import COLUMNS, SweepFolder, read_record, write_record
from harness.sweep.compose import compose_sweep
from harness.training import worker
from harness.training.checkpoint import load
from harness.training.claim import claimed, was_claimed
from harness.training.device import Device
from harness.training.trainer import Trainer
from harness.training.turns import TrunkTime, makespan
from harness.training.worker import Worker, run_trunk

CPU = Device(torch.device("cpu"), "float32", False)
BUDGETS = "tokens=[10e3,20e3,30e3]"  # 39, 78 and 117 steps, with branches at 31, 62 and 94


@pytest.fixture
def trunk(compose, corpus, store) -> Trunk:
    (found,) = make_trunks(compose(*corpus, BUDGETS), store.vocab_size, store.recipe_hash, "float32")
    assert [(cell.branch_step, cell.steps) for cell in found.cells] == [(31, 39), (62, 78), (94, 117)]
    return found


@pytest.fixture
def train(trunk, store, tmp_path):
    def run(name: str, of: Trunk = trunk) -> tuple[SweepFolder, list[dict]]:
        sweep = SweepFolder(tmp_path / name)
        run_trunk(of, store, CPU, sweep, "test")
        return sweep, [read_record(sweep.run(cell.name)) for cell in of.cells]

    return run


def curve(sweep: SweepFolder, cell) -> list[tuple]:
    rows = map(json.loads, (sweep.run(cell.name) / "curve.jsonl").read_text().splitlines())
    return [(row["phase"], row["step"], row["train_loss"]) for row in rows]


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_claim_is_one_process_s_and_a_kill_leaves_its_mark(tmp_path):
    began = time.time() - 1
    with claimed(tmp_path / "a") as mine, claimed(tmp_path / "a") as other:
        assert (mine, other) == (True, False)
        assert was_claimed(tmp_path / "a", began) and not was_claimed(tmp_path / "a", time.time() + 1)
    assert not was_claimed(tmp_path / "a", began)
    with claimed(tmp_path / "a") as again:
        assert again


def test_a_cooldown_in_other_hands_is_waited_for_without_a_device(trunk, train, store, tmp_path, monkeypatch):
    """And is trained, to the same bits, where those let go of it."""
    whole, expected = train("whole")
    sweep, held = SweepFolder(tmp_path / "shared"), []

    @contextlib.contextmanager
    def devices_of(*job):
        held.append(True)
        yield [CPU]
        held.pop()

    monkeypatch.setattr(worker, "devices_of", devices_of)
    small, middle, large = trunk.cells
    with claimed(sweep.run(small.name)):
        waiting = threading.Thread(target=Worker([trunk], store, sweep, "test").work)
        waiting.start()
        until(lambda: all(read_record(sweep.run(cell.name)) for cell in (middle, large)) and not held)
        time.sleep(3 * worker.CLAIM_SECONDS)
        assert waiting.is_alive() and not held and read_record(sweep.run(small.name)) is None
        assert not was_claimed(sweep.trunk(trunk.name), 0)
    waiting.join(60)
    records = [read_record(sweep.run(cell.name)) for cell in trunk.cells]
    assert [record["loss"] for record in records] == [record["loss"] for record in expected]
    for cell in trunk.cells:
        assert curve(sweep, cell) == curve(whole, cell)


def test_costs_are_as_if_trained_alone_though_the_trunk_goes_on_first(trunk, train, monkeypatch):
    seconds = [0.0]  # a second a step, and nothing else takes time
    gradients = Trainer.gradients

    def timed(self, step):
        seconds[0] += 1
        return gradients(self, step)

    monkeypatch.setattr(Trainer, "gradients", timed)
    monkeypatch.setattr(time, "perf_counter", lambda: seconds[0])
    monkeypatch.setattr("harness.training.job.matmul_rate", lambda device: 1.0)
    monkeypatch.setattr("harness.training.trainer.matmul_rate", lambda device: 1.0)
    _, records = train("a")
    assert [record["wall_seconds"] for record in records] == [39, 78, 117]
    assert [record["tokens_per_second"] for record in records] == [256, 256, 256]
    assert seconds[0] == 94 + (39 - 31) + (78 - 62) + (117 - 94)


def test_a_trunk_that_diverges_keeps_what_branched_off_before(trunk, train, monkeypatch):
    _, expected = train("whole")
    gradients = Trainer.gradients

    def diverging(self, step):
        loss, norm = gradients(self, step)
        return (loss * float("nan") if step == 70 and not self.cooling else loss), norm

    def cooling(self, *arguments):
        self.cooling = True
        run_cooldown(self, *arguments)
        self.cooling = False

    run_cooldown = Trainer.run_cooldown
    monkeypatch.setattr(Trainer, "cooling", False, raising=False)
    monkeypatch.setattr(Trainer, "gradients", diverging)
    monkeypatch.setattr(Trainer, "run_cooldown", cooling)
    _, records = train("a")
    assert [record["status"] for record in records] == ["finished", "finished", "diverged"]
    assert records[2]["error"] == "the training loss is not finite at step 71"
    assert [record["loss"] for record in records[:2]] == [record["loss"] for record in expected[:2]]


def test_what_failed_in_this_launch_is_not_tried_again_and_what_failed_before_is(trunk, train, store, tmp_path):
    _, expected = train("whole")
    sweep = SweepFolder(tmp_path / "a")
    obstacle = sweep.run(trunk.cells[1].name) / "checkpoint.pt"
    obstacle.mkdir(parents=True)
    began = time.time() - 1
    Worker([trunk], store, sweep, "test", device=CPU, since=began).work()
    failed = sweep.run(trunk.cells[1].name) / "run.json"
    stamp = failed.stat().st_mtime_ns
    obstacle.rmdir()
    Worker([trunk], store, sweep, "test", device=CPU, since=began).work()  # one beside it
    assert failed.stat().st_mtime_ns == stamp and read_record(failed.parent)["status"] == "failed"
    _, records = train("a")
    assert [record["loss"] for record in records] == [record["loss"] for record in expected]


def test_a_smaller_budget_added_later_leaves_the_trunk_s_curve_whole(compose, corpus, store, trunk, train):
    def of(budgets: str) -> Trunk:
        return make_trunks(compose(*corpus, budgets), store.vocab_size, store.recipe_hash, "float32")[0]

    whole, expected = train("whole")
    sweep, _ = train("a", of("tokens=[20e3]"))
    rows = (sweep.trunk(trunk.name) / "curve.jsonl").read_text()
    train("a", of("tokens=[10e3,20e3]"))
    assert (sweep.trunk(trunk.name) / "curve.jsonl").read_text() == rows
    _, records = train("a")
    assert [record["loss"] for record in records] == [record["loss"] for record in expected]
    for cell in trunk.cells:
        assert curve(sweep, cell) == curve(whole, cell)


def test_a_damaged_branch_is_trained_again(trunk, train):
    sweep, expected = train("a")
    for cell in trunk.cells:
        (sweep.run(cell.name) / "run.json").unlink()
    branch = sweep.trunk(trunk.name) / "step-62.pt"
    branch.write_bytes(branch.read_bytes()[:-1])
    _, records = train("a")
    assert [record["loss"] for record in records] == [record["loss"] for record in expected]
    assert load(branch)["step"] == 62


class Clock:
    """A time that passes only when all threads wait for it, and wakes them one at a time, in the same order always."""

    def __init__(self, threads: int) -> None:
        self.now, self.awake, self.wakes, self.woken = 0.0, threads, [], None
        self.condition, self.order = threading.Condition(), itertools.count()

    def sleep(self, seconds: float) -> None:
        with self.condition:
            wake = (self.now + seconds, next(self.order))
            heapq.heappush(self.wakes, wake)
            self.leave()
            while self.woken != wake:
                assert self.condition.wait(60)

    def leave(self) -> None:
        with self.condition:
            self.awake -= 1
            if self.awake == 0 and self.wakes:
                self.woken, self.awake = heapq.heappop(self.wakes), 1
                self.now = self.woken[0]
                self.condition.notify_all()


class Simulated:
    """A TrunkRun that takes so much time on a Clock as its FLOPs say, and writes the files that others look at."""

    clock: Clock
    rate: float
    offered: dict[str, float]
    cooled: dict[str, tuple[float, float]]
    busy: list[tuple[float, float]]

    def __init__(self, trunk, store, device, folder, code_version, ranks):
        self.trunk, self.folder = trunk, folder

    def _train(self, steps: int) -> None:
        began = self.clock.now
        self.clock.sleep(steps * self.trunk.batch_tokens * self.trunk.flops_per_token / self.rate)
        self.busy.append((began, self.clock.now))

    def train_trunk(self, cells) -> None:
        step = 0
        for cell in cells:
            self._train(cell.branch_step - step)
            step = cell.branch_step
            (self.folder.trunk(self.trunk.name) / f"step-{step}.pt").touch()
            self.offered[cell.name] = self.clock.now

    def cool_down(self, cell) -> None:
        assert cell.name not in self.cooled
        began = self.clock.now
        self._train(cell.steps - cell.branch_step)
        self.cooled[cell.name] = (began, self.clock.now)
        write_record(self.folder.run(cell.name), dict.fromkeys(COLUMNS) | {"status": "finished", "loss": 1.0})

    def forget(self) -> None:
        pass


def simulate(jobs: list[TrainConfig], store, slots: int, folder: SweepFolder, monkeypatch) -> tuple[list[Trunk], type]:
    trunks = [trunk for job in jobs for trunk in make_trunks(job, 8192, "0", "float32")]
    longest = max(cell.flops for trunk in trunks for cell in trunk.cells)
    fresh = {"clock": Clock(slots), "rate": longest / 1000, "offered": {}, "cooled": {}, "busy": []}
    run = type("Run", (Simulated,), fresh)
    monkeypatch.setattr(worker, "TrunkRun", run)
    monkeypatch.setattr(worker, "CLAIM_SECONDS", 2.0)
    # Of this module alone: threads that other tests left would count as workers.
    monkeypatch.setattr(worker, "time", types.SimpleNamespace(sleep=run.clock.sleep, time=time.time))

    def work() -> None:
        run.clock.sleep(0.0)
        Worker(trunks, store, folder, "test", device=CPU, since=0.0, slots=slots).work()
        run.clock.leave()

    threads = [threading.Thread(target=work) for _ in range(slots)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    return trunks, run


@pytest.mark.parametrize("slots", [1, 2, 4, 8])
def test_no_worker_idles_while_a_cooldown_is_offered(slots, store, tmp_path, monkeypatch):
    """The gpu grid, its largest cell 1000 s, by real workers on files whose training only takes its time."""
    jobs = compose_sweep(["-m", "+sweep=gpu", "device=cpu", "precision=float32", "tracking=none"]).jobs
    folder = SweepFolder(tmp_path / "simulated")
    trunks, run = simulate(list(jobs), store, slots, folder, monkeypatch)
    cells = {cell.name for trunk in trunks for cell in trunk.cells}
    assert set(run.cooled) == cells == set(run.offered)
    for name, (began, _) in run.cooled.items():
        seen, last_look = run.offered[name] + 2.0, began - 2.0  # a look of each idle worker takes 2 s
        for moment in (seen + 0.1, last_look - 0.1):
            if seen < moment < last_look:
                assert sum(first <= moment <= last for first, last in run.busy) == slots
    trunks.sort(key=lambda trunk: -trunk.flops_to_train)
    second = 1 / run.rate
    times = [TrunkTime(0.0, [((cell.flops - trunk.cooldown_flops(cell)) * second, trunk.cooldown_flops(cell) * second)
                             for cell in trunk.cells]) for trunk in trunks]  # fmt: skip
    ended = max(end for _, end in run.cooled.values())
    assert ended == pytest.approx(makespan(times, slots), rel=0.02)
    assert slots < 4 or ended == pytest.approx(1000)
