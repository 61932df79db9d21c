"""A grid for a budget of FLOPs or of time, whose fit would tell a best."""

import math
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from harness.config import TrainConfig
from harness.data.tokens import prepare
from harness.errors import UserError
from harness.laws.design import DRAWS, NOISE, Expectation, expect
from harness.sweep.candidates import (
    CENTRE,
    LEAST_HEADS,
    Candidate,
    Costs,
    least_tokens,
    make_shape,
    paced,
    token_budgets,
)
from harness.sweep.compose import check_fit, check_machine_for, compose_sweep, machine_slots, open_stores, trunks_by_job
from harness.sweep.pace import measure
from harness.sweep.search import (
    BUDGETS,
    FEWER_BUDGETS,
    FEWER_SHAPES,
    SHAPES,
    WIDTHS_PER_BLOCK,
    Bounds,
    cheapest,
    search,
)
from harness.units import counted, duration

UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
# Simulations that choose, and others that say what the chosen one would tell.
CHOOSING, TELLING = 0, 1
# By which the cpu grid is made larger or smaller.
FACTORS = np.geomspace(0.25, 256, 161).tolist()


@dataclass(frozen=True)
class Budget:
    """FLOPs, or seconds of wall time, whichever is not None."""

    text: str
    flops: float | None = None
    seconds: float | None = None


def parse_budget(text: str) -> Budget:
    """1e15 is FLOPs; 90s, 10min, 2h and 1d are times. Raises UserError."""
    match = re.fullmatch(r"([0-9.]+(?:e\+?[0-9]+)?)(s|min|h|d)?", text)
    try:
        number = float(match[1]) if match else 0.0
    except ValueError:
        number = 0.0
    if match is None or not 0 < number < math.inf:
        raise UserError(f"budget={text} is no budget: give FLOPs, as in 1e15, or a time, as in 10min or 2h")
    return Budget(text, seconds=number * UNITS[match[2]]) if match[2] else Budget(text, flops=number)


def pace_widths(job: TrainConfig) -> list[int]:
    """Widths whose pace tells that of the others."""
    return [heads * job.model.head_size for heads in (LEAST_HEADS, 6, 12)]


def propose(
    job: TrainConfig, vocab_size: int, most_tokens: float, budget: Budget, costs: Costs
) -> tuple[Candidate, dict[str, Candidate], list[str]]:
    """The grid within the budget that would tell a best, the cpu grids that were tried too, and warnings.

    Raises UserError.
    """
    cost = costs.flops if budget.flops is not None else costs.seconds
    limit = budget.flops if budget.flops is not None else budget.seconds
    assert limit is not None
    bounds = Bounds(job, vocab_size, most_tokens, cost, limit)
    warnings: list[str] = []
    known = cpu_grids(bounds)
    best = search(bounds, list(known.values()))
    if not best:
        warnings.append(f"{SHAPES[0]} shapes by {BUDGETS[0]} budgets cannot be had for budget={budget.text}")
        bounds = replace(bounds, shapes=FEWER_SHAPES, budgets=FEWER_BUDGETS)
        best = search(bounds, [])
    if not best:
        least = cheapest(bounds)
        if math.isinf(least):
            raise UserError(f"{most_tokens:.3g} tokens are too few for a grid: take a larger corpus")
        needed = f"{least:.2g} FLOPs" if budget.flops is not None else f"{least:.0f}s"
        raise UserError(f"budget={budget.text} is below what the smallest grid costs: give {needed} or more")
    chosen = min(best, key=lambda candidate: standard_errors(expected(candidate, CHOOSING))["a"])
    return chosen, known, warnings


def expected(candidate: Candidate, seed: int) -> Expectation:
    return expect(*candidate.cells(), centre=CENTRE, seed=seed)


def standard_errors(found: Expectation) -> dict[str, float]:
    """From the 95 % ranges; infinite where nothing can be fitted."""
    if not found.ranges:
        return dict.fromkeys(("alpha", "beta", "a"), math.inf)
    return {name: (high - low) / 3.92 for name, (low, high) in found.ranges.items()}


@cache
def cpu_jobs() -> tuple[TrainConfig, ...]:
    """The jobs of the cpu grid, which take seconds to compose."""
    return compose_sweep(["-m", "+sweep=cpu", "tracking=none"]).jobs


