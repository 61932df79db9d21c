"""Sending what was kept offline, with the real client."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sweep_files import KEY, columns, leave_account, mirror_once, wait_until, write_cell, write_fit, write_plan
from wandb_server import WandbServer

from harness import tracking
from harness.errors import UserError
from harness.tracking import PLAN
from harness.tracking.sync import sync

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    sweep_dir = tmp_path_factory.mktemp("mirrored") / "cpu"
    with pytest.MonkeyPatch.context() as patch:
        leave_account(patch, sweep_dir.parent)
        write_fit(sweep_dir)
        write_plan(sweep_dir, ["a", "b", "c", "unbegun"])
        for cell, status in [("a", "finished"), ("b", "failed"), ("c", None)]:
            write_cell(sweep_dir, cell, range(120), status)
        mirror_once(sweep_dir, [PLAN, "a", "b", "c"])
        tracking.log_fit(sweep_dir)
        assert len(list((sweep_dir / "wandb").glob("offline-run-*"))) == 5
    return sweep_dir


@pytest.fixture
def kept(mirrored, tmp_path):
    """A sweep of three cells and a fit, mirrored offline."""
    return shutil.copytree(mirrored, tmp_path / "cpu", symlinks=True)


def test_an_offline_sweep_is_sent_from_its_local_files(kept, server):
    # A kill leaves 7 bytes of a run, and there may be less than that.
    for folder, size in zip((kept / "wandb").glob("offline-run-*"), (7, 0, 1000), strict=False):
        with open(next(folder.glob("*.wandb")), "rb+") as file:
            file.truncate(size)
    done = subprocess.run(
        [sys.executable, "scripts/sync.py", f"runs={kept}"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    group = f"{server.url}/me/scaling/groups/cpu"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"W&B: 3 runs at {group}\n", "")
    assert sorted(str(run.job_type) for run in server.runs.values()) == ["cell"] * 3 + ["fit", "plan"]
    for name, state in [("id-a", "finished"), ("id-b", "failed"), ("id-c", "failed")]:
        assert columns(server.run(name).history, "_step") == [(10 * i,) for i in range(120)]
        assert server.run(name).state == state
    assert list((kept / "wandb").glob("offline-run-*")) == []


def test_what_is_there_is_not_sent_again_but_to_another_project(kept, server, monkeypatch):
    monkeypatch.setattr("harness.tracking.sync.BATCH", 2)
    assert sync(kept) == ([f"W&B: 3 runs at {server.url}/me/scaling/groups/cpu"], True)
    del server.runs["id-a"], server.runs["id-b"]
    write_cell(kept, "c", range(200), "finished")
    assert sync(kept)[1]
    assert "id-a" not in server.runs
    assert columns(server.run("id-c").history, "_step") == [(10 * i,) for i in range(200)]
    assert sync(kept, project="other") == ([f"W&B: 3 runs at {server.url}/me/other/groups/cpu"], True)
    assert {run.project for name, run in server.runs.items() if name.startswith("id-")} == {"other"}


def test_a_run_that_cannot_be_sent_stops_no_other(kept, server):
    (kept / "runs" / "b" / "config.yaml").write_text("cell: [")
    said, complete = sync(kept)
    assert not complete
    assert said[0] == f"W&B: 2 runs at {server.url}/me/scaling/groups/cpu"
    assert said[1].startswith("W&B: 1 run not mirrored (ParserError: while parsing a flow")
    assert said[1].endswith("; the local files are complete")
    assert len(said) == 2


def test_a_server_that_goes_away_is_told_and_the_rest_is_sent_the_next_time(kept, server, tmp_path):
    command = [sys.executable, "scripts/sync.py", f"runs={kept}"]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: "id-b" in server.runs)
    server.fault = "drop"
    said, _ = first.communicate(timeout=120)
    assert first.returncode == 1
    assert "not mirrored (connection lost); the local files are complete" in said
    server.fault = None
    assert sync(kept) == ([f"W&B: 3 runs at {server.url}/me/scaling/groups/cpu"], True)
    for name in ("id-a", "id-b", "id-c"):
        assert columns(server.run(name).history, "_step") == [(10 * i,) for i in range(120)]


def test_what_cannot_be_sent_at_all_is_one_sentence(kept, monkeypatch):
    with pytest.raises(UserError, match="needs a W&B API key to be sent: set WANDB_API_KEY, or run `wandb login`"):
        sync(kept)
    with pytest.raises(UserError, match="holds no sweep.yaml: give the folder of a sweep"):
        sync(kept / "runs")
    monkeypatch.setenv("WANDB_API_KEY", "9876543210" * 4)
    with WandbServer() as server:
        server.key = KEY
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        said = ["W&B: 3 runs not mirrored (the API key was refused); the local files are complete"]
        assert sync(kept) == (said, False)
    assert len(list((kept / "wandb").glob("offline-run-*"))) == 5
    assert json.loads((kept / "runs" / "a" / "run.json").read_text())["loss"] == 4.5
