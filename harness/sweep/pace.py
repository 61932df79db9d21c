"""How fast this device trains each shape: a short measurement, with as many processes at once as the sweep will run."""

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from joblib import Parallel, delayed

from harness.grid import Trunk
from harness.stop import stop
from harness.sweep.compose import ENVIRONMENT, Sweep, open_store
from harness.training.device import configure_process, resolve
from harness.training.evaluation import TOKENS_AT_ONCE, evaluate
from harness.training.trainer import Trainer

WARM_STEPS, LEAST_STEPS, SECONDS = 2, 3, 0.5
# A process that imports torch on a busy machine may be late.
BARRIER_SECONDS = 60.0


@dataclass(frozen=True)
class Pace:
    """Seconds of one training step, of one evaluation, and of what comes before the first step.

    notes: what this device did not do, and what is no longer promised.
    """

    step: float
    evaluation: float
    start: float
    notes: tuple[str, ...] = ()


def measure(sweep: Sweep, trunks: Sequence[Trunk], slots: int) -> dict[str, Pace]:
    """The pace of each trunk by its name; empty on a cluster, and where a worker was killed while it measured.

    Two processes slow each other down: by the memory's bandwidth, the clock, a shared GPU. So every slot measures every
    shape, each beginning with another one, and the mean counts. The workers stay, and the sweep's jobs find them warm.
    """
    by_shape = {_shape(trunk): trunk for trunk in trunks}
    shapes = list(by_shape.values())
    if not shapes or sweep.cluster:
        return {}
    if not sweep.multirun:
        found = [measure_in_turn(shapes, 0, 1, None, sweep.folder.path)]
    else:
        with tempfile.TemporaryDirectory(prefix="measure-") as barrier:
            # The arguments are those of conf/hydra/launcher/local.yaml: joblib keeps a pool for the same ones.
            pool = Parallel(
                n_jobs=max(2, slots), backend="loky", prefer="processes", require=None, verbose=0, timeout=None,
                pre_dispatch=slots, batch_size=1, temp_folder=None, max_nbytes=None, mmap_mode="r",
            )  # fmt: skip
            turns = [(shapes[first:] + shapes[:first]) for first in (len(shapes) * k // slots for k in range(slots))]
            try:
                found = pool(
                    delayed(measure_in_turn)(turn, number, slots, barrier, sweep.folder.path)
                    for number, turn in enumerate(turns)
                )
            except BrokenProcessPool:
                return {}
    paces = {key: _mean([paces[trunk.name] for paces in found]) for key, trunk in by_shape.items()}
    return {trunk.name: paces[_shape(trunk)] for trunk in trunks}


def _shape(trunk: Trunk) -> str:
    """What decides how fast a trunk trains."""
    job = trunk.job
    return repr((job.model, trunk.vocab_size, trunk.batch_sequences, job.optimizer.name, job.optimizer.gradient_clip,
                 job.optimizer.micro_batch_tokens, job.precision, job.compile, job.threads))  # fmt: skip


def _mean(paces: list[Pace]) -> Pace:
    rows = [(pace.step, pace.evaluation, pace.start) for pace in paces]
    step, evaluation, start = map(statistics.fmean, zip(*rows, strict=True))
    notes = dict.fromkeys(note for pace in paces for note in pace.notes)
    return Pace(step, evaluation, start, tuple(notes))


def measure_in_turn(
    trunks: Sequence[Trunk], number: int, slots: int, barrier: str | None, folder: Path
) -> dict[str, Pace]:
    """The pace of each trunk by its name, in one of `slots` processes that all begin when the last is ready."""
    os.environ.update(ENVIRONMENT)
    if barrier is not None:
        stop.listen_as_worker(folder, None)
        (Path(barrier) / str(number)).touch()
        deadline = time.monotonic() + BARRIER_SECONDS
        while len(os.listdir(barrier)) < slots and time.monotonic() < deadline:
            time.sleep(0.005)
    return {trunk.name: measure_here(trunk, number) for trunk in trunks}


def measure_here(trunk: Trunk, number: int = 0) -> Pace:
    """The pace of a trunk in this process; the learning rate is 0, so that nothing diverges."""
    device = resolve(trunk.job, number)
    configure_process(trunk.job, device)
    store = open_store([trunk.job])
    began = time.perf_counter()
    trainer = Trainer(trunk, store, device)
    times: list[float] = []
    while len(times) < WARM_STEPS + LEAST_STEPS or sum(times[WARM_STEPS:]) < SECONDS:
        stop.check()
        start = time.perf_counter()
        trainer.gradients(len(times))
        trainer.optimizer.step(0.0)
        device.synchronize()
        times.append(time.perf_counter() - start)
        if len(times) == 1:
            first = time.perf_counter() - began
    step = statistics.fmean(times[WARM_STEPS:])
    seq_len = trunk.job.model.seq_len
    evaluated = store.evaluated(seq_len)
    part = evaluated[: 4 * max(seq_len, TOKENS_AT_ONCE[device.kind]) + 1]
    start = time.perf_counter()
    evaluate(trainer.model, part, seq_len, store.bytes_per_token, device)
    device.synchronize()
    evaluation = (time.perf_counter() - start) * (len(evaluated) - 1) / (len(part) - 1)
    notes = tuple(trainer.notes)
    del trainer
    device.release()
    return Pace(step, evaluation, max(0.0, first - step), notes)
