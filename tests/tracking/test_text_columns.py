"""The losses on further texts in W&B: columns of a run's summary, sent again once they are there."""

import csv
import json
import time

import pytest
from sweep_files import mirror_once, write_cell

from harness.records import SweepFolder, write_sweep, write_table
from harness.tracking.sync import sync
from harness.tracking.table import fetch

TEXT = {"recipe": "0a", "loss": 3.25, "loss_se": 0.5, "loss_parts": "3.000000 3.500000", "bits_per_byte": 1.5}
PLAN = {"sweep": "cpu", "overrides": [], "code_version": "1", "packages": {}}


@pytest.fixture
def sweep_dir(tmp_path):
    write_cell(tmp_path / "cpu", "a", range(20), "finished")
    return tmp_path / "cpu"


def add_text(sweep_dir):
    path = sweep_dir / "runs" / "a" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"validation": {"code": TEXT}}))


def plan(sweep_dir, **more):
    write_sweep(SweepFolder(sweep_dir), PLAN | {"validation": {"code": "0a"}} | more | {"cells": [{"cell": "a"}]})


def test_a_text_that_is_added_reaches_the_summary_and_the_way_back(sweep_dir, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan(sweep_dir)
    mirror_once(sweep_dir, ["plan", "a"])
    assert "loss_code" not in server.run("id-a").summary
    time.sleep(1.1)  # what is older than the second in which it was sent is not sent again
    add_text(sweep_dir)
    assert sync(sweep_dir)[1]
    summary = server.run("id-a").summary
    assert {key: summary[f"{key}_code"] for key in TEXT if key != "recipe"} == {
        key: value for key, value in TEXT.items() if key != "recipe"
    }
    assert summary["loss"] == 4.5 and "validation" not in summary
    write_table(SweepFolder(sweep_dir))
    fetched = fetch("wandb://me/scaling/cpu") / "runs.csv"
    assert fetched.read_bytes() == (sweep_dir / "runs.csv").read_bytes()
    with open(fetched, newline="") as file:
        assert [row["loss_code"] for row in csv.DictReader(file)] == ["3.25"]


def test_the_loss_is_that_of_the_text_on_which_corpora_are_compared(sweep_dir, server):
    add_text(sweep_dir)
    plan(sweep_dir, compared_on="code")
    mirror_once(sweep_dir, ["a"])
    summary = server.run("id-a").summary
    assert (summary["loss"], summary["bits_per_byte"], summary["loss_code"]) == (3.25, 1.5, 3.25)
    assert json.loads(summary["run_record"])["loss"] == 4.5
