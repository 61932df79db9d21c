"""What the targets of the Makefile run: the script of that name, or for sweep those that follow it too.

SWEEP=smoke HARNESS_ARGS="name=mine" python scripts/make.py fit
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
import check_environment  # noqa: F401

# isort: split
from harness.commands import run_script
from harness.sweep.target import after_training, before_training, claims, command, folder_of_claims

SCRIPTS = Path("scripts")


def script(name: str, arguments: list[str]) -> list[str]:
    return [sys.executable, str(SCRIPTS / f"{name}.py"), *arguments]


def train_fit_report(arguments: list[str]) -> int:
    """Trains a sweep, before it the model that writes its text, then fits or compares and reports it in its own folder;
    the status of the last that failed."""
    from harness.sweep.run import train_sweep  # imports torch

    if (before := before_training(arguments)) and (status := subprocess.call(script("train", before))):
        return status
    status, folder = train_sweep(arguments)
    following, lines = after_training(folder) if folder else ([], [])
    for line in lines:
        print(line)
    for name, own in following:
        sys.stdout.flush()
        signal.signal(signal.SIGINT, lambda number, frame: None)  # Ctrl-C reaches the script too, which says so
        ended = subprocess.call(script(name, own))
        if ended in (130, -signal.SIGINT):
            return 130
        status = ended or status
    return status


def tune_report(arguments: list[str]) -> int:
    """Tunes a sweep, draws its minima and reports what was trained for that."""
    from harness.report.minima import write_minima
    from harness.sweep.tune import asked, tune_sweep  # imports torch

    what = asked(arguments)
    assert what is not None
    status, folder, tuned = tune_sweep(what)
    if folder and tuned:
        write_minima(tuned, folder / "tune.json")
    sys.stdout.flush()
    return max(status, subprocess.call(script("report", [f"runs={folder}"])) if folder and not status else 0)


def every_claim(arguments: list[str]) -> int:
    """Trains, measures and reports each sweep that states a claim, and writes the page of all; the highest status."""
    from harness.report.claims import write_claims

    folder, status = folder_of_claims(arguments), 0
    for name in claims():
        print(f"{name}: make sweep SWEEP={name}", flush=True)
        ended = subprocess.call([sys.executable, str(SCRIPTS / "make.py"), "sweep"], env={**os.environ, "SWEEP": name})
        if ended < 0 or ended > 128:
            return ended if ended > 0 else 128 - ended
        status = max(status, ended)
        print(f"claims: {write_claims(folder, claims())}", flush=True)
    return status


def main(arguments: list[str]) -> int:
    (target,) = arguments
    asked = command(target, os.environ)
    if target not in FOLLOWED or {"-h", "--help"} & set(asked):
        os.execv(sys.executable, script("train" if target == "sweep" else target, asked))
    # what a cluster's job of detach=true is to run
    sys.argv = [str(SCRIPTS / ("train.py" if target == "sweep" else "tune.py")), *asked]
    run_script(FOLLOWED[target], "train")


# What is followed by other scripts, in the folder that was trained.
FOLLOWED = {"sweep": train_fit_report, "tune": tune_report, "claims": every_claim}


if __name__ == "__main__":
    run_script(main, "train")
