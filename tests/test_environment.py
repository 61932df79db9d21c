"""What a script says where its Python lacks the package, or a module that it needs."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def check(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    import check_environment

    return check_environment


@pytest.mark.parametrize(
    ("venv", "prefix", "way"),
    [
        (False, "/usr", "`make -C 'a b' .venv/installed` sets up an environment, then run "
         "'a b/.venv/bin/python' 'a b/scripts/fit.py'"),
        (True, "/usr", "run 'a b/.venv/bin/python' 'a b/scripts/fit.py'"),
        (True, "a b/.venv", "`rm -f 'a b/.venv'/installed; make -C 'a b' .venv/installed` completes it"),
    ],
)  # fmt: skip
def test_the_sentence_names_the_way_out(check, monkeypatch, tmp_path, venv, prefix, way):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", prefix)
    python = tmp_path / "a b" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    if venv:
        python.touch()
    said = check.sentence("torch", str(tmp_path / "a b"), "a b/scripts/fit.py")
    assert said == f"error: {sys.executable} has no module torch: {way}"


@pytest.mark.parametrize("flags", [["-E", "-S"], ["-E", "-S", "-P"][: 3 if sys.version_info >= (3, 11) else 2]])
def test_a_script_without_its_packages_ends_in_one_sentence(tmp_path, flags):
    """-S: without site-packages; -P: without the script's own folder."""
    command = [sys.executable, *flags, str(ROOT / "scripts" / "plan.py"), "-m", "+sweep=cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {sys.executable} has no module ")


def test_a_fault_of_ours_keeps_its_traceback(check, monkeypatch, capsys):
    monkeypatch.setattr(check.os, "_exit", lambda status: pytest.fail("it left"))
    for error in (ModuleNotFoundError("No module named 'harness.x'", name="harness.x"), KeyError("x")):
        check.hook(type(error), error, None)
        assert type(error).__name__ in capsys.readouterr().err
