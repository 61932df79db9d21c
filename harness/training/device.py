"""Where and how a job computes: device, precision, threads, allocator."""

import contextlib
import ctypes
import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from harness.config import TrainConfig
from harness.errors import UserError
from harness.model.products import product

# glibc's mallopt: below these sizes freed memory stays with the process, which spares a page fault a page a step.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEEP_BYTES, OLD_KEEP_BYTES = 1 << 30, 1 << 25
# So much of the heap is asked for in pages of 2 MiB: a step goes over more memory than a core has small pages at hand.
HUGE_BYTES, HUGE_PAGE, MADV_HUGEPAGE = 1 << 29, 1 << 21, 14


@dataclass(frozen=True)
class Device:
    """kind is cpu, cuda or mps; precision float32 or bf16 (autocast); compile: whether torch.compile is used.

    memory: bytes of the largest GPU that the job may use, alike in all of its processes: they decide how many sequences
    pass at once; what Metal recommends to take on an Apple GPU, 0 on a CPU.
    """

    torch_device: torch.device
    precision: str
    compile: bool
    memory: int = 0

    @property
    def kind(self) -> str:
        return self.torch_device.type

    def autocast(self) -> AbstractContextManager[object]:
        if self.precision == "bf16":
            return torch.autocast(self.kind, dtype=torch.bfloat16)
        return nullcontext()

    def release(self) -> None:
        """Gives back what freed tensors left reserved, for the processes that share the device."""
        if self.kind == "cuda":
            with contextlib.suppress(RuntimeError):  # after a fault of the GPU, which is the error to tell
                torch.cuda.empty_cache()
        elif self.kind == "mps":
            torch.mps.empty_cache()

    def synchronize(self) -> None:
        if self.kind == "cuda":
            torch.cuda.synchronize(self.torch_device)
        elif self.kind == "mps":
            torch.mps.synchronize()


def device_name(job: TrainConfig) -> str:
    """Of this machine where it is auto, else as asked for, here or not.

    auto is never an Apple GPU, which was not seen to train yet; sweep/apple.py says where it is likely faster.
    """
    if job.device != "auto":
        return job.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def precision(job: TrainConfig) -> str:
    """The resolved precision of a job, whose device need not be on this machine."""
    if job.precision != "auto":
        return job.precision
    return "bf16" if device_name(job).startswith("cuda") and has_bf16(job) else "float32"


def has_bf16(job: TrainConfig) -> bool:
    """Whether every GPU that the job may use multiplies in bf16; those before capability 8 only pretend to."""
    return all(torch.cuda.get_device_capability(gpu) >= (8, 0) for gpu in gpus_of(job))


def gpus_of(job: TrainConfig) -> list[int]:
    """The GPUs here that a job may use, by torch's index; of a job on several, whose ranks must round alike, those of
    which there are as many of one model."""
    if not torch.cuda.is_available():
        return []
    _, colon, index = job.device.partition(":")
    count = torch.cuda.device_count()
    here = [int(index)] if colon and int(index) < count else list(range(count))
    if job.gpus == 1:
        return here
    models = [torch.cuda.get_device_properties(gpu).name for gpu in here]
    return [gpu for gpu, model in zip(here, models, strict=True) if models.count(model) >= job.gpus]


def resolve(job: TrainConfig, number: int = 0) -> Device:
    """The device of a job: on GPUs the one that it names, else that of `number`, counted round. Raises UserError."""
    name = device_name(job)
    if name.startswith("cuda"):
        count = torch.cuda.device_count()
        index = int(name[5:]) if ":" in name else number % max(1, count)
        if index >= count:
            raise UserError(f"device={job.device} is not here ({count} CUDA devices): take device=auto or cpu")
        name = f"cuda:{index}"
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps is not here: take device=auto or cpu")
    kind = name.split(":")[0]
    compiled = kind == "cuda" if job.compile is None else job.compile
    memory = largest_gpu(job) if kind == "cuda" else torch.mps.recommended_max_memory() if kind == "mps" else 0
    return Device(torch.device(name), precision(job), compiled, memory)


