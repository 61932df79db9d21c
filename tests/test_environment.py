"""What a script says where its Python lacks the package or a module that it needs, and make where no wheel fits it."""

import gc
import importlib
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import harness.sweep
from harness.commands import run_script
from harness.sweep.compose import set_environment

ROOT = Path(__file__).parents[1]
OF_ANY_PYTHON = ("check_environment.py", "check_python.py", "set_up.py")
SCRIPTS = sorted({path.name for path in (ROOT / "scripts").glob("*.py")} - set(OF_ANY_PYTHON))


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
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_without_its_packages_ends_in_one_sentence(tmp_path, flags, script):
    """-S: without site-packages; -P: without the script's own folder."""
    command = [sys.executable, *flags, str(ROOT / "scripts" / script), "plan", "+sweep=cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {sys.executable} has no module ")


def test_what_is_imported_is_not_searched_for_garbage_and_what_follows_is(check, monkeypatch):
    monkeypatch.delitem(sys.modules, "check_environment")
    gc.enable()
    import check_environment  # noqa: F401

    assert not gc.isenabled()
    set_environment()  # as every worker does
    assert gc.isenabled()
    gc.disable()
    monkeypatch.setattr(sys, "argv", ["fit.py"])
    with pytest.raises(SystemExit) as ended:
        run_script(lambda arguments: 3 + gc.isenabled(), "fit")
    assert ended.value.code == 4


@pytest.mark.parametrize("worker", [True, False])
def test_a_worker_of_a_pool_does_not_search_what_it_imports_either(monkeypatch, worker):
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: worker or None)
    gc.enable()
    importlib.reload(harness.sweep)
    assert gc.isenabled() == (not worker)
    set_environment()
    assert gc.isenabled()


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("4", "4")])
def test_a_script_has_one_thread_of_openblas_unless_it_is_told_otherwise(check, monkeypatch, given, expected):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", given or "")
    if given is None:
        monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    monkeypatch.delitem(sys.modules, "check_environment")
    import check_environment  # noqa: F401

    assert os.environ["OPENBLAS_NUM_THREADS"] == expected


BEGUN = f"import os, signal, sys; sys.path.append({str(ROOT / 'scripts')!r}); import check_environment\n"


@pytest.mark.parametrize("code", ["os.kill(os.getpid(), signal.SIGINT)", "try: os.kill(os.getpid(), signal.SIGINT)\n"
                                  "except BaseException: print('swallowed')\nos.read(0, 1)"])  # fmt: skip
def test_ctrl_c_while_a_script_is_imported_is_one_line(tmp_path, code):
    path = tmp_path / "script.py"
    path.write_text(BEGUN + code)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, stdin=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "interrupted; the same command goes on from here\n"


@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict", "latin-1", "cp1252", "utf-8"])
def test_a_letter_that_a_terminal_has_not_is_replaced(encoding):
    code = BEGUN + "from rich.console import Console; print('\u00b1 \u2211'); Console().print('\u2211 \u2500')"
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    codec = encoding.partition(":")[0]
    assert done.stdout == "\u00b1 \u2211\n\u2211 \u2500\n".encode(codec, errors="replace")


@pytest.mark.parametrize("columns", ["0", "-1", "\u00b2", "", "9" * 5000])
def test_a_width_that_is_none_loses_no_line(columns):
    code = BEGUN + "from rich.console import Console; Console().print('whole')"
    environment = os.environ | {"COLUMNS": columns, "LINES": columns}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "whole\n", "")


def test_a_fault_of_ours_keeps_its_traceback(check, monkeypatch, capsys):
    monkeypatch.setattr(check.os, "_exit", lambda status: pytest.fail("it left"))
    for error in (ModuleNotFoundError("No module named 'harness.x'", name="harness.x"), KeyError("x")):
        check.hook(type(error), error, None)
        assert type(error).__name__ in capsys.readouterr().err


@pytest.mark.parametrize(
    ("version", "system", "machine", "said"),
    [
        ((3, 9, 6), "darwin", "arm64", " is Python 3.9, and 3.10 to 3.14 is needed: install one, and name it as in "
         "make sweep PYTHON=python3.13"),
        ((3, 15, 0), "linux", "x86_64", " is Python 3.15, and 3.10 to 3.14 is needed: install one, "),
        ((3, 12, 1), "darwin", "x86_64", " is Python 3.12 for Intel's processors, for which PyTorch has no wheels on a "
         "Mac; Apple's take one for arm64: install one, and name it as in make sweep PYTHON=python3.13"),
        ((3, 10, 0), "darwin", "arm64", None),
        ((3, 14, 2), "linux", "x86_64", None),
    ],
)  # fmt: skip
def test_a_python_without_wheels_is_named_before_it_is_used(monkeypatch, version, system, machine, said):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from check_python import sentence

    found = sentence(version, system, machine, "/usr/bin/python3")
    assert found is None if said is None else found.startswith(f"/usr/bin/python3{said}")


def test_make_asks_before_it_sets_up(tmp_path):
    """As with the python3 of a Mac's command line tools."""
    (tmp_path / "scripts").mkdir()
    for name in ("Makefile", "pyproject.toml", "scripts/check_python.py", "scripts/set_up.py"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    old = tmp_path / "python3.9"
    old.write_text(
        f"#!/bin/sh\n[ \"$1\" = -m ] && exit 9\nexec {sys.executable} -c \"import sys; sys.version_info = (3, 9, 6); "
        'sys.argv = sys.argv[1:]; sys.path.insert(0, \'scripts\'); exec(open(sys.argv[0]).read())" "$@"\n'
    )
    old.chmod(0o755)
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # not below make test
    command = ["make", "sweep", f"PYTHON={old}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=alone)
    assert done.returncode == 2 and done.stdout == ""
    assert re.match(r"error: \S+ is Python 3.9, and 3.10 to 3.14 is needed", done.stderr)
    assert not (tmp_path / ".venv").exists()
