"""Which GPU a job trains on: a slot of one that has the memory, held for as long as the job runs.

A slot is a lock file for the whole machine, so that the jobs of two sweeps, or of two users, share its GPUs; beside it
stands what its holder will need, since memory that is not allocated yet looks free.
"""

import contextlib
import gc
import os
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from harness.config import TrainConfig
from harness.errors import UserError
from harness.grid import Trunk
from harness.stop import stop
from harness.training import machine
from harness.training.device import Device, gpus_of, resolve
from harness.training.memory import check_gpu_memory, needed_bytes
from harness.units import data_size

POLL_SECONDS = 3.0
# A job is tried where this share of what it may need is free, if no other job would end.
TRIED = 0.75


@dataclass(frozen=True)
class Gpu:
    """index is torch's in this process, name the same in every process; bytes, free for others and in all; model, as
    NVIDIA calls it."""

    index: int
    name: str
    free: int
    total: int
    model: str = ""


def seen() -> list[Gpu]:
    """The GPUs that this process may use, with their memory now; makes no context on any of them."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    free = free_by_uuid()
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        total, uuid = properties.total_memory, str(getattr(properties, "uuid", index))
        model = getattr(properties, "name", "")
        if index < len(shown) and shown[index].strip().startswith("MIG-"):  # a slice, which has its GPU's uuid
            found.append(Gpu(index, shown[index].strip(), total, total, model))
        else:
            found.append(Gpu(index, uuid, min(total, free.get(uuid, total)), total, model))
    return found


def free_by_uuid() -> dict[str, int]:
    """Bytes that the driver calls free; empty where it does not say."""
    lines = machine.nvidia_smi("--query-gpu=uuid,memory.free", "--format=csv,noheader,nounits")
    pairs = [line.removeprefix("GPU-").split(", ") for line in lines]
    return {pair[0]: int(pair[1]) * 2**20 for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def choose(
    gpus: Sequence[Gpu], held: Sequence[Sequence[int]], needed: int, slots: int, count: int = 1
) -> list[int] | None:
    """Where in `gpus` the next job goes: to the fewest jobs, then the most memory left; None where it has no place.

    held: what the jobs need that hold a slot of each; slots: the most of each; count: how many GPUs of one model the
    job takes, `needed` of each. Where no job holds any, one that needs little more than is left is tried: its need is
    an upper estimate, and no job's end would leave more.
    """
    left = [min(gpu.free, gpu.total - sum(needs)) for gpu, needs in zip(gpus, held, strict=True)]
    able = [place for place in range(len(gpus)) if len(held[place]) < slots and left[place] >= needed]
    found = _together(gpus, able, held, left, count)
    if found is None and not any(held):
        able = [place for place in range(len(gpus)) if left[place] >= TRIED * needed]
        found = _together(gpus, able, held, left, count)
    return found


def _together(
    gpus: Sequence[Gpu], able: Sequence[int], held: Sequence[Sequence[int]], left: Sequence[int], count: int
) -> list[int] | None:
    """The best `count` of the places in `able`, of GPUs of one model where they are several."""
    ordered = sorted(able, key=lambda place: (len(held[place]), -left[place]))
    for first in ordered:
        alike = [place for place in ordered if gpus[place].model == gpus[first].model]
        if len(alike) >= count:
            return alike[:count]
    return None


def most_jobs(gpus: Sequence[Gpu], needs: Sequence[int], slots: int, count: int = 1) -> int:
    """How many jobs, each on `count` GPUs of one model, run at once, each GPU filled with the largest that it holds."""
    places: dict[str, list[int]] = {}
    for gpu in gpus:
        fitting = [needed for needed in needs if needed <= gpu.free]
        held = min(slots, gpu.free // max(fitting)) if fitting else 0
        places.setdefault(gpu.model, []).append(held)
    total = 0
    for alike in places.values():
        jobs = 0  # no two places of a job lie on one GPU
        while sum(min(held, jobs + 1) for held in alike) >= count * (jobs + 1):
            jobs += 1
        total += jobs
    return total


@contextlib.contextmanager
def devices_of(job: TrainConfig, trunks: Sequence[Trunk], token_bytes: int) -> Iterator[list[Device]]:
    """The devices of a job, as many as it asks for; of GPUs a free slot each, waited for and held until the end.

    token_bytes: of the whole training split. Raises UserError where no GPU holds them, and Stopped where that is asked
    for first.
    """
    device = resolve(job)
    if device.kind != "cuda":
        yield [device] * job.gpus
        return
    for trunk in trunks:
        check_gpu_memory(trunk, device)
    needed = max(needed_bytes(trunk, device, token_bytes=token_bytes) for trunk in trunks)
    with slot(needed, slots_a_gpu(job), gpus_of(job), job.gpus) as indices:
        try:
            yield [resolve(job, index) for index in indices]
        finally:
            gc.collect()  # of the last trainer, whose graph may point to itself
            device.release()


def slots_a_gpu(job: TrainConfig) -> int:
    """The most jobs of one GPU, as slots_per_gpu says, or as many as slots=N needs; auto is 1 until it is measured."""
    asked = 0 if job.slots == "auto" else -(-job.slots * job.gpus // max(1, len(gpus_of(job))))
    return max(1 if job.slots_per_gpu == "auto" else job.slots_per_gpu, asked)


@contextlib.contextmanager
def slot(
    needed: int, slots: int, among: Collection[int] | None = None, count: int = 1, wait: bool = True
) -> Iterator[list[int]]:
    """Waits for a slot of each of `count` GPUs with `needed` bytes left, of those `among` where given; their indices.


    All are taken at once, or none, so that no job holds what another waits for. Raises Stopped where that is asked for
    first, and where it is not to wait, UserError.
    """
    folder, told = lock_folder(), False
    while True:
        stop.check()
        gpus = [gpu for gpu in seen() if among is None or gpu.index in among]
        choosing, taken = FileLock(folder / "choosing.lock", mode=0o666), None
        with contextlib.suppress(Timeout), choosing.acquire(timeout=POLL_SECONDS):
            taken = _take(folder, gpus, needed, slots, count)
        if taken is not None:
            break
        if not wait:
            raise UserError("other jobs have this GPU")
        if not told:
            free = max((gpu.free for gpu in gpus), default=0)
            print(f"waiting for a GPU: a job needs {data_size(needed)}, the most that is free is {data_size(free)}, or "
                  "other jobs have its slots", file=sys.stderr, flush=True)  # fmt: skip
            told = True
        time.sleep(POLL_SECONDS)
    try:
        yield [gpu.index for gpu, _ in taken]
    finally:
        for _, lock in taken:
            lock.release()


def lock_folder() -> Path:
    """Of the machine, for the jobs of every user. Raises UserError where it is none."""
    folder = Path(tempfile.gettempdir()) / "scaling-harness-gpus"
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o777)
    if folder.is_symlink() or not os.access(folder, os.W_OK):
        raise UserError(f"{folder} is no folder in which jobs can lock GPUs: remove it, or set TMPDIR for all of them")
    return folder


def _take(
    folder: Path, gpus: Sequence[Gpu], needed: int, slots: int, count: int = 1
) -> list[tuple[Gpu, FileLock]] | None:
    """A locked slot of each GPU that is chosen; None where the job has no place now."""
    held: list[list[int]] = []
    free: list[list[FileLock]] = []
    for gpu in gpus:
        locks = [FileLock(path, mode=0o666) for path in _slots_of(folder, gpu, slots)]
        taken = [lock for lock in locks if _acquired(lock)]
        free.append(taken)
        held.append([_need_of(lock, gpu) for lock in locks if lock not in taken])
    places = choose(gpus, held, needed, slots, count)
    kept = [(gpus[place], free[place][0]) for place in places or ()]
    for lock in (lock for of_gpu in free for lock in of_gpu if lock not in [lock for _, lock in kept]):
        lock.release()
    for _, lock in kept:
        need = Path(f"{lock.lock_file}.need")
        fresh = need.with_name(f".{need.name}.{os.getpid()}")
        fresh.write_text(str(needed))
        fresh.chmod(0o644)
        os.replace(fresh, need)  # whose file that is, or what it points to, does not matter so
    return kept or None


def _slots_of(folder: Path, gpu: Gpu, slots: int) -> list[Path]:
    """Its lock files, those of sweeps with more slots included."""
    there = set(folder.glob(f"{gpu.name}-*.lock"))
    return sorted(there | {folder / f"{gpu.name}-{number}.lock" for number in range(slots)})


def _acquired(lock: FileLock) -> bool:
    with contextlib.suppress(Timeout):
        lock.acquire(timeout=0)
    return lock.is_locked


def _need_of(lock: FileLock, gpu: Gpu) -> int:
    """What the holder of a slot needs; all of the GPU where that cannot be read."""
    try:
        return int(Path(f"{lock.lock_file}.need").read_text())
    except (OSError, ValueError):
        return gpu.total
