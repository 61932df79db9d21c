"""How fast this device trains each shape: a short measurement, with as many processes at once as the sweep will run."""

import contextlib
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from joblib import Parallel, delayed

from harness.data.texts import open_texts
from harness.data.tokens import TokenStore
from harness.grid import Trunk
from harness.stop import stop
from harness.sweep.compose import Sweep, open_store, set_environment
from harness.training.agreement import check_agreement
from harness.training.device import Device, configure_process, resolve
from harness.training.evaluation import TOKENS_AT_ONCE, evaluate
from harness.training.gpus import devices_of
from harness.training.ranks import Ranks
from harness.training.spawn import RanksKilled, on_ranks
from harness.training.step_graph import SETTLED
from harness.training.trainer import Trainer, out_of_memory
from harness.units import counted, duration

WARM_STEPS, LEAST_STEPS, SECONDS = 2, 3, 0.5
# A process that imports torch on a busy machine may be late.
BARRIER_SECONDS = 60.0
# A measurement that lasts says so this often.
SAID_SECONDS = 10.0


@dataclass(frozen=True)
class Pace:
    """Seconds of one training step, of one evaluation, and of what comes before the first step.

    notes: what this device did not do, and what is no longer promised. utilization: of a step, by the rate of large
    matrix products.
    """

    step: float
    evaluation: float
    start: float
    notes: tuple[str, ...] = ()
    utilization: float = 1.0


def measure(sweep: Sweep, trunks: Sequence[Trunk], slots: int) -> dict[str, Pace]:
    """The pace of each trunk by its name; empty on a cluster, and where a worker was killed while it measured.

    On a CPU two processes slow each other down, by the memory's bandwidth and the clock, so every slot measures every
    shape, each beginning with another one, and the mean counts. On GPUs a shape may compile for a minute: each is
    measured, and compiled, by one process, which tells nothing of jobs that share a GPU. The workers stay, and the
    sweep's jobs find them warm.
    """
    by_shape = {_shape(trunk): trunk for trunk in trunks}
    shapes = list(by_shape.values())
    if not shapes or sweep.cluster:
        return {}
    with (
        tempfile.TemporaryDirectory(prefix="measure-", ignore_cleanup_errors=True) as text,
        said_while_measuring(Path(text), len(shapes)),
    ):
        barrier = Path(text)
        if not sweep.multirun:
            found = [measure_in_turn(shapes, 0, 1, barrier, None)]
        else:
            turns = turns_of(shapes, slots, alone=resolve(shapes[0].job).kind == "cuda")
            try:
                with stop.starting_workers():
                    found = pool_of(slots)(
                        delayed(measure_in_turn)(turn, number, slots, barrier, sweep.folder.path)
                        for number, turn in enumerate(turns)
                    )
            except BrokenProcessPool:
                return {}
    paces: dict[str, Pace] = {}
    for key, trunk in by_shape.items():
        measured = [of_process[trunk.name] for of_process in found if trunk.name in of_process]
        paces |= {key: _mean(measured)} if measured else {}
    return {trunk.name: paces[_shape(trunk)] for trunk in trunks if _shape(trunk) in paces}


def pool_of(processes: int) -> Parallel:
    """That of conf/hydra/launcher/local.yaml, since joblib keeps a pool for the same arguments."""
    return Parallel(
        n_jobs=max(2, processes), backend="loky", prefer="processes", require=None, verbose=0, timeout=None,
        pre_dispatch=processes, batch_size=1, temp_folder=None, max_nbytes=None, mmap_mode="r",
    )  # fmt: skip


