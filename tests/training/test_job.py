import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from harness.grid import make_trunks
from harness.records import COLUMNS, SweepFolder, read_record
from harness.training.checkpoint import load_model
from harness.training.device import Device
from harness.training.evaluation import evaluate
from harness.training.worker import run_trunk

CPU = Device(torch.device("cpu"), "float32", False)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def train(compose, corpus, store, tmp_path):
    """Trains the trunks of one job and gives their records by requested budget."""

    def run(*arguments: str, folder: str = "a") -> tuple[SweepFolder, list[dict]]:
        sweep = SweepFolder(tmp_path / folder)
        trunks = make_trunks(compose(*corpus, *arguments), store.vocab_size, store.recipe_hash, "float32")
        for trunk in trunks:
            run_trunk(trunk, store, CPU, sweep, "test")
        return sweep, [read_record(sweep.run(cell.name)) for trunk in trunks for cell in trunk.cells]

    return run


def losses(records: list[dict]) -> list[float]:
    return [record["loss"] for record in records]


def test_two_runs_give_the_same_bits_and_another_seed_others(train):
    _, first = train("tokens=[10e3,20e3]")
    _, again = train("tokens=[10e3,20e3]", folder="b")
    _, other = train("tokens=[10e3,20e3]", "seed=1", folder="c")
    assert losses(first) == losses(again)
    assert losses(first) != losses(other)
    assert first[0]["loss"] > first[1]["loss"]


def test_a_budget_shares_its_trunk_and_ends_as_if_alone(train):
    _, both = train("tokens=[10e3,20e3]")
    _, alone = train("tokens=20e3", folder="b")
    assert both[1]["loss"] == alone[0]["loss"]


def test_a_budget_added_later_keeps_what_is_there(train):
    sweep, before = train("tokens=[10e3,20e3]")
    stamps = {path: path.stat().st_mtime_ns for path in sweep.path.glob("runs/*/run.json")}
    _, after = train("tokens=[10e3,20e3,30e3]")
    assert losses(after)[:2] == losses(before)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert losses(train("tokens=30e3", folder="b")[1]) == losses(after)[2:]


def test_cosine_trains_each_budget_by_itself(train):
    _, records = train("tokens=[10e3,20e3]", "schedule=cosine")
    assert [record["status"] for record in records] == ["finished", "finished"]
    assert records[0]["trunk"] != records[1]["trunk"]
    assert records[0]["schedule"] == "cosine"


def test_a_record_has_every_number_of_its_cell(train):
    _, (record,) = train("tokens=20e3", "model.parametrization=sp")
    assert set(COLUMNS) <= set(record)
    # 78 steps of 256 tokens; bytes and one end of text make a vocabulary of 257
    assert (record["steps"], record["tokens"], record["batch_tokens"]) == (78, 19968, 256)
    assert (record["vocab_size"], record["width"], record["depth"], record["heads"]) == (257, 16, 1, 2)
    # one block: 12 * 16^2 in matrices, gains of 16 + 16 + 8 + 8, a final gain of 16; head and table of 257 * 16
    assert record["params_non_embedding"] == 3072 + 48 + 16
    assert record["params_with_head"] == 3136 + 4112
    assert record["params_total"] == 3136 + 2 * 4112
    # 6 * (12 * 16^2 + 257 * 16) for the matrices and 12 * 32 * 16 for attention, each per token
    assert record["flops"] == 19968 * (6 * (3072 + 4112) + 12 * 32 * 16)
    assert record["flops_6nd"] == 6 * 7248 * 19968
    assert record["unique_tokens"] == 19968 and record["epochs"] == 1.0
    assert 0 < record["flops_utilization"] < 1
    assert record["error"] is None


