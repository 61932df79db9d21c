"""The jobs that a command line stands for, their token store and their trunks."""

import contextlib
import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import joblib
import torch
from hydra import compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from harness import __version__, slurm
from harness.arguments import quoted, settled
from harness.commands import collect_garbage, configuration, known_keys
from harness.config import TrainConfig, to_config
from harness.data.tokens import TokenStore, prepare
from harness.errors import UserError
from harness.files import homeless
from harness.grid import Trunk, check_distinct, check_memory, make_trunks
from harness.records import SweepFolder
from harness.sweep.axes import check_one_folder, merge_budgets, unsettled
from harness.sweep.corpora import check_corpora, check_tokenizers
from harness.sweep.grids import axes_of_grids, beside, composed_once, grids_of
from harness.sweep.sizes import of_size
from harness.sweep.texts import settled_corpora
from harness.sweep.variants import Label, axes_in, check_differ, label_of, naming, variants_of
from harness.training.device import gpus_of, memory_bytes, precision, resolve
from harness.training.gpus import most_jobs, seen, slots_a_gpu
from harness.training.machine import check_machine
from harness.training.memory import check_gpu_memory, needed_bytes
from harness.training.stores import Stores, key_of, store_of

# Libraries that draw their own progress or warn on the terminal are told not to, here and in every worker.
QUIET = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
}
# Shapes that follow each other in a process leave blocks of a GPU's memory that no tensor of the next one fits.
ALLOCATOR = "expandable_segments:True"


def set_environment() -> None:
    """That of this process and of every worker; what the user set of the allocator stays."""
    collect_garbage()  # of a worker
    os.environ.update(QUIET)
    if homeless():  # as in a container: caches have no other place
        os.environ.setdefault("HF_HOME", str(Path(".cache/huggingface").absolute()))
        os.environ.setdefault("LOGNAME", str(os.getuid()))
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # the first is read from 2.11 on
    if not any(name in os.environ for name in names):
        os.environ[names[tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11)]] = ALLOCATOR


@dataclass(frozen=True)
class Sweep:
    """The jobs that a command line stands for."""

    jobs: tuple[TrainConfig, ...]
    job_overrides: tuple[tuple[str, ...], ...]  # of each job, without Hydra's own
    overrides: tuple[str, ...]
    command: str
    multirun: bool
    slots: int | None  # how many jobs run at once; None: as many as this machine holds
    cluster: slurm.Launcher | None  # the launcher of jobs that outlive this process in a cluster's queue
    labels: tuple[Label, ...] = ()  # of each job: what tells it from others of its shape, seed and budgets

    @property
    def axes(self) -> list[str]:
        """The columns of what varies beside shape, seed and budgets."""
        return list(self.labels[0]) if self.labels else []

    @property
    def folder(self) -> SweepFolder:
        return SweepFolder(Path(self.jobs[0].output_directory) / self.jobs[0].name)


def compose_sweep(arguments: Sequence[str]) -> Sweep:
    """Composes and checks every job of a command line. Raises UserError."""
    with configuration():
        sweep = _composed(list(map(settled, arguments)))
    if sweep.jobs[0].detach and sweep.cluster is None:
        raise UserError("detach=true leaves a sweep to a cluster: add -m hydra/launcher=slurm, or leave it out")
    return sweep


