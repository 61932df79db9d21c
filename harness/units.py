"""Numbers as people read them."""

from collections.abc import Mapping
from typing import Any


def count_label(number: float, digits: int = 4) -> str:
    """2000000 -> 2M, 1500000 -> 1.5M, 500000 -> 500k; at most `digits` significant digits."""
    rounded = float(f"{number:.{digits}g}")
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if rounded >= size:
            return f"{rounded / size:.{digits}g}{unit}"
    return f"{rounded:.{digits}g}"


def counted(number: int, word: str) -> str:
    """1 cell, 2 cells."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """45 s, 6 min, 3 h 10 min, 2 d 4 h."""
    minutes = round(seconds / 60)
    if seconds < 59.5:
        return f"{round(seconds)} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def data_size(size: float) -> str:
    """999 B, 2.5 kB, 31 MB, 1.2 GB."""
    for power, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= power:
            value = size / power
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{size:.0f} B"


def machine_hours(process_seconds: float, machine: Mapping[str, Any]) -> str:
    """What processes have occupied of a machine: 5.2 core-minutes, 12 GPU-hours (30.00 at 2.5 an hour).

    machine: device, its kind; threads, of a process; slots, jobs at once, each of so many processes as ranks says (1);
    gpus, that these share; and where it is known price_per_hour, of a GPU or a core.
    """
    device = str(machine["device"])
    processes = int(machine["slots"]) * int(machine.get("ranks", 1))
    share = int(machine["threads"]) if device == "cpu" else max(1, int(machine["gpus"])) / processes
    size, unit = process_seconds * share / 60, "minutes"
    if size >= 60:
        size, unit = size / 60, "hours"
    price = machine.get("price_per_hour")
    paid = f" ({process_seconds * share / 3600 * price:,.2f} at {price:g} an hour)" if price else ""
    return f"{size:,.{0 if size >= 10 else 1}f} {'core' if device == 'cpu' else 'GPU'}-{unit}{paid}"