def cpu_grids(bounds: Bounds) -> dict[str, Candidate]:
    """The cpu grid within the bounds by what was done to it: made larger or smaller, or only given more seeds."""
    jobs = cpu_jobs()
    seeds = Counter((job.model.width // job.model.head_size, job.model.depth) for job in jobs)
    tokens = jobs[0].budgets()[1]

    def grid(factor: float) -> Candidate | None:
        """With params and tokens alike times a factor; one below 1 is of tokens alone, since widths have a least."""
        side = max(1.0, factor) ** (1 / 3)  # of width and depth alike
        sides = {(round(heads * side), round(depth * side)): number for (heads, depth), number in seeds.items()}
        shapes = {bounds.shape(*pair): number for pair, number in sides.items()}
        ordered = sorted(shapes, key=lambda shape: shape.params)
        start = max(factor * tokens[0], least_tokens(ordered))
        found = Candidate(
            tuple(ordered),
            token_budgets(start, tokens[-1] / tokens[0], len(tokens)),
            tuple(shapes[shape] for shape in ordered),
        )
        return _multiplied(bounds, found) if bounds.hold(found) else None

    larger = next(filter(None, map(grid, FACTORS[::-1])), None)
    same = grid(1.0)
    named = {"scaled to as much": larger, "with more seeds": same if same and sum(same.seeds) > len(jobs) else None}
    return {name: found for name, found in named.items() if found is not None}


def _multiplied(bounds: Bounds, candidate: Candidate) -> Candidate:
    """With its seeds as many times as the limit holds."""
    times = int(bounds.limit / bounds.cost(candidate))
    more = (replace(candidate, seeds=tuple(time * seeds for seeds in candidate.seeds)) for time in range(times, 1, -1))
    return next((found for found in more if bounds.cost(found) <= bounds.limit), candidate)


def as_yaml(candidate: Candidate, name: str, base: str | None, comment: str) -> str:
    """conf/sweep/<name>.yaml; `base` is the named grid whose other settings it takes."""
    seeded = [f"w{shape.width}-d{shape.depth}" + (f"-s{seed}" if seed else "") for shape, seed in candidate.trunks]
    lines = ["# @package _global_", f"# {comment}"]
    lines += ["defaults:", f"  - {base}", "  - _self_"] if base else []
    lines += [f"name: {name}", f"tokens: [{', '.join(f'{tokens / 1e6:.6g}e6' for tokens in candidate.tokens)}]"]
    lines += ["hydra:", "  mode: MULTIRUN", "  sweeper:", "    params:", f"      shape: {','.join(seeded)}"]
    return "\n".join(lines)


def proposal(text: str, arguments: Sequence[str]) -> list[str]:
    """Lines: the grid as a file of conf/sweep, and what it costs and would tell. Raises UserError."""
    budget = parse_budget(text)
    own = [argument for argument in arguments if argument not in ("-m", "--multirun")]
    base = next((argument.partition("=")[2] for argument in own if argument.startswith("+sweep=")), None)
    template = ["-m", *own, *([] if base else ["tokens=1e6"])]
    sweep = compose_sweep(template)
    if sweep.axes:
        raise UserError(
            f"budget: a grid is proposed for one way of training, and {' and '.join(sweep.axes)} varies: leave it out, "
            "and train the variants on the grid that is proposed for one"
        )
    job = sweep.jobs[0]
    vocab_size = job.model.vocab_size or prepare(job.data, job.tokenizer, 1).vocab_size
    costs = Costs(job) if budget.seconds is None else measured_costs(template, vocab_size, job)
    most = unique_tokens(job, 1)
    while True:
        chosen, known, warnings = propose(job, vocab_size, most, budget, costs)
        wanted = max(grid.tokens[-1] for grid in (chosen, *known.values()))
        most = unique_tokens(job, wanted)
        if wanted <= most:
            return describe(chosen, known, warnings, budget, costs, base, own)


def unique_tokens(job: TrainConfig, wanted: float) -> float:
    """The most tokens that a budget may have, infinite where the corpus holds more than `wanted` or they may repeat.

    A corpus that is streamed is not downloaded for a proposal; what it lacks the plan of the grid will say.
    """
    if job.data.repeat:
        return math.inf
    store = prepare(job.data, job.tokenizer, 1 if job.data.source == "hub" else int(wanted))
    return store.unique_tokens(job.model.seq_len) if store.exhausted else math.inf


def measured_costs(template: Sequence[str], vocab_size: int, job: TrainConfig) -> Costs:
    """Costs with the pace of three shapes on this machine, as many at once as a sweep runs. Raises UserError."""
    shapes = [
        make_shape(job, vocab_size, width, max(job.model.depth, round(width / WIDTHS_PER_BLOCK[-1])))
        for width in pace_widths(job)
    ]
    axis = ",".join(f"w{shape.width}-d{shape.depth}" for shape in shapes)
    sweep = compose_sweep([*template, f"shape={axis}", "seed=0"])
    trunks = [job_trunks[0] for job_trunks in trunks_by_job(sweep.jobs, open_stores(sweep.jobs))]
    check_machine_for(sweep)
    check_fit(sweep, trunks)
    slots = sweep.slots or machine_slots(trunks)
    paces = measure(sweep, trunks, slots)
    if not paces:
        raise UserError("budget: the pace of this machine could not be measured: give the budget in FLOPs")
    return paced(job, shapes, [paces[trunk.name] for trunk in trunks], [trunk.batch_tokens for trunk in trunks], slots)


def describe(
    chosen: Candidate,
    known: Mapping[str, Candidate],
    warnings: Sequence[str],
    budget: Budget,
    costs: Costs,
    base: str | None,
    own: Sequence[str],
) -> list[str]:
    """The lines of a proposal."""
    name = next((argument.removeprefix("name=") for argument in own if argument.startswith("name=")), "proposed")
    rest = shlex.join(part for part in own if not part.startswith(("+sweep=", "name=")))
    command = f"python scripts/train.py -m +sweep={name} {rest}".rstrip()
    flops = costs.flops(chosen)
    spent = f"{flops:.2e} FLOPs"
    if budget.seconds is not None:
        spent += f", about {duration(costs.seconds(chosen))}, {costs.slots} at a time"
    counts = f"{counted(len(chosen.trunks) * len(chosen.tokens), 'cell')} in {counted(len(chosen.trunks), 'trunk')}"
    found = expected(chosen, TELLING)
    others = {f"of the cpu grid {name}:": _errors(expected(grid, TELLING)) for name, grid in known.items()}
    return [
        as_yaml(chosen, name, base, f"Proposed for a budget of {budget.text}: {command}"),
        "",
        f"{counts}, {spent}; paste it into conf/sweep/{name}.yaml",
        f"{'expected standard errors:':36} {_errors(found)}",
        *(f"{name:36} {errors}" for name, errors in others.items()),
        f"from {DRAWS} simulated sweeps each, with {NOISE:.1%} noise, half of it the trunks'",
        *(f"warning: {warning}" for warning in [*warnings, *found.warnings]),
    ]


def _errors(found: Expectation) -> str:
    return ", ".join(f"{name} {error:.4f}" for name, error in standard_errors(found).items())
