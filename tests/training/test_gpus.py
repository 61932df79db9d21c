"""Each job takes a free slot of a GPU with the memory for it: on one, two, four and eight GPUs, alike and unlike."""

import heapq
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.grid import make_trunks, schedule_makespan
from harness.stop import Stopped, stop
from harness.sweep.compose import machine_slots
from harness.training import gpus
from harness.training.gpus import Gpu, choose, most_jobs, seen, slot

GB = 10**9


def box(*gigabytes: float) -> list[Gpu]:
    return [Gpu(index, f"uuid-{index}", int(size * GB), int(size * GB)) for index, size in enumerate(gigabytes)]


def test_the_emptiest_gpu_is_chosen_and_none_beyond_its_memory():
    two = box(24, 24)
    assert choose(two, [[], []], 10 * GB, 2) == [0]
    assert choose(two, [[18 * GB], []], 10 * GB, 2) == [1]
    assert choose(two, [[18 * GB], [10 * GB]], 10 * GB, 2) == [1]
    assert choose(two, [[18 * GB], [10 * GB, 10 * GB]], 3 * GB, 2) == [0]  # two slots a GPU
    assert choose(two, [[18 * GB], [10 * GB]], 15 * GB, 2) is None
    assert choose(box(24, 80), [[], []], 40 * GB, 2) == [1]
    # what others hold is not free; what a job has not allocated yet looks free
    assert choose([Gpu(0, "a", 5 * GB, 24 * GB), Gpu(1, "b", 24 * GB, 24 * GB)], [[], [20 * GB]], 8 * GB, 2) is None
    # a screen has some of the only GPU, and no job's end would give more: the need is an upper estimate
    alone = [Gpu(0, "a", 22 * GB, 24 * GB)]
    assert choose(alone, [[]], 23 * GB, 1) == [0] and choose(alone, [[]], 30 * GB, 1) is None


def test_jobs_at_once_follow_each_gpu_s_own_memory():
    assert most_jobs(box(24), [18 * GB, 5 * GB], 2) == 1
    assert most_jobs(box(80, 80), [18 * GB], 2) == 4
    assert most_jobs(box(80, 10), [18 * GB, 5 * GB], 4) == 4 + 2  # the small one holds only the small jobs
    assert most_jobs(box(4), [18 * GB], 2) == 0


def launched(box_: list[Gpu], jobs: list[tuple[float, int]], slots: int, count: int = 1) -> tuple[float, float, bool]:
    """Wall time of jobs (seconds, bytes of each of `count` GPUs) in their order; the most of its memory that a GPU
    held; whether as many as a job takes idled."""
    held: list[dict[int, int]] = [{} for _ in box_]
    waiting, running, now, most, idled = list(enumerate(jobs)), [], 0.0, 0.0, False
    workers = max(1, most_jobs(box_, [needed for _, needed in jobs], slots, count))
    while waiting or running:
        for number, (seconds, needed) in waiting[: workers - len(running)]:
            places = choose(box_, [list(of_gpu.values()) for of_gpu in held], needed, slots, count)
            if places is not None:
                assert len(set(places)) == count
                for place in places:
                    held[place][number] = needed
                    most = max(most, sum(held[place].values()) / box_[place].total)
                heapq.heappush(running, (now + seconds, number, places))
        begun = {number for _, number, _ in running}
        waiting = [job for job in waiting if job[0] not in begun]
        idled |= bool(waiting) and sum(not of_gpu for of_gpu in held) >= count
        now, number, places = heapq.heappop(running)
        for place in places:
            del held[place][number]
    return now, most, idled


# PFLOPs of the trunks of conf/sweep/gpu-large.yaml, and the GB that each needs compiled
GRID = [(750, 23.5), (500, 18.3), (310, 14.1), (210, 12.0), (110, 9.2), (110, 9.2), (96, 8.4), (96, 8.4)]


@pytest.mark.parametrize("number", [1, 2, 4, 8])
@pytest.mark.parametrize(("size", "slots"), [(24, 1), (80, 1)])
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_launch_is_near_the_best_list_schedule(number, size, slots, seeds):
    jobs = sorted([(float(flops), int(need * GB)) for flops, need in GRID] * seeds, reverse=True)
    wall, most, idled = launched(box(*[size] * number), jobs, slots)
    assert wall <= 1.1 * schedule_makespan([seconds for seconds, _ in jobs], number * slots)
    assert most <= 1 and not idled


@pytest.mark.parametrize("number", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [24, 40, 80])
def test_two_slots_a_gpu_never_hold_more_than_its_memory(number, size):
    jobs = sorted([(float(flops), int(need * GB)) for flops, need in GRID] * 3, reverse=True)
    _, most, idled = launched(box(*[size] * number), jobs, 2)
    assert most <= 1 and not idled