def test_a_curve_is_the_trunk_s_prefix_and_the_cooldown(train):
    sweep, records = train("tokens=[10240,20480]")
    texts = [(sweep.run(record["cell"]) / "curve.jsonl").read_text() for record in records]
    curves = [[json.loads(line) for line in text.splitlines()] for text in texts]
    for curve, (steps, branch) in zip(curves, [(40, 32), (80, 64)], strict=True):
        assert [row["step"] for row in curve] == list(range(1, steps + 1))
        assert [row["phase"] for row in curve] == ["trunk"] * branch + ["cooldown"] * (steps - branch)
        assert all(row["tokens"] == row["step"] * 256 for row in curve)
    assert curves[0][:32] == curves[1][:32]


def test_a_kept_model_has_the_recorded_loss(train, store):
    sweep, (record,) = train("tokens=10e3", "save_model=true")
    model = load_model(sweep.run(record["cell"]) / "model.pt")
    assert evaluate(model, store.evaluated(32), 32, store.bytes_per_token, CPU).loss == record["loss"]


def test_a_diverging_cell_is_recorded_and_final(train):
    sweep, records = train("tokens=[10e3,20e3]", "optimizer.learning_rate.value=1e4")
    assert [record["status"] for record in records] == ["diverged", "diverged"]
    assert all(record["error"] for record in records)
    stamps = [path.stat().st_mtime_ns for path in sorted(sweep.path.glob("runs/*/run.json"))]
    train("tokens=[10e3,20e3]", "optimizer.learning_rate.value=1e4")
    assert [path.stat().st_mtime_ns for path in sorted(sweep.path.glob("runs/*/run.json"))] == stamps


def test_a_failing_cell_is_recorded_with_its_error_and_tried_again(train, compose, corpus, store, tmp_path):
    (trunk,) = make_trunks(compose(*corpus, "tokens=[10e3,20e3]"), store.vocab_size, store.recipe_hash, "float32")
    obstacle = SweepFolder(tmp_path / "a").run(trunk.cells[1].name) / "checkpoint.pt"
    obstacle.mkdir(parents=True)
    _, (first, second) = train("tokens=[10e3,20e3]")
    assert first["status"] == "finished"
    assert second["status"] == "failed" and "IsADirectoryError" in second["error"]
    assert "Traceback" in (obstacle.parent / "error.txt").read_text()
    obstacle.rmdir()
    _, records = train("tokens=[10e3,20e3]")
    assert [record["status"] for record in records] == ["finished", "finished"]
    assert losses(records) == losses(train("tokens=[10e3,20e3]", folder="b")[1])


def test_a_file_that_cannot_be_written_is_recorded_in_one_sentence(train, compose, corpus, store, tmp_path):
    (trunk,) = make_trunks(compose(*corpus, "tokens=10e3"), store.vocab_size, store.recipe_hash, "float32")
    model = SweepFolder(tmp_path / "a").run(trunk.cells[0].name) / "model.pt"
    model.mkdir(parents=True)
    _, (record,) = train("tokens=10e3", "save_model=true")
    assert record["status"] == "failed"
    assert record["error"].startswith(f"cannot write {model} (Is a directory): choose")


def test_a_killed_process_goes_on_to_the_same_bits(corpus, tmp_path):
    def command(name: str) -> list[str]:
        return [
            sys.executable, "scripts/train.py", *corpus, "tokens=[15e3,30e3,60e3]", "tracking=none",
            f"output_directory={tmp_path}", f"name={name}",
        ]  # fmt: skip

    def table(name: str) -> list[str]:
        with open(tmp_path / name / "runs.csv") as file:
            return [row["loss"] for row in csv.DictReader(file)]

    process = subprocess.Popen(command("killed"), cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 100
    while not list(tmp_path.glob("killed/runs/*/run.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(list(tmp_path.glob("killed/runs/*/run.json"))) < 3
    for name in ("killed", "whole"):
        subprocess.run(command(name), cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=100)
    assert len(table("whole")) == 3
    assert table("killed") == table("whole")
    config = yaml.safe_load(next(tmp_path.glob("whole/runs/*/config.yaml")).read_text())
    assert config["sweep"] == "whole" and config["derived"]["batch_tokens"] == 256
