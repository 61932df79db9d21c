"""The mirror of cells with the real client: against a server of our own on loopback, and offline."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from sweep_files import KEY, columns, mirror_once, rows, wait_until, write_cell
from wandb_files import read_run
from wandb_server import WandbServer

from harness import slurm, tracking
from harness.tracking import TrackingConfig
from harness.tracking.cells import CurveReader
from harness.tracking.log import last_words, read_log


def test_a_mirror_leaves_nothing_in_the_temporary_folder(tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("WANDB_MODE", "offline")
    sweep_dir = tmp_path / "sweep"
    write_cell(sweep_dir, "a", range(3), status="finished")
    (message,) = mirror_once(sweep_dir, ["a"])
    assert message.startswith("W&B: 1 run not uploaded")
    assert list(temporary.iterdir()) == []


def test_none_starts_nothing(tmp_path):
    write_cell(tmp_path, "a", range(3), "finished")
    with tracking.start(TrackingConfig(mode="none"), tmp_path, ["a"]):
        pass
    assert tracking.wait(tmp_path, 5) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def test_a_curve_is_read_row_by_row_however_it_is_rewritten(tmp_path):
    path = tmp_path / "curve.jsonl"
    reader = CurveReader(path, first=1)
    assert reader.rows() == []
    path.write_text('{"step": 0}\n{"step": 10}\n{"ste')
    assert reader.rows() == [{"step": 10}]
    with open(path, "a") as file:
        file.write('p": 20}\n')
    assert reader.rows() == [{"step": 20}]
    for text, new in [
        ('{"step": 0}\n', []),  # truncated by a resume
        ('{"step": 0}\n{"step": 10}\n{"step": 20}\n{"step": 30}\n', [{"step": 30}]),
    ]:
        (tmp_path / "new").write_text(text)
        (tmp_path / "new").replace(path)
        assert reader.rows() == new


def test_offline_runs_hold_the_curves_and_can_be_synchronised(tmp_path, monkeypatch):
    sweep_dir = tmp_path / "cpu"
    write_cell(sweep_dir, "a", range(300), "finished")
    write_cell(sweep_dir, "b", range(120), "failed")
    write_cell(sweep_dir, "c", range(50), tail='{"step": 5')
    assert mirror_once(sweep_dir, ["a", "b", "c"]) == [
        f"W&B: 3 runs not uploaded (no API key); `python scripts/sync.py runs={sweep_dir}` uploads what is kept"
    ]
    # The job of c was killed, and a second one brings it to its end: one folder holds the whole run.
    write_cell(sweep_dir, "c", range(200), "finished")
    mirror_once(sweep_dir, ["c"])
    folders = list((sweep_dir / "wandb").glob("offline-run-*"))
    files = {file.run.display_name: file for folder in folders for file in [read_run(next(folder.glob("*.wandb")))]}
    assert len(folders) == len(files) == 3
    for cell, count, exit_code in [("a", 300, 0), ("b", 120, 1), ("c", 200, 0)]:
        file = files[cell]
        assert columns(file.history, "_step") == [(10 * i,) for i in range(count)]
        for row, expected in zip(file.history, rows(range(count)), strict=True):
            assert {key: row[key] for key in expected} == expected
        assert file.exit_code == exit_code
    about = files["a"].run
    assert (about.run_id, about.display_name, about.run_group) == ("id-a", "a", "cpu")
    assert (about.job_type, list(about.tags), about.project) == ("cell", ["gpt", "wsd"], "scaling")
    config = files["a"].config
    assert config["model"] == {"width": 64}
    assert (config["tokens"], config["params_total"], config["cell"]) == (1000448, 115000, "a")
    assert files["a"].summary["loss"] == 4.5
    assert files["a"].summary["tokens"] == 1000448  # the run table's, not the curve's last
    assert files["b"].summary["error"] == "RuntimeError: out of luck"
    assert files["a"].metrics == {"tokens": "", "flops": "", "*": "tokens"}
    with WandbServer() as server:
        account = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        command = [sys.executable, "-m", "wandb", "sync", *map(str, folders)]
        subprocess.run(command, env=os.environ | account, cwd=tmp_path, check=True, capture_output=True, timeout=60)
        assert {name: len(run.history) for name, run in server.runs.items()} == {
            "id-a": 300, "id-b": 120, "id-c": 200
        }  # fmt: skip


def test_online_every_cell_is_one_live_run(tmp_path, server):
    write_cell(tmp_path, "a", range(100))
    write_cell(tmp_path, "b", range(60), "finished")
    with tracking.start(TrackingConfig(), tmp_path, ["b", "a", "never"]):
        wait_until(lambda: "id-a" in server.runs and server.run("id-b").state == "finished")
        assert server.run("id-a").state == "running"
        write_cell(tmp_path, "a", range(150), "diverged")
    group = f"{server.url}/me/scaling/groups/{tmp_path.name}"
    assert tracking.wait(tmp_path, 120) == [
        f"W&B: 2 runs at {group}",
        "W&B: 1 run not mirrored (the job ended before it); the local files are complete",
    ]
    assert sorted(server.runs) == ["id-a", "id-b"]
    for name, count in [("id-a", 150), ("id-b", 60)]:
        run = server.run(name)
        assert columns(run.history, "_step", "tokens", "flops") == [(10 * i, 10240 * i, 6e9 * i) for i in range(count)]
        assert (run.state, run.group, run.job_type) == ("finished", tmp_path.name, "cell")
        assert run.settings["tokens"] == 1000448
    assert server.run("id-a").summary["status"] == "diverged"
    assert server.run("id-b").summary["loss"] == 4.5


def test_a_mirror_takes_the_runs_that_it_is_told_of_later(tmp_path, server):
    write_cell(tmp_path, "a", range(30), "finished")
    with tracking.start(TrackingConfig(), tmp_path, ["a"]) as mirror:
        wait_until(lambda: "id-a" in server.runs and server.run("id-a").state == "finished")
        write_cell(tmp_path, "b", range(20))
        write_cell(tmp_path, "c", range(40), "finished")  # by another process, whose mirror has it
        mirror.follow("b")
        wait_until(lambda: "id-b" in server.runs)
        write_cell(tmp_path, "d", range(10), "finished")
        mirror.follow("d")  # and the end comes at once
        write_cell(tmp_path, "b", range(60), "finished")
    tracking.wait(tmp_path, 120)
    assert sorted(server.runs) == ["id-a", "id-b", "id-d"]
    assert [len(server.run(f"id-{name}").history) for name in "abd"] == [30, 60, 10]
    assert {last_words(tmp_path)[name][0] for name in "abd"} == {"uploaded"}


def test_a_killed_job_is_sent_as_far_as_it_came_and_goes_on_without_doubled_rows(tmp_path, server):
    write_cell(tmp_path, "a", range(100), tail='{"step": 10')
    script = f"""
