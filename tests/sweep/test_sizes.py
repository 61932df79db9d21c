"""A sweep's other shapes and budgets: +size=gpu."""

import pytest
from omegaconf import OmegaConf

from harness.errors import UserError
from harness.sweep import compose
from harness.sweep.compose import compose_sweep
from harness.sweep.sizes import of_size


def test_a_size_brings_its_text_rules_shapes_and_budgets():
    sweep = compose_sweep(["-m", "+sweep=kaplan", "+size=gpu"])
    assert [job.shape for job in sweep.jobs][:2] == ["w576-d9", "w416-d7"]
    assert {tuple(job.budgets()[1]) for job in sweep.jobs} == {(2e7, 4e7, 8e7, 1.6e8)}
    (data,) = {job.data.name for job in sweep.jobs}
    assert data == "HuggingFaceFW/fineweb-edu"
    assert {job.model.seq_len for job in sweep.jobs} == {512}


def test_the_command_line_counts_more_than_a_size():
    sweep = compose_sweep(["-m", "+sweep=kaplan", "+size=gpu", "shape=w96-d4", "tokens=5e6"])
    assert [(job.shape, job.budgets()[1]) for job in sweep.jobs] == [("w96-d4", [5e6])]


def test_a_size_may_bring_grids():
    sweep = compose_sweep(["-m", "+sweep=isoflop", "+size=gpu"])
    assert {job.budgets()[0] for job in sweep.jobs} == {"flops"}
    assert sweep.jobs[0].shape == "w576-d9" and sweep.jobs[0].budgets()[1] == [1e16, 2e16]


def test_what_is_settled_is_composed_again(monkeypatch):
    """A value that each process would read anew is settled within the same composing."""
    found = iter([["seed=5"], []])
    monkeypatch.setattr(compose, "unsettled", lambda base: next(found))
    assert [job.seed for job in compose_sweep(["tokens=1e6"]).jobs] == [5]


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"gpu": "tokens=1"}, "sizes={'gpu': 'tokens=1'} has no list of overrides a size: write sizes: "),
        ([1], r"sizes=\[1\] has no list of overrides a size"),
        ({"gpu": ["name=x"]}, "sizes.gpu sets name: give that on the command line"),
    ],
)
def test_sizes_that_are_none_are_refused(sizes, said):
    with pytest.raises(UserError, match=f"^{said}"):
        of_size(OmegaConf.create({"sized": "gpu", "sizes": sizes}), [])


def test_a_sweep_without_sizes_keeps_its_own():
    assert of_size(OmegaConf.create({"sized": "gpu", "sizes": None}), []) == []
