"""Launching the jobs of a sweep: the longest first, through Hydra's launcher, and again where a worker was killed."""

import contextlib
import functools
import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
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
from harness.grid import Trunk
from harness.output import guarded
from harness.records import SweepFolder, is_final
from harness.stop import Stopped, stop
from harness.sweep.compose import Sweep, code_version, open_stores, set_environment, trunks_by_job
from harness.sweep.snapshot import SweepReader
from harness.training.claim import was_claimed
from harness.training.device import resolve
from harness.training.job import record_lost
from harness.training.machine import check_machine
from harness.training.spawn import run_trunk_on_ranks
from harness.training.stores import Stores, store_of
from harness.training.worker import Worker

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


# Runs jobs of a sweep by their numbers: how many processes there are, how many of them at once, and since when.
LaunchSome = Callable[[Sweep, Sequence[int], int, int, float], str | None]


def launch_all(
    sweep: Sweep,
    by_job: Sequence[Sequence[Trunk]],
    slots: int,
    store: TokenStore | Stores,
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
            reason = (launch_some or launch_jobs)(sweep, [job.number for job in group], slots, at_once, started)
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
                    own = store_of(store, trunk.job)
                    record_lost(trunk, own, resolve(trunk.job), folder, code_version(), why)
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


def launch_jobs(sweep: Sweep, numbers: Sequence[int], slots: int, at_once: int, started: float) -> str | None:
    """Runs these jobs of the sweep on this machine by `at_once` workers, as launch says."""
    # joblib runs a single job in this process, which must outlive it
    pool = {"n_jobs": max(2, slots), "pre_dispatch": str(at_once)}
    task = functools.partial(run_composed, stop_name=stop.name, started=started)
    return launch(sweep, numbers, task, pool, at_once)


def launch(
    sweep: Sweep, numbers: Sequence[int], task: Callable[..., None], settings: Mapping[str, Any], workers: int = 0
) -> str | None:
    """Runs `task` on each of these jobs of the sweep, in this order, through Hydra's launcher.

    settings: of the launcher, those that it has; workers: how many share all of the jobs instead, where it has a pool.
    Returns why it ended before its time, in one line: a job that fails leaves a record and is no reason. Raises
    BrokenProcessPool where a worker of joblib was killed.
    """
    overrides = [list(sweep.job_overrides[number]) for number in numbers]
    try:
        # Hydra writes a line of its own about an exception that comes here anyway.
        waiting = slurm.watching() if sweep.cluster else contextlib.nullcontext()
        with contextlib.redirect_stderr(io.StringIO()), configuration(), waiting:
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            config = hydra.compose_config("train", list(sweep.overrides), RunMode.MULTIRUN)
            with open_dict(config):
                config.hydra.launcher.update({key: settings[key] for key in settings if key in config.hydra.launcher})
            if workers and "n_jobs" in config.hydra.launcher:
                task = functools.partial(task, jobs=[sweep.jobs[number] for number in numbers], slots=workers)
                overrides = overrides[:1] * workers
            context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
            launcher = Plugins.instance().instantiate_launcher(context, task, config)
            for job in launcher.launch(overrides, initial_job_idx=0):
                job.return_value  # noqa: B018 raises what the job did
    except UserError as error:
        return str(error)
    except BrokenProcessPool:
        raise
    except Exception as error:  # of a launcher's plugin: a scheduler that is not there, say
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None


def run_composed(
    composed: DictConfig, stop_name: str | None, started: float, jobs: Sequence[TrainConfig] = (), slots: int = 1
) -> None:
    """A worker of `slots` that share `jobs`, or without any the one job that is composed, in Hydra's launcher."""
    job = to_config(composed)
    run_in_worker(jobs or [job], Path(job.output_directory) / job.name, stop_name, started, slots)


def run_in_worker(
    jobs: Sequence[TrainConfig], stop_folder: Path, stop_name: str | None, started: float, slots: int
) -> None:
    """run_jobs; one that is stopped returns as others do: an exception here would have joblib kill those beside it."""
    guarded()
    set_environment()
    stop.listen_as_worker(stop_folder, stop_name)
    try:
        with stop.working():
            run_jobs(jobs, started, slots)
            slurm.end_mirrors()
    except Stopped as stopped:
        if stop.launcher_is_gone():
            os._exit(1)  # a worker of joblib would stay for minutes
        stop.hand_on(stopped)


def run_jobs(jobs: Sequence[TrainConfig], started: float | None = None, slots: int = 1) -> None:
    """Trains what other processes leave of the jobs, as one of `slots` workers, until all of it has ended."""
    stop.check()
    for job in {(job.device, job.compile, job.gpus): job for job in jobs}.values():
        check_machine(job)
    store = open_stores(jobs)
    folder = SweepFolder(Path(jobs[0].output_directory) / jobs[0].name)
    trunks = [trunk for part in trunks_by_job(jobs, store) for trunk in part]
    Worker(trunks, store, folder, code_version(), run_trunk_on_ranks, since=started, slots=slots).work()


def was_running(job: PendingJob, folder: SweepFolder, since: float) -> bool:
    """Whether a process of this launch was killed while it trained a part of `job`."""
    folders = [folder.trunk(trunk.name) for trunk in job.trunks]
    folders += [folder.run(cell.name) for trunk in job.trunks for cell in trunk.cells]
    return any(was_claimed(path, since) for path in folders)
