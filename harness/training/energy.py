"""What the GPUs of a sweep take while its jobs run, in joules, by the counter that NVIDIA's driver keeps of each.

energy.jsonl in the sweep's folder has a line for each time that a process held a GPU to train: its counter at both
ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

# Of the driver; nvidia-smi shows power, of which it sees a part of the time, and not this counter.
LIBRARY = "libnvidia-ml.so.1"
FILE = "energy.jsonl"


def joules(uuid: str) -> float | None:
    """What a GPU has taken since its driver was loaded; None where the driver does not say."""
    try:
        nvml = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    if nvml.nvmlInit_v2():
        return None
    try:
        handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
        if nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}".encode(), ctypes.byref(handle)):
            return None
        failed = nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules))
        return None if failed else millijoules.value / 1000
    except AttributeError:  # of a driver from before the counter
        return None
    finally:
        nvml.nvmlShutdown()


@contextlib.contextmanager
def metered(uuids: Iterable[str | None], sweep_dir: Path) -> Iterator[None]:
    """Writes down what these GPUs took within it; nothing for a device without a uuid or a counter."""
    began, first = time.time(), {uuid: joules(uuid) for uuid in uuids if uuid}
    try:
        yield
    finally:
        for uuid, before in first.items():
            last = None if before is None else joules(uuid)
            if last is None:
                continue
            line = {"gpu": uuid, "began": began, "ended": time.time(), "first": before, "last": last}
            with contextlib.suppress(OSError):  # an account is not worth a cell
                _append(sweep_dir / FILE, json.dumps(line) + "\n")


def _append(path: Path, line: str) -> None:
    """In one write, since other jobs append too."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def taken(sweep_dir: Path) -> float | None:
    """Joules of all GPUs of a sweep while at least one of its jobs ran on them, whoever else did; None if unknown.

    Where its jobs share a GPU, the counter is read over the time that they cover together: nothing counts twice.
    """
    spans = defaultdict(list)
    with contextlib.suppress(OSError):
        for line in (sweep_dir / FILE).read_text().splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a torn line
                one = json.loads(line)
                spans[one["gpu"]].append((one["began"], one["ended"], one["first"], one["last"]))
    return sum(map(_of_one, spans.values())) if spans else None


def _of_one(spans: list[tuple[float, float, float, float]]) -> float:
    """Joules of the times that the spans of one GPU cover, less those in which its counter was started anew."""
    total, end, read = 0.0, float("-inf"), 0.0
    for began, ended, first, last in sorted(spans):
        if began >= end:
            total += max(0.0, last - first)
        elif ended > end:
            total += max(0.0, last - read)
        if ended > end:
            end, read = ended, last
    return total
