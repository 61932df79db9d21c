"""The grid of settings that tunes a sweep: around its rules, at the ends of its shapes and between.

A value of a setting is the present one times a power of its factor: its step. Rate and decay are tried in full, for
the best of one moves with the other; batch and warmup with the rates beside the ridge, as with a larger batch a larger
rate. All of them at each shape: where a batch is not tried, the best rate is only that of the batch which is there.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from harness.config import TrainConfig
from harness.errors import UserError
from harness.grid import Trunk

RATE, BATCH, WARMUP, DECAY = "learning_rate", "batch_tokens", "warmup_tokens", "weight_decay"
# A decay of four times or a quarter costs about what a rate of twice or half does (docs/tuning.md).
FACTORS = {RATE: 2.0, BATCH: 2.0, WARMUP: 2.0, DECAY: 4.0}
STEPS = {RATE: (-2, -1, 0, 1, 2), BATCH: (-1, 0, 1), WARMUP: (-1, 0, 1), DECAY: (-1, 0, 1)}
BESIDE = (-1, 0, 1)
# How many shapes are tuned at.
SHAPES = 4
# The most of the smallest budget that a warmup may take.
MOST_WARMUP = 0.5
ZERO = None  # as a step: the setting is 0


@dataclass(frozen=True, eq=False)
class Place:
    """One shape: its name, and the trunk of the present rules there."""

    shape: str
    trunk: Trunk


Point = tuple[tuple[str, int | None], ...]  # the steps of the settings that are not at their present value


def places_of(trunks: Iterable[Trunk]) -> list[Place]:
    """The shapes to tune at, by params: both ends of a grid, and those nearest to equal steps in log N between.

    Raises UserError where it has one shape.
    """
    by_shape: dict[str, Trunk] = {}
    for trunk in trunks:
        by_shape.setdefault(f"w{trunk.job.model.width}-d{trunk.job.model.depth}", trunk)
    ordered = sorted(by_shape.items(), key=lambda item: item[1].params.with_head)
    logs = [math.log(trunk.params.with_head) for _, trunk in ordered]
    if len(logs) < 2 or logs[-1] - logs[0] < math.log(1.05):
        raise UserError(
            f"the sweep has {'one shape' if len(logs) < 2 else 'shapes of one size'}, {ordered[0][0]}, and a rule in "
            "params lies between two or more: give it more of them"
        )
    chosen = {0, len(logs) - 1}
    for part in range(1, SHAPES - 1):
        wanted = logs[0] + (logs[-1] - logs[0]) * part / (SHAPES - 1)
        if left := [index for index in range(len(logs)) if index not in chosen]:
            chosen.add(min(left, key=lambda index: abs(logs[index] - wanted)))
    return [Place(*ordered[index]) for index in sorted(chosen)]


def first_points(place: Place, end: bool) -> set[Point]:
    """What is tried at a shape in the first round; at an `end` of the shapes a decay of 0 too."""
    tried = {name for name in STEPS if place.trunk.job.optimizer.by_size()[name].value > 0}
    decays = STEPS[DECAY] if DECAY in tried else (0,)
    points = {point({RATE: rate, DECAY: decay}) for rate, decay in product(STEPS[RATE], decays)}
    for name in (BATCH, WARMUP):
        for step in steps_of(place, name) if name in tried else ():
            points |= {point({RATE: rate, name: step}) for rate in ridge(step)}
    if end and DECAY in tried:
        points |= {point({RATE: rate, DECAY: ZERO}) for rate in BESIDE}
    return points


def more_points(place: Place, points: set[Point], name: str, up: bool) -> set[Point]:
    """One more value of a setting beyond those tried at a shape, with the others that belong to it; empty where it
    cannot be trained."""
    tried = [step for each in points if (step := dict(each).get(name, 0)) is not None]
    step = max(tried) + 1 if up else min(tried) - 1
    if not _trains(place, name, step):
        return set()
    if name == RATE:
        decays = {dict(each).get(DECAY, 0) for each in points} - {ZERO}
        return {point({RATE: step, DECAY: decay}) for decay in decays}
    return {point({RATE: rate, name: step}) for rate in (BESIDE if name == DECAY else ridge(step))}


def ridge(step: int) -> tuple[int, ...]:
    """The steps of the rate at which a step of batch or warmup is tried: its own way from the present one."""
    return (0,) if step == 0 else (step - step // abs(step), step)


def steps_of(place: Place, name: str) -> tuple[int, ...]:
    """The steps around the present value that can be trained, more on one side where the other has none."""
    trained = [step for step in range(-2, 3) if _trains(place, name, step)]
    return tuple(sorted(sorted(trained, key=lambda step: (abs(step), -step))[: len(STEPS[name])]))


def _trains(place: Place, name: str, step: int) -> bool:
    """Whether a step is a batch of sequences that no step nearer is, or a warmup that leaves something to train."""
    factor, trunk = FACTORS[name] ** step, place.trunk
    if name == BATCH:
        sequences = whole(trunk.batch_sequences * factor)
        nearer = whole(trunk.batch_sequences * FACTORS[name] ** (step - (step > 0) + (step < 0)))
        return sequences >= max(1, trunk.job.gpus) and (step == 0 or sequences != nearer)
    first = trunk.cells[0]
    return name != WARMUP or trunk.warmup_steps * factor <= min(MOST_WARMUP * first.steps, first.branch_step)


def column_of(name: str) -> str:
    """The key of a setting, which is its column too."""
    return f"optimizer.{name}.value"


def point(steps: Mapping[str, int | None]) -> Point:
    return tuple((name, step) for name, step in sorted(steps.items()) if step != 0)


def value(job: TrainConfig, name: str, step: int | None) -> float:
    """The value of a rule at a step; of a batch that is the same at all sizes that of whole sequences."""
    if step is ZERO:
        return 0.0
    rule = job.optimizer.by_size()[name]
    factor, same = FACTORS[name] ** step, rule.params_exponent == rule.tokens_exponent == 0
    if name != BATCH or step == 0 or not same:
        return rule.value * factor
    return float(whole(whole(rule.value / job.model.seq_len) * factor) * job.model.seq_len)


def whole(sequences: float) -> int:
    return math.floor(sequences + 0.5)


def grids(tried: Mapping[Place, set[Point]]) -> list[list[str]]:
    """The overrides of `grids=` that train these points: the rates of each shape and of each other setting together."""
    found: list[list[str]] = []
    for place, points in tried.items():
        job = place.trunk.job
        key, budgets = job.budgets()
        ends = budgets if len(budgets) < 2 else [budgets[0], budgets[-1]]
        where = [f"shape={place.shape}", f"seed={job.seed}", f"{key}=[{','.join(map(repr, ends))}]"]
        rates: dict[Point, list[int]] = {}
        for each in points:
            steps = dict(each)
            rate = steps.pop(RATE, 0)
            assert rate is not None
            rates.setdefault(point(steps), []).append(rate)
        for others in sorted(rates, key=repr):
            own = [_override(job, RATE, sorted(rates[others]))]
            found.append(where + own + [_override(job, name, [step]) for name, step in others])
    return _together(found)


def _override(job: TrainConfig, name: str, steps: Sequence[int | None]) -> str:
    return f"{column_of(name)}={','.join(repr(value(job, name, step)) for step in steps)}"


def _together(found: list[list[str]]) -> list[list[str]]:
    """Products that differ in one override alone as one product: in their shapes, or in their decays."""
    merged = True
    while merged:
        merged = False
        for first, second in ((a, b) for a in found for b in found if a is not b and len(a) == len(b)):
            differ = [index for index, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1]]
            if len(differ) == 1 and (index := differ[0]) != 2:
                key, _, values = first[index].partition("=")
                other, _, more = second[index].partition("=")
                if key == other:
                    first[index] = f"{key}={values},{more}"
                    found.remove(second)
                    merged = True
                    break
    return found
