"""One sweep from its command line to its run table: compose, check, plan, launch, tell."""

import contextlib
import importlib.metadata
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import joblib
import torch
from rich.console import Console

from harness import slurm, tracking
from harness.data.texts import Text, check_sources
from harness.data.tokens import TokenStore
from harness.errors import UserError
from harness.files import folder_unless_refused
from harness.grid import Trunk, check_ranks, check_splits, check_unique
from harness.records import (
    COMPARED_ON,
    FLOOR,
    FLOORS,
    INSERTED,
    TASKS,
    TEXTS,
    SweepFolder,
    check_schema,
    is_damaged,
    is_final,
    read_record,
    read_sweep,
    write_sweep,
    write_table,
)
from harness.stop import Stopped, stop
from harness.sweep.apple import gpu_cores, gpu_line
from harness.sweep.compose import (
    Sweep,
    check_fit,
    check_machine_for,
    code_version,
    compose_sweep,
    machine_slots,
    open_stores,
    set_environment,
    slots_a_task,
    trunks_by_job,
)
from harness.sweep.coordinates import write_coordinates
from harness.sweep.corpora import corpora_of, several
from harness.sweep.floor import floors_by_dimension, inserted_by_corpus, known_floor
from harness.sweep.launch import launch_all
from harness.sweep.namesake import check_coordinates, check_settings
from harness.sweep.pace import measure
from harness.sweep.plan import Plan
from harness.sweep.progress import Progress, outcome
from harness.sweep.sharing import share
from harness.sweep.snapshot import disk_bytes, snapshot
from harness.sweep.stage import preparing
from harness.sweep.stated import check_stated, check_statement, statement
from harness.sweep.tasks import launch_tasks, most_tasks, tasks_of
from harness.sweep.texts import check_compared, complete, open_all, stated_tasks
from harness.training.checkpoint import newest_step
from harness.training.device import resolve
from harness.training.memory import memory_of
from harness.training.stores import Stores, store_of
from harness.training.turns import most_workers

NONE: Mapping[str, Text] = MappingProxyType({})


