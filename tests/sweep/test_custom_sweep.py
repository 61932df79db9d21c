"""Sweeps of models and optimizers that a user wrote: identity, workers, kills, refusals, and what is recorded."""

import csv
import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from joblib.externals.loky import get_reusable_executor

from harness.errors import UserError
from harness.grid import make_trunks
from harness.model.source import load
from harness.records import SweepFolder, read_record
from harness.sweep.axes import settings_of
from harness.sweep.compose import compose_sweep
from harness.sweep.machines import plan_elsewhere
from harness.sweep.run import train
from harness.training.checkpoint import load_model
from harness.training.device import Device
from harness.training.memory import memory_of, needed_bytes
from harness.training.trainer import Trainer
from harness.training.worker import run_trunk

ROOT = Path(__file__).parents[2]
CPU = Device(torch.device("cpu"), "float32", False)
NAMES = (f"swept_{number}" for number in itertools.count())
MODEL = """
import torch
import {name}_part

class Model(torch.nn.Module):
    def __init__(self, config, vocab_size, gate=1):
        super().__init__()
        self.embedding = torch.nn.Embedding(vocab_size, config.width)
        self.head = torch.nn.Linear(config.width, vocab_size, bias=False)

    def forward(self, tokens):
        return self.head(self.embedding(tokens))
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a model of two files into the working folder; its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])

    def one(text: str = MODEL, part: str = "") -> str:
        name = next(NAMES)
        Path(f"{name}.py").write_text(text.replace("{name}", name))
        Path(f"{name}_part.py").write_text(part)
        return name

    return one


def name_of(compose, *arguments: str) -> str:
    return make_trunks(compose("tokens=1e6", *arguments), 100, "0", "float32")[0].name


def test_an_identity_has_the_sources_and_the_arguments(write, compose):
    name = write()
    custom = ["model=custom", f"model.target={name}:Model"]
    first = name_of(compose, *custom)
    assert first == name_of(compose, *custom, "save_model=true")
    others = [name_of(compose, *custom, "model.args.gate=2"), name_of(compose, *custom, "model.args.gate=3")]
    # the same text under another name, and under that name with other text in the second file
    for text, part in ((MODEL, ""), (MODEL, "x = 1\n")):
        other = write(text, part)
        others.append(name_of(compose, "model=custom", f"model.target={other}:Model"))
    assert len({first, *others}) == 5
    Path(f"{name}_part.py").write_text("y = 2\n")
    assert name_of(compose, *custom) == first  # what this process has imported
    load.cache_clear()
    assert name_of(compose, *custom) != first


def test_arguments_are_settings_and_axes(write, compose):
    name = write()
    custom = ["model=custom", f"model.target={name}:Model"]
    job = compose("tokens=1e6", *custom, "model.args.gate=2", "+model.args.more=[1,2]", "model.args.of.it=x")
    assert job.model.args == {"gate": 2, "more": [1, 2], "of": {"it": "x"}}
    assert settings_of({"model": {"target": "a:B", "args": {"gate": 2}}}, "", "")["model.args"] == {"gate": 2}
    sweep = compose_sweep(["-m", "tokens=1e6", "tracking=none", *custom, "model.args.gate=1,2"])
    assert [label["model.args.gate"] for label in sweep.labels] == [1, 2]
    with pytest.raises(UserError, match="there is no key model.arg.gate; did you mean model"):
        compose("tokens=1e6", *custom, "model.arg.gate=2")
    with pytest.raises(UserError, match="model.target goes with model=custom alone"):
        compose("tokens=1e6", f"model.target={name}:Model")
    with pytest.raises(UserError, match="model.target has no value: name what you wrote"):
        compose("tokens=1e6", "model=custom")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("class Model", "class Other"), "has no Model"),
        (("vocab_size, gate=1", "vocab_size, gate"), "cannot be built"),
        (("return self.head(self", "return (self"), r"returns \(1, 32, 16\) for tokens \(1, 32\): return logits"),
        (("self.embedding(tokens))", "self.embedding(tokens).flip(1))"), "is not causal"),
        (("self.embedding(tokens))", "self.embedding(tokens) / 0)"), "is not finite before any training"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_training(write, corpus, tmp_path, change, said):
    name = write(MODEL.replace(*change))
    custom = [*corpus, "model=custom", f"model.target={name}:Model", "tracking=none", "tokens=1e4"]
    with pytest.raises(UserError, match=f"^model.target={name}:Model.* {said}"):
        train([*custom, f"output_directory={tmp_path}/outputs"])
    assert not Path("outputs").exists()


def test_it_is_a_command_s_one_sentence_and_status_2(tmp_path, corpus):
    command = [sys.executable, f"{ROOT}/scripts/train.py", *corpus, "tokens=1e4", "tracking=none", "model=custom"]
    done = subprocess.run([*command, "model.target=no.such:Model"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "error: model.target=no.such:Model cannot be imported (ModuleNotFoundError: No module named 'no'): run from "
        "the folder that holds no.such\n"
    )


def test_memory_and_other_machines_have_an_estimate(write, compose):
    """Two tables of 100 x 64; autograd keeps of a token its id and target, and 64 + 100 floats around the head."""
    name = write()
    custom = ["model=custom", f"model.target={name}:Model", "model.parametrization=sp"]
    (trunk,) = make_trunks(compose("tokens=1e6", *custom), 100, "0", "float32")
    most = 512 * 2**20 + 16 * 12_800 + 512 * (16 + 4 * 164 + 8 * 100)
    assert most - 512 * 16 <= trunk.training_bytes <= most + 512 * 16
    assert memory_of([trunk]) == {trunk.name: trunk.training_bytes}
    gpu = Device(torch.device("cuda:0"), "bf16", True, 80 * 10**9)
    assert needed_bytes(trunk, gpu, 1024) > needed_bytes(trunk, gpu, 512)
    sweep = compose_sweep(["tokens=1e6", "tracking=none", "tokenizer=bytes", *custom])
    plan, _ = plan_elsewhere(sweep, "4090")
    assert plan.wall_seconds and plan.wall_seconds > 0


DROPOUT = """
from torch.nn.functional import dropout
from .parallel import Model as Parallel

