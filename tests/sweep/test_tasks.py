"""What a task of a cluster trains, with how many cores and how much at once; tests/slurm has it on a real one."""

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from harness.grid import make_trunks
from harness.records import SweepFolder, read_record
from harness.sweep import tasks
from harness.sweep.compose import Sweep, compose_sweep, slots_a_task
from harness.sweep.tasks import divide, most_tasks, run_bundle, share_cores, trainable
from harness.training import gpus

ON_SLURM = ["-m", "hydra/launcher=slurm", "tokens=1e6", "shape=w64-d2,w48-d2"]
GB = 10**9


def test_tasks_of_one_slot_have_a_job_each_the_longest_first():
    assert divide([1, 3, 2], slots=1, most=16) == [[1], [2], [0]]


def test_jobs_are_divided_so_that_all_tasks_end_together():
    # four slots: 8 | 7 | 6 + 1 | 5 + 2; the first and third slot are of the first task
    assert divide([8, 7, 6, 5, 2, 1], slots=2, most=2) == [[0, 2, 5], [1, 3, 4]]
    assert divide([5, 1, 7, 8, 2, 6], slots=2, most=2) == [[3, 5, 1], [2, 0, 4]]


def test_no_task_is_asked_for_whose_slots_would_idle():
    # one job is as long as the others together: eight slots end no sooner than four do
    assert divide([10, 3, 3, 3, 1], slots=4, most=16) == [[0, 1, 2, 3, 4]]
    assert divide([1] * 9, slots=8, most=16) == [[0, 2, 4, 6, 8], [1, 3, 5, 7]]  # one task would take twice as long
    assert divide([1] * 300, slots=8, most=1) == [list(range(300))]
    assert [len(task) for task in divide([1] * 300, slots=8, most=4)] == [75, 75, 75, 75]
    assert divide([], slots=8, most=4) == []


@pytest.mark.parametrize(
    ("asked", "cores", "slots"),
    [
        ([], 1, 1),
        (["threads=3"], 3, 1),
        (["threads=2", "slots=3"], 6, 3),
        (["hydra.launcher.cpus_per_task=9"], 9, 9),
        (["hydra.launcher.cpus_per_task=9", "threads=4"], 9, 2),
        (["hydra.launcher.gpus_per_node=1"], 4, 1),
        (["hydra.launcher.gpus_per_node=8"], 32, 8),
        (["hydra.launcher.gpus_per_node=8", "slots_per_gpu=4"], 32, 32),
        (["hydra.launcher.gpus_per_node=1", "slots_per_gpu=8"], 8, 8),
        (["hydra.launcher.gpus_per_node=8", "slots=1"], 32, 1),
        (["hydra.launcher.gpus_per_node=2", "hydra.launcher.cpus_per_task=3"], 3, 2),
        (["hydra.launcher.gpus_per_node=2", "hydra.launcher.cpus_per_gpu=6"], None, 2),
        (["hydra.launcher.gres='gpu:a100:4'"], 16, 4),
        (["hydra.launcher.gres='gpu'"], 4, 1),
        (["device=cuda:1"], 4, 1),
    ],
)
def test_a_task_has_a_slot_for_each_gpu_or_core_and_cores_to_compile_with(asked, cores, slots):
    sweep = compose_sweep([*ON_SLURM, *asked])
    assert sweep.cluster is not None and sweep.cluster["cpus_per_task"] == cores
    assert slots_a_task(sweep.cluster, sweep.jobs) == slots
    assert sweep.slots == 2


def test_the_array_is_as_long_as_its_tasks():
    for asked, most in (
        ([], 40),
        (["hydra.launcher.gpus_per_node=8"], 5),
        (["hydra.launcher.gpus_per_node=2"], 16),
        (["hydra.launcher.gpus_per_node=2", "hydra.launcher.array_parallelism=3"], 3),
    ):
        sweep = compose_sweep([*ON_SLURM, *asked])
        assert most_tasks(replace(sweep, jobs=20 * sweep.jobs)) == most


def test_the_processes_of_a_task_share_its_cores_to_compile_with(monkeypatch):
    monkeypatch.setattr(tasks.joblib, "cpu_count", lambda: 64)
    for given, slots, threads in (("32", 8, "4"), ("4", 8, "1"), (None, 8, "8"), ("", 8, "8"), ("8(x2)", 8, "8")):
        monkeypatch.setattr(os, "environ", {} if given is None else {"SLURM_CPUS_ON_NODE": given})
        share_cores(slots)
        assert os.environ["TORCHINDUCTOR_COMPILE_THREADS"] == threads


def test_what_a_node_does_not_hold_fails_alone_and_says_why(corpus, tmp_path, monkeypatch):
    asked = [*corpus, "tokens=[10e3,20e3]", "tracking=none", f"output_directory={tmp_path}", "name=large"]
    small, large = compose_sweep(["-m", *asked, "shape=w16-d1,w64-d2"]).jobs
    monkeypatch.setattr("harness.sweep.compose.memory_bytes", lambda device: 2**20)
    assert trainable([large, small]) == [small]
    recipe = tasks.open_stores([large]).recipe_hash
    (trunk,) = make_trunks(large, 257, recipe, "float32")
    records = [read_record(SweepFolder(tmp_path / "large").run(cell.name)) for cell in trunk.cells]
    assert [record["status"] for record in records if record] == ["failed", "failed"]
    # 2 * 257 * 64 of the table and the head, 24 * 64^2 + 2 * 64 of the blocks; 16 bytes each
    said = "model.width=64, model.depth=2 and a vocabulary of 257 need 0.00"
    assert records[0] and records[0]["error"].startswith(said) and "this device has 0.000977" in records[0]["error"]
    assert len(list(tmp_path.glob("large/runs/*"))) == 2


@pytest.mark.parametrize(("sizes", "at_once"), [((80, 80), 4), ((80, 20), 2 + 1), ((24,), 1)])
def test_on_its_node_a_task_trains_as_many_as_its_gpus_hold(sizes, at_once, compose, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(sizes))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: (9, 0))
    sized = [SimpleNamespace(uuid=f"uuid-{gpu}", total_memory=int(size * GB)) for gpu, size in enumerate(sizes)]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda gpu: sized[gpu])
    monkeypatch.setattr(gpus.machine, "nvidia_smi", lambda *arguments: [])
    monkeypatch.setattr(tasks, "check_machine", lambda job: None)
    store = SimpleNamespace(vocab_size=50_257, recipe_hash="")
    monkeypatch.setattr(tasks, "open_stores", lambda jobs: store)
    monkeypatch.setattr(os, "environ", os.environ | {"SLURM_CPUS_ON_NODE": "1"})
    launched = []

    def launch_all(sweep: Sweep, by_job, slots, *rest):
        launched.append((len(sweep.jobs), sweep.slots, slots))

    monkeypatch.setattr(tasks, "launch_all", launch_all)
    # of one job, 14 to 20 GB: two fit the 80 GB, by slots_per_gpu, and one the smaller ones
    asked = ("+sweep=gpu-large", "hydra.mode=RUN", "slots_per_gpu=2", "device=cuda")
    jobs = [compose(*asked, "shape=w512-d8", f"seed={seed}") for seed in range(6)]
    run_bundle(jobs, 2 * len(sizes), tmp_path)
    assert launched == [(6, at_once, at_once)]
