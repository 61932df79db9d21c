"""Numbers as people read them."""


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
