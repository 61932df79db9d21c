"""How many jobs share a GPU: as many as train the most tokens a second side by side, by a short measurement."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import joblib
from joblib import delayed

from harness.data.tokens import TokenStore
from harness.grid import Trunk
from harness.stop import stop
from harness.sweep.compose import Sweep, open_store, set_environment
from harness.sweep.pace import BARRIER_SECONDS, SECONDS, Pace, pool_of, take_step
from harness.training.device import configure_process, gpus_of, resolve
from harness.training.gpus import most_jobs, seen, slot
from harness.training.memory import needed_bytes
from harness.training.trainer import Trainer
from harness.units import count_label, counted

# A shape is small where its step is below this share of the rate of large products: launches, not the GPU, bound it.
SMALL = 0.1
# So many times the tokens of one job a second must several train: they need more memory, and more cores.
GAIN = 1.2
MOST = 8
WARM_STEPS = 10


@dataclass(frozen=True)
class Sharing:
    """number: of jobs a GPU; slowdown: of a step beside so many; slots: of the machine; said: all of it in a line."""

    number: int
    slowdown: float
    slots: int
    said: str

    def sweep(self, sweep: Sweep) -> Sweep:
        """The sweep with the number as if it had been given."""
        if self.number == 1:
            return sweep
        jobs = tuple(replace(job, slots_per_gpu=self.number) for job in sweep.jobs)
        overrides = tuple((*given, f"slots_per_gpu={self.number}") for given in sweep.job_overrides)
        return replace(sweep, jobs=jobs, job_overrides=overrides)

    def paces(self, alone: Mapping[str, Pace]) -> dict[str, Pace]:
        """Paces beside each other, each as much slower as that of the shape that was measured."""
        slower = self.slowdown
        return {
            name: replace(pace, step=slower * pace.step, evaluation=slower * pace.evaluation)
            for name, pace in alone.items()
        }


def share(sweep: Sweep, trunks: Sequence[Trunk], paces: Mapping[str, Pace]) -> Sharing | None:
    """How many of the jobs of `trunks`, which are left to train, share a GPU, given their paces alone.

    None where that is no question: on a CPU or a cluster, where it was given, or with a GPU for each job.
    """
    if sweep.cluster or not sweep.multirun or not paces:
        return None
    job = trunks[0].job
    given = (job.slots, job.slots_per_gpu) != ("auto", "auto") or any(trunk.job.gpus > 1 for trunk in trunks)
    if given or resolve(job).kind != "cuda":
        return None
    gpus = [gpu for gpu in seen() if gpu.index in gpus_of(job)]
    if len(trunks) <= len(gpus):
        return None
    large = max(trunks, key=lambda trunk: paces[trunk.name].utilization if trunk.name in paces else 1.0)
    if large.name not in paces or paces[large.name].utilization >= SMALL:
        return Sharing(1, 1.0, len(gpus), f"1 job a GPU, since {_label(large)} fills it alone")
    needs = [needed_bytes(trunk, resolve(job)) for trunk in trunks]
    cores = joblib.cpu_count() // (len(gpus) * job.threads)
    most = min(MOST, -(-len(trunks) // len(gpus)), cores, most_jobs(gpus[:1], [max(needs)], MOST))
    counts = [count for count in (1, 2, 4, 8) if count <= most]
    if len(counts) < 2:
        return Sharing(1, 1.0, len(gpus), "1 job a GPU, since there are memory and cores for no more")
    trunk = max(trunks, key=lambda trunk: trunk.cells[-1].steps * paces[trunk.name].step)
    try:
        with slot(counts[-1] * max(needs), 1, {gpus[0].index}, wait=False) as indices:
            rates = side_by_side(trunk, counts, indices[0], sweep.folder.path)
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return Sharing(1, 1.0, len(gpus), f"1 job a GPU, since several could not be measured ({why})")
    number = best(rates)
    said = f"{counted(number, 'job')} a GPU, since {told(trunk, rates)}"
    return Sharing(number, number * rates[1] / rates[number], max(1, most_jobs(gpus, needs, number)), said)


def best(rates: Mapping[int, float]) -> int:
    """Of how many processes train how many tokens a second, the number with the most, or 1 where it gains little."""
    number = max(rates, key=lambda count: rates[count])
    return number if rates[number] >= GAIN * rates[1] else 1


def told(trunk: Trunk, rates: Mapping[int, float]) -> str:
    tokens = ", ".join(count_label(rate, 3) for rate in rates.values())
    return f"{', '.join(map(str, rates))} of {_label(trunk)} side by side train {tokens} tokens a second"


def _label(trunk: Trunk) -> str:
    return f"w{trunk.job.model.width}-d{trunk.job.model.depth}"


def side_by_side(
    trunk: Trunk, counts: Sequence[int], number: int, sweep_folder: Path, tokens: TokenStore | None = None
) -> dict[int, float]:
    """Tokens a second of so many processes at once that train `trunk`, by their count: on GPU `number`, or on a CPU.

    Raises what one of them raises, and TimeoutError where one does not come; takes a second a count from when all are
    ready. tokens: where they are not those that its job names.
    """
    most = max(counts)
    with tempfile.TemporaryDirectory(prefix="share-", ignore_cleanup_errors=True) as folder:
        found = pool_of(most)(
            delayed(rates_beside)(trunk, counts, number, place, Path(folder), sweep_folder, tokens)
            for place in range(most)
        )
    return {count: sum(rates[place] for rates in found) for place, count in enumerate(counts)}


def rates_beside(
    trunk: Trunk,
    counts: Sequence[int],
    number: int,
    place: int,
    folder: Path,
    sweep_folder: Path,
    tokens: TokenStore | None,
) -> list[float]:
    """Tokens a second of this process for each count, 0 where it is not among so many; it meets the others in `folder`.

    At a learning rate of 0, so that nothing diverges.
    """
    set_environment()
    stop.listen_as_worker(sweep_folder, None)
    try:
        device = resolve(trunk.job, number)
        configure_process(trunk.job, device)
        trainer = Trainer(trunk, tokens or open_store([trunk.job]), device)
        steps = 0
        while steps < WARM_STEPS:
            take_step(trainer, steps)
            steps += 1
        rates = []
        for count in counts:
            _meet(folder, f"{count}-of", place, max(counts))
            began, first = time.perf_counter(), steps
            while place < count and time.perf_counter() - began < SECONDS:
                stop.check()
                take_step(trainer, steps)
                steps += 1
            rates.append((steps - first) * trunk.batch_tokens / (time.perf_counter() - began))
        trainer.rest()
        del trainer
        device.release()
        return rates
    except BaseException:
        (folder / "failed").touch()
        raise


def _meet(folder: Path, where: str, place: int, number: int) -> None:
    """Waits for all of `number` processes."""
    (folder / f"{where}-{place}").touch()
    deadline = time.monotonic() + BARRIER_SECONDS
    while len(list(folder.glob(f"{where}-*"))) < number:
        stop.check()
        if (folder / "failed").exists():
            raise RuntimeError("a process beside this one failed")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{number} processes were not ready in {BARRIER_SECONDS:.0f} s")
        time.sleep(0.005)
