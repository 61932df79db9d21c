"""Finds the best settings of training at each params and tokens, what others cost there, and their power laws.

    python scripts/tune.py runs=outputs/tune                      a sweep with several settings of each shape
    python scripts/tune.py runs=their.csv settings=lr,batch_size
    python scripts/tune.py runs=their.csv 'rules={lr: [1.797,-0.713,0.307]}'     what lr = 1.797 N^-0.713 D^0.307 costs

Keys are given as key=value.
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
    config = tune_config(arguments)
    for path in sources(config.runs):
        renew_table(Path(path))
    found, path = write_tuned(config), output_path(config)
    write_minima(found, path)
    print(*lines(found.to_dict(), config.verbose), sep="\n")
    print(f"written to {path}, its figure to {path.with_suffix('.svg')}")
    return 0


if __name__ == "__main__":
    run_script(main, "tune")
