"""What a script says where its Python lacks the package."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Distributions whose module has another name.
MODULES = {
    "hydra-core": "hydra", "hydra-joblib-launcher": "hydra_plugins.hydra_joblib_launcher",
    "vl-convert-python": "vl_convert", "pillow": "PIL",
}  # fmt: skip


@pytest.fixture
def check(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import check_environment

    return check_environment


def test_every_dependency_is_looked_for(check):
    declared = importlib.metadata.requires("scaling-harness") or []
    names = [re.split(r"[<>=!~ ;]", line)[0] for line in declared if "extra ==" not in line]
    assert len(names) == 19
    assert list(check.NEEDED) == ["harness", *(MODULES.get(name, name) for name in names)]


@pytest.mark.parametrize(
    ("python", "executable", "way"),
    [
        (False, "/usr/bin/python3", "`make -C project .venv/installed` sets up an environment, then run "
         "project/.venv/bin/python project/scripts/fit.py"),
        (True, "/usr/bin/python3", "run project/.venv/bin/python project/scripts/fit.py"),
        (True, "project/.venv/bin/python", "`rm -f project/.venv/installed; make -C project .venv/installed` "
         "completes it"),
    ],
)  # fmt: skip
def test_the_sentence_names_the_way_out(check, monkeypatch, tmp_path, python, executable, way):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "project" / ".venv" / "bin"
    folder.mkdir(parents=True)
    if python:
        (folder / "python").touch()
    said = check.sentence("torch", str(tmp_path / "project"), executable, "project/scripts/fit.py")
    assert said == f"error: {executable} has no module torch: {way}"


def test_a_script_without_its_packages_ends_in_one_sentence(tmp_path):
    # -S: without site-packages
    command = [sys.executable, "-S", str(ROOT / "scripts" / "plan.py"), "-m", "+sweep=cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {sys.executable} has no module harness: ")