@pytest.mark.parametrize("number", [2, 3, 4, 8])
@pytest.mark.parametrize("size", [24, 80])
def test_jobs_on_two_gpus_each_are_near_the_best_list_schedule(number, size):
    jobs = sorted([(float(flops), int(need * GB)) for flops, need in GRID] * 3, reverse=True)
    wall, most, idled = launched(box(*[size] * number), jobs, 1, count=2)
    assert wall <= 1.1 * schedule_makespan([seconds for seconds, _ in jobs], number // 2)
    assert most <= 1 and not idled


def test_a_job_on_two_gpus_takes_two_of_one_model_or_none():
    four = box(24, 24, 24, 24)
    assert choose(four, [[], [], [], []], 10 * GB, 1, count=2) == [0, 1]
    assert choose(four, [[10 * GB], [], [10 * GB], []], 10 * GB, 1, count=2) == [1, 3]
    assert choose(four, [[10 * GB], [10 * GB], [10 * GB], []], 10 * GB, 1, count=2) is None
    assert choose(four, [[10 * GB], [10 * GB], [10 * GB], []], 10 * GB, 2, count=2) == [3, 0]
    assert choose(box(24), [[]], 10 * GB, 4, count=2) is None  # never two places of one GPU
    mixed = [Gpu(0, "a", 80 * GB, 80 * GB, "H100"), *(Gpu(n, f"b{n}", 24 * GB, 24 * GB, "4090") for n in (1, 2))]
    assert choose(mixed, [[], [], []], 10 * GB, 1, count=2) == [1, 2]
    assert choose(mixed, [[], [], [10 * GB]], 10 * GB, 1, count=2) is None


def test_jobs_on_two_gpus_at_once():
    found = [most_jobs(box(*[24] * number), [18 * GB], 1, count=2) for number in (1, 2, 3, 4, 5, 8)]
    assert found == [0, 1, 1, 2, 2, 4]
    assert most_jobs(box(24, 24, 24), [10 * GB], 2, count=2) == 3  # six places, two of each job on two GPUs
    assert most_jobs(box(80, 24), [10 * GB], 4, count=2) == 2  # the smaller one has two places
    mixed = [Gpu(n, f"{n}", 24 * GB, 24 * GB, model) for n, model in enumerate(("a", "a", "b", "b", "b", "c"))]
    assert most_jobs(mixed, [18 * GB], 1, count=2) == 2


@pytest.fixture
def large_grid(compose, monkeypatch):
    """How many jobs of the large gpu grid a box of GPUs of these sizes (GB) runs at once."""

    composed = [
        compose("+sweep=gpu-large", "hydra.mode=RUN", f"shape={shape}") for shape in ("w768-d12", "w256-d4")
    ]

    def jobs_at_once(*sizes: float, **more: Any) -> int:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(sizes))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: (9, 0))
        sized = [
            SimpleNamespace(name="H100", uuid=f"uuid-{gpu}", total_memory=int(size * GB))
            for gpu, size in enumerate(sizes)
        ]
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda gpu: sized[gpu])
        monkeypatch.setattr(gpus.machine, "nvidia_smi", lambda *arguments: [])
        jobs = [replace(job, **more) for job in composed]
        for job in jobs:
            job.check()
        return machine_slots([trunk for job in jobs for trunk in make_trunks(job, 50_257, "", "bf16")])

    return jobs_at_once


def test_the_large_gpu_grid_has_as_many_jobs_as_the_gpus_hold(large_grid):
    # the largest shape needs 23 GB with context, tokens and margin; a smaller GPU takes the smallest, 9 GB
    assert [large_grid(size, slots_per_gpu=2) for size in (12, 24, 40, 80, 141)] == [1, 1, 1, 2, 2]
    assert large_grid(80, 80) == 2 and large_grid(80, 80, slots_per_gpu=2) == 4 and large_grid(24, 24, 24, 24) == 4
    assert large_grid(80, 20, slots_per_gpu=2) == 2 + 2
    assert large_grid(80, 80, device="cuda:1") == 1
    assert large_grid(80, 80, device="cuda:1", slots=2) == 2  # both on the one that is named
    assert large_grid(141, slots=5) == 5
    # 15 GB of each GPU, with 32 sequences and the gradients once more
    assert [large_grid(*[24] * number, gpus=2) for number in (2, 3, 4)] == [1, 1, 2]
    assert large_grid(80, 80, gpus=2, slots_per_gpu=2) == 2
    assert large_grid(141, 141, gpus=2, slots=3) == 3


@pytest.fixture
def two_gpus(monkeypatch, tmp_path):
    """Two GPUs of 24 GB, and lock files of this test alone."""
    monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(gpus, "seen", lambda: box(24, 24))
    monkeypatch.setattr(gpus, "POLL_SECONDS", 0.01)


def test_a_slot_is_held_while_its_job_runs(two_gpus):
    with slot(15 * GB, 2) as (first,), slot(15 * GB, 2) as (second,):
        assert {first, second} == {0, 1}
        with slot(5 * GB, 2) as third:
            assert third == [0]
            with slot(5 * GB, 4, [1]) as asked_for:  # of another sweep, which has four slots a GPU
                assert asked_for == [1]
                assert gpus._take(gpus.lock_folder(), box(24, 24), GB, 2) is None
    with slot(24 * GB, 1) as (again,), slot(24 * GB, 1) as (other,):
        assert {again, other} == {0, 1}