import pathlib, time
from harness import tracking
mirror = tracking.start(tracking.TrackingConfig(), pathlib.Path({str(tmp_path)!r}), ["a"])
print("started", flush=True)
time.sleep(60)
"""
    job = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert job.stdout is not None and job.stdout.readline() == b"started\n"
    wait_until(lambda: "id-a" in server.runs)  # or the next mirror may come first, and sends all of it alone
    job.send_signal(signal.SIGKILL)
    job.wait()
    # The next attempt begins at its checkpoint, before the rows that were already sent.
    write_cell(tmp_path, "a", range(80))
    with tracking.start(TrackingConfig(), tmp_path, ["a"]):
        wait_until(lambda: server.run("id-a").exit_code == 1)
        assert len(server.run("id-a").history) in (80, 100)
        wait_until(lambda: server.run("id-a").state == "running")
        write_cell(tmp_path, "a", range(160), "finished")
    tracking.wait(tmp_path, 120)
    run = server.run("id-a")
    assert columns(run.history, "_step", "tokens") == [(10 * i, 10240 * i) for i in range(160)]
    assert (run.state, run.exit_code, run.summary["loss"]) == ("finished", 0, 4.5)


def test_a_mirror_that_dies_is_told(tmp_path, monkeypatch):
    write_cell(tmp_path, "a", range(3), "finished")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    mirror_once(tmp_path, ["a"])
    wait_until(lambda: len(read_log(tmp_path)) == 2)
    assert tracking.wait(tmp_path, 5) == [
        "W&B: 1 run not mirrored (the mirror ended with status 1); the local files are complete"
    ]
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    (message,) = mirror_once(tmp_path, ["a"])
    assert message.startswith("W&B: 1 run not mirrored (the mirror could not be started: [Errno 2]")


def test_a_job_of_slurm_waits_for_its_mirrors_which_would_end_with_it(tmp_path, server, monkeypatch):
    for name in ("a", "b"):
        write_cell(tmp_path, name, range(3), "finished")
        with tracking.start(TrackingConfig(), tmp_path, [name]):
            pass
    assert last_words(tmp_path)["b"][0] == "started"
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")  # of somebody's job, from which this was started
    slurm.end_mirrors()
    assert last_words(tmp_path)["b"][0] == "started"
    monkeypatch.setattr(slurm, "_in_job", False)
    slurm.begin_job()
    slurm.end_mirrors()
    assert [last_words(tmp_path)[name][0] for name in ("a", "b")] == ["uploaded"] * 2


def test_a_mirror_goes_on_at_the_notice_of_a_time_limit(tmp_path, server):
    write_cell(tmp_path, "a", range(3), "finished")
    with tracking.start(TrackingConfig(), tmp_path, ["a"]) as mirror:
        wait_until(lambda: ignores(mirror.pid, signal.SIGUSR2))
        os.kill(mirror.pid, signal.SIGUSR2)
    tracking.wait(tmp_path, 120)
    assert last_words(tmp_path)["a"][0] == "uploaded"


def ignores(pid: int, number: int) -> bool:
    (mask,) = re.findall(r"SigIgn:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(mask, 16) >> (number - 1) & 1)
