"""Makes .venv and installs the package in it: python3 scripts/set_up.py STAMP REQUIREMENT, from the project's root.

Runs on any Python from 3.6 on, with what comes with it. STAMP is a file that is newer than pyproject.toml once that
is done.
"""

import os
import platform
import shutil
import subprocess
import sys

import check_python

LEAST = (3, 10)
VENV = ".venv"
PYTHON = os.path.join(VENV, "bin", "python")


def main(stamp, requirement):
    unfit = check_python.sentence(sys.version_info, sys.platform, platform.machine(), sys.executable)
    if unfit:
        return fail(unfit)
    with open("pyproject.toml") as project:
        lock(project)
        if done(stamp):
            return 0
        if not usable(PYTHON):
            if not removable(VENV):
                return fail(f"{VENV} is no environment that works, and none that make made: move it away")
            print("setting up .venv (once; a few minutes)", flush=True)
            if os.path.isdir(VENV):
                shutil.rmtree(VENV)
            if subprocess.call([sys.executable, "-m", "venv", VENV]) or not usable(PYTHON):
                return fail(
                    f"{sys.executable} -m venv makes no environment with pip: install its venv and ensurepip (Debian: "
                    "python3-venv), or give another Python, as in make PYTHON=python3.11"
                )
        print("installing the package and its dependencies", flush=True)
        pip = [PYTHON, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--editable", requirement]
        if subprocess.call(pip):
            return fail(f"pip could not install {requirement}, as it says above; the same command goes on")
        for path in {stamp, os.path.join(VENV, "installed")}:
            with open(path, "w"):
                pass
    return 0


def fail(sentence):
    sys.stderr.write(f"error: {sentence}\n")
    return 2


def lock(file):
    """Waits for another make that sets up the same environment; where files cannot be locked, for none."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("another make sets up .venv: waiting for it", flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        pass


def done(stamp):
    try:
        return os.path.getmtime(stamp) >= os.path.getmtime("pyproject.toml") and usable(PYTHON)
    except OSError:
        return False


def usable(python):
    """Whether it runs, is new enough, and has pip: all that a half-made, an old or an orphaned environment lacks."""
    code = f"import pip, sys; sys.exit(sys.version_info < {LEAST!r})"
    try:
        return subprocess.call([python, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def removable(folder):
    """Whether it is not there, or what `python -m venv` makes, or the folders it begins with."""
    if os.path.islink(folder):
        return False
    if not os.path.exists(folder) or os.path.exists(os.path.join(folder, "pyvenv.cfg")):
        return True
    return not any(files for _, _, files in os.walk(folder))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
