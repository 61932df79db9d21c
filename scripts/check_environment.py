"""Imported first by every script: one sentence, and exit status 2, where this Python lacks a module.

Also one line at Ctrl-C while the rest is imported, and letters that a terminal has not are replaced. What is imported
is not searched for garbage, a seventh of the time that it takes.
"""

import gc
import os
import re
import shlex
import signal
import sys

INTERRUPTED = "interrupted; the same command goes on from here"


def sentence(module, root, script):
    """What to do about a missing module; root: the project's folder."""
    venv = os.path.relpath(os.path.join(root, ".venv"))
    python, setup = shlex.quote(f"{venv}/bin/python"), f"make -C {shlex.quote(os.path.relpath(root))} .venv/installed"
    if not os.path.exists(f"{venv}/bin/python"):
        way = f"`{setup}` sets up an environment, then run {python} {shlex.quote(script)}"
    elif os.path.realpath(sys.prefix) == os.path.realpath(venv):
        way = f"`rm -f {shlex.quote(venv)}/installed; {setup}` completes it"
    else:
        way = f"run {python} {shlex.quote(script)}"
    return f"error: {sys.executable} has no module {module}: {way}"


def hook(kind, error, trace):
    """sys.excepthook: a missing module that is none of ours is a matter of the environment."""
    module = getattr(error, "name", None) or ""
    if not issubclass(kind, ModuleNotFoundError) or module.startswith("harness."):
        sys.__excepthook__(kind, error, trace)
        return
    project = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.stdout.flush()
    sys.stderr.write(sentence(module, project, sys.argv[0]) + "\n")
    sys.stderr.flush()
    os._exit(2)  # the status of a hook is always 1


def leave(number, frame):
    """At a signal before there is anything to save: at once, since what is imported may swallow an exception."""
    if sys.modules["__main__"].__spec__ is None:  # else it is a worker, whose launcher says so
        os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(128 + number)


# rich prints nothing at all to a width of 0, which a terminal may have set.
for name in ("COLUMNS", "LINES"):
    if not re.fullmatch("[1-9][0-9]{0,4}", os.environ.get(name, "1")):
        del os.environ[name]
gc.disable()  # until harness.commands.collect_garbage
# The matrices of a fit are small: more threads wait for each other, busily, for minutes where others use the cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.excepthook = hook
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, leave)
for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")
