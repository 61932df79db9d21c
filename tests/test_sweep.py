"""Refusals and failures of a whole command, without a process of its own."""

import pytest

from harness import sweep
from harness.errors import UserError
from harness.sweep import Grid, train


def test_a_refused_command_leaves_no_folder(tmp_path):
    with pytest.raises(UserError, match="none.txt matches no"):
        train(["tokens=1e6", "data=files", "data.path=none.txt", f"output_directory={tmp_path}/outputs"])
    assert not list(tmp_path.iterdir())


def test_a_sweep_of_another_schema_is_refused_and_kept(tmp_path):
    plan = tmp_path / "single" / "sweep.yaml"
    plan.parent.mkdir()
    plan.write_text("schema: 0")
    with pytest.raises(UserError, match="has schema 0"):
        train(["tokens=1e6", f"output_directory={tmp_path}"])
    assert plan.read_text() == "schema: 0"


def test_a_launcher_that_fails_is_one_line(tmp_path, capsys):
    arguments = [
        "-m", "tokens=1e6", f"output_directory={tmp_path}", "hydra.sweep.dir=/dev/null/x", "hydra/launcher=basic",
    ]  # fmt: skip
    grid: Grid = sweep.compose_grid(arguments)
    stopped = sweep.launch(grid, arguments)
    assert stopped == "NotADirectoryError: [Errno 20] Not a directory: '/dev/null/x'"
    assert capsys.readouterr() == ("", "")
