"""What is said of a sweep while nothing trains yet, and as soon as nothing trains any more."""

import os
import subprocess
import sys

import pytest
import yaml

from harness.errors import UserError
from harness.files import is_alive, process_mark
from harness.records import remove_checkpoints
from harness.sweep.run import train
from harness.sweep.snapshot import snapshot
from harness.sweep.stage import preparing, stages

HERE = os.uname().nodename


def ended() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_is_prepared_is_told_until_it_is_done(tmp_path):
    with preparing(tmp_path) as say:
        assert stages(tmp_path) == []
        say("building the token store")
        (line,) = stages(tmp_path)
        assert line == f"{tmp_path}: building the token store, for 0 s now; nothing trains before that is done"
        say("measuring")
        assert [": measuring, for 0 s now" in line for line in stages(tmp_path)] == [True]
    assert stages(tmp_path) == [] and not os.listdir(tmp_path)


def test_a_killed_launcher_is_told_from_one_at_work_and_forgotten_by_the_next(tmp_path):
    (tmp_path / ".preparing-x").write_text(f"{ended()} {HERE}\nmeasuring\n")
    (line,) = stages(tmp_path)
    assert line.endswith(": measuring, when the process was killed; the same command goes on from here")
    (tmp_path / ".preparing-y").write_text("1 another-machine\nmeasuring\n")  # of which nothing is known
    with preparing(tmp_path):
        assert sorted(os.listdir(tmp_path)) == [".preparing-y"]


@pytest.mark.parametrize(
    ("mark", "alive"),
    [
        (process_mark, True),
        (f"1 {HERE}", True),  # of another user
        ("1 another-machine", True),
        ("12345", True),  # as older versions left it
        (lambda: f"{ended()} {HERE}", False),
        (None, False),
    ],
)
def test_a_mark_is_of_a_process_that_works(tmp_path, mark, alive):
    if mark is not None:
        (tmp_path / "running").write_text(mark() if callable(mark) else mark)
    assert is_alive(tmp_path / "running") == alive


@pytest.fixture
def half_trained(tmp_path, corpus):
    """A trunk of two cells, the second of them as a signal leaves it, and where its process leaves its mark."""
    arguments = [*corpus, "tracking=none", "tokens=[2e3,4e3]", "optimizer.warmup_tokens.value=256", "name=x"]
    assert train([*arguments, f"output_directory={tmp_path}"]) == 0
    folder = tmp_path / "x"
    run = folder / "runs" / yaml.safe_load((folder / "sweep.yaml").read_text())["cells"][1]["cell"]
    (run / "run.json").unlink()
    return folder, run / "running"


def test_a_cell_runs_while_its_process_does(half_trained):
    folder, mark = half_trained
    for left, status in ((None, "waiting"), (f"{ended()} {HERE}", "waiting"), (process_mark(), "running")):
        if left:
            mark.write_text(left)
        assert [cell.status for cell in snapshot(folder).cells] == ["finished", status]
    with pytest.raises(UserError, match="x is being trained, and a job that is killed needs its checkpoints"):
        remove_checkpoints(folder)


def test_status_says_what_a_sweep_without_a_plan_is_doing(tmp_path):
    with preparing(tmp_path) as say:
        say("building the token store")
        done = subprocess.run([sys.executable, "scripts/status.py", f"runs={tmp_path}"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path}: building the token store, for ")
