"""Launching the jobs of a sweep: the longest first, through Hydra's launcher, and again where a worker was killed."""

import contextlib
import functools
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, open_dict
from rich.console import Console

from harness import slurm
from harness.commands import configuration
from harness.config import TrainConfig, to_config
from harness.data.tokens import TokenStore
from harness.errors import UserError
from harness.files import make_folder, process_mark, write_atomically
from harness.grid import Trunk, make_trunks
from harness.output import guarded
from harness.records import SweepFolder, is_final
from harness.stop import Stopped, stop
from harness.sweep.compose import Sweep, code_version, open_store, set_environment
from harness.sweep.snapshot import SweepReader
from harness.training.device import precision, resolve, uuid_of
from harness.training.energy import metered
from harness.training.gpus import devices_of
from harness.training.job import record_lost, run_trunk
from harness.training.machine import check_machine
from harness.training.spawn import run_trunk_on_ranks

# How often what was killed is tried again without getting farther.
RETRIES = 2


@dataclass
class PendingJob:
    """A job with something left to train. A pool dies with any of its workers, so a death has several suspects."""

    number: int  # in the sweep
    trunks: list[Trunk]
    deaths: int = 0  # pools that died while this job ran in them
    fruitless: int = 0  # of those, in a row, the ones in which it ran alone and came no farther than before
    farthest: int = 0  # steps

    @property
    def flops(self) -> int:
        return sum(trunk.flops_to_train for trunk in self.trunks)

    def pending(self, folder: SweepFolder) -> bool:
        return not all(is_final(folder.run(cell.name)) for trunk in self.trunks for cell in trunk.cells)


# Runs jobs of a sweep by their numbers, in their order: how many processes there are, and how many of them at once.
LaunchSome = Callable[[Sweep, Sequence[int], int, int], str | None]


def launch_all(
    sweep: Sweep,
    by_job: Sequence[Sequence[Trunk]],
    slots: int,
    store: TokenStore,
    console: Console,
    launch_some: LaunchSome | None = None,
) -> str | None:
    """Launches the jobs that have something left, longest first; why the sweep ended before its time, or None.

    Where a worker is killed, what is left is launched again: first the jobs that did not run then, then those that did,
    half as many at once after each death. One that dies alone, again without getting farther, is recorded as failed.
    """
    folder, fruitless = sweep.folder, 0
    jobs = pending_jobs(by_job, folder)
    if not sweep.multirun:
        run_jobs(sweep.jobs)
        return None
    while jobs:
        deaths = min(job.deaths for job in jobs)
        group, at_once = [job for job in jobs if job.deaths == deaths], max(1, slots >> deaths)
        started = time.time()
        try:
            reason = (launch_some or launch_jobs)(sweep, [job.number for job in group], slots, at_once)
            if reason is not None:
                return reason
            jobs = [job for job in jobs if job not in group]
            continue
        except BrokenProcessPool:
            stop.check()
        jobs = [job for job in jobs if job.pending(folder)]
        suspects = [job for job in group if job in jobs and was_running(job, folder, started)]
        fruitless = 0 if suspects else fruitless + 1
        if fruitless > RETRIES:
            return f"a worker was killed {fruitless} times before it had begun: is there enough memory?"
        for job in suspects:
            count_death(job, folder, alone=at_once == 1)
            if job.fruitless >= RETRIES:
                jobs.remove(job)
                for trunk in job.trunks:
                    why = f"its process was killed {job.deaths} times: is there enough memory?"
                    record_lost(trunk, store, resolve(trunk.job), folder, code_version(), why)
        if jobs:
            console.print("a worker was killed, and its pool ended; what is left is launched again", highlight=False)
    return None


def pending_jobs(by_job: Sequence[Sequence[Trunk]], folder: SweepFolder) -> list[PendingJob]:
    """The jobs that have something left, the longest first."""
    jobs = [PendingJob(number, list(trunks)) for number, trunks in enumerate(by_job)]
    return sorted((job for job in jobs if job.pending(folder)), key=lambda job: -job.flops)


