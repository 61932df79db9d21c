"""Kills at every level: what W&B has after the resume is curve.jsonl, each step once."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from sweep_files import columns, mirror_once, rows, wait_until, write_cell
from wandb_files import read_run

from harness import tracking
from harness.data.synthetic import write_corpus
from harness.tracking import TrackingConfig

ROOT = Path(__file__).parents[2]


def processes(folder):
    """The mirrors of the sweeps in `folder` and their services of wandb: (id, command line)."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if "harness.tracking.process" in command and str(folder) in command:
                found.append((int(path.name), command))
    parents = {pid for pid, _ in found}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in parents:
                found.append((int(path.name), (path / "cmdline").read_bytes().decode()))
    return found


def kill_mirrors(folder):
    """SIGKILL, as the end of a cgroup would, to mirrors and wandb-core alike."""
    found = processes(folder)
    assert any("wandb-core" in command for _, command in found)
    for pid, _ in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kept(sweep_dir):
    """The one offline run that is there."""
    (folder,) = (sweep_dir / "wandb").glob("*run-*")
    return read_run(next(folder.glob("*.wandb")))


def test_a_mirror_that_is_killed_online_leaves_no_gap_and_no_double(tmp_path, server):
    write_cell(tmp_path, "a", range(100))
    with tracking.start(TrackingConfig(), tmp_path, ["a"]):
        wait_until(lambda: "id-a" in server.runs and server.run("id-a").history)
        kill_mirrors(tmp_path)
    assert len(server.run("id-a").history) > 0
    # The job begins again at step 800, and its grid has a larger budget now, so that it logs more seldom.
    resumed = rows([*range(81), *range(84, 200, 4)])
    write_cell(tmp_path, "a", [*range(81), *range(84, 200, 4)], "finished")
    mirror_once(tmp_path, ["a"])
    run = server.run("id-a")
    steps = [row["step"] for row in run.history]
    assert steps == sorted(set(steps))
    assert {row["step"] for row in resumed if row["step"] <= 800} <= set(steps)
    assert [step for step in steps if step > 990] == [row["step"] for row in resumed if row["step"] > 990]
    assert columns(run.history, "_step", "tokens") == [(step, 1024 * step) for step in steps]
    assert (run.state, run.summary["loss"]) == ("finished", 4.5)


def test_a_mirror_that_is_killed_offline_is_replaced_by_a_whole_one(tmp_path):
    write_cell(tmp_path, "a", range(100))
    with tracking.start(TrackingConfig(), tmp_path, ["a"]):
        wait_until(lambda: list(tmp_path.glob("wandb/*run-*/*.wandb")))
        kill_mirrors(tmp_path)
    for _ in range(3):  # within one second, perhaps, and then wandb appends a number to the folder's name
        write_cell(tmp_path, "a", range(160), "finished")
        mirror_once(tmp_path, ["a"])
    assert columns(kept(tmp_path).history, "_step") == [(10 * i,) for i in range(160)]


def test_a_failed_cell_that_succeeds_later_keeps_no_error(tmp_path, server):
    write_cell(tmp_path, "a", range(10), "failed")
    mirror_once(tmp_path, ["a"])
    assert server.run("id-a").summary["error"] == "RuntimeError: out of luck"
    assert (server.run("id-a").state, server.run("id-a").summary.get("loss")) == ("failed", None)
    write_cell(tmp_path, "a", range(20), "finished")
    mirror_once(tmp_path, ["a"])
    run = server.run("id-a")
    assert (run.state, run.summary["loss"], run.summary.get("error")) == ("finished", 4.5, None)
    assert len(run.history) == 20


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder / "letters.jsonl", documents=800, letters=255, seed=0)
    return folder


def train(corpus, folder, mode):
    """A job of one trunk and two budgets, in a session of its own so that all of it can be killed."""
    return subprocess.Popen(
        [
            sys.executable, "scripts/train.py", "shape=w16-d1", "tokens=[60e3,120e3]", "data=files",
            f"data.path={corpus}/letters.jsonl", "data.validation_tokens=4000", "tokenizer=bytes",
            f"data.store_directory={corpus}/stores", f"output_directory={folder}", "model.seq_len=32",
            "model.head_size=8", "optimizer.batch_tokens.value=64", "optimizer.warmup_tokens.value=1024", "device=cpu",
            f"name={mode}", f"tracking.mode={mode}",
        ],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def curve_bytes(sweep_dir):
    return sum(path.stat().st_size for path in sweep_dir.glob("runs/*/curve.jsonl"))


def test_real_training_that_is_killed_twice_ends_as_one_run_a_cell(tmp_path, corpus, server):
    modes = ("online", "offline")
    for pause in (0.0, 0.5):
        before = {mode: curve_bytes(tmp_path / mode) for mode in modes}
        jobs = {mode: train(corpus, tmp_path, mode) for mode in modes}
        for mode, job in jobs.items():
            wait_until(lambda m=mode, b=before: curve_bytes(tmp_path / m) not in (0, b[m]), 120)
            time.sleep(pause)
            os.killpg(job.pid, signal.SIGKILL)
            assert job.wait() == -signal.SIGKILL
    for mode, job in {mode: train(corpus, tmp_path, mode) for mode in modes}.items():
        said = job.communicate(timeout=120)[0].decode()
        assert job.returncode == 0, said
        tracking.wait(tmp_path / mode, 120)
    assert processes(tmp_path) == []
    online = {run.display_name: run for run in server.runs.values() if run.job_type == "cell"}
    offline = [read_run(path) for path in (tmp_path / "offline").glob("wandb/*run-*/*.wandb")]
    assert len(offline) == 2 + 1  # and the plan
    for mode, runs in [("online", online), ("offline", {run.run.display_name: run for run in offline})]:
        folders = list((tmp_path / mode).glob("runs/*"))
        assert len(folders) == 2
        for folder in folders:
            run = runs[folder.name]
            curve = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
            assert columns(run.history, "step", "train_loss") == columns(curve, "step", "train_loss")
            assert run.summary["loss"] == json.loads((folder / "run.json").read_text())["loss"]
            assert run.exit_code == 0
    assert {run.state for run in online.values()} == {"finished"}
