"""A tuning that is killed in the middle of a round and issued again ends in the fit that it would have had."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from harness.records import SweepFolder, is_final
from harness.sweep.tune import asked, tune_sweep

ROOT = Path(__file__).parents[2]


def tuning(corpus: list[str], folder: Path) -> list[str]:
    """The command line of a tiny tuning of rates and batches, in one process."""
    return [
        "-m", *corpus, "tracking=none", "hydra/launcher=basic", "name=tiny", f"output_directory={folder}", "rounds=1",
        "tokens=[1024,2048]", "shape=w8-d1,w16-d1", "optimizer.learning_rate.value=0.02",
        "optimizer.batch_tokens.value=64", "optimizer.warmup_tokens.value=0", "optimizer.weight_decay.value=0",
    ]  # fmt: skip


def told(folder: Path) -> tuple[dict, dict]:
    """What tune.json and tune.yaml say, less where they lie and when their runs were trained."""
    content = json.loads((folder / "tune.json").read_text())
    assert content.pop("source")["rows"] == 36
    return content, yaml.safe_load((folder / "tune.yaml").read_text())


def finished(folder: Path) -> int:
    return sum(is_final(path) for path in SweepFolder(folder).path.glob("runs/*"))


def test_a_tuning_that_was_killed_ends_in_the_same_fit(corpus, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "scripts/tune.py", *tuning(corpus, killed)], cwd=ROOT,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
    deadline = time.monotonic() + 600
    while finished(killed / "tiny-tune") < 2:  # of 36
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = finished(killed / "tiny-tune")
    assert 2 <= before < 36 and not (killed / "tiny-tune" / "tune.json").exists()
    for folder in (whole, killed):
        status, _, found = tune_sweep(asked(tuning(corpus, folder)))
        assert status == 0 and found is not None
    assert told(killed / "tiny-tune") == told(whole / "tiny-tune")
