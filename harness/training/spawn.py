"""A trunk on several GPUs: the job's own process starts its ranks, watches them, and acts on how they end.

A rank is `python -m harness.training.spawn FD`, FD one end of a socket to that process, on which it reads what it is to
do and says how it ended. When one ends, the others are ended too.
"""

import gc
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":
    gc.disable()  # what a rank imports for seconds is not searched for garbage

import torch
import torch.distributed as dist

from harness import slurm
from harness.data.tokens import TokenStore, prepare
from harness.errors import UserError
from harness.files import make_folder, write_atomically
from harness.grid import Cell, Trunk
from harness.records import SweepFolder
from harness.stop import KILL_SECONDS, SIGNALS, Stopped, stop
from harness.training.curve import read_curve
from harness.training.device import Device, configure_process
from harness.training.job import is_offered, pending_cells, record_lost
from harness.training.ranks import Apart, Lost, Ranks, connect
from harness.training.trainer import Trainer, out_of_memory
from harness.training.worker import run_trunk

WATCH_SECONDS = 0.2
# So long after a rank misses another it is waited for what that one says; one that was killed says nothing.
LAST_WORD_SECONDS = 10.0
# How often ranks that were killed are started again without getting farther.
RETRIES = 2


class RankError(Exception):
    """What a rank raised, told by its process; its traceback is the cause."""


class RanksKilled(Exception):
    """A rank ended without a word."""


ERRORS = {"out of memory": torch.OutOfMemoryError, "refused": UserError, "apart": UserError, "failed": RankError}


@dataclass(frozen=True)
class Order:
    """What one rank is to do. work: in rank 0; pipes: file descriptors, in rank 0 of where it tells the others what to
    do, in another of where it reads that; job: the process that waits."""

    work: Callable[..., Any]
    trunk: Trunk
    device: Device
    ranks: Ranks
    pipes: tuple[int, ...]
    folder: Path
    job: int


def run_trunk_on_ranks(
    trunk: Trunk, store: TokenStore, devices: Sequence[Device], folder: SweepFolder, code_version: str
) -> None:
    """run_trunk by a process on each of `devices`, again from the checkpoint where they were killed or out of memory.

    Only an interrupt leaves this function as an exception: Stopped, with a checkpoint written.
    """
    work = partial(run_trunk, trunk, folder=folder, code_version=code_version)
    halved, failed, deaths, fruitless, farthest = False, frozenset[str](), 0, 0, 0
    while pending_cells(trunk, folder, failed):
        why = ""
        try:
            on_ranks(work, trunk, devices, halved, failed)
            return
        except RanksKilled:
            steps = steps_done(trunk, folder)
            deaths, fruitless = deaths + 1, fruitless + 1 if steps <= farthest else 0
            farthest = max(farthest, steps)
            if fruitless >= RETRIES:
                why = f"its process was killed {deaths} times: is there enough memory?"
        except torch.OutOfMemoryError as error:
            if halved:
                why = f"out of memory, also with half the micro-batch: {error}"
            halved = True
        except (UserError, RankError) as error:
            why = str(error)
            write_atomically(make_folder(folder.trunk(trunk.name)) / "error.txt", str(error.__cause__))
        if why:
            cells = cells_in_work(trunk, folder, failed)
            record_lost(trunk, store, devices[0], folder, code_version, why, cells)
            failed, fruitless = failed | {cell.name for cell in cells}, 0


def cells_in_work(trunk: Trunk, folder: SweepFolder, failed: frozenset[str]) -> list[Cell]:
    """What run_trunk trains next among ranks: the trunk, for which these cells wait, or the longest cooldown."""
    pending = pending_cells(trunk, folder, failed)
    missing = [cell for cell in pending if not is_offered(trunk, cell, folder)]
    return missing or [max(pending, key=trunk.cooldown_flops)]


def steps_done(trunk: Trunk, folder: SweepFolder) -> int:
    """Of the trunk and its cells, as far as their curves go."""
    curves = [folder.trunk(trunk.name), *(folder.run(cell.name) for cell in trunk.cells)]
    rows = [read_curve(path / "curve.jsonl", trunk.cells[-1].steps) for path in curves]
    return sum(of_curve[-1]["step"] for of_curve in rows if of_curve)