def count_death(job: PendingJob, folder: SweepFolder, alone: bool) -> None:
    """One more death of a pool in which `job` ran."""
    cells = {cell.name for trunk in job.trunks for cell in trunk.cells}
    now = SweepReader(folder.path).snapshot()
    steps = sum(cell.steps_done for cell in now.cells if cell.cell in cells)
    job.deaths += 1
    job.fruitless = job.fruitless + 1 if alone and steps <= job.farthest else 0
    job.farthest = max(job.farthest, steps)


def launch_jobs(sweep: Sweep, numbers: Sequence[int], slots: int, at_once: int) -> str | None:
    """Runs these jobs of the sweep on this machine, in this order, `at_once` of them, as launch says."""
    # joblib runs a single job in this process, which must outlive it
    pool = {"n_jobs": max(2, slots), "pre_dispatch": str(at_once)}
    return launch(sweep, numbers, functools.partial(run_composed, stop_name=stop.name), pool)


def launch(
    sweep: Sweep, numbers: Sequence[int], task: Callable[[DictConfig], None], settings: Mapping[str, Any]
) -> str | None:
    """Runs `task` on these jobs of the sweep, in this order, through Hydra's launcher.

    settings: of the launcher, those that it has. Returns why it ended before its time, in one line: a job that fails
    leaves a record and is no reason. Raises BrokenProcessPool where a worker of joblib was killed.
    """
    try:
        # Hydra writes a line of its own about an exception that comes here anyway.
        waiting = slurm.watching() if sweep.cluster else contextlib.nullcontext()
        with contextlib.redirect_stderr(io.StringIO()), configuration(), waiting:
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            config = hydra.compose_config("train", list(sweep.overrides), RunMode.MULTIRUN)
            with open_dict(config):
                config.hydra.launcher.update({key: settings[key] for key in settings if key in config.hydra.launcher})
            context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
            launcher = Plugins.instance().instantiate_launcher(context, task, config)
            for job in launcher.launch([list(sweep.job_overrides[number]) for number in numbers], initial_job_idx=0):
                job.return_value  # noqa: B018 raises what the job did
    except UserError as error:
        return str(error)
    except BrokenProcessPool:
        raise
    except Exception as error:  # of a launcher's plugin: a scheduler that is not there, say
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None


def run_composed(composed: DictConfig, stop_name: str | None) -> None:
    """One job of a multirun, in a worker of Hydra's launcher."""
    job = to_config(composed)
    run_in_worker(job, Path(job.output_directory) / job.name, stop_name)


def run_in_worker(job: TrainConfig, stop_folder: Path, stop_name: str | None) -> None:
    """A job that is stopped returns as others do: an exception here would have joblib kill those beside it."""
    guarded()
    set_environment()
    stop.listen_as_worker(stop_folder, stop_name)
    try:
        with stop.working():
            run_jobs([job])
            slurm.end_mirrors()
    except Stopped as stopped:
        if stop.launcher_is_gone():
            os._exit(1)  # a worker of joblib would stay for minutes
        stop.hand_on(stopped)


def run_jobs(jobs: Sequence[TrainConfig]) -> None:
    for job in jobs:
        stop.check()
        check_machine(job)
        store = open_store([job])
        folder = SweepFolder(Path(job.output_directory) / job.name)
        trunks = make_trunks(job, store.vocab_size, store.recipe_hash, precision(job))
        with devices_of(job, trunks, store.train.nbytes) as devices:
            for trunk in trunks:
                with marked(trunk, folder), metered([uuid_of(device) for device in devices], folder.path):
                    if len(devices) == 1:
                        run_trunk(trunk, store, devices[0], folder, code_version())
                    else:
                        run_trunk_on_ranks(trunk, store, devices, folder, code_version())


@contextlib.contextmanager
def marked(trunk: Trunk, folder: SweepFolder) -> Iterator[None]:
    """Leaves a file in the trunk's folder, with this process's id, that only a killed process does not remove."""
    mark = make_folder(folder.trunk(trunk.name)) / "running"
    write_atomically(mark, process_mark())
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def was_running(job: PendingJob, folder: SweepFolder, since: float) -> bool:
    """Whether a process of this launch was killed within a trunk of `job`."""
    for trunk in job.trunks:
        with contextlib.suppress(FileNotFoundError):
            if (folder.trunk(trunk.name) / "running").stat().st_mtime >= since:
                return True
    return False
