import gc
import os
import signal
import weakref

import pytest
import torch
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import settings
from omegaconf import OmegaConf
from untraced import untrace

from harness.config import TrainConfig
from harness.data.corpus import DataConfig
from harness.data.synthetic import write_corpus
from harness.data.tokenizer import TokenizerConfig
from harness.data.tokens import TokenStore, prepare
from harness.laws.solving import solver
from harness.sweep.compose import compose_sweep
from harness.training.trainer import Trainer

gc.disable()  # until all tests are imported
torch.set_num_threads(1)  # for what a module sets up too
untrace(ConfigLoaderImpl, "load_configuration")
untrace(ConfigLoaderImpl, "list_groups")
untrace(OverridesParser, "parse_overrides")
for name in ("missing_keys", "resolve", "to_object", "to_yaml", "to_container", "update", "merge", "create"):
    untrace(OmegaConf, name)
untrace(Trainer, "take", kind=lambda trainer, *_, **__: weakref.ref(trainer))
untrace(solver, "_descend", kind=lambda problem, *_, **__: (problem.form.name, problem.loss.kind))


def pytest_collection_finish():
    """What is imported by then stays, and is not searched for garbage again and again."""
    gc.freeze()
    gc.enable()


# pytest --hypothesis-profile=long: what the suite tries with hundreds of examples, with thousands.
settings.register_profile("long", max_examples=10_000)


@pytest.fixture(autouse=True)
def as_at_the_start():
    """What the test before may have left of its process: signals that are ignored, as by a launcher that was stopped or
    under nohup, which every process that a test starts would ignore too; small numbers that are taken for 0; garbage
    that is not collected; threads, which at these sizes only wait for each other."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    torch.set_flush_denormal(False)
    torch.set_num_threads(1)
    gc.enable()


@pytest.fixture
def compose(tmp_path):
    """Composes the one job of a command line, its files under tmp_path and its tracking off."""

    def one(*arguments: str) -> TrainConfig:
        sweep = compose_sweep([f"output_directory={tmp_path}/outputs", "tracking=none", *arguments])
        assert len(sweep.jobs) == 1
        return sweep.jobs[0]

    return one


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> list[str]:
    """Overrides that select a small corpus of known entropy, in bytes, and models small enough for a test."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    path = folder / f"letters-{os.getpid()}.jsonl"
    write_corpus(path, documents=400, letters=255, seed=0)
    return [
        "data=files", f"data.path={path}", "data.validation_tokens=4000", f"data.store_directory={folder}/stores",
        "tokenizer=bytes", "model.seq_len=32", "model.head_size=8", "model.width=16", "model.depth=1",
        "optimizer.batch_tokens.value=256", "optimizer.warmup_tokens.value=1024", "device=cpu",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def store(corpus) -> TokenStore:
    keys = dict(argument.split("=") for argument in corpus)
    data = DataConfig(
        source="files",
        path=keys["data.path"],
        validation_tokens=4000,
        store_directory=keys["data.store_directory"],
    )
    return prepare(data, TokenizerConfig(kind="bytes"), 90_000)
