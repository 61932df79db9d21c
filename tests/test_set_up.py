"""How make's environment comes to be, with a package index of one file."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "set_up.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """An environment that works."""
    folder = tmp_path_factory.mktemp("made")
    venv.create(folder / ".venv", symlinks=True)
    with_pip(folder)
    return folder


def with_pip(folder: Path) -> None:
    """A pip that notes what it is asked for, takes a moment, and needs no index."""
    (site,) = (folder / ".venv" / "lib").glob("python3*/site-packages")
    (site / "pip.py").write_text(
        "import sys, time\ntime.sleep(.2)\nif __name__ == '__main__': open('asked', 'a').write(f'{sys.argv[-1]}\\n')\n"
    )


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    os.utime(tmp_path / "pyproject.toml", (1, 1))
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import set_up

    def make(command, **more):
        assert command[1:3] == ["-m", "venv"] and not (tmp_path / ".venv").exists()
        venv.create(".venv", symlinks=True)
        with_pip(tmp_path)
        return 0

    call = subprocess.call
    monkeypatch.setattr(subprocess, "call", lambda words, **more: (make if "venv" in words else call)(words, **more))
    return tmp_path, set_up


def half(folder):
    venv.create(folder, symlinks=True)  # as far as ensurepip


def orphaned(folder):
    half(folder)
    (folder / "bin" / "python").unlink()
    (folder / "bin" / "python").symlink_to("/nowhere/python3")


def old(folder):
    half(folder)
    (folder / "bin" / "python").unlink()
    (folder / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")  # of the comparison of versions
    (folder / "bin" / "python").chmod(0o755)


def begun(folder):
    (folder / "bin").mkdir(parents=True)


@pytest.mark.parametrize("left", [half, orphaned, old, begun, None], ids=["half", "orphaned", "old", "begun", "none"])
def test_what_does_not_work_is_made_again(project, left):
    folder, set_up = project
    if left:
        left(folder / ".venv")
        if left is not begun:
            (folder / ".venv" / "installed").touch()  # said to be done, even
    assert set_up.main(".venv/tested", ".[dev]") == 0
    assert set_up.usable(".venv/bin/python") and (folder / "asked").read_text() == ".[dev]\n"
    assert (folder / ".venv" / "installed").exists() and (folder / ".venv" / "tested").exists()
    assert set_up.main(".venv/tested", ".[dev]") == 0 and (folder / "asked").read_text() == ".[dev]\n"


def test_what_make_did_not_make_is_kept(project, capsys):
    folder, set_up = project
    (folder / "shared").mkdir()
    (folder / ".venv").symlink_to("shared")
    assert set_up.main(".venv/installed", ".") == 2
    (folder / ".venv").unlink()
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "notes.txt").touch()
    assert set_up.main(".venv/installed", ".") == 2
    assert (folder / ".venv" / "notes.txt").exists()
    assert (
        capsys.readouterr().err.splitlines()
        == ["error: .venv is no environment that works, and none that make made: move it away"] * 2
    )


def test_a_python_that_is_too_old_is_one_sentence(project, monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert project[1].main(".venv/installed", ".") == 2
    said = capsys.readouterr().err
    assert "is Python 3.9, and 3.10 to 3.14 is needed: install one, and name it as in make sweep PYTHON=" in said


def test_two_at_once_install_once(made, tmp_path):
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    (tmp_path / "pyproject.toml").touch()
    os.utime(tmp_path / "pyproject.toml", (1, 1))
    command = [sys.executable, str(SCRIPT), ".venv/installed", "."]
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert (tmp_path / "asked").read_text() == ".\n"
    waited, installed = "another make sets up .venv: waiting for it\n", "installing the package and its dependencies\n"
    assert sorted(said) == [waited, installed]
