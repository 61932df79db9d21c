"""One sweep from its command line to its run table: compose, check, plan, launch, tell."""

import contextlib
import importlib.metadata
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra import compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from harness import __version__, tracking
from harness.commands import configuration, known_keys
from harness.config import TrainConfig, register, to_config
from harness.data.tokens import TokenStore, prepare
from harness.errors import UserError
from harness.files import folder_unless_refused
from harness.grid import Trunk, check_distinct, check_memory, check_unique, plan
from harness.plan import Plan
from harness.progress import Progress
from harness.records import (
    FINAL,
    SweepFolder,
    check_schema,
    is_damaged,
    is_final,
    read_record,
    write_sweep,
    write_table,
)
from harness.snapshot import snapshot
from harness.stop import Stopped, stop
from harness.training.device import memory_bytes, resolve
from harness.training.job import measured_step_seconds, run_trunk

# Libraries that draw their own progress or warn on the terminal are told not to, here and in every worker.
QUIET = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
}

# How often a sweep is launched again when nothing was trained since a worker was killed.
RETRIES = 2


@dataclass(frozen=True)
class Grid:
    """The jobs that a command line stands for; slots is how many run at once on this machine."""

    jobs: tuple[TrainConfig, ...]
    overrides: tuple[str, ...]
    multirun: bool
    slots: int
    local: bool  # whether jobs end with this process, and not in a cluster's queue

    @property
    def folder(self) -> SweepFolder:
        return SweepFolder(Path(self.jobs[0].output_directory) / self.jobs[0].name)


def compose_grid(arguments: Sequence[str]) -> Grid:
    """Composes and checks every job of a command line, as Hydra's sweeper will. Raises UserError."""
    register()
    asked = [argument for argument in arguments if argument not in ("-m", "--multirun")]
    with configuration():
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        parsed = parser.parse_overrides(known_keys("train", asked))
        axes = [override.get_key_element() for override in parsed if override.is_sweep_override()]
        fixed = [override.input_line or "" for override in parsed if not override.is_sweep_override()]
        base = compose("train", fixed, return_hydra_config=True)
        multirun = len(asked) < len(arguments) or base.hydra.mode == RunMode.MULTIRUN
        if axes and not multirun:
            raise UserError(f"{axes[0]} has several values: add -m to train them all")
        lines = list(asked)
        if multirun:
            lines = [f"{key}={value}" for key, value in (base.hydra.sweeper.params or {}).items()] + lines
        batch = BasicSweeper.split_arguments(parser.parse_overrides(lines), None)[0]
        jobs = tuple(to_config(compose("train", list(overrides))) for overrides in batch)
        launcher = base.hydra.launcher
        slots = launcher.get("n_jobs", 1) if multirun else 1
        local = not multirun or not launcher._target_.endswith("SlurmLauncher")
    return Grid(jobs, tuple(asked), multirun, max(1, int(slots)), local)


def open_store(jobs: Sequence[TrainConfig]) -> TokenStore:
    """The token store of a sweep, with as many tokens as its largest budget needs; raises UserError."""
    first = jobs[0]
    for job in jobs[1:]:
        if (job.data, job.tokenizer) != (first.data, first.tokenizer):
            raise UserError("data and tokenizer differ within the grid: train one sweep for each, then pool them")
    if all(job.budgets()[0] == "tokens" for job in jobs):
        return prepare(first.data, first.tokenizer, int(max(job.budgets()[1][-1] for job in jobs)))
    # Budgets in parameters or FLOPs become tokens only when the vocabulary is known.
    store = prepare(first.data, first.tokenizer, 1)
    most = max(trunk.cells[-1].tokens for trunk in plan_trunks(jobs, store))
    return prepare(first.data, first.tokenizer, most)


def plan_trunks(jobs: Sequence[TrainConfig], store: TokenStore) -> list[Trunk]:
    """The distinct trunks of all jobs; raises UserError."""
    trunks = []
    for job in jobs:
        trunks += plan(job, store.vocab_size, store.recipe_hash, resolve(job).precision)
    check_distinct(trunks)
    for trunk in trunks:
        check_memory(trunk, memory_bytes(resolve(trunk.job)))
    return trunks


