"""Writes report.html, figures/ and paper/ of a sweep.

    python scripts/report.py runs=outputs/cpu                     a sweep, with the fit that scripts/fit.py left
    python scripts/report.py runs=outputs/cpu-s1                  one that is not fitted, or not whole, too
    python scripts/report.py runs=wandb://entity/project/group    from the run table that W&B holds

Keys are given as key=value.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
import check_environment  # noqa: F401

# isort: split
from harness.commands import run_script
from harness.report.page import write_report
from harness.report.settings import report_config
from harness.tracking import log_fit


def main(arguments: list[str]) -> int:
    runs = report_config(arguments)
    print(f"report: {write_report(runs)}")
    for sentence in log_fit(runs):
        print(sentence)
    return 0


if __name__ == "__main__":
    run_script(main, "report")
