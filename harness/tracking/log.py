"""tracking.log: what became of each run of a sweep, one line an event."""

import contextlib
import time
from pathlib import Path

# Runs that are no cell.
PLAN, FIT, COMPARE, FORECAST, VIEW = "plan", "fit", "compare", "forecast", "view"
# run.json in the summary of a cell, sweep.yaml in the configuration of the plan: whole, as texts.
RECORD, SWEEP_YAML = "run_record", "sweep_yaml"


def say(sweep_dir: Path, run: str, what: str, detail: str) -> None:
    """One line for tracking.log: started, uploaded, offline, untrained or broken, and where or why."""
    line = "\t".join([time.strftime("%Y-%m-%dT%H:%M:%S"), run, what, " ".join(detail.split())])
    with contextlib.suppress(OSError), open(sweep_dir / "tracking.log", "a") as file:
        file.write(line + "\n")


def read_log(sweep_dir: Path) -> list[tuple[str, str, str, str]]:
    """The lines of tracking.log as (time, run, what, detail)."""
    try:
        lines = (sweep_dir / "tracking.log").read_text().splitlines()
    except OSError:
        return []
    split = [line.split("\t") for line in lines]
    return [(words[0], words[1], words[2], words[3]) for words in split if len(words) == 4]


def last_words(sweep_dir: Path) -> dict[str, tuple[str, str]]:
    """(what, detail) of the last line of every run."""
    return {run: (what, detail) for _, run, what, detail in read_log(sweep_dir)}
