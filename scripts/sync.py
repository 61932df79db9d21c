"""Sends to W&B what was kept offline or is missing of a sweep.

    python scripts/sync.py runs=outputs/cpu                       what W&B does not have yet
    python scripts/sync.py runs=outputs/cpu project=scaling-laws  all of it, to another project
    make sync SWEEP=cpu                                           the first, by name

Keys are given as key=value.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
import check_environment  # noqa: F401

# isort: split
from harness.commands import compose_config, run_script
from harness.errors import UserError
from harness.tracking.sync import sync


def main(arguments: list[str]) -> int:
    config = compose_config("sync", arguments)
    if not config.runs:
        raise UserError("runs is not given: name a sweep's folder, as in runs=outputs/cpu")
    sentences, complete = sync(Path(str(config.runs)), config.project, config.entity)
    for sentence in sentences:
        print(sentence)
    return 0 if complete else 1


if __name__ == "__main__":
    run_script(main, "sync")
