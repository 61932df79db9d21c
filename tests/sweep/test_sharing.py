"""How many jobs share a GPU: what is measured, on processes of a CPU in a GPU's place, and what is made of it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml

from harness.grid import make_trunks
from harness.stop import Stopped
from harness.sweep import sharing
from harness.sweep.compose import compose_sweep
from harness.sweep.pace import Pace
from harness.sweep.run import train
from harness.sweep.sharing import Sharing, best, rates_beside, share, side_by_side
from harness.training import gpus

GB = 10**9


@pytest.mark.parametrize(
    ("rates", "number"),
    [
        ({1: 100, 2: 190, 4: 350}, 4),
        ({1: 100, 2: 190, 4: 180}, 2),
        ({1: 100, 2: 119}, 1),  # less than a fifth more
        ({1: 100, 2: 120}, 2),
        ({1: 100, 2: 60, 4: 50}, 1),
    ],
)
def test_the_number_with_the_most_tokens_is_taken_where_it_gains_a_fifth(rates, number):
    assert best(rates) == number


@pytest.fixture
def trunk(corpus, store, compose):
    (trunk,) = make_trunks(compose(*corpus, "shape=w16-d1", "tokens=10e3"), 257, store.recipe_hash, "float32")
    return trunk


def test_processes_are_measured_side_by_side(trunk, tmp_path):
    rates = side_by_side(trunk, [1, 2], 0, tmp_path)
    assert list(rates) == [1, 2] and all(rate > 0 for rate in rates.values())
    with pytest.raises(RuntimeError, match="of 99 bytes|a process beside this one failed"):
        side_by_side(trunk, [1, 2], 0, tmp_path, Broken())


class Broken:
    """Tokens that cannot be read."""

    @property
    def train(self):
        raise RuntimeError("a file of 99 bytes")


def test_only_so_many_train_at_once(trunk, store, tmp_path, monkeypatch):
    """The second of two processes, alone in this one: it waits while one trains, and trains when two do."""
    monkeypatch.setattr(sharing.stop, "listen_as_worker", lambda *given: None)
    for count in (1, 2):
        (tmp_path / f"{count}-of-0").touch()  # that the first has come
    rates = rates_beside(trunk, [1, 2], 0, 1, tmp_path, tmp_path, store)
    assert rates[0] == 0 and rates[1] > 0
    monkeypatch.setattr(sharing, "BARRIER_SECONDS", 0.1)
    (tmp_path / "1-of-0").unlink()
    with pytest.raises(TimeoutError, match="2 processes were not ready in 0 s"):
        rates_beside(trunk, [1, 2], 0, 1, tmp_path, tmp_path, store)
    assert (tmp_path / "failed").exists()


@pytest.fixture
def on_gpus(monkeypatch, tmp_path):
    """What share makes of a grid on GPUs of 24 GB with 16 cores, given rates by the number of processes."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: (9, 0))
    monkeypatch.setattr(gpus.machine, "nvidia_smi", lambda *arguments: [])
    monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(sharing.joblib, "cpu_count", lambda: 16)

    def found(rates, *arguments, count=1, gigabytes=24, utilization=0.01, jobs=16):
        properties = [SimpleNamespace(uuid=f"uuid-{gpu}", total_memory=gigabytes * GB) for gpu in range(count)]
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda gpu: properties[gpu])
        asked = []

        def measured(trunk, counts, number, folder):
            asked.append((trunk.name.split("-s")[0], counts, number))
            return {count: rates[count] for count in counts}

        if callable(rates):
            monkeypatch.setattr(sharing, "side_by_side", rates)
        else:
            monkeypatch.setattr(sharing, "side_by_side", measured)
        sweep = compose_sweep(["-m", "tokens=1e6", "shape=w64-d2,w48-d2", "tracking=none", *arguments])
        trunks = [make_trunks(job, 1024, "", "bf16")[0] for job in sweep.jobs]
        trunks = [replace(trunk, name=f"{trunk.name}{copy}") for copy in range(jobs // 2) for trunk in trunks]
        paces = {trunk.name: Pace(0.002, 1.0, 3.0, (), utilization) for trunk in trunks}
        return share(sweep, trunks, paces), asked, sweep, paces

    return found


SCALING = {1: 1e6, 2: 1.9e6, 4: 2.5e6, 8: 2.4e6}


def test_small_models_share_a_gpu_at_the_pace_that_they_have_there(on_gpus):
    shared, asked, sweep, paces = on_gpus(SCALING)
    assert asked == [("w64-d2", [1, 2, 4, 8], 0)]
    assert shared is not None and (shared.number, shared.slots) == (4, 4)
    told = "1, 2, 4, 8 of w64-d2 side by side train 1M, 1.9M, 2.5M, 2.4M tokens a second"
    assert shared.said == f"4 jobs a GPU, since {told}"
    # four train 2.5 times the tokens of one, so that each step lasts 4 / 2.5 times as long; a start does not
    pace = next(iter(shared.paces(paces).values()))
    assert (pace.step, pace.evaluation, pace.start) == (pytest.approx(0.0032), pytest.approx(1.6), 3.0)
    assert [job.slots_per_gpu for job in shared.sweep(sweep).jobs] == [4, 4]
    assert [line[-1] for line in shared.sweep(sweep).job_overrides] == ["slots_per_gpu=4"] * 2


def test_no_more_are_measured_than_jobs_cores_and_memory_allow(on_gpus):
    for count, given, expected in ((2, {}, [1, 2, 4, 8]), (4, {}, [1, 2, 4]), (8, {}, [1, 2]),
                                   (1, {"jobs": 4}, [1, 2, 4]), (1, {"gigabytes": 3}, [1, 2])):  # fmt: skip
        _, asked, _, _ = on_gpus(SCALING, count=count, **given)
        assert [counts for _, counts, _ in asked] == [expected]
    shared, _, _, _ = on_gpus(SCALING, count=2)
    assert shared is not None and shared.slots == 8
    shared, asked, _, _ = on_gpus(SCALING, count=16, jobs=32)
    assert asked == [] and shared is not None
    assert shared.said == "1 job a GPU, since there are memory and cores for no more"


def test_large_models_take_a_gpu_each(on_gpus):
    shared, asked, sweep, _ = on_gpus(SCALING, utilization=0.3)
    assert asked == [] and shared is not None and shared.number == 1 and shared.sweep(sweep) is sweep
    assert shared.said == "1 job a GPU, since w64-d2 fills it alone"
    shared, _, _, _ = on_gpus({1: 1e6, 2: 1.1e6, 4: 1e6, 8: 1e6})
    assert shared is not None and shared.number == 1
    assert shared.said.startswith("1 job a GPU, since 1, 2, 4, 8 of w64-d2 side by side train 1M, 1.1M, 1M, 1M tokens")


def test_a_measurement_that_fails_is_one_job_a_gpu_and_a_line(on_gpus):
    def fails(*given):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    shared, _, sweep, _ = on_gpus(fails)
    assert shared is not None and shared.number == 1 and shared.sweep(sweep) is sweep
    assert shared.said == (
        "1 job a GPU, since several could not be measured (OutOfMemoryError: CUDA out of memory. Tried to allocate)"
    )
    with gpus.slot(20 * GB, 1):
        shared, asked, _, _ = on_gpus(SCALING)
    assert asked == [] and shared is not None and "UserError: other jobs have this GPU" in shared.said

    def stopped(*given):
        raise Stopped(15)

    with pytest.raises(Stopped):
        on_gpus(stopped)


def test_the_number_reaches_the_plan_and_every_job(corpus, tmp_path, monkeypatch, capsys):
    """On a CPU, where its measurement is taken for that of a GPU."""
    paces = []

    def shared(sweep, trunks, alone):
        paces.extend(alone.values())
        return Sharing(2, 1e6, 2, "2 jobs a GPU, since this test says so")

    monkeypatch.setattr("harness.sweep.run.share", shared)
    asked = ["tokens=10e3", "shape=w16-d1,w8-d1", "hydra.launcher.n_jobs=1", "tracking=none"]
    assert train(["-m", *corpus, *asked, f"output_directory={tmp_path}", "name=shared"]) == 0
    output = capsys.readouterr().out
    assert ", 2 at a time: about" in output and "\n2 jobs a GPU, since this test says so\n" in output
    written = yaml.safe_load((tmp_path / "shared/sweep.yaml").read_text())
    assert written["slots"] == 2
    # each has 39 steps and an evaluation, and they train beside each other; what comes before and between is seconds
    longest = max(39 * pace.step + pace.evaluation for pace in paces)
    assert written["launches"][0]["estimated_seconds"] == pytest.approx(1e6 * longest, rel=1e-3, abs=60)
    configs = [yaml.safe_load(path.read_text()) for path in tmp_path.glob("shared/runs/*/config.yaml")]
    assert [config["job"]["slots_per_gpu"] for config in configs] == [2, 2]


def test_nothing_is_measured_where_there_is_nothing_to_ask(on_gpus):
    for given in (["slots=3"], ["slots_per_gpu=1"], ["device=cpu"], ["hydra/launcher=slurm"]):
        assert on_gpus(SCALING, *given)[:2] == (None, [])
    assert on_gpus(SCALING, count=16)[:2] == (None, [])  # a GPU for each