def turns_of(shapes: list[Trunk], slots: int, alone: bool) -> list[list[Trunk]]:
    """What each process measures, in its order: `alone`, a part of the shapes; else all, each beginning elsewhere."""
    if alone:
        return [shapes[number::slots] for number in range(slots)]
    return [shapes[first:] + shapes[:first] for first in (len(shapes) * number // slots for number in range(slots))]


@contextlib.contextmanager
def said_while_measuring(folder: Path, shapes: int) -> Iterator[None]:
    """A line every SAID_SECONDS on how far the measurement is, which leaves a file a shape in `folder`."""
    ended, began = threading.Event(), time.monotonic()

    def say() -> None:
        while not ended.wait(SAID_SECONDS):
            done = len({path.suffix for path in folder.glob("measured-*")})
            print(f"measuring the pace of {counted(shapes, 'shape')}: {done} done after "
                  f"{duration(time.monotonic() - began)}", file=sys.stderr, flush=True)  # fmt: skip

    thread = threading.Thread(target=say, name="measuring", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _shape(trunk: Trunk) -> str:
    """What decides how fast a trunk trains."""
    job = trunk.job
    return repr((job.model, trunk.vocab_size, trunk.batch_sequences, job.optimizer.name, job.optimizer.target,
                 job.optimizer.args, job.optimizer.gradient_clip, job.optimizer.micro_batch_tokens, job.precision,
                 job.compile, job.threads, job.gpus))  # fmt: skip


def _mean(paces: list[Pace]) -> Pace:
    """Of processes on cores that may be unlike: what they do in an hour is the sum of their rates."""
    rows = [(pace.step, pace.evaluation, pace.start) for pace in paces]
    step, evaluation, start = map(statistics.harmonic_mean, zip(*rows, strict=True))
    utilization = statistics.fmean(pace.utilization for pace in paces)
    notes = dict.fromkeys(note for pace in paces for note in pace.notes)
    return Pace(step, evaluation, start, tuple(notes), utilization)


def measure_in_turn(
    trunks: Sequence[Trunk], number: int, slots: int, barrier: Path, sweep_folder: Path | None
) -> dict[str, Pace]:
    """The pace of each trunk by its name, in one of `slots` processes that all begin when the last is ready.

    sweep_folder is that of the sweep, None in the launcher itself. What does not fit into memory with half the
    micro-batch, or is killed, is left out.
    """
    set_environment()
    if sweep_folder is not None:
        stop.listen_as_worker(sweep_folder, None)
    (barrier / f"ready-{number}").touch()
    deadline = time.monotonic() + BARRIER_SECONDS
    while len(list(barrier.glob("ready-*"))) < slots and time.monotonic() < deadline:
        time.sleep(0.005)
    paces = {}
    for trunk in trunks:
        for halved in (False, True):
            try:
                paces[trunk.name] = measure_here(trunk, halved)
                break
            except RanksKilled:
                break
            except Exception as error:
                if not out_of_memory(error):
                    raise
        (barrier / f"measured-{number}.{trunk.name}").touch()
    return paces


def measure_here(trunk: Trunk, halved: bool = False) -> Pace:
    """The pace of a trunk in this process, or in its ranks, on GPUs in slots of its own."""
    store = open_store([trunk.job])
    with devices_of(trunk.job, [trunk], store.train.nbytes) as devices:
        if len(devices) > 1:
            return on_ranks(partial(_measured_by_ranks, trunk, halved, time.time()), trunk, devices, halved)
        configure_process(trunk.job, devices[0])
        if devices[0].kind == "mps":
            check_agreement(trunk, store, devices[0])
        return _measured(trunk, store, devices[0], halved)


def _measured_by_ranks(
    trunk: Trunk, halved: bool, asked: float, store: TokenStore, device: Device, ranks: Ranks
) -> Pace:
    """asked: when their processes were started, which takes seconds."""
    waited = time.time() - asked
    pace = _measured(trunk, store, device, halved, ranks)
    return replace(pace, start=pace.start + waited)


def _measured(trunk: Trunk, store: TokenStore, device: Device, halved: bool, ranks: Ranks | None = None) -> Pace:
    """At a learning rate of 0, so that nothing diverges.

    What comes before the first step is that of a shape that is compiled already, as it is by then.
    """
    began = time.perf_counter()
    trainer = Trainer(trunk, store, device, halved, ranks)
    times: list[float] = []
    warm = SETTLED if trainer.graph else WARM_STEPS
    while len(times) < warm + LEAST_STEPS or sum(times[warm:]) < SECONDS:
        stop.check()
        start = time.perf_counter()
        take_step(trainer, len(times))
        times.append(time.perf_counter() - start)
        if len(times) == 1:
            first = time.perf_counter() - began
    trainer.rest()
    step = statistics.fmean(times[warm:])
    seq_len = trunk.job.model.seq_len
    part = store.evaluated(seq_len)[: 4 * max(seq_len, TOKENS_AT_ONCE[device.kind]) + 1]
    start = time.perf_counter()
    evaluate(trainer.model, part, seq_len, store.bytes_per_token, device, store.weights)
    device.synchronize()
    seconds = time.perf_counter() - start
    texts = open_texts(trunk.job.validation, [(trunk.job.data, store)], trunk.job.tokenizer)
    evaluated = [store.evaluated(seq_len), *(text.evaluated(seq_len) for text in texts.values())]
    evaluation = seconds * sum(len(tokens) - 1 for tokens in evaluated) / (len(part) - 1)
    notes = tuple(trainer.notes)
    utilization = trunk.batch_tokens * trunk.flops_per_token / step / trainer.matmul_rate
    del trainer
    if device.compile:
        began = time.perf_counter()
        Trainer(trunk, store, device, halved, ranks).take(0, 0.0)
        device.synchronize()
        first = time.perf_counter() - began
    return Pace(step, evaluation, max(0.0, first - step), notes, utilization)


def take_step(trainer: Trainer, number: int) -> None:
    """One whole step that changes no weight, to its end on the device."""
    trainer.take(number, 0.0)
    trainer.device.synchronize()
