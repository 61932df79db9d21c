"""Quantities of variants: what compare.json says of one, and of all together."""

import math
from dataclasses import replace
from typing import Any

from scipy import special

from harness.errors import UserError
from harness.laws.claims.measured import Evidence, Measured, Row
from harness.laws.claims.replacement import replacement
from harness.laws.noise.intervals import TAILS

OF_COMPARISON = "compare."
REPLACES = "replaces"  # of the run table, where the others are of compare.json
# Of a variant of compare.json, in the words of a sentence; those below `multiplier` first.
MULTIPLIERS = {
    "equal_tokens": "multiplier at equal params and tokens",
    "equal_flops": "multiplier at equal FLOPs",
    "equal_time": "multiplier at equal time",
    "per_decade": "growth of the multiplier a decade of compute",
    "params": "multiplier of params",
    "tokens": "multiplier of tokens",
    REPLACES: "tokens of the baseline that do what one of the variant does",
}


def multiplier(evidence: Evidence, name: str) -> Measured:
    """A number of one variant of compare.json, beside the same of the others."""
    variant, key = parts(name)
    if key == REPLACES:
        return replacement(evidence, variant)
    content = evidence.content("compare")
    if variant not in content["variants"]:
        raise UserError(f"claim.quantity={name} names no variant: compare.json has {', '.join(content['variants'])}")
    found = _rows(content, key)
    rows = [replace(row, decides=each == variant) for each, row in found.items() if row]
    words = f"{MULTIPLIERS[key]} of {variant} against {content['baseline']}"
    own = found[variant]
    if own is None:
        doubts = [*_doubts(content), f"{variant} has no {MULTIPLIERS[key]}"]
        return Measured(words, _method(content), None, None, None, rows, doubts=doubts)
    return Measured(words, _method(content), own.estimate, own.low, own.high, rows, doubts=_doubts(content))


def drift(evidence: Evidence) -> Measured:
    """The factor by which a multiplier changes a decade of compute, either way, of the variant that changes most."""
    content = evidence.content("compare")
    found = _rows(content, "per_decade")
    rows = [row for row in found.values() if row]
    sizes = [_size(row, len(rows)) for row in rows]
    doubts = _doubts(content) + [f"{name} has none" for name, row in found.items() if row is None]
    words = f"factor by which a multiplier against {content['baseline']} changes a decade of compute, the largest"
    if not sizes:
        return Measured(words, _method(content), None, None, None, rows, doubts=doubts)
    number, low, high = (max(ends) for ends in zip(*sizes, strict=True))
    rows.append(Row("the largest, either way", number, low, high, True))
    return Measured(words, _method(content), number, low, high, rows, doubts=doubts)


def _size(row: Row, many: int) -> tuple[float, float, float]:
    """A factor taken upwards, and the ends that it has in the interval of the largest of `many`.

    The largest upper end is that of the largest or more. Any of the lower ends may be too high, so that each is widened
    to err as many times more seldom (Bonferroni, normal in the log).
    """
    assert row.low is not None and row.high is not None
    value, low, high = math.log(row.estimate), math.log(row.low), math.log(row.high)
    wider = special.ndtri(1 - TAILS[0] / many) / special.ndtri(1 - TAILS[0])
    below, above = value - wider * (value - low), value + wider * (high - value)
    least = 0.0 if below <= 0 <= above else min(abs(below), abs(above))
    return math.exp(abs(value)), math.exp(least), math.exp(max(abs(low), abs(high)))


def _rows(content: dict[str, Any], key: str) -> dict[str, Row | None]:
    """A number of each variant; None of one that has none, or no finite interval."""
    found: dict[str, Row | None] = {}
    for name, entry in content["variants"].items():
        ends = entry["multiplier"][key] if key in entry["multiplier"] else entry[key]
        whole = ends is not None and ends["low"] is not None and ends["high"] is not None
        label = f"{name}: {MULTIPLIERS[key]}"
        found[name] = Row(label, ends["estimate"], ends["low"], ends["high"]) if whole else None
    return found


def _doubts(content: dict[str, Any]) -> list[str]:
    certificate = content["certificate"]
    return [] if certificate["certified"] else [f"the comparison is not certified: {'; '.join(certificate['reasons'])}"]


def _method(content: dict[str, Any]) -> str:
    return f"{content['predicts']}, of all variants together; {content['choices']['interval_method']}"


def is_multiplier(name: str) -> bool:
    """Whether it is compare.VARIANT.NUMBER."""
    return name.startswith(OF_COMPARISON) and name.count(".") == 2 and parts(name)[1] in MULTIPLIERS


def parts(name: str) -> tuple[str, str]:
    """Variant and number of compare.VARIANT.NUMBER."""
    variant, _, key = name.removeprefix(OF_COMPARISON).rpartition(".")
    return variant, key
