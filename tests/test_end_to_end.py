"""The whole line on a tiny grid: corpus, tokens, plan, training, run table, W&B, laws, report."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from sweep_files import KEY, assert_no_key, leave_account
from wandb_server import WandbServer

from harness.data.synthetic import write_corpus
from harness.errors import UserError
from harness.sweep.run import train
from harness.tracking import PLAN, wait

ROOT = Path(__file__).parents[1]


def script(name: str, *arguments: str, here: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / f"scripts/{name}.py", *arguments],
        cwd=here, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[WandbServer]:
    """Of W&B, with an account there."""
    with WandbServer() as server, pytest.MonkeyPatch.context() as patch:
        leave_account(patch, tmp_path_factory.mktemp("home"))
        patch.setenv("WANDB_BASE_URL", server.url)
        patch.setenv("WANDB_API_KEY", KEY)
        yield server
        assert server.unknown == []


@pytest.fixture(scope="module")
def common(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("whole")
    write_corpus(folder / "letters.jsonl", documents=400, letters=255, seed=0)
    return [
        "data=files", f"data.path={folder}/letters.jsonl", "data.validation_tokens=4000", "tokenizer=bytes",
        f"data.store_directory={folder}/stores", f"output_directory={folder}/outputs", "model.seq_len=32",
        "model.head_size=8", "optimizer.batch_tokens.value=256", "optimizer.warmup_tokens.value=1024", "device=cpu",
    ]  # fmt: skip


GRID = ("name=tiny", "shape=w32-d1,w24-d2,w24-d1,w16-d1,w16-d1-s1", "tokens=[10e3,20e3,40e3]")


@pytest.fixture(scope="module")
def sweep(common, server) -> Path:
    """A grid of 4 shapes, one of them with a second seed, and 3 budgets, trained, fitted, reported and mirrored."""
    done = script("train", "-m", *common, *GRID)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.sub(r"measuring the pace of .*\n", "", done.stderr) == ""  # a line every ten seconds
    folder = Path(dict(argument.split("=") for argument in common)["output_directory"]) / "tiny"
    assert "15 cells in 5 trunks" in done.stdout
    assert "15 of 15 cells finished" in done.stdout
    assert f"W&B: 15 runs at {server.url}/me/scaling/groups/tiny" in done.stdout
    told = done.stdout
    for name, more in (("fit", ["bootstrap=200"]), ("report", [])):
        done = script(name, f"runs={folder}", *more)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        told += done.stdout
    assert "W&B: the fit at" in done.stdout
    assert wait(folder, 180)
    assert_no_key(told.encode(), folder.parent)
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
    with pytest.raises(UserError, match="^law=chinchilla_coupled is not chinchilla, which "):
        train(["-m", *common, *GRID, "law=chinchilla_coupled"])
    assert "\nlaw: chinchilla\n" in (sweep / "sweep.yaml").read_text()


def test_every_cell_is_a_run_of_w_and_b(sweep, server):
    assert sorted(run.job_type for run in server.runs.values()) == ["cell"] * 15 + ["fit", PLAN]
    columns = ["width", "depth", "seed", "tokens", "steps", "batch_tokens", "learning_rate", "params_total", "flops"]
    for run in server.runs.values():  # what parallel coordinates and scatter plots can choose from
        if run.job_type == "cell":
            assert all(isinstance(run.settings[name], int | float) for name in columns)
            assert {"train_loss", "tokens", "flops"} <= set(run.history[0])
            # between the corpus's 1.75 bits a letter and a uniform guess of 256 bytes
            assert 1.213 < run.summary["loss"] < 5.546
    sent = repr([vars(run) for run in server.runs.values()] + [vars(each) for each in server.artifacts.values()])
    assert KEY not in sent


def test_it_comes_back_from_w_and_b_byte_for_byte_and_gives_the_same_fit(sweep, tmp_path):
    done = script("fit", "runs=wandb://me/scaling/tiny", "bootstrap=200", here=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "runs=outputs/wandb/me/scaling/tiny verbose=true`" in done.stdout.splitlines()[-1]
    back = tmp_path / "outputs/wandb/me/scaling/tiny"
    for name in ("runs.csv", "sweep.yaml"):
        assert (back / name).read_bytes() == (sweep / name).read_bytes()
    fits = [json.loads((folder / "fit.json").read_text()) for folder in (back, sweep)]
    assert fits[0]["fit"] == fits[1]["fit"]
    assert fits[0]["source"]["sha256"] == fits[1]["source"]["sha256"]
    done = script("report", "runs=wandb://me/scaling/tiny", here=tmp_path)
    there = "outputs/wandb/me/scaling/tiny/report.html"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"report: {there}\n", "")


def test_the_same_command_again_trains_nothing(sweep, common, capsys):
    stamps = {path: path.stat().st_mtime_ns for path in sweep.glob("runs/*/run.json")}
    assert train(["-m", *common, *GRID]) == 0
    assert "15 of them done" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_a_diverging_cell_stops_no_other_and_the_status_says_so(common, capsys):
    own = ["name=mixed", "shape=w16-d1", "tokens=20e3", "tracking=none", "optimizer.learning_rate.value=.01,1e4"]
    assert train(["-m", *common, *own]) == 1
    said = capsys.readouterr().out
    assert "1 of 2 cells finished" in said
    assert "diverged: w16-d1-t20k-s0-" in said
    folder = Path(dict(argument.split("=") for argument in common)["output_directory"]) / "mixed"
    status = script("status", f"runs={folder}")
    assert status.returncode == 0
    assert "1 diverged" in status.stdout


def test_a_plan_warns_of_a_grid_that_cannot_tell(common):
    done = script(
        "plan", "-m", *common, "tracking=none", "shape=w8-d1,w16-d1,w16-d2,w24-d1,w24-d2,w32-d1", "tokens_per_param=4",
        "data.repeat=true", "device=auto", "machine=4090",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning: every cell has 3.99 to 4.02 tokens a parameter" in done.stdout
    assert "6 trunks" in done.stdout and "GPU-minutes" in done.stdout


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("train", ["tokens=1e6", "model.widht=3"], "error: model.widht=3: there is no key model.widht"),
        ("plan", ["-m", "+sweep=none"], "error: sweep=none is not there: choose architecture, coordinates, cpu, "),
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