def make_plan(sweep: Sweep, by_job: Sequence[Sequence[Trunk]]) -> Plan:
    """The plan of a sweep, its time from a short measurement of each shape on this device."""
    trunks = [trunk for job in by_job for trunk in job]
    cells = [cell for trunk in trunks for cell in trunk.cells]
    finished = frozenset(cell.name for cell in cells if is_final(sweep.folder.run(cell.name)))
    shared = not sweep.cluster or slots_a_task(sweep.cluster, sweep.jobs) > 1
    most = most_workers(trunks) if shared else len(by_job)
    slots = min(sweep.slots or machine_slots(trunks), most)
    device, ranks = trunks[0].job.device, max(trunk.job.gpus for trunk in trunks)
    gpus = min(slots * ranks, torch.cuda.device_count())
    if sweep.cluster:
        a_task = slots_a_task(sweep.cluster, sweep.jobs)
        slots = max(1, min(slots, len(tasks_of(sweep, by_job)) * a_task))
        gpus = -(-slots * max(1, slurm.gpus(sweep.cluster)) // a_task)
    if not sweep.cluster:  # each process would start as many compilers as the machine has cores
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(max(1, joblib.cpu_count() // (slots * ranks))))
    # Of Apple's Accelerate, which torch.set_num_threads does not tell; joblib would give it more where fewer jobs run.
    os.environ.setdefault("VECLIB_MAXIMUM_THREADS", str(trunks[0].job.threads))
    pending = [trunk for trunk in trunks if any(cell.name not in finished for cell in trunk.cells)]
    pace = measure(sweep, pending, slots)
    sharing = share(sweep, pending, pace)
    if sharing and sharing.number > 1:
        slots, pace = min(sharing.slots, most), sharing.paces(pace)
    return Plan(
        name=sweep.folder.path.name,
        jobs=tuple(map(tuple, by_job)),
        slots=slots,
        device=device.split(":")[0] if device != "auto" else resolve(trunks[0].job).kind,
        gpus=1 if ":" in device else gpus,
        finished=finished,
        resumed={trunk.name: newest_step(sweep.folder.trunk(trunk.name)) for trunk in pending},
        pace=pace,
        shared=shared,
        sharing=sharing,
        labels=sweep.labels,
        memory=memory_of(trunks) if sweep.axes and not sweep.cluster else {},
    )


def prepare_plan(sweep: Sweep, console: Console) -> tuple[TokenStore | Stores, Plan]:
    """Everything that can be refused is refused here, before any training; says which tokens there are."""
    stores, by_job, _ = prepare_trunks(sweep, console)
    return stores, plan_here(sweep, by_job, console)


def plan_here(sweep: Sweep, by_job: Sequence[Sequence[Trunk]], console: Console) -> Plan:
    """make_plan, and a line where an Apple GPU of this machine is likely faster."""
    plan = make_plan(sweep, by_job)
    if not sweep.cluster and (line := gpu_line(plan, gpu_cores())):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return plan


def prepare_trunks(
    sweep: Sweep, console: Console
) -> tuple[TokenStore | Stores, list[list[Trunk]], dict[str, Text]]:
    """The token store, the trunks of each job and the further texts, checked; says which tokens there are."""
    check_statement(sweep.jobs[0])
    check_machine_for(sweep)
    written = any(job.model.target or job.optimizer.target for job in sweep.jobs)
    if written:
        from harness.training.trial import import_targets, try_custom  # torch's counters, which others do not need

        import_targets(sweep.jobs)
    check_sources(sweep.jobs[0].validation, sweep.jobs[0].data)
    stores = open_stores(sweep.jobs)
    by_job = trunks_by_job(sweep.jobs, stores)
    trunks = [trunk for job in by_job for trunk in job]
    check_fit(sweep, trunks)
    for trunk in trunks:
        store = store_of(stores, trunk.job)
        unique_tokens = store.unique_tokens(trunk.job.model.seq_len)
        check_splits(trunk, unique_tokens, len(store.validation))
        check_unique([trunk], unique_tokens, store.exhausted)
        if trunk.job.data.source == "facts":
            check_ranks(trunk, unique_tokens)
    for warning in try_custom(trunks) if written else ():
        console.print(warning, markup=False, highlight=False, soft_wrap=True)
    corpora = corpora_of(sweep.jobs, stores)
    for _, store in corpora:
        console.print(store_line(store), markup=False, highlight=False, soft_wrap=True)
    return stores, by_job, open_all(sweep.jobs[0], corpora, trunks, console)


def train(arguments: Sequence[str]) -> int:
    """Trains what a command line asks for; the exit status of scripts/train.py. Raises Stopped at a signal."""
    return train_sweep(arguments)[0]


def train_sweep(arguments: Sequence[str]) -> tuple[int, Path | None]:
    """train, and the folder of what it trained, None where that was left to a cluster."""
    with stop.listening():
        return _train(arguments)


def _train(arguments: Sequence[str]) -> tuple[int, Path | None]:
    set_environment()
    console = Console()
    sweep = compose_sweep(arguments)
    folder = sweep.folder
    if sweep.cluster:
        slurm.check(sweep.cluster, most_tasks(sweep))
    with folder_unless_refused(folder.path), preparing(folder.path) as say:
        check_schema(folder)
        check_settings(sweep)
        check_stated(folder, sweep.jobs[0])
        say("opening the token store, or building what it lacks")
        stores, by_job, texts = prepare_trunks(sweep, console)
        check_coordinates(sweep, [trunk for job in by_job for trunk in job])
        if several(sweep.jobs):
            check_compared(folder, [trunk for job in by_job for trunk in job], texts)
        say("measuring how fast each shape trains here")
        plan = plan_here(sweep, by_job, console)
    console.print(plan.table())
    console.print(plan.summary())
    for note in plan.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    _warn_of_older_code(folder, plan, console)
    _warn_of_damage(folder, plan, console)
    estimate, started = plan.wall_seconds, time.time()
    launch = {"started": round(started, 3), "estimated_seconds": estimate and round(estimate, 1), "wall_seconds": None}
    floor = known_floor(sweep.jobs, stores)
    write_sweep(folder, sweep_file(sweep, plan, launch, texts, floor))
    write_coordinates(folder.path, sweep.jobs[0], plan.trunks)
    if sweep.cluster and sweep.jobs[0].detach:
        console.print(slurm.submit_parent(sweep.cluster, arguments, folder.path), highlight=False, soft_wrap=True)
        return 0, None
    mirror = tracking.start(sweep.jobs[0].tracking, folder.path, [tracking.PLAN])
    mirror_seconds = 60.0
    # Jobs in a cluster's queue outlive this process, which has nothing to wait for.
    waits = contextlib.nullcontext() if sweep.cluster else stop.deferred(folder.path)
    try:
        with Progress(folder.path, console), waits:
            if sweep.cluster:
                ended_early = launch_tasks(sweep, plan.jobs, console)
            else:
                shared = plan.sharing.sweep(sweep) if plan.sharing else sweep
                ended_early = launch_all(shared, plan.jobs, plan.slots, stores, console)
        complete(folder, plan.trunks, texts, stores, console, here=not sweep.cluster)
    except Stopped:
        mirror_seconds = 3.0
        if sweep.cluster:
            console.print(f"its jobs stay in the queue; scancel --name={folder.path.name} ends them", highlight=False)
        raise
    finally:
        launch["wall_seconds"] = round(time.time() - started, 1)
        write_sweep(folder, sweep_file(sweep, plan, launch, texts, floor))
        rows = write_table(folder)
        mirror.follow(tracking.PLAN)  # once more, as sweep.yaml has its time now
        mirror.close()
        for message in tracking.wait(folder.path, mirror_seconds):
            console.print(message, markup=False, highlight=False, soft_wrap=True)
    if ended_early:
        console.print(f"the launcher stopped: {ended_early}", markup=False, highlight=False)
    return tell(rows, folder, plan, console), folder.path


def sweep_file(
    sweep: Sweep,
    plan: Plan,
    launch: dict[str, Any],
    texts: Mapping[str, Text] = NONE,
    floor: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """sweep.yaml: the grid, the code and package versions, every launch with its time, and every cell by name."""
    launches: list[dict[str, Any]] = []
    with contextlib.suppress(UserError):
        launches = read_sweep(sweep.folder).get("launches", [])
    packages = ("torch", "numpy", "datasets", "tiktoken", "tokenizers", "hydra-core", "wandb", "numba", "llvmlite")
    return {
        "sweep": plan.name,
        "code_version": code_version(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "overrides": list(sweep.overrides),
        "command": sweep.command,
        **statement(sweep.jobs[0]),
        **({"axes": sweep.axes} if sweep.axes else {}),
        **({TEXTS: {name: text.recipe_hash for name, text in texts.items()}} if texts else {}),
        **({TASKS: tasks} if (tasks := stated_tasks(texts)) else {}),
        **({FLOOR: dict(floor)} if floor else {}),
        **({FLOORS: floors} if (floors := floors_by_dimension(sweep.jobs)) else {}),
        **({INSERTED: inserted} if (inserted := inserted_by_corpus(sweep.jobs)) else {}),
        **({COMPARED_ON: next(iter(texts))} if several(sweep.jobs) else {}),
        **plan.machine,
        "launches": [past for past in launches if past["started"] != launch["started"]]
        + [launch] * (len(plan.finished) < plan.cells),
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
            | ({"gpus": trunk.job.gpus} if trunk.job.gpus > 1 else {})
            | label
            for job, label in zip(plan.jobs, sweep.labels, strict=True)
            for trunk in job
            for cell in trunk.cells
        ],
    }


def store_line(store: TokenStore) -> str:
    manifest, recipe = store.manifest, store.manifest["recipe"]
    shares = {"of the words changed": recipe.get("corrupted"), "lines of tasks": recipe.get("tasks")}
    shares["written by a model"] = recipe.get("generated", {}).get("share")
    shares["symbols drawn at random"] = recipe["data"].get("inserted")
    changes = "".join(f" ({share:.0%} {words})" for words, share in shares.items() if share)
    return (
        f"tokens: {manifest['source']}, {len(store.train):,} to train on{changes} and "
        f"{manifest['recipe']['validation_tokens']:,} to validate, vocabulary {store.vocab_size}, "
        f"{store.bytes_per_token:.2f} bytes a token"
        + (f"; skipped: {manifest['skipped']}" if "skipped" in manifest else "")
        + (f"\nnote: {manifest['note']}" if "note" in manifest else "")
    )


def _warn_of_older_code(folder: SweepFolder, plan: Plan, console: Console) -> None:
    records = [read_record(folder.run(name)) for name in plan.finished]
    older = {record["code_version"] for record in records if record} - {code_version()}
    if older:
        console.print(
            f"finished cells are kept, some made by other code ({', '.join(sorted(older))}; this is {code_version()})"
        )


def _warn_of_damage(folder: SweepFolder, plan: Plan, console: Console) -> None:
    cells = [cell.name for trunk in plan.trunks for cell in trunk.cells]
    damaged = [name for name in cells if is_damaged(folder.run(name))]
    if damaged:
        line = f"damaged run records count as not done: {', '.join(damaged)}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _notes(folder: SweepFolder, plan: Plan) -> list[str]:
    """What devices did not do while they trained, each once, less what the plan has said."""
    folders = [folder.trunk(trunk.name) for trunk in plan.trunks]
    folders += [folder.run(cell.name) for trunk in plan.trunks for cell in trunk.cells]
    files = [path / "notes.txt" for path in folders]
    notes = dict.fromkeys(line for file in files if file.exists() for line in file.read_text().splitlines())
    return [note for note in notes if note not in plan.notes]


def tell(rows: list[dict[str, Any]], folder: SweepFolder, plan: Plan, console: Console) -> int:
    """Prints how the sweep ended and what it cost; 0 where every cell finished, else 1."""
    finished = sum(row["status"] == "finished" for row in rows)
    console.print(f"{finished} of {plan.cells} cells finished; run table: {folder.table}")
    for line in [*outcome(snapshot(folder.path), disk_bytes(folder.path), ended=True), *_notes(folder, plan)]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0 if finished == plan.cells else 1
