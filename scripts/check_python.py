"""Whether there are wheels for a Python, before .venv is made of it. Written for older ones too, as a Mac's own."""

import os
import re

PROJECT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "pyproject.toml")


def sentence(version, system, machine, executable, project=PROJECT):
    """What to do where the package cannot be installed, or None."""
    with open(project) as file:
        bounds = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', file.read())
    first, end = int(bounds.group(1)), int(bounds.group(2))
    found = f"{executable} is Python {version[0]}.{version[1]}"
    way = f": install one, and name it as in make sweep PYTHON=python3.{end - 2}"
    if not (3, first) <= tuple(version[:2]) < (3, end):
        return f"{found}, and 3.{first} to 3.{end - 1} is needed{way}"
    if system == "darwin" and machine == "x86_64":
        why = "for Intel's processors, for which PyTorch has no wheels on a Mac; Apple's take one for arm64"
        return f"{found} {why}{way}"
    return None