def uuid_of(device: Device) -> str | None:
    """The driver's name of a GPU; None of what is no GPU of NVIDIA's."""
    if device.kind != "cuda":
        return None
    return str(getattr(torch.cuda.get_device_properties(device.torch_device), "uuid", "")) or None


def largest_gpu(job: TrainConfig) -> int:
    """Bytes of the GPU that has the most of those that the job may use."""
    return max(torch.cuda.get_device_properties(gpu).total_memory for gpu in gpus_of(job))


def memory_bytes(device: Device) -> int:
    """What the device has in all, of several GPUs the largest; a container has a limit."""
    if device.memory:
        return device.memory
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *memory_limits(Path("/"))])


def memory_limits(root: Path) -> list[int]:
    """Bytes that the control groups of this process allow it, of either version; none where nothing limits it."""
    limits = []
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
            name = "memory.limit_in_bytes" if controllers else "memory.max"
            group = PurePosixPath(path.lstrip("/"))  # within a container its own group may be shown as the root
            for folder in (group, *group.parents):
                with contextlib.suppress(OSError, ValueError):
                    limits.append(int((top / folder / name).read_text()))
    return limits


def configure_process(job: TrainConfig, device: Device) -> None:
    """Settings of the whole process that make a run fast and repeatable."""
    if device.kind == "cpu":
        torch.set_num_threads(job.threads)
        # Tiny second moments of Adam become denormal, which costs a CPU many times a normal product.
        torch.set_flush_denormal(True)
        keep_freed_memory()
    elif device.kind == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.cuda.set_device(device.torch_device)
        torch.use_deterministic_algorithms(True)
        settings: Any = torch.utils.deterministic
        settings.fill_uninitialized_memory = False  # each output of attention, before it is written
    if device.compile:
        configure_compiler()


def configure_compiler() -> None:
    """Has every shape of a process compiled, where the ninth would run op by op, and no stopwatch choose kernels."""
    import torch._dynamo.config
    import torch._inductor.config

    torch._dynamo.config.recompile_limit = 64
    if hasattr(torch._inductor.config, "deterministic"):
        torch._inductor.config.deterministic = True


@lru_cache
def keep_freed_memory() -> None:
    """Tells glibc to keep freed memory, in huge pages where Linux has some; does nothing with another C library."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    # Older releases refuse more than 32 MiB. Where none is taken, a trim threshold alone would make all blocks mapped.
    kept = next((size for size in (KEEP_BYTES, OLD_KEEP_BYTES) if libc.mallopt(M_MMAP_THRESHOLD, size)), 0)
    if kept:
        libc.mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)
    if kept < KEEP_BYTES:
        return
    libc.malloc.restype = ctypes.c_void_p
    block = libc.malloc(ctypes.c_size_t(HUGE_BYTES))  # at the heap's end, where it stays when it is freed
    if block:
        first = -(-block // HUGE_PAGE) * HUGE_PAGE
        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(HUGE_BYTES - HUGE_PAGE), MADV_HUGEPAGE)
        libc.free(ctypes.c_void_p(block))


@lru_cache
def matmul_rate(device: Device) -> float:
    """FLOP/s of a large matrix product on this device at its precision, as the model makes it: the best of six.

    On a GPU of ten in a row, whose launches hide, and of numbers that differ: on equal ones it draws less power and
    runs faster.
    """
    size, count = (512, 1) if device.kind == "cpu" else (4096, 10)
    dtype = torch.bfloat16 if device.precision == "bf16" else torch.float32
    a = torch.linspace(-1, 1, size * size).view(size, size).to(device.torch_device, dtype)
    best = float("inf")
    for _ in range(6):
        device.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            product(a, a)
        device.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * count * size**3 / best
