"""In which order and how often the jobs of a sweep are launched, on real pools."""

import yaml

from harness.grid import make_trunks
from harness.records import SweepFolder
from harness.sweep.compose import compose_sweep, machine_slots
from harness.sweep.run import train


def arguments(corpus, tmp_path, *more):
    return ["-m", *corpus, "tracking=none", f"output_directory={tmp_path}", "name=order", *more]


def begun(folder: SweepFolder) -> list[str]:
    """The trunks that a process has begun, in the order of their locks."""
    locks = sorted(folder.path.glob("trunks/*/lock"), key=lambda path: path.stat().st_ctime_ns)
    return [path.parent.name.rsplit("-", 2)[0] for path in locks]


def test_the_longest_come_first_and_the_finished_not_at_all(corpus, tmp_path, capsys):
    folder = SweepFolder(tmp_path / "order")
    assert train(arguments(corpus, tmp_path, "tokens=10e3", "shape=w8-d1,w32-d1", "slots=1")) == 0
    assert begun(folder) == ["w32-d1", "w8-d1"]
    locks = {path: path.stat().st_mtime_ns for path in folder.path.glob("trunks/*/lock")}
    capsys.readouterr()
    assert train(arguments(corpus, tmp_path, "tokens=10e3", "shape=w8-d1,w16-d1,w32-d1,w32-d2", "slots=1")) == 0
    assert begun(folder)[2:] == ["w32-d2", "w16-d1"]
    assert {path: path.stat().st_mtime_ns for path in locks} == locks
    output = capsys.readouterr().out
    assert "4 of 4 cells finished" in output
    assert "of the" in output and "that were estimated" in output and "core-minutes" in output
    launches = yaml.safe_load(folder.sweep_yaml.read_text())["launches"]
    assert len(launches) == 2 and all(launch["wall_seconds"] > 0 for launch in launches)
    # nothing is left: no launch is counted
    assert train(arguments(corpus, tmp_path, "tokens=10e3", "shape=w8-d1,w32-d1", "slots=1")) == 0
    assert len(yaml.safe_load(folder.sweep_yaml.read_text())["launches"]) == 2


def test_as_many_jobs_as_cores_and_memory_hold(corpus, monkeypatch):
    def slots(*more: str, memory: float) -> int:
        (job,) = compose_sweep([*corpus, "tokens=10e3", *more]).jobs
        (trunk,) = make_trunks(job, 257, "", "float32")
        # 512 MiB for the process; 16 bytes a parameter and 4 for each kept activation are 1 % of that
        assert 2**29 < trunk.training_bytes < 1.01 * 2**29
        monkeypatch.setattr("harness.sweep.compose.memory_bytes", lambda device: int(memory * trunk.training_bytes))
        return machine_slots([trunk])

    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    assert slots(memory=100) == 2
    assert slots("threads=2", memory=100) == 1
    assert slots(memory=1.5) == 1
    assert slots(memory=0.5) == 1  # a process for all that: check_memory has let it pass


def test_slots_are_what_is_asked_for(corpus):
    def asked(*more: str) -> int | None:
        return compose_sweep(["-m", *corpus, "tokens=10e3", "shape=w8-d1,w16-d1,w32-d1", *more]).slots

    assert asked() is None
    assert asked("slots=3") == 3
    assert asked("hydra.launcher.n_jobs=2") == 2
    assert asked("hydra/launcher=basic") == 1
