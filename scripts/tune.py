"""Finds the best settings of training at each params and tokens, what others cost there, and their power laws.

    python scripts/tune.py -m +sweep=cpu                          trains settings around those of a sweep, then fits
    python scripts/tune.py runs=their.csv settings=lr,batch_size  fits those of any table, or of a sweep's folder
    python scripts/tune.py runs=their.csv 'rules={lr: [1.797,-0.713,0.307]}'     what lr = 1.797 N^-0.713 D^0.307 costs

Keys are given as key=value. A sweep that is tuned has those of scripts/train.py, and two more: plan=true says what
would be trained, rounds=3 how often what lies beyond an end is. The keys below are those of a fit.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
import check_environment  # noqa: F401

# isort: split
from harness.commands import run_script
from harness.laws.settings import tune_config
from harness.laws.table.pool import sources
from harness.laws.tune import lines, output_path, write_tuned
from harness.records import renew_table
from harness.report.minima import write_minima


def main(arguments: list[str]) -> int:
    if not any(argument.startswith("runs=") for argument in arguments):
        from harness.sweep.tune import asked, tune_sweep  # imports torch

        what = asked(arguments)
        if what is not None:
            status, folder, tuned = tune_sweep(what)
            if folder and tuned:
                write_minima(tuned, folder / "tune.json")
            return status
    config = tune_config(arguments)
    for path in sources(config.runs):
        renew_table(Path(path))
    found, said = write_tuned(config)
    write_minima(found, output_path(config))
    print(*lines(found.to_dict(), config.verbose), said, sep="\n")
    return 0


if __name__ == "__main__":
    run_script(main, "tune")