def test_a_job_that_waits_for_a_slot_can_be_stopped(two_gpus, monkeypatch):
    asked = []

    def check():
        asked.append(1)
        if len(asked) > 5:
            raise Stopped(15)

    with slot(20 * GB, 1), slot(20 * GB, 1):
        monkeypatch.setattr(stop, "check", check)
        with pytest.raises(Stopped), slot(20 * GB, 1):
            pytest.fail("there is no slot")


def test_jobs_that_take_two_of_three_gpus_never_wait_for_each_other(two_gpus, monkeypatch):
    monkeypatch.setattr(gpus, "seen", lambda: box(24, 24, 24))
    held: list[int] = []
    ended = []

    def job(number: int) -> None:
        for turn in range(4):
            with slot(20 * GB, 1, count=1 + (number + turn) % 2) as indices:
                assert not set(indices) & set(held)
                held.extend(indices)
                time.sleep(0.002)
                for index in indices:
                    held.remove(index)
        ended.append(number)

    threads = [threading.Thread(target=job, args=[number], daemon=True) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(ended) == [0, 1, 2, 3, 4, 5] and held == []


def test_a_job_that_finds_one_of_its_two_gpus_holds_neither(two_gpus):
    with slot(20 * GB, 1, [0]):
        assert gpus._take(gpus.lock_folder(), box(24, 24), 20 * GB, 1, count=2) is None
        with slot(20 * GB, 1) as other:
            assert other == [1]
    with slot(20 * GB, 1, count=2) as both:
        assert sorted(both) == [0, 1]
        assert [(gpus.lock_folder() / f"uuid-{n}-0.lock.need").read_text() for n in (0, 1)] == [str(20 * GB)] * 2


def test_waiting_is_said_once(two_gpus, monkeypatch, capsys):
    asked = iter(range(4))
    monkeypatch.setattr(stop, "check", lambda: None if next(asked) < 3 else stop_now())

    def stop_now():
        raise Stopped(15)

    with slot(20 * GB, 1), pytest.raises(Stopped), slot(20 * GB, 1), slot(20 * GB, 1):
        pytest.fail("there is no slot")
    said = "waiting for a GPU: a job needs 20 GB, the most that is free is 24 GB, or other jobs have its slots\n"
    assert capsys.readouterr().err == said


HOLDER = """
import sys, time
from harness.training import gpus
gpus.seen = lambda: [gpus.Gpu(0, "uuid-0", 24 * 10**9, 24 * 10**9)]
with gpus.slot(20 * 10**9, 1):
    print("held", flush=True)
    time.sleep(600)
"""


def test_another_process_s_slot_is_seen_and_ends_with_it(two_gpus, tmp_path):
    command, environment = [sys.executable, "-c", HOLDER], os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        try:
            with slot(5 * GB, 1, [1]) as other:
                assert other == [1]
            assert gpus._take(gpus.lock_folder(), box(24), 5 * GB, 1) is None
            taken = gpus._take(gpus.lock_folder(), box(24), 5 * GB, 2)  # beside the 20 GB of the other no 5
            assert taken is None
        finally:
            holder.kill()
    with slot(20 * GB, 1, [0]) as again:
        assert again == [0]


def test_what_another_user_left_is_no_obstacle(two_gpus, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    need = gpus.lock_folder() / "uuid-0-0.lock.need"
    need.symlink_to(precious)
    with slot(20 * GB, 1, [0]):
        assert precious.read_text() == "kept" and need.read_text() == str(20 * GB)
        need.write_text("not a number")  # a need that cannot be read is all of the GPU
        assert gpus._take(gpus.lock_folder(), box(24), GB, 2) is None


def test_gpus_are_named_alike_in_every_process(monkeypatch):
    sizes = {"aaaa": 24, "bbbb": 80}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties",
        lambda index: SimpleNamespace(uuid=list(sizes)[index], total_memory=list(sizes.values())[index] * 2**30),
    )  # fmt: skip
    lines = ["GPU-bbbb, 70000", "GPU-aaaa, 1000", "GPU-cccc, [N/A]"]
    monkeypatch.setattr(gpus.machine, "nvidia_smi", lambda *arguments: lines)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert seen() == [Gpu(0, "aaaa", 1000 * 2**20, 24 * 2**30), Gpu(1, "bbbb", 70000 * 2**20, 80 * 2**30)]
    monkeypatch.setattr(gpus.machine, "nvidia_smi", lambda *arguments: [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1,MIG-2")
    assert seen() == [Gpu(0, "MIG-1", 24 * 2**30, 24 * 2**30), Gpu(1, "MIG-2", 80 * 2**30, 80 * 2**30)]
