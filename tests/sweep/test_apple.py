"""What a Mac's plan says of its GPU, and which threads its processes get."""

import os

import joblib
import pytest
from joblib._parallel_backends import LokyBackend

from harness.grid import make_trunks
from harness.sweep import apple
from harness.sweep.apple import gpu_cores, gpu_line, seconds_on_gpu
from harness.sweep.compose import compose_sweep
from harness.sweep.pace import Pace
from harness.sweep.plan import CELL_SECONDS, JOB_SECONDS, Plan
from harness.sweep.run import make_plan


@pytest.fixture
def plan_of(compose):
    """One trunk of 1,000 steps of 8 x 128 tokens at 20 ms on one of `slots` cores."""

    def make(shape: str, *more: str, step: float = 0.02, slots: int = 8):
        job = compose(
            f"shape={shape}", "tokens=1024e3", "schedule=cosine", "optimizer.batch_tokens.value=1024",
            "optimizer.batch_tokens.params_exponent=0", "data.validation_tokens=200000", *more,
        )  # fmt: skip
        (trunk,) = make_trunks(job, 1024, "", "float32")
        return Plan("one", ((trunk,),), slots, "cpu", 0, frozenset(), {}, {trunk.name: Pace(step, 1.0, 0.5)})

    return make


def test_a_small_model_waits_for_its_launches_there(plan_of):
    # 4 x (57 + 2 x 40) launches of 30 us and .8 ms a step, on a GPU of any size
    step = 548 * 30e-6 + 0.8e-3
    for cores in (8, 40):
        seconds = seconds_on_gpu(plan_of("w48-d2"), cores)
        besides = 2.0 + JOB_SECONDS + CELL_SECONDS  # and an evaluation, well below a second
        assert 1000 * step + besides < seconds < 1000 * step + besides + 1
    assert gpu_line(plan_of("w48-d2"), 8) is None


def test_a_large_model_is_worth_asking_for(plan_of):
    # 1,024 tokens of w1024-d8: 6.8e11 FLOPs a step, at half of 10 x .325e12 a second
    plan = plan_of("w1024-d8", step=2.0)
    (trunk,) = plan.trunks
    products = trunk.flops_per_token * 1024 / (0.5 * 3.25e12)
    assert products < seconds_on_gpu(plan, 10) / 1000 < 2 * products
    line = gpu_line(plan, 10)
    assert line.startswith("device=mps is likely faster: ")
    assert line.endswith(" by an estimate for its 10 cores, which no measurement confirms, and 33 min on the CPU")
    assert gpu_line(plan, 0) is None  # no Apple GPU
    assert gpu_line(plan_of("w1024-d8", "device=cpu", step=2.0), 10) is None  # asked for
    assert gpu_line(plan_of("w1024-d8", step=0.4), 10) is None  # not twice as fast
    unknown = Plan("one", plan.jobs, 8, "cpu", 0, frozenset(), {}, {})
    assert gpu_line(unknown, 10) is None


def test_the_gpu_is_asked_for_its_cores_on_a_mac_alone(monkeypatch):
    monkeypatch.setattr(apple.torch.backends.mps, "get_core_count", lambda: 10)
    monkeypatch.setattr(apple.torch.backends.mps, "is_available", lambda: False)
    assert gpu_cores() == 0
    monkeypatch.setattr(apple.torch.backends.mps, "is_available", lambda: True)
    assert gpu_cores() == 10


@pytest.mark.parametrize("threads", [1, 3])
def test_accelerate_gets_the_threads_of_a_job_however_many_run(compose, monkeypatch, tmp_path, threads):
    """Else joblib gives each of two processes half of the cores: other sums, and other last bits."""
    monkeypatch.delenv("VECLIB_MAXIMUM_THREADS", raising=False)
    monkeypatch.setattr("joblib._parallel_backends.cpu_count", lambda: 8)
    assert LokyBackend()._prepare_worker_env(2)["VECLIB_MAXIMUM_THREADS"] == "4"
    monkeypatch.setattr("harness.sweep.run.measure", lambda sweep, trunks, slots: {})
    sweep = compose_sweep(["-m", "shape=w16-d1,w32-d1", "tokens=1e6", "device=cpu", f"threads={threads}", "slots=2",
                           f"output_directory={tmp_path}"])  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(joblib, "cpu_count", lambda: 8)
        make_plan(sweep, [make_trunks(job, 1024, "", "float32") for job in sweep.jobs])
    assert os.environ["VECLIB_MAXIMUM_THREADS"] == str(threads)
    assert LokyBackend()._prepare_worker_env(2)["VECLIB_MAXIMUM_THREADS"] == str(threads)
    monkeypatch.setenv("VECLIB_MAXIMUM_THREADS", "")  # so that it is taken back