def make_plan(grid: Grid, trunks: Sequence[Trunk], store: TokenStore) -> Plan:
    """The plan of a grid, its time from a short measurement of each shape on this device."""
    cells = [cell for trunk in trunks for cell in trunk.cells]
    finished = frozenset(cell.name for cell in cells if is_final(grid.folder.run(cell.name)))
    seconds = {
        trunk.name: measured_step_seconds(trunk, store, resolve(trunk.job))
        for trunk in trunks
        if any(cell.name not in finished for cell in trunk.cells)
    }
    return Plan(grid.folder.path.name, tuple(trunks), grid.slots, finished, seconds)


def prepare_plan(grid: Grid) -> tuple[TokenStore, Plan]:
    """Everything that can be refused is refused here, before any training."""
    store = open_store(grid.jobs)
    trunks = plan_trunks(grid.jobs, store)
    for trunk in trunks:
        check_unique([trunk], store.unique_tokens(trunk.job.model.seq_len), store.exhausted)
    return store, make_plan(grid, trunks, store)


def train(arguments: Sequence[str]) -> int:
    """Trains what a command line asks for; the exit status of scripts/train.py. Raises Stopped at a signal."""
    with stop.listening():
        return _train(arguments)


def _train(arguments: Sequence[str]) -> int:
    os.environ.update(QUIET)
    console = Console()
    grid = compose_grid(arguments)
    folder = grid.folder
    with folder_unless_refused(folder.path):
        check_schema(folder)
        store, sweep_plan = prepare_plan(grid)
    console.print(store_line(store))
    console.print(sweep_plan.table())
    console.print(sweep_plan.summary())
    _warn_of_older_code(folder, sweep_plan, console)
    _warn_of_damage(folder, sweep_plan, console)
    write_sweep(folder, sweep_file(grid, sweep_plan))
    mirror_seconds = 60.0
    # Jobs in a cluster's queue outlive this process, which has nothing to wait for.
    waits = stop.deferred(folder.path) if grid.local else contextlib.nullcontext()
    try:
        with Progress(folder.path, console), waits:
            stopped = launch_again(grid, arguments, console)
    except Stopped:
        mirror_seconds = 3.0
        raise
    finally:
        rows = write_table(folder)
        for message in tracking.wait(folder.path, mirror_seconds):
            console.print(message)
    if stopped:
        console.print(f"the launcher stopped: {stopped}", markup=False, highlight=False)
    return tell(rows, folder, sweep_plan, console)


def launch_again(grid: Grid, arguments: Sequence[str], console: Console) -> str | None:
    """Launches; where a killed worker takes its pool along, launches what is left, RETRIES times without progress."""
    farthest, left = trained(grid.folder), RETRIES
    while True:
        try:
            return launch(grid, arguments)
        except BrokenProcessPool:
            stop.check()
        left = RETRIES if trained(grid.folder) > farthest else left - 1
        farthest = max(farthest, trained(grid.folder))
        if left < 0:
            return f"a worker was killed {RETRIES + 1} times without progress in between: is there enough memory?"
        console.print("a worker was killed, and its pool ended; what is left is launched again", highlight=False)


def trained(folder: SweepFolder) -> float:
    """How far a sweep has come: its cells that have ended for good, and its share of the FLOPs."""
    now = snapshot(folder.path)
    return now.count(*FINAL) + now.done


