"""Removes the checkpoints of a sweep, and keeps its results.

    python scripts/clean.py runs=outputs/cpu                      one sweep
    make clean SWEEP=cpu                                          the same
    make clean SWEEP=cpu ARGS="name=cpu-s1"                       one that was given a name of its own

Keys are given as key=value.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
import check_environment  # noqa: F401

# isort: split
from harness.commands import compose_config, run_script
from harness.errors import UserError
from harness.records import remove_checkpoints


def main(arguments: list[str]) -> int:
    runs = compose_config("clean", arguments).runs
    if not runs:
        raise UserError("runs is not given: name a sweep's folder, as in runs=outputs/cpu")
    remove_checkpoints(Path(str(runs)))
    print(f"{runs}: checkpoints removed")
    return 0


if __name__ == "__main__":
    run_script(main, "clean")
