"""Refusals and failures of a whole command, without a process of its own."""

import pytest

from harness.errors import UserError
from harness.sweep.compose import compose_sweep
from harness.sweep.launch import launch_jobs
from harness.sweep.run import train


def test_a_refused_command_leaves_no_folder(tmp_path):
    with pytest.raises(UserError, match="none.txt matches no"):
        train(["tokens=1e6", "data=files", "data.path=none.txt", f"output_directory={tmp_path}/outputs"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("output_directory=/dev/null/x", "^cannot write /dev/null/x"),
        ("law=chinchila", "^law=chinchila is not known: choose chinchilla, .* or broken_flops$"),
        ("slots=0", "^slots=0 is no number of jobs"),
    ],
)
def test_what_a_sweep_cannot_do_is_refused(tmp_path, argument, said):
    with pytest.raises(UserError, match=said):
        train(["tokens=1e6", f"output_directory={tmp_path}/outputs", argument])
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
    assert (
        launch_jobs(compose_sweep(arguments), [0], slots=1, at_once=1, started=0.0)
        == "NotADirectoryError: [Errno 20] Not a directory: '/dev/null/x'"
    )
    assert capsys.readouterr() == ("", "")
