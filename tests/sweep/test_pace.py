"""How the pace is measured: by which process, with a word while it lasts, and where memory does not hold a shape."""

import time

import pytest
import torch

from harness.grid import make_trunks
from harness.sweep import pace
from harness.sweep.compose import compose_sweep
from harness.sweep.pace import Pace, measure, measure_in_turn, turns_of


@pytest.fixture
def sweep(corpus, tmp_path):
    return compose_sweep(["shape=w16-d1", *corpus, "tokens=10e3", f"output_directory={tmp_path}", "tracking=none"])


@pytest.fixture
def trunk(sweep, store):
    (trunk,) = make_trunks(sweep.jobs[0], store.vocab_size, store.recipe_hash, "float32")
    return trunk


def test_on_gpus_each_shape_is_compiled_by_one_process_and_on_a_cpu_all_measure_all():
    assert turns_of(list("abcde"), 2, alone=True) == [list("ace"), list("bd")]
    assert turns_of(list("abcd"), 2, alone=False) == [list("abcd"), list("cdab")]
    assert sorted(sum(turns_of(list("abc"), 8, alone=True), [])) == list("abc")


def test_a_measurement_that_lasts_says_how_far_it_is(sweep, trunk, monkeypatch, capsys):
    def slow(one, halved):
        time.sleep(0.5)
        return Pace(1.0, 2.0, 3.0)

    monkeypatch.setattr(pace, "measure_here", slow)
    monkeypatch.setattr(pace, "SAID_SECONDS", 0.2)
    assert measure(sweep, [trunk], 1) == {trunk.name: Pace(1.0, 2.0, 3.0)}
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["measuring the pace of 1 shape: 0 done after 0 s"] * 2
    monkeypatch.setattr(pace, "SAID_SECONDS", 10.0)
    measure(sweep, [trunk], 1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("fits", "found"), [("whole", [False]), ("halved", [False, True]), ("not", [False, True])])
def test_a_shape_that_does_not_fit_is_measured_halved_or_not_at_all(trunk, tmp_path, monkeypatch, fits, found):
    tried = []

    def limited(one, halved):
        tried.append(halved)
        if fits == "not" or (fits == "halved" and not halved):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Pace(1.0, 2.0, 3.0)

    monkeypatch.setattr(pace, "measure_here", limited)
    expected = {} if fits == "not" else {trunk.name: Pace(1.0, 2.0, 3.0)}
    assert measure_in_turn([trunk], 0, 1, tmp_path, None) == expected
    assert tried == found


def test_the_notes_of_all_processes_are_kept_once():
    mean = pace._mean([Pace(1.0, 2.0, 3.0, ("a", "b")), Pace(3.0, 4.0, 5.0, ("b",))])
    assert mean.notes == ("a", "b")


def test_a_slow_core_counts_by_what_it_does():
    # steps of 1 and 3 s: 4 in 3 s on two cores, 1.5 s each; evaluations of 2 and 2, starts of 1 and 4
    mean = pace._mean([Pace(1.0, 2.0, 1.0), Pace(3.0, 2.0, 4.0)])
    assert (mean.step, mean.evaluation, mean.start) == pytest.approx((1.5, 2.0, 1.6))