class Model(Parallel):
    def forward(self, tokens_BT):
        x_BTD = dropout(self.embedding(tokens_BT), .1, self.training)
        return self.head(self.norm(self.blocks(x_BTD)))
"""
SIGN = """
import torch

class Sign(torch.optim.SGD):
    def __init__(self, groups):
        super().__init__(groups, lr=0, momentum=.9, nesterov=True)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Overrides for the two examples and an optimizer in a working folder that is not the checkout, as an axis."""
    name = next(NAMES)
    shutil.copytree(ROOT / "examples", tmp_path / name, ignore=shutil.ignore_patterns("*.ipynb", "__pycache__"))
    (tmp_path / name / "optimizers.py").write_text(SIGN)
    (tmp_path / name / "dropout.py").write_text(DROPOUT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    targets = [f"{name}.parallel:Model", f"{name}.recurrence:Model"]
    return targets, [
        "model=custom", "model.head_size=8", "optimizer=custom", f"optimizer.target={name}.optimizers:Sign",
        "optimizer.batch_tokens.value=256", "optimizer.warmup_tokens.value=1024", "optimizer.learning_rate.value=.05",
    ]  # fmt: skip


def run(trunk, store, folder: SweepFolder) -> None:
    run_trunk(trunk, store, CPU, folder, "test")


def test_a_killed_process_goes_on_to_the_same_bits(mine, corpus, compose, store, tmp_path):
    targets, others = mine
    for target in (*targets, targets[0].replace("parallel", "dropout")):
        job = compose(*corpus, *others, f"model.target={target}", "tokens=[15e3,60e3]")
        (trunk,) = make_trunks(job, store.vocab_size, store.recipe_hash, "float32")
        folders = [SweepFolder(tmp_path / f"{name} {target}") for name in ("whole", "killed")]
        run(trunk, store, folders[0])
        process = multiprocessing.get_context("fork").Process(target=run, args=(trunk, store, folders[1]))
        process.start()
        deadline = time.monotonic() + 100
        while not list(folders[1].path.glob("trunks/*/step-*.pt")):
            assert process.is_alive() and time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert len(list(folders[1].path.glob("runs/*/run.json"))) < 2
        run(trunk, store, folders[1])
        losses = [[read_record(folder.run(cell.name))["loss"] for cell in trunk.cells] for folder in folders]
        assert losses[0] == losses[1] and None not in losses[0]


def test_no_graph_replays_what_may_count_in_python(mine, corpus, compose, store):
    targets, others = mine
    found = []
    for more in ([], others[:2] + [f"model.target={targets[0]}"], others[2:4]):
        (trunk,) = make_trunks(compose(*corpus, *more, "tokens=1e4"), store.vocab_size, "0", "float32")
        found.append(Trainer(trunk, store, CPU).replays)
    assert found == [True, True, False]


def test_every_worker_trains_what_lies_in_the_working_folder(mine, corpus, tmp_path):
    """Its cells end under the names that the launcher gave them, by the hash of the same sources."""
    targets, others = mine
    get_reusable_executor().shutdown(wait=True)  # that of another test works in another folder
    axis = f"model.target={','.join(targets)}"
    arguments = [*corpus, *others, axis, "tokens=[1e4,2e4]", "tracking=none", "name=swept", "save_model=true"]
    assert train(["-m", *arguments]) == 0
    with open("outputs/swept/runs.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == 4 * ["finished"]
    optimizer = others[3].partition("=")[2]
    assert {(row["family"], row["model.target"], row["optimizer"]) for row in rows} == {
        (target, target, optimizer) for target in targets
    }
    path = Path("outputs/swept/runs") / rows[0]["cell"]
    config = yaml.safe_load((path / "config.yaml").read_text())
    assert config["job"]["model"]["target"] == rows[0]["family"] and config["tags"][0] == "custom"
    kept = load_model(path / "model.pt")
    assert kept(torch.zeros(1, 32, dtype=torch.int64)).shape == (1, 32, int(rows[0]["vocab_size"]))
