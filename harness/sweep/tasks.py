"""The array tasks of a cluster: which jobs each trains, and how it trains them, in a pool of its own on its node."""

import contextlib
import functools
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import joblib
from hydra.core.hydra_config import HydraConfig
from joblib import Parallel, delayed
from omegaconf import DictConfig
from rich.console import Console

from harness import slurm
from harness.config import TrainConfig, to_config
from harness.errors import UserError
from harness.grid import Trunk, schedule_makespan
from harness.records import SweepFolder
from harness.stop import Stopped, stop
from harness.sweep.compose import (
    Sweep,
    check_trunk,
    code_version,
    machine_slots,
    open_stores,
    set_environment,
    slots_a_task,
    trunks_by_job,
)
from harness.sweep.launch import launch, launch_all, pending_jobs, run_composed, run_in_worker
from harness.training.device import resolve
from harness.training.job import record_lost
from harness.training.machine import check_machine
from harness.training.stores import store_of
from harness.training.turns import most_workers
from harness.units import counted

# As few tasks are submitted as end within this multiple of the time that the most of them would take.
MORE_TIME = 1.1


def divide(costs: Sequence[float], slots: int, most: int) -> list[list[int]]:
    """Which jobs each task trains, `slots` at a time, by their place in `costs`: one each where a task has one slot.

    The longest comes first, on the slot of any task that is free first. Beyond what ends about as soon, no task is
    asked for: its slots would idle.
    """
    order = sorted(range(len(costs)), key=lambda place: -costs[place])
    if slots == 1 or not costs:
        return [[place] for place in order]
    longest_first = [costs[place] for place in order]
    most = max(1, min(most, -(-len(costs) // slots)))
    bound = MORE_TIME * schedule_makespan(longest_first, most * slots)
    count = next(tasks for tasks in range(1, most + 1) if schedule_makespan(longest_first, tasks * slots) <= bound)
    tasks: list[list[int]] = [[] for _ in range(count)]
    ends = [0.0] * (count * slots)
    for place in order:
        first = min(range(len(ends)), key=ends.__getitem__)
        ends[first] += costs[place]
        tasks[first % count].append(place)
    return tasks


def tasks_of(sweep: Sweep, by_job: Sequence[Sequence[Trunk]]) -> list[list[int]]:
    """The numbers of the jobs that each task of a sweep trains: of those with something left, the longest first."""
    assert sweep.cluster
    jobs = pending_jobs(by_job, sweep.folder)
    divided = divide([job.flops for job in jobs], slots_a_task(sweep.cluster, sweep.jobs), most_tasks(sweep))
    return [[jobs[place].number for place in task] for task in divided]


def most_tasks(sweep: Sweep) -> int:
    """The most that a sweep submits: a job each, or as many as run at once where they train several at a time."""
    assert sweep.cluster
    slots, jobs = slots_a_task(sweep.cluster, sweep.jobs), len(sweep.jobs)
    return jobs if slots == 1 else min(sweep.cluster["array_parallelism"], -(-jobs // slots))


def launch_tasks(sweep: Sweep, by_job: Sequence[Sequence[Trunk]], console: Console) -> str | None:
    """Submits the tasks of what is left and waits for them; why they ended before their time, or None."""
    assert sweep.cluster
    tasks, slots = tasks_of(sweep, by_job), slots_a_task(sweep.cluster, sweep.jobs)
    if not tasks:
        return None
    if slots > 1:
        console.print(f"{counted(len(tasks), 'task')} of SLURM, each with up to {slots} jobs at a time")
    bundles = {number: tuple(sweep.jobs[job] for job in task) for number, task in enumerate(tasks) if len(task) > 1}
    run = functools.partial(run_task, bundles=bundles, slots=slots)
    return launch(sweep, [task[0] for task in tasks], run, {"cpus_per_task": sweep.cluster["cpus_per_task"]})


def run_task(composed: DictConfig, bundles: Mapping[int, Sequence[TrainConfig]], slots: int) -> None:
    """One task, in its process on a node: a single job in this process, several in a pool of up to `slots`.

    composed: its first job; bundles: the jobs of each task that has several. Raises UserError where the node cannot
    train, or its workers die before they begin.
    """
    slurm.begin_job()
    set_environment()
    jobs = bundles.get(HydraConfig.get().job.num)
    share_compiled(Path(composed.output_directory))
    if jobs is None:
        job = to_config(composed)
        if trainable([job]):
            share_cores(1)
            run_composed(composed, None, time.time())
        return
    with (
        contextlib.suppress(Stopped),
        # Of this node: the file by which one process stops all is looked for at every step.
        tempfile.TemporaryDirectory(prefix="harness-") as folder,
        stop.listening(),
        stop.deferred(Path(folder)),
    ):
        try:
            run_bundle(jobs, slots, Path(folder))
            stop.check()
        except Stopped as stopped:
            stop.hand_on(stopped)


def run_bundle(jobs: Sequence[TrainConfig], slots: int, stop_folder: Path) -> None:
    """Trains the jobs of a task as a sweep of its own on this node, with as many at once as its devices hold."""
    fitting = trainable(jobs)
    if not fitting:
        return
    store = open_stores(fitting)
    by_job = trunks_by_job(fitting, store)
    trunks = [trunk for of_job in by_job for trunk in of_job]
    at_once = min(slots, machine_slots(trunks), most_workers(trunks))
    share_cores(at_once)
    console = Console()
    console.print(f"{len(fitting)} jobs in this task, {at_once} at a time", highlight=False)
    node = Sweep(tuple(fitting), (), (), "", multirun=True, slots=at_once, cluster=None)
    ended_early = launch_all(node, by_job, at_once, store, console, functools.partial(in_pool, stop_folder))
    if ended_early:
        raise UserError(ended_early)


def in_pool(stop_folder: Path, sweep: Sweep, numbers: Sequence[int], slots: int, at_once: int, started: float) -> None:
    """Runs these jobs by workers of joblib's pool, as the local launcher does; raises BrokenProcessPool likewise."""
    pool = Parallel(n_jobs=max(2, slots), backend="loky", pre_dispatch=at_once, batch_size=1)
    jobs = [sweep.jobs[number] for number in numbers]
    pool(delayed(run_in_task)(jobs, stop_folder, stop.name, started, at_once) for _ in range(at_once))


def run_in_task(
    jobs: Sequence[TrainConfig], stop_folder: Path, stop_name: str | None, started: float, slots: int
) -> None:
    """One of `slots` workers that share the jobs of a task."""
    slurm.begin_job()
    run_in_worker(jobs, stop_folder, stop_name, started, slots)


def trainable(jobs: Sequence[TrainConfig]) -> list[TrainConfig]:
    """The jobs that this node's devices hold, which the login node could not know; those of others fail, and say why.

    Raises UserError where the node itself lacks what they need.
    """
    for job in {(job.device, job.compile, job.gpus): job for job in jobs}.values():
        check_machine(job)
    store = open_stores(jobs)
    held = []
    for job, trunks in zip(jobs, trunks_by_job(jobs, store), strict=True):
        try:
            for trunk in trunks:
                check_trunk(trunk)
            held.append(job)
        except UserError as error:
            folder = SweepFolder(Path(job.output_directory) / job.name)
            for trunk in trunks:
                record_lost(trunk, store_of(store, job), resolve(job), folder, code_version(), str(error))
                slurm.link_log(folder.trunk(trunk.name))
    return held


def share_compiled(outputs: Path) -> None:
    """Keeps compiled code beside the sweeps, which the nodes share; in its own /tmp each would compile anew."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(outputs.resolve() / ".inductor"))


def share_cores(slots: int) -> None:
    """Gives each process an equal part of the task's cores to compile with."""
    stated = os.environ.get("SLURM_CPUS_ON_NODE", "")
    cores = min(joblib.cpu_count(), int(stated) if re.fullmatch("[0-9]{1,9}", stated) else sys.maxsize)
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(max(1, cores // slots)))
