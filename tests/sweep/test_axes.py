"""Which jobs a command line stands for."""

import pytest
from omegaconf import OmegaConf

from harness.commands import configuration
from harness.errors import UserError
from harness.sweep.axes import unsettled
from harness.sweep.compose import compose_sweep


def budgets(*arguments: str) -> list[tuple[int, list[float]]]:
    return [(job.model.width, job.budgets()[1]) for job in compose_sweep(["-m", *arguments]).jobs]


def test_an_axis_of_budgets_is_one_trunk_with_all_of_them():
    assert budgets("tokens=4e6,1e6,2e6", "model.width=32,64") == [(32, [1e6, 2e6, 4e6]), (64, [1e6, 2e6, 4e6])]
    assert budgets("++tokens_per_param=[20,40],[60]") == [(64, [20.0, 40.0, 60.0])]
    assert budgets("flops=2e13,1e13") == [(64, [1e13, 2e13])]


def test_what_else_tells_jobs_apart_keeps_them_apart():
    """Under cosine each budget is a run of its own anyway."""
    assert budgets("tokens=1e6,2e6", "schedule=wsd,cosine") == [(64, [1e6, 2e6]), (64, [1e6]), (64, [2e6])]


def test_a_worker_composes_the_merged_job():
    sweep = compose_sweep(["-m", "tokens=2e6,1e6", "seed=3"])
    assert sweep.job_overrides == (("seed=3", "tokens=[1000000.0,2000000.0]"),)


def test_a_budget_given_twice_is_refused():
    with pytest.raises(UserError, match="^tokens: 1e.06 is doubled: list each budget once"):
        budgets("tokens=1e6,1e6")


@pytest.mark.parametrize("where", ["output_directory", "name"])
def test_all_jobs_have_the_folder_of_their_launcher(where):
    sweep = compose_sweep(["-m", "tokens=1e6", "seed=0,1", f"{where}=o-${{now:%S%f}}"])
    (folder,) = {(job.output_directory, job.name) for job in sweep.jobs}
    assert folder == (sweep.jobs[0].output_directory, sweep.jobs[0].name)
    written = [line for lines in (*sweep.job_overrides, sweep.overrides) for line in lines if where in line]
    assert len(written) == 3
    assert {line.partition("=")[2].strip("'") for line in written} == {getattr(sweep.jobs[0], where)}
    assert "${now" not in sweep.command and getattr(sweep.jobs[0], where) in sweep.command


def test_what_a_file_of_conf_leaves_open_is_settled_too(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("PLACE", "here")
    written = {"name": "x-${oc.env:PLACE}", "output_directory": "~/o", "data": {"path": "~/t", "split": "~"}, "seed": 1,
               "model": {"width": "${seed}"}, "hydra": {"dir": "${now:%S}"}}  # fmt: skip
    with configuration():
        assert unsettled(OmegaConf.create(written)) == ["name='x-here'", "output_directory=~/o", "data.path=~/t"]


def test_every_key_has_one_value_in_all_processes():
    sweep = compose_sweep(["-m", "tokens=1e6", "seed=1${now:%S%f}"])
    assert sweep.overrides[1] == sweep.job_overrides[0][1] == f"seed={sweep.jobs[0].seed}"


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("name=a,b", r"name differs between the jobs of the grid \(a, b\)"),
        ("name=w${model.width}", r"name differs between the jobs of the grid \(w32, w64\)"),
        ("output_directory=o/${model.width}", r"output_directory differs between the jobs of the grid \(o/32, o/64\)"),
    ],
)
def test_a_grid_of_several_folders_is_refused(argument, said):
    with pytest.raises(UserError, match=f"^{said}, whose folder is one"):
        compose_sweep(["-m", "tokens=1e6", "model.width=32,64", argument])