def _composed(arguments: list[str]) -> Sweep:
    """compose_sweep of a command line that is settled; within a context in which Hydra composes."""
    asked = [quoted(argument) for argument in arguments if argument not in ("-m", "--multirun")]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    parsed = parser.parse_overrides(known_keys("train", asked))
    axes = [override.get_key_element() for override in parsed if override.is_sweep_override()]
    fixed = [override.input_line or "" for override in parsed if not override.is_sweep_override()]
    base = compose("train", fixed, return_hydra_config=True)
    if more := unsettled(base):
        return _composed([*arguments, *more])
    if base.sized is not None:
        return _composed([*arguments, *of_size(base, asked), "sized=null"])
    multirun = len(asked) < len(arguments) or base.hydra.mode == RunMode.MULTIRUN
    if axes and not multirun:
        raise UserError(f"{axes[0]} has several values: add -m to train them all")
    launcher = base.hydra.launcher
    cluster = None
    if multirun and launcher._target_.endswith("SlurmLauncher"):
        cluster = cast(slurm.Launcher, OmegaConf.to_container(launcher, resolve=True))
    lines = [line for line in asked if not line.lstrip("+~").startswith("hydra")]
    if multirun:
        lines = [f"{key}={value}" for key, value in (base.hydra.sweeper.params or {}).items()] + lines
    if cluster and base.device == "auto" and "device" not in axes:
        lines.append(f"device={slurm.device(cluster)}")
    on_gpus = cluster and (slurm.device(cluster) if base.device == "auto" else base.device).startswith("cuda")
    if on_gpus and "device" not in axes and base.precision == "auto" and "precision" not in axes:
        lines.append("precision=bf16")  # on every node alike, whatever its GPUs have
    batch, jobs, labels = _split(lines + settled_corpora(base, axes), base, fixed, parser, multirun)
    check_one_folder(jobs)
    if cluster:
        threads = max(job.threads * (1 if on_gpus else job.gpus) for job in jobs)
        busy = slots_a_task(cluster, jobs) * threads
        cluster = {**cluster, "cpus_per_task": slurm.cores(cluster, busy, bool(on_gpus))}
    slots = _slots(launcher, jobs, cluster) if multirun else 1
    command = shlex.join(["python", "scripts/train.py", *arguments])
    return Sweep(jobs, tuple(map(tuple, batch)), tuple(asked), command, multirun, slots, cluster, labels)


def _split(
    lines: Sequence[str], base: Any, fixed: Sequence[str], parser: OverridesParser, multirun: bool
) -> tuple[list[list[str]], tuple[TrainConfig, ...], tuple[Label, ...]]:
    """The jobs of a sweep's overrides, variant after variant: their own overrides, their configurations, their labels.

    base: the configuration that they share, of the overrides `fixed`.
    """
    grids = grids_of(base)
    axes = list(dict.fromkeys([*axes_in(beside(lines, []), parser), *axes_of_grids(grids)]))
    variants = variants_of(base, axes, parser)
    if variants and "variants={}" in ("".join(line.split()) for line in lines):
        raise UserError("variants={} leaves those of the file as they are: write variants=null for none of them")
    if variants and not multirun:
        raise UserError(f"variants names {', '.join(variants)}: add -m to train them all")
    if grids and not multirun:
        raise UserError("grids has several jobs: add -m to train them all")
    batch: list[list[str]] = []
    names: list[str | None] = []
    jobs: list[TrainConfig] = []

    def merged(own: Sequence[str]) -> list[list[str]]:
        overrides = parser.parse_overrides([*(beside(lines, own) if grids else lines), *own])
        return merge_budgets(BasicSweeper.split_arguments(overrides, None)[0])

    def composed(*products: Sequence[str]) -> tuple[list[list[str]], list[TrainConfig]]:
        of_each = [overrides for own in products for overrides in merged(own)]
        return of_each, list(map(to_config, composed_once(of_each, parser, base, fixed)))

    each: list[tuple[str | None, list[list[str]]]] = [(name, [own]) for name, own in variants.items()]
    for name, products in each or [(None, grids or [[]])]:
        with naming(name, products[0], without=lambda: composed([])) if name else contextlib.nullcontext():
            more, of_variant = composed(*products)
        for overrides, job in zip(more, of_variant, strict=True):
            if grids and job in jobs:  # of two grids that meet
                continue
            batch, jobs, names = [*batch, overrides], [*jobs, job], [*names, name]
    labels = tuple(
        label_of(overrides, job, axes, name) for overrides, job, name in zip(batch, jobs, names, strict=True)
    )
    check_differ(jobs, labels)
    given = [line for overrides in batch for line in overrides if line.lstrip("+").startswith("optimizer.rules=")]
    if given and all(job.optimizer.rules is None for job in jobs):
        raise UserError(f"{given[0]} is read by optimizer=tuned alone: add that, or leave it out")
    return batch, tuple(jobs), labels


def _slots(launcher: Any, jobs: Sequence[TrainConfig], cluster: slurm.Launcher | None) -> int | None:
    """How many jobs the configuration has run at once; None where that is left to the machine."""
    if "n_jobs" in launcher:  # joblib's, which says -1 where nobody set it
        asked = jobs[0].slots if jobs[0].slots != "auto" else launcher.n_jobs
        return int(asked) if int(asked) > 0 else None
    return min(len(jobs), launcher.get("array_parallelism", 1) * (slots_a_task(cluster, jobs) if cluster else 1))