def on_ranks(
    work: Callable[..., Any],
    trunk: Trunk,
    devices: Sequence[Device],
    halved: bool = False,
    failed: frozenset[str] = frozenset(),
) -> Any:
    """What `work(store=, device=, ranks=)` returns in rank 0, whose trainers of `trunk` the others follow.

    Raises Stopped, RanksKilled, torch.OutOfMemoryError of any rank, UserError, and RankError for other errors; no
    process is left by then.
    """
    with tempfile.TemporaryDirectory(prefix="ranks-", ignore_cleanup_errors=True) as text:
        folder, reports = Path(text), []
        processes: list[subprocess.Popen[bytes]] = []
        told, others = zip(*(Pipe(duplex=False) for _ in devices[1:]), strict=True)
        try:
            for rank, device in enumerate(devices):
                own, its = Pipe()
                passed = tuple(pipe.fileno() for pipe in (others if rank == 0 else told[rank - 1 : rank]))
                processes.append(_started(its, passed))
                reports.append(own)
                ranks = Ranks(rank, len(devices), halved=halved, failed=failed)
                with suppress(OSError):  # of one that is gone already, which is found next
                    own.send(sys.path)
                    own.send(Order(work, trunk, device, ranks, passed, folder, os.getpid()))
            for pipe in (*told, *others):
                pipe.close()
            kind, content, trace = _first_word(reports, folder)
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.wait()
    if kind == "stopped":
        stop.ask(content)
    if kind in ("stopped", "killed"):
        stop.check()  # which a kill may follow
        raise RanksKilled
    if kind != "done":
        raise ERRORS[kind](content) from RankError(trace)
    return content


def _started(report: Connection, passed: Sequence[int]) -> "subprocess.Popen[bytes]":
    """A rank's process, for which signals wait until it listens to them; closes our `report`, which is its own."""
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "harness.training.spawn", str(report.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[report.fileno(), *passed],
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        report.close()


def _first_word(reports: list[Connection], folder: Path) -> tuple[str, Any, str]:
    """How the first rank ended that did so by itself: kind, what it says, traceback."""
    killed = ("killed", None, "")
    last, open_reports, deadline = killed, list(reports), float("inf")
    while open_reports and time.monotonic() < deadline:
        if stop.asked() and not (folder / "stop").exists():
            (folder / "stop").write_text(str(stop.number))
        for report in wait(open_reports, WATCH_SECONDS):
            assert isinstance(report, Connection)
            open_reports.remove(report)
            try:
                said = report.recv()
            except (EOFError, OSError):
                return killed
            if said[0] not in ("lost", "apart"):
                return said
            last = said if said[0] == "apart" else last
            deadline = min(deadline, time.monotonic() + LAST_WORD_SECONDS)
    return last


def main(file: int) -> NoReturn:
    """One rank, from its order to its last word."""
    gc.freeze()
    gc.enable()
    report = Connection(file)
    try:
        sys.path[:] = report.recv()
        order = report.recv()
    except EOFError:
        os._exit(1)
    stop.listen_as_worker(order.folder, "stop")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if os.getppid() != order.job:
        _leave(order)
    threading.Thread(target=_leave_with_job, args=[order], name="job", daemon=True).start()
    said = _said(order)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        report.send(said)
    except OSError:
        _leave(order)
    os._exit(0)  # without the hooks of NCCL and gloo, which would wait for the other ranks


def _leave_with_job(order: Order) -> None:
    """Ends a rank that cannot save and leave by itself when its job is gone, since it waits for another."""
    while not stop.launcher_is_gone():
        time.sleep(WATCH_SECONDS)
    time.sleep(KILL_SECONDS)
    _leave(order)


def _leave(order: Order) -> NoReturn:
    """Ends a rank whose job is gone, and cannot remove its folder."""
    shutil.rmtree(order.folder, ignore_errors=True)
    os._exit(1)


def _said(order: Order) -> tuple[str, Any, str]:
    try:
        with stop.working():
            return "done", _done(order), ""
    except Stopped as stopped:
        return "stopped", stopped.number, ""
    except (Lost, dist.DistError):
        return "lost", None, ""
    except Exception as error:
        if out_of_memory(error):
            return "out of memory", str(error), traceback.format_exc()
        if isinstance(error, UserError):
            return "apart" if isinstance(error, Apart) else "refused", str(error), traceback.format_exc()
        return "failed", f"{type(error).__name__}: {error}", traceback.format_exc()


def _done(order: Order) -> Any:
    job, pipes = order.trunk.job, [Connection(file) for file in order.pipes]
    first = order.ranks.rank == 0
    ranks = replace(order.ranks, others=pipes) if first else order.ranks
    configure_process(job, order.device)
    connect(ranks, order.device, order.folder / "store")
    store = prepare(job.data, job.tokenizer, order.trunk.cells[-1].tokens)
    if first:
        found = order.work(store=store, device=order.device, ranks=ranks)
        slurm.end_mirrors()
        return found
    _follow(order, store, pipes[0])


def _follow(order: Order, store: TokenStore, told: Connection) -> NoReturn:
    """Does with a trainer of its own what rank 0 does with its; raises Lost when that one ends."""
    trainer: Trainer | None = None
    while True:
        try:
            what, arguments = told.recv()
        except EOFError as error:
            raise Lost from error
        if what == "trainer":
            trainer = None  # whose memory the next one needs
            trainer = Trainer(order.trunk, store, order.device, arguments[0], order.ranks)
        elif what == "restore":
            assert trainer is not None
            trainer.restore(torch.load(io.BytesIO(arguments[0]), map_location="cpu", weights_only=True))
        else:
            getattr(trainer, what)(*arguments)


if __name__ == "__main__":
    main(int(sys.argv[1]))
