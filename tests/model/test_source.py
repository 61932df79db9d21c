"""Which sources stand behind a name: those of its package, and of what else lies below the working folder."""

import hashlib
import itertools
import sys
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.model.source import check_target, load, sources

NAMES = (f"theirs_{number}" for number in itertools.count())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


def put(path: Path, text: str = "") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()


def test_all_that_is_imported_below_the_working_folder(folder):
    name = next(NAMES)
    package = folder / name
    expected = {
        name: put(package / "__init__.py", "VERSION = 1\n"),
        f"{name}.models": put(
            package / "models.py", f"import torch, {name}_flat\nfrom . import parts\nfrom .deep.er import f\n"
        ),
        f"{name}.parts": put(package / "parts.py", "from harness.model import gpt\nimport json\n"),
        # a folder without __init__.py is a package too
        f"{name}.deep.er": put(package / "deep" / "er.py", f"def f():\n    from {name} import late, VERSION\n"),
        f"{name}.late": put(package / "late.py", f"import importlib\nimportlib.import_module('{name}.last')\n"),
        f"{name}.last": put(package / "last.py", f"import {name}.models\n"),
        f"{name}_flat": put(folder / f"{name}_flat.py", "import gone_since\n"),
    }
    put(package / "unused.py")
    put(folder / ".venv" / "lib" / "site-packages" / f"{name}_other.py")
    assert sources(f"{name}.models") == expected
    assert not any(part.startswith(name) for part in sys.modules)
    put(package / "last.py", "changed = True\n")
    changed = sources(f"{name}.models")
    assert {key for key in expected if changed[key] != expected[key]} == {f"{name}.last"}


def test_of_an_installed_package_all_of_its_own(folder, monkeypatch):
    name, elsewhere = next(NAMES), folder / "elsewhere"
    expected = {
        name: put(elsewhere / name / "__init__.py", f"from {name}.inner import x\nimport {name}_needs"),
        f"{name}.inner": put(elsewhere / name / "inner.py", "x = 1\n"),
    }
    put(elsewhere / f"{name}_needs.py")
    (folder / "here").mkdir()
    monkeypatch.chdir(folder / "here")
    monkeypatch.setattr(sys, "path", [str(elsewhere), *sys.path])
    assert sources(name) == expected


def test_of_what_is_installed_the_version(folder):
    import torch

    assert sources("torch.optim") == {"torch": torch.__version__}


def test_an_import_s_own_error_names_its_line(folder):
    name = next(NAMES)
    put(folder / f"{name}.py", "x = 1\nraise RuntimeError('two\\nlines')\n")
    with pytest.raises(UserError) as error:
        load("model", f"{name}:M")
    assert str(error.value) == (
        f"model.target={name}:M cannot be imported (RuntimeError: two lines, in {name}.py line 2)"
    )
    with pytest.raises(UserError, match=r"\(ModuleNotFoundError: No module named 'no_such'\): run from the folder"):
        load("optimizer", "no_such.part:M")


def test_a_name_in_a_class_is_found(folder):
    name = next(NAMES)
    put(folder / f"{name}.py", "class A:\n    @staticmethod\n    def make(): return 7\n")
    assert load("model", f"{name}:A.make").value() == 7


@pytest.mark.parametrize(
    ("name", "target", "args", "said"),
    [
        ("gpt", "mine:M", {}, "model.target goes with model=custom alone: add that, or leave model.target out"),
        ("gpt", None, {"gate": 2}, "model.args goes with model=custom alone"),
        ("custom", None, {}, "model.target has no value: name what you wrote"),
        ("custom", "mine.M", {}, "model.target=mine.M names nothing: write package.module:Name"),
        ("custom", "mine/models.py:M", {}, "names nothing"),
    ],
)
def test_a_target_and_its_entry_go_together(name, target, args, said):
    with pytest.raises(UserError, match=said):
        check_target("model", name, target, args)
