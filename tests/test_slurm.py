"""What needs no cluster of a sweep on SLURM: its plan, its refusals, its names."""

import os

import pytest

from harness import slurm
from harness.errors import UserError
from harness.sweep.compose import check_machine_for, compose_sweep
from harness.sweep.run import train
from harness.training.device import precision

ON_SLURM = ["-m", "hydra/launcher=slurm", "tokens=1e6", "shape=w64-d2,w48-d2"]


@pytest.mark.parametrize(
    ("asked", "device", "resolved"),
    [
        ([], "cpu", "float32"),
        (["hydra.launcher.gpus_per_node=1"], "cuda", "bf16"),
        (["hydra.launcher.gres='gpu:a100:1'"], "cuda", "bf16"),
        (["hydra.launcher.gpus_per_node=1", "precision=float32"], "cuda", "float32"),
        (["device=cuda:1"], "cuda:1", "bf16"),
    ],
)
def test_a_job_trains_on_what_it_asks_for_whatever_plans_it(asked, device, resolved):
    sweep = compose_sweep([*ON_SLURM, *asked])
    assert [job.device for job in sweep.jobs] == [device] * 2
    assert [precision(job) for job in sweep.jobs] == [resolved] * 2
    assert [line.replace("\\", "") for line in sweep.job_overrides[0] if "device" in line] == [f"device={device}"]
    assert sweep.slots == 2  # as many as there are jobs


def test_a_job_asks_for_as_many_gpus_as_it_trains_on():
    for asked in ("hydra.launcher.gpus_per_node=1", "hydra.launcher.gres='gpu:a100:1'"):
        with pytest.raises(UserError, match="^gpus=2 is more than hydra.launcher.g.*1: raise that, or lower gpus$"):
            check_machine_for(compose_sweep([*ON_SLURM, asked, "gpus=2"]))
    for asked in ("hydra.launcher.gpus_per_node=2", "hydra.launcher.gres='gpu:a100:8'", "device=cpu"):
        check_machine_for(compose_sweep([*ON_SLURM, asked, "gpus=2"]))


def test_the_flags_are_those_that_submitit_writes(tmp_path):
    submitit = pytest.importorskip("submitit.slurm.slurm")
    sweep = compose_sweep([*ON_SLURM, "hydra.launcher.partition=gpu", "hydra.launcher.mem_gb=8", "threads=3"])
    assert sweep.cluster is not None
    asked = slurm.flags(sweep.cluster, [*slurm.WHERE, *slurm.WHAT, *slurm.RENAMED])
    assert asked == [
        "--partition=gpu", "--nodes=1", "--cpus-per-task=3", "--time=240", "--mem=8GB", "--ntasks-per-node=1",
    ]  # fmt: skip
    script = submitit._make_sbatch_string(
        "true", tmp_path, partition="gpu", nodes=1, cpus_per_task=3, time=240, mem="8GB", ntasks_per_node=1
    )
    assert set(asked) <= {line.removeprefix("#SBATCH ") for line in script.splitlines()}


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("5:00", 5), ("30", 0.5), ("1:30:00", 90), ("2-12:00:00", 3600), ("infinite", float("inf"))],
)
def test_time_limits_are_read_as_slurm_prints_them(limit, expected):
    assert slurm.minutes(limit) == expected


def test_without_slurm_a_sweep_is_refused_in_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="^hydra/launcher=slurm finds no sbatch here: run it on a login node"):
        train([*ON_SLURM, f"output_directory={tmp_path}/outputs"])
    assert not list(tmp_path.iterdir())


def test_only_a_cluster_can_be_left_alone():
    with pytest.raises(UserError, match="^detach=true leaves a sweep to a cluster: add -m hydra/launcher=slurm"):
        compose_sweep(["tokens=1e6", "detach=true"])


def test_a_job_hands_none_of_its_variables_on(monkeypatch):
    monkeypatch.setattr(os, "environ", {"SLURM_CONF": "c", "SLURM_CPU_BIND": "x", "SBATCH_ACCOUNT": "a", "HOME": "h"})
    slurm.leave_job()
    assert os.environ == {"SLURM_CONF": "c", "SBATCH_ACCOUNT": "a", "HOME": "h"}


def test_the_log_of_a_trunk_is_that_of_the_job_that_trains_it(monkeypatch, tmp_path):
    pytest.importorskip("submitit")
    trunk = tmp_path / "gpu" / "trunks" / "w64"
    trunk.mkdir(parents=True)
    assert slurm.job_of(trunk) is None
    for name, value in (("SUBMITIT_EXECUTOR", "slurm"), ("SUBMITIT_FOLDER", f"{tmp_path}/gpu/slurm/%j"),
                        ("SLURM_JOB_ID", "9"), ("SLURM_ARRAY_JOB_ID", "7"), ("SLURM_ARRAY_TASK_ID", "2")):  # fmt: skip
        monkeypatch.setenv(name, value)
    slurm.link_log(trunk)  # variables of a job that this process was started from
    assert slurm.job_of(trunk) is None
    monkeypatch.setattr(slurm, "_in_job", False)
    slurm.begin_job()
    slurm.link_log(trunk)
    assert os.readlink(trunk / "log") == "../../slurm/7_2/7_2_0_log.out"
    assert slurm.job_of(trunk) == "7_2"
    monkeypatch.setattr(slurm, "_in_job", False)
    slurm.link_log(trunk)
    assert slurm.job_of(trunk) is None