def slots_a_task(cluster: slurm.Launcher, jobs: Sequence[TrainConfig]) -> int:
    """As many jobs as a task of a cluster runs at once, if its node's GPUs have the memory, which only it sees."""
    if jobs[0].slots != "auto":
        return int(jobs[0].slots)
    if any(job.device.startswith("cuda") for job in jobs):
        gpus = 1 if ":" in jobs[0].device else max(1, slurm.gpus(cluster))
        return max(1, gpus * slots_a_gpu(jobs[0]) // max(job.gpus for job in jobs))
    return max(1, (cluster["cpus_per_task"] or 1) // max(job.threads * job.gpus for job in jobs))


def machine_slots(trunks: Sequence[Trunk]) -> int:
    """As many jobs as this machine holds at once: of cores, or of jobs a GPU, and of memory for the largest trunk.

    Where they differ in gpus=, as many as of those with the most.
    """
    job = max((trunk.job for trunk in trunks), key=lambda job: job.gpus)
    device = resolve(job)
    if device.kind == "cuda":
        gpus = [gpu for gpu in seen() if gpu.index in gpus_of(job)]
        return max(1, most_jobs(gpus, [needed_bytes(trunk, device) for trunk in trunks], slots_a_gpu(job), job.gpus))
    if device.kind == "mps":
        return 1
    fitting = int(memory_bytes(device) // max(trunk.job.gpus * trunk.training_bytes for trunk in trunks))
    return max(1, min(joblib.cpu_count() // (job.gpus * job.threads), fitting))


def open_store(jobs: Sequence[TrainConfig]) -> TokenStore:
    """The token store of jobs on one corpus, with as many tokens as their largest budget needs; raises UserError."""
    first = jobs[0]
    assert all((job.data, job.tokenizer) == (first.data, first.tokenizer) for job in jobs)
    if all(job.budgets()[0] == "tokens" for job in jobs):
        return prepare(first.data, first.tokenizer, int(max(job.budgets()[1][-1] for job in jobs)))
    # Budgets in parameters or FLOPs become tokens only when the vocabulary is known.
    store = prepare(first.data, first.tokenizer, 1)
    most = max(trunk.cells[-1].tokens for trunks in trunks_by_job(jobs, store) for trunk in trunks)
    return prepare(first.data, first.tokenizer, most)


def open_stores(jobs: Sequence[TrainConfig]) -> TokenStore | Stores:
    """The token store of a sweep, or those of its corpora where it has several.

    Raises UserError, before any of them is built where their losses could not be compared.
    """
    groups: dict[str, list[TrainConfig]] = {}
    for job in jobs:
        groups.setdefault(key_of(job), []).append(job)
    if len(groups) == 1:
        return open_store(jobs)
    check_corpora(jobs)
    stores = {key: open_store(group) for key, group in groups.items()}
    check_tokenizers(stores.values())
    return Stores(stores)


def trunks_by_job(jobs: Sequence[TrainConfig], stores: TokenStore | Stores) -> list[list[Trunk]]:
    """The trunks of each job; raises UserError where two are the same."""
    by_job = []
    for job in jobs:
        store = store_of(stores, job)
        by_job.append(make_trunks(job, store.vocab_size, store.recipe_hash, precision(job)))
    check_distinct([trunk for part in by_job for trunk in part])
    return by_job


def check_machine_for(sweep: Sweep) -> None:
    """Raises UserError where this machine, or what the jobs ask of a cluster, lacks what they need."""
    ways = {(job.device, job.compile, job.gpus): job for job in sweep.jobs}
    for job in ways.values():
        if sweep.cluster:
            slurm.check_gpus(sweep.cluster, job.device, job.gpus)
        else:
            check_machine(job)


def check_fit(sweep: Sweep, trunks: Sequence[Trunk]) -> None:
    """Raises UserError where a trunk that is to train on this machine has no device here, or is too large for it."""
    for trunk in trunks if not sweep.cluster else ():
        check_trunk(trunk)


def check_trunk(trunk: Trunk) -> None:
    """Raises UserError where a trunk has no device on this machine, or is too large for it."""
    device = resolve(trunk.job)
    check_gpu_memory(trunk, device)
    check_memory(trunk, memory_bytes(device))


@lru_cache
def code_version() -> str:
    """The commit of a checkout, marked where it is changed, or the version of the package."""
    checkout = Path(__file__).parents[2]
    if (checkout / ".git").exists():
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            command = [
                "git",
                "-C",
                str(checkout),
                "describe",
                "--always",
                "--dirty",
                "--exclude=*",
                "--abbrev=10",
            ]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return __version__
