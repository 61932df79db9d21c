"""Writes report.html, figures/ and paper/ of a sweep: python scripts/report.py runs=outputs/cpu"""

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
    run_script(main)