def launch(grid: Grid, arguments: Sequence[str]) -> str | None:
    """Runs the jobs: through Hydra's launcher in a multirun, else in this process.

    Returns why a multirun ended before its time, in one line: a job that fails leaves a record and is no reason.
    Raises BrokenProcessPool where a worker of joblib was killed.
    """
    if not grid.multirun:
        run_jobs(grid.jobs, job_number=0)
        return None
    sys.argv = [sys.argv[0], *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come here, instead of lines on the terminal and an exit
    main = hydra.main(version_base=None, config_path="pkg://harness.conf", config_name="train")(run_composed)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # Hydra's own line about an exception that comes here anyway
            main()
    except UserError as error:
        return str(error)
    except BrokenProcessPool:
        raise
    except Exception as error:  # of a launcher's plugin: a scheduler that is not there, say
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None


def run_composed(composed: DictConfig) -> None:
    """One job of a multirun, in a worker of Hydra's launcher.

    One that is stopped returns as others do: an exception here would have joblib kill the jobs beside it.
    """
    os.environ.update(QUIET)
    job = to_config(composed)
    stop.listen_as_worker(Path(job.output_directory) / job.name)
    try:
        run_jobs([job], HydraConfig.get().job.num)
    except Stopped as stopped:
        if stop.launcher_is_gone():
            os._exit(1)  # a worker of joblib would stay for minutes
        stop.hand_on(stopped)


def run_jobs(jobs: Sequence[TrainConfig], job_number: int) -> None:
    for job in jobs:
        stop.check()
        store = open_store([job])
        folder = SweepFolder(Path(job.output_directory) / job.name)
        device = resolve(job, job_number)
        for trunk in plan(job, store.vocab_size, store.recipe_hash, device.precision):
            run_trunk(trunk, store, device, folder, code_version())


def sweep_file(grid: Grid, sweep_plan: Plan) -> dict[str, Any]:
    """sweep.yaml: the grid, the code and package versions, and every cell by name."""
    packages = ("torch", "numpy", "datasets", "tiktoken", "tokenizers", "hydra-core", "wandb")
    return {
        "sweep": sweep_plan.name,
        "code_version": code_version(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "overrides": list(grid.overrides),
        "slots": sweep_plan.slots,
        "estimated_seconds": round(sweep_plan.wall_seconds, 1),
        "cells": [
            {
                "cell": cell.name,
                "trunk": trunk.name,
                "width": trunk.job.model.width,
                "depth": trunk.job.model.depth,
                "heads": trunk.job.model.heads,
                "seed": trunk.job.seed,
                "tokens": cell.tokens,
                "steps": cell.steps,
                "branch_step": cell.branch_step,
                "batch_tokens": trunk.batch_tokens,
                "learning_rate": trunk.learning_rate,
                "params_total": trunk.params.total,
                "params_non_embedding": trunk.params.non_embedding,
                "params_with_head": trunk.params.with_head,
                "flops": cell.flops,
            }
            for trunk in sweep_plan.trunks
            for cell in trunk.cells
        ],
    }


def store_line(store: TokenStore) -> str:
    manifest = store.manifest
    return (
        f"tokens: {manifest['source']}, {len(store.train):,} to train on and {len(store.validation):,} to validate, "
        f"vocabulary {store.vocab_size}, {store.bytes_per_token:.2f} bytes a token"
    )


def _warn_of_older_code(folder: SweepFolder, sweep_plan: Plan, console: Console) -> None:
    records = [read_record(folder.run(name)) for name in sweep_plan.finished]
    older = {record["code_version"] for record in records if record} - {code_version()}
    if older:
        console.print(
            f"finished cells are kept, some made by other code ({', '.join(sorted(older))}; this is {code_version()})"
        )


def _warn_of_damage(folder: SweepFolder, sweep_plan: Plan, console: Console) -> None:
    cells = [cell.name for trunk in sweep_plan.trunks for cell in trunk.cells]
    damaged = [name for name in cells if is_damaged(folder.run(name))]
    if damaged:
        line = f"damaged run records count as not done: {', '.join(damaged)}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def tell(rows: list[dict[str, Any]], folder: SweepFolder, sweep_plan: Plan, console: Console) -> int:
    """Prints how the sweep ended; 0 where every cell finished, else 1."""
    by_status = {status: [row for row in rows if row["status"] == status] for status in ("failed", "diverged")}
    finished = sum(row["status"] == "finished" for row in rows)
    console.print(f"{finished} of {sweep_plan.cells} cells finished; run table: {folder.table}")
    for status, bad in by_status.items():
        for row in bad:
            console.print(f"{status}: {row['cell']}: {row['error']}", markup=False, highlight=False)
    missing = sweep_plan.cells - len(rows)
    if missing:
        console.print(f"{missing} cells have no record: they were not begun, or their process was killed")
    if by_status["failed"] or missing:
        console.print("the same command trains just those again")
    return 0 if finished == sweep_plan.cells else 1


def code_version() -> str:
    """The commit of a checkout, marked where it is changed, or the version of the package."""
    checkout = Path(__file__).parent.parent
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


def slots(device: str) -> int:
    """How many jobs this machine runs at once: one a GPU, else one a core."""
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return 1 if ":" in device else torch.cuda.device_count()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


OmegaConf.register_new_resolver("slots", slots, replace=True)
