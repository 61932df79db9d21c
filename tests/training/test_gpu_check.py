"""The script that says whether a GPU box trains as it should, on a CPU, where most of its checks can be made too."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch
import torch._inductor.config as inductor_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def gpu_check():
    patch = pytest.MonkeyPatch()
    patch.setattr(sys, "argv", ["gpu_check.py", "cpu"])
    patch.syspath_prepend(ROOT / "benchmarks")
    yield importlib.import_module("gpu_check")
    patch.undo()


def test_its_checks_hold_on_a_cpu(gpu_check):
    checks = (gpu_check.box, gpu_check.memory, gpu_check.agreement, gpu_check.graph, gpu_check.repeats)
    found = [line for check in checks for line in gpu_check.looked_at(check)]
    assert [line for line in found if line.holds is False] == []
    assert sum(line.holds is True for line in found) == 1 + 3 + 8 + 2 + 2
    assert found[-1].what == "w32-d2: resumed in a new process that compiles anew"


def test_two_ranks_are_looked_at_where_there_are_two_gpus(gpu_check, monkeypatch):
    twice, loss, _ = gpu_check.looked_at(gpu_check.several)
    assert (twice.showed, twice.holds, loss.showed, loss.holds) == (
        "the same bits", True, "off by 0.0e+00, the same bits", True,
    )  # fmt: skip
    monkeypatch.setattr(gpu_check, "ON_CPU", False)
    monkeypatch.setattr(gpu_check.torch.cuda, "device_count", lambda: 1)
    (line,) = gpu_check.looked_at(gpu_check.several)
    assert (line.showed, line.holds) == ("not looked at: here is one", None)


def test_processes_side_by_side_are_told(gpu_check):
    found = list(gpu_check.looked_at(gpu_check.sharing))
    for line, shape in zip(found, ("w32-d1", "w32-d2"), strict=True):
        assert line.what == f"{shape}: processes on one GPU"
        assert re.fullmatch(rf"1, 2 of {shape} side by side train \S+, \S+ tokens a second: [12] taken", line.showed)


def test_what_is_wrong_is_found(gpu_check, monkeypatch):
    train, calls = gpu_check.train, []

    def disturbed(one, last):
        calls.append(last)
        one.model.head.weight.data.mul_(1 + 1e-4 * len(calls))
        return train(one, last)

    monkeypatch.setattr(gpu_check, "train", disturbed)
    same, resumed = gpu_check.looked_at(gpu_check.repeats)
    assert (same.holds, resumed.holds) == (False, False) and (same.showed, resumed.showed) == ("others", "others")


def test_repeatable_steps_take_turns_with_others_and_each_is_compiled_for_itself(gpu_check, monkeypatch):
    """Both ways in one process, of one shape: torch would run what it has compiled unless it knows them apart."""
    compiled, turns = [], []

    def backend(graph, inputs):
        compiled.append((torch.are_deterministic_algorithms_enabled(), inductor_config.deterministic))
        return graph.forward

    compile_, train, trainer_of = torch.compile, gpu_check.train, gpu_check.trainer_of
    monkeypatch.setattr(torch, "compile", lambda loss, **how: compile_(loss, backend=backend, **how))
    monkeypatch.setattr(gpu_check, "trainer_of", lambda shape: trainer_of(shape, None, "compile=true"))

    def counted(one, last):
        turns.append((torch.are_deterministic_algorithms_enabled(), one.step, last))
        return train(one, last)

    monkeypatch.setattr(gpu_check, "train", counted)
    torch.compiler.reset()
    (line,) = gpu_check.looked_at(gpu_check.strictness)
    torch.compiler.reset()
    assert re.fullmatch(r"[\d.]+ and [\d.]+ ms, [+-][\d.]+%", line.showed) and line.holds is None
    assert compiled == [(False, False), (True, True)]
    assert [strict for strict, *_ in turns] == [False, True, True, False] * 3
    assert [steps for strict, *steps in turns if strict] == [[2 * turn, 2 * turn + 2] for turn in range(6)]
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_check_that_raises_is_a_bound_missed(gpu_check, monkeypatch, tmp_path, capsys):
    def breaks():
        yield gpu_check.Found("first", "fine", "fine", True)
        raise RuntimeError("CUDA error: an illegal memory access")

    names = ("box", "memory", "agreement", "repeats", "strictness", "speed", "graph", "sharing", "several", "sweep")
    for name in names:
        monkeypatch.setattr(gpu_check, name, breaks)
    monkeypatch.setattr(gpu_check, "ON_CPU", False)
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    assert gpu_check.main() == 1
    assert capsys.readouterr().out.splitlines()[-1] == "10 of 20 bounds missed"
    written = json.loads((tmp_path / "docs" / "gpu.json").read_text())
    showed = "RuntimeError: CUDA error: an illegal memory access"
    assert written[1] == {"what": "breaks", "showed": showed, "bound": "no error", "holds": False}
