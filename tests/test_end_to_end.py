"""The whole line on a tiny grid: corpus, tokens, plan, training, run table, W&B, laws, report."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from harness.data.synthetic import write_corpus

ROOT = Path(__file__).parents[1]


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, f"scripts/{name}.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def common(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("whole")
    write_corpus(folder / "letters.jsonl", documents=400, letters=255, seed=0)
    return [
        "data=files", f"data.path={folder}/letters.jsonl", "data.validation_tokens=4000", "tokenizer=bytes",
        f"data.store_directory={folder}/stores", f"output_directory={folder}/outputs", "model.seq_len=32",
        "model.head_size=8", "optimizer.batch_tokens.value=256", "optimizer.warmup_tokens.value=1024", "device=cpu",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def sweep(common) -> Path:
    """A grid of 4 shapes, one of them with a second seed, and 3 budgets, trained, fitted and reported."""
    done = script(
        "train", "-m", *common, "name=tiny", "shape=w32-d1,w24-d2,w24-d1,w16-d1,w16-d1-s1", "tokens=[10e3,20e3,40e3]"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.sub(r"measuring the pace of .*\n", "", done.stderr) == ""  # a line every ten seconds
    folder = Path(dict(argument.split("=") for argument in common)["output_directory"]) / "tiny"
    assert "15 cells in 5 trunks" in done.stdout
    assert "15 of 15 cells finished" in done.stdout
    for name in ("fit", "report"):
        done = script(name, f"runs={folder}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
    return folder


def test_the_table_has_every_cell_with_its_loss(sweep):
    table = pd.read_csv(sweep / "runs.csv")
    assert len(table) == 15
    assert set(table["status"]) == {"finished"}
    assert sorted(set(table["tokens"])) == [9984, 19968, 39936]  # 39, 78 and 156 steps of 256 tokens
    means = table.groupby("tokens")["loss"].mean()
    assert means.is_monotonic_decreasing
    repeats = table[(table["width"] == 16) & (table["depth"] == 1)]
    assert len(set(repeats["loss"])) == 6


def test_the_fit_and_the_report_are_there(sweep):
    fit = json.loads((sweep / "fit.json").read_text())
    assert fit["source"]["rows_used"] == 15
    assert set(fit["fit"]["estimates"]) == {"E", "A", "B", "alpha", "beta", "a"}
    assert {holdout["name"] for holdout in fit["holdouts"]} == {"largest_shape", "most_compute"}
    page = (sweep / "report.html").read_text()
    assert "tiny" in page and "vega" in page
    assert {path.suffix for path in (sweep / "figures").iterdir()} == {".png", ".svg"}


def test_a_law_is_not_stated_after_the_results(sweep, common):
    done = script(
        "train", "-m", *common, "name=tiny", "shape=w32-d1,w24-d2,w24-d1,w16-d1,w16-d1-s1", "tokens=[10e3,20e3,40e3]",
        "law=chinchilla_coupled",
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: law=chinchilla_coupled is not chinchilla, which ")
    assert "\nlaw: chinchilla\n" in (sweep / "sweep.yaml").read_text()


def test_every_cell_is_a_run_of_w_and_b_kept_offline(sweep):
    runs = list((sweep / "wandb").glob("offline-run-*/*.wandb"))
    assert len(runs) == 15 + 2  # the cells, the plan and the fit
    assert all(path.stat().st_size > 1000 for path in runs)


def test_the_same_command_again_trains_nothing(sweep, common):
    stamps = {path: path.stat().st_mtime_ns for path in sweep.glob("runs/*/run.json")}
    done = script(
        "train", "-m", *common, "name=tiny", "shape=w32-d1,w24-d2,w24-d1,w16-d1,w16-d1-s1", "tokens=[10e3,20e3,40e3]"
    )
    assert done.returncode == 0
    assert "15 of them done" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_a_diverging_cell_stops_no_other_and_the_status_says_so(common):
    done = script(
        "train", "-m", *common, "name=mixed", "shape=w16-d1", "tokens=20e3", "tracking=none",
        "optimizer.learning_rate.value=.01,1e4",
    )  # fmt: skip
    assert done.returncode == 1
    assert "1 of 2 cells finished" in done.stdout
    assert "diverged: w16-d1-t20k-s0-" in done.stdout
    folder = Path(dict(argument.split("=") for argument in common)["output_directory"]) / "mixed"
    status = script("status", f"runs={folder}")
    assert status.returncode == 0
    assert "1 diverged" in status.stdout


def test_a_plan_warns_of_a_grid_that_cannot_tell(common):
    done = script(
        "plan", "-m", *common, "tracking=none", "shape=w8-d1,w16-d1,w16-d2,w24-d1,w24-d2,w32-d1", "tokens_per_param=4",
        "data.repeat=true",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning: every cell has 3.99 to 4.02 tokens a parameter" in done.stdout
    assert "6 trunks" in done.stdout and "core-minutes" in done.stdout


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("train", ["tokens=1e6", "model.widht=3"], "error: model.widht=3: there is no key model.widht"),
        ("plan", ["-m", "+sweep=none"], "error: sweep=none is not there: choose cpu"),
        ("fit", ["runs=none.csv"], "none.csv"),
        ("report", ["runs=none"], "none"),
        ("status", ["runs=none"], "error: none holds no sweep.yaml"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(name, arguments, said):
    done = script(name, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
