"""From W&B back to a run table, with the real client on both ways."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from sweep_files import KEY, mirror_once, write_cell, write_plan

from harness.errors import UserError
from harness.records import COLUMNS, SweepFolder, write_table
from harness.tracking import PLAN
from harness.tracking.table import fetched

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """What is fetched goes to outputs/ of the working directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def script(name, *arguments):
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / f"{name}.py", *arguments],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_numbers_that_w_and_b_would_round_come_back_exactly(tmp_path, server):
    sweep_dir = tmp_path / "big"
    numbers = {"flops": 3 * 10**20 + 7, "flops_6nd": 2**63 + 1, "tokens": 2**53 + 1, "epochs": 50.0, "loss": 0.1 + 0.2}
    write_plan(sweep_dir, ["b", "a", "unbegun"])
    for cell in ("a", "b", "dropped"):
        write_cell(sweep_dir, cell, range(3), "finished")
        record = json.loads((sweep_dir / "runs" / cell / "run.json").read_text())
        (sweep_dir / "runs" / cell / "run.json").write_text(json.dumps(record | numbers | {"width": 64.0}))
    rows = write_table(SweepFolder(sweep_dir))
    assert [row["cell"] for row in rows] == ["b", "a"]
    mirror_once(sweep_dir, [PLAN, "a", "b", "dropped"])
    assert fetched("wandb://me/scaling/big") == "outputs/wandb/me/scaling/big"
    text = Path("outputs/wandb/me/scaling/big/runs.csv").read_text()
    assert text == (sweep_dir / "runs.csv").read_text()
    assert "300000000000000000007" in text and ",50.0," in text
    assert text.splitlines()[0] == ",".join(COLUMNS)


def test_the_axes_of_a_sweep_come_back_and_name_its_runs(tmp_path, server):
    sweep_dir = tmp_path / "v"
    write_plan(sweep_dir, ["a", "b"], variant=["gpt", "muon"])
    for cell in ("a", "b"):
        write_cell(sweep_dir, cell, range(3), "finished")
    write_table(SweepFolder(sweep_dir))
    mirror_once(sweep_dir, [PLAN, "a", "b"])
    back = Path(fetched("wandb://me/scaling/v"))
    assert (back / "runs.csv").read_bytes() == (sweep_dir / "runs.csv").read_bytes()
    assert list(pd.read_csv(back / "runs.csv").variant) == ["gpt", "muon"]
    run = server.run("id-b")
    assert (run.display_name, run.group, run.config["variant"]["value"]) == ("b muon", "v", "muon")


def test_a_later_plan_replaces_the_earlier_one(tmp_path, server):
    sweep_dir = tmp_path / "grown"
    write_plan(sweep_dir, ["a"])
    write_cell(sweep_dir, "a", range(3), "finished")
    write_cell(sweep_dir, "b", range(3), "failed")
    mirror_once(sweep_dir, [PLAN, "a", "b"])
    write_plan(sweep_dir, ["b", "a"])
    mirror_once(sweep_dir, [PLAN])
    table = pd.read_csv(Path(fetched("wandb://me/scaling/grown")) / "runs.csv")
    assert list(table.cell) == ["b", "a"] and list(table.status) == ["failed", "finished"]


def test_more_runs_than_a_page_all_come_back(tmp_path, server):
    names = [f"c{index}" for index in range(230)]
    write_plan(tmp_path / "many", names)
    write_cell(tmp_path / "many", "c0", range(2), "finished")
    mirror_once(tmp_path / "many", [PLAN, "c0"])
    first = server.run("id-c0")
    for name in names[1:]:  # as the real client would, 230 times over
        run = server.run(f"id-{name}")
        run.project, run.group, run.job_type = first.project, first.group, first.job_type
        summary = first.summary | {"run_record": first.summary["run_record"].replace('"c0"', f'"{name}"')}
        run.streams["wandb-summary.json"] = [json.dumps(summary)]
    table = pd.read_csv(Path(fetched("wandb://me/scaling/many")) / "runs.csv")
    assert list(table.cell) == names


def test_several_sources_may_be_mixed(tmp_path, server):
    write_plan(tmp_path / "one", ["a"])
    write_cell(tmp_path / "one", "a", range(3), "finished")
    mirror_once(tmp_path / "one", [PLAN, "a"])
    assert fetched("[outputs/cpu,wandb://me/scaling/one]") == "[outputs/cpu,outputs/wandb/me/scaling/one]"
    assert fetched("outputs/cpu") == "outputs/cpu"


def refusal(address="wandb://me/scaling/cpu"):
    with pytest.raises(UserError) as refused:
        fetched(address)
    assert not Path("outputs").exists()
    return str(refused.value).removeprefix(f"runs={address}")


@pytest.mark.parametrize("name", ["fit", "report"])
def test_a_mistake_ends_a_script_with_one_sentence_and_status_2(name, tmp_path, server):
    write_cell(tmp_path / "cpu", "a", range(3), "finished")
    mirror_once(tmp_path / "cpu", ["a"])
    done = script(name, "runs=wandb://me/scaling/cup")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: runs=wandb://me/scaling/cup: the project me/scaling has no runs in the group cup: give the name of a "
        "sweep\n"
    )
    assert not Path("outputs").exists()


def test_what_cannot_be_read_is_one_sentence(tmp_path, server, monkeypatch):
    write_cell(tmp_path / "cpu", "a", range(3), "finished")
    mirror_once(tmp_path / "cpu", ["a"])
    assert refusal() == (
        " has 1 runs but no plan that says which cells belong to the sweep: `python scripts/sync.py runs=FOLDER` "
        "sends it"
    )
    write_plan(tmp_path / "begun", ["a"])
    mirror_once(tmp_path / "begun", [PLAN])
    assert refusal("wandb://me/scaling/begun") == (" has 1 cells planned, and none has ended yet: wait for the first")
    for address in ("wandb://me/scaling", "wandb://me/scaling/cpu/x", "wandb://", "wandb://me/../cpu"):
        assert refusal(address) == (" is not wandb://entity/project/group: the group is the name of a sweep")
    for project in ("me/scalign", "you/scaling"):
        assert refusal(f"wandb://{project}/cpu") == (
            f": there is no project {project} that this API key may read: correct the address"
        )
    failing = f" cannot be read from {server.url} ({{}}): check the address, the key and the network"
    server.fault = "drop"
    assert refusal() == failing.format("connection lost")
    server.fault = 429
    assert refusal() == failing.format("HTTP 429")
    server.fault, server.key = None, KEY
    monkeypatch.setenv("WANDB_API_KEY", "9876543210" * 4)
    assert refusal() == failing.format("the API key was refused")
    monkeypatch.delenv("WANDB_API_KEY")
    assert refusal() == " needs a W&B API key: set WANDB_API_KEY, or run `wandb login`"


def test_a_plan_that_cannot_be_read_is_one_sentence(tmp_path, server):
    write_plan(tmp_path / "cpu", ["a"])
    write_cell(tmp_path / "cpu", "a", range(3), "finished")
    mirror_once(tmp_path / "cpu", [PLAN, "a"])
    (plan,) = (run for run in server.runs.values() if run.job_type == PLAN)
    assert yaml.safe_load(plan.settings["sweep_yaml"])["cells"] == [{"cell": "a"}]
    plan.config["sweep_yaml"]["value"] = "cells: 3"
    assert refusal() == " has a plan that cannot be read: `python scripts/sync.py runs=FOLDER` sends it anew"
