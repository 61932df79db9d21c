"""Compares variants of training: how much more compute a baseline needs to reach the losses of each.

    python scripts/compare.py runs=outputs/schedule_check         a sweep that holds all variants
    python scripts/compare.py runs=outputs/cpu,outputs/muon column=optimizer baseline=adamw
    make compare SWEEP=schedule_check

Keys are given as key=value.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
import check_environment  # noqa: F401

# isort: split
from harness.commands import run_script
from harness.laws.compare import output_path, write_comparison
from harness.laws.settings import compare_config
from harness.laws.table.pool import sources
from harness.records import renew_table
from harness.tracking import log_comparison


def main(arguments: list[str]) -> int:
    config = compare_config(arguments)
    for path in sources(config.runs):
        renew_table(Path(path))
    print(write_comparison(config))
    path = output_path(config)
    print(f"written to {path}")
    for sentence in log_comparison(Path(config.runs)) if path == Path(config.runs) / "compare.json" else ():
        print(sentence)
    return 0


if __name__ == "__main__":
    run_script(main, "compare")
