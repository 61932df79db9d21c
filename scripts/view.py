"""Saves a view of a sweep in its W&B project, and a W&B report of its fit; made anew in place when it is repeated.

    python scripts/view.py runs=outputs/cpu                       in the project in which it was trained
    python scripts/view.py runs=outputs/cpu project=scaling-laws  in another one, where its runs were sent to
    make view SWEEP=cpu                                           the first, by name

Keys are given as key=value.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
import check_environment  # noqa: F401

# isort: split
from harness.commands import compose_config, run_script
from harness.errors import UserError
from harness.tracking.sync import make_view


def main(arguments: list[str]) -> int:
    config = compose_config("view", arguments)
    if not config.runs:
        raise UserError("runs is not given: name a sweep's folder, as in runs=outputs/cpu")
    sentence, saved = make_view(Path(str(config.runs)), config.project, config.entity)
    print(sentence)
    return 0 if saved else 1


if __name__ == "__main__":
    run_script(main, "view")
