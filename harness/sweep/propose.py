"""A grid for a budget of FLOPs or of time, whose fit would tell a best. Shapes: R cells."""

import itertools
import math
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from harness.accounting import count_params, train_flops_per_token
from harness.config import TrainConfig
from harness.data.tokens import prepare
from harness.errors import UserError
from harness.grid import make_trunks, schedule_makespan
from harness.laws.design import DRAWS, EXPONENTS, FLOOR, HEIGHTS, NOISE, TRUNK_SHARE, Expectation, expect
from harness.laws.forms import Array
from harness.laws.noise.noise import Labels
from harness.sweep.compose import check_fit, check_machine_for, compose_sweep, machine_slots, open_store, trunks_by_job
from harness.sweep.pace import Pace, measure
from harness.units import counted, duration

# Params and tokens at which the simulated law's terms have their heights.
CENTRE = (235e3, 1.0e6)
# Below these one measures the optimizer, the warmup or models that cannot copy yet, and not the law: docs/tuning.md.
LEAST_STEPS, MOST_WARMUP, LEAST_HEADS, LEAST_TOKENS_PER_PARAM = 900, 0.2, 3, 0.5
# A block for so much of the width, and no fewer than the model's own depth: conf/sweep/cpu.yaml and gpu.yaml.
WIDTHS_PER_BLOCK = (48, 64)
SHAPES, BUDGETS, MOST_SEEDS = (6, 7, 8), (4, 5, 6), 32
FEWER_SHAPES, FEWER_BUDGETS = (4, 5), (3, 4)
LOWEST_HEADS, WIDTH_RATIOS = (3, 4, 5, 6), np.geomspace(2, 16, 22)
SMALLEST, TOKEN_RATIOS = np.geomspace(1, 32, 16), np.geomspace(2, 40, 27)
# Of the budget; a grid that leaves more of it could have been larger.
LEAST_SPENT = 0.7
SIMULATED = 5  # the best by curvature
UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Budget:
    """FLOPs, or seconds of wall time, whichever is not None."""

    text: str
    flops: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, order=True)
class Shape:
    width: int
    depth: int
    params: int  # with_head
    flops_per_token: int
    least_tokens: float  # of a budget


@dataclass(frozen=True)
class Candidate:
    """Shapes and budgets ascending; with one seed the two smallest shapes have a second, which measures noise."""

    shapes: tuple[Shape, ...]
    tokens: tuple[float, ...]
    seeds: int

    @property
    def trunks(self) -> list[tuple[Shape, int]]:
        """The longest first."""
        return [
            (shape, seed)
            for place, shape in reversed(list(enumerate(self.shapes)))
            for seed in range(max(self.seeds, 2 if place < 2 else 1))
        ]

    def cells(self) -> tuple[Array, Array, Labels]:
        """Params, tokens and trunk of each cell, (R,)."""
        params = np.array([float(shape.params) for shape, _ in self.trunks])
        number = len(self.tokens)
        return np.repeat(params, number), np.tile(self.tokens, len(params)), np.repeat(np.arange(len(params)), number)


@dataclass(frozen=True)
class Costs:
    """What a candidate costs: FLOPs, and seconds where the pace of this device is known."""

    job: TrainConfig
    slots: int = 1
    # FLOPs a token of the shapes that were measured, their seconds a token, and the tokens that an evaluation lasts
    known_R: Array = field(default_factory=lambda: np.zeros(0))
    seconds_R: Array = field(default_factory=lambda: np.zeros(0))
    evaluation_tokens: float = 0.0

    def trained(self, tokens: Sequence[float]) -> float:
        """Tokens that a trunk with these budgets trains."""
        if self.job.schedule.name == "cosine":
            return sum(tokens)
        share = self.job.schedule.cooldown_fraction
        return (1 - share) * tokens[-1] + share * sum(tokens)

    def flops(self, candidate: Candidate) -> float:
        return self.trained(candidate.tokens) * sum(shape.flops_per_token for shape, _ in candidate.trunks)

    def seconds(self, candidate: Candidate) -> float:
        tokens = self.trained(candidate.tokens) + len(candidate.tokens) * self.evaluation_tokens
        flops_R = np.array([float(shape.flops_per_token) for shape, _ in candidate.trunks])
        # FLOPs a second are interpolated, and beyond what was measured the nearest
        rate_R = np.interp(np.log(flops_R), np.log(self.known_R), self.known_R / self.seconds_R)
        return schedule_makespan((tokens * flops_R / rate_R).tolist(), self.slots)


Cost = Callable[[Candidate], float]


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


def make_shape(job: TrainConfig, vocab_size: int, width: int, width_per_block: int) -> Shape:
    """The shape of a width, and the fewest tokens that a budget of it may have."""
    depth = max(job.model.depth, round(width / width_per_block))
    model = replace(job.model, width=width, depth=depth)
    params = count_params(model, vocab_size).with_head
    rules = {name: job.optimizer.rules()[name].at(params, None) for name in ("batch_tokens", "warmup_tokens")}
    least = max(LEAST_STEPS * rules["batch_tokens"], rules["warmup_tokens"] / MOST_WARMUP)
    return Shape(width, depth, params, train_flops_per_token(model, vocab_size), least)


def pace_widths(job: TrainConfig) -> list[int]:
    """Widths whose pace tells that of the others."""
    return [heads * job.model.head_size for heads in (LEAST_HEADS, 6, 12)]


def paced(
    job: TrainConfig, shapes: Sequence[Shape], paces: Sequence[Pace], batches: Sequence[int], slots: int
) -> Costs:
    """The costs from a measurement of `shapes`; `batches` are their tokens a step."""
    seconds = [pace.step / batch for pace, batch in zip(paces, batches, strict=True)]
    evaluation = [pace.evaluation / second for pace, second in zip(paces, seconds, strict=True)]
    flops = np.array([float(shape.flops_per_token) for shape in shapes])
    return Costs(job, slots, flops, np.array(seconds), float(np.median(evaluation)))


def curvature_sd(candidate: Candidate) -> float:
    """The standard error of a to first order, for least squares of log losses with the noise of trunks and cells."""
    params_R, tokens_R, trunk_R = candidate.cells()
    (alpha, beta), (high_n, high_d) = EXPONENTS, HEIGHTS
    n_R, d_R = np.log(params_R / CENTRE[0]), np.log(tokens_R / CENTRE[1])
    u_R, v_R = high_n * np.exp(-alpha * n_R), high_d * np.exp(-beta * d_R)
    slopes_RP = np.stack([np.ones_like(u_R), u_R, -n_R * u_R, v_R, -d_R * v_R], 1) / (FLOOR + u_R + v_R)[:, None]
    of_a_P = np.array([0, 0, -beta, 0, alpha]) / (alpha + beta) ** 2
    weights_R = slopes_RP @ np.linalg.solve(slopes_RP.T @ slopes_RP, of_a_P)
    cells, trunks = np.sum(weights_R**2), np.sum(np.bincount(trunk_R, weights_R) ** 2)
    return float(NOISE * np.sqrt((1 - TRUNK_SHARE) * cells + TRUNK_SHARE * trunks))


def shape_sets(job: TrainConfig, vocab_size: int, counts: Sequence[int]) -> list[tuple[Shape, ...]]:
    """Every set of shapes that is tried, geometric in width."""
    found: dict[tuple[Shape, ...], None] = {}
    for block, lowest, ratio, number in itertools.product(WIDTHS_PER_BLOCK, LOWEST_HEADS, WIDTH_RATIOS, counts):
        heads = [round(part) for part in np.geomspace(lowest, lowest * ratio, number)]
        shapes = tuple(make_shape(job, vocab_size, part * job.model.head_size, block) for part in heads)
        if len(set(shapes)) == number:
            found[shapes] = None
    return list(found)


def affordable(
    shapes: tuple[Shape, ...], counts: Sequence[int], most_tokens: float, cost: Cost, limit: float
) -> Iterator[Candidate]:
    """The grids of these shapes within the limit, with one seed, their budgets geometric."""
    floor = max(max(part.least_tokens for part in shapes), LEAST_TOKENS_PER_PARAM * shapes[-1].params)
    for number, least in itertools.product(counts, floor * SMALLEST):
        for spread in TOKEN_RATIOS:
            candidate = Candidate(shapes, token_budgets(least, spread, number), 1)
            if candidate.tokens[-1] > most_tokens or cost(candidate) > limit:
                break  # what follows costs more
            yield candidate


@cache
def token_budgets(least: float, spread: float, number: int) -> tuple[float, ...]:
    """Geometric, each rounded up to three digits."""
    return tuple(_rounded(part) for part in np.geomspace(least, least * spread, number))


def _rounded(tokens: float) -> float:
    unit = 10.0 ** (math.floor(math.log10(tokens)) - 2)
    return math.ceil(round(tokens / unit, 6)) * unit


def propose(
    job: TrainConfig, vocab_size: int, most_tokens: float, budget: Budget, costs: Costs
) -> tuple[Candidate, Expectation, list[str]]:
    """The grid within the budget that would tell a best, what it would tell, and warnings. Raises UserError."""
    cost: Cost = costs.flops if budget.flops is not None else costs.seconds
    limit = budget.flops if budget.flops is not None else budget.seconds
    assert limit is not None
    warnings: list[str] = []
    best = _search(shape_sets(job, vocab_size, SHAPES), BUDGETS, most_tokens, cost, limit)
    if not best:
        warnings.append(f"{SHAPES[0]} shapes by {BUDGETS[0]} budgets cannot be had for budget={budget.text}")
        sets = shape_sets(job, vocab_size, FEWER_SHAPES)
        best = _search(sets, FEWER_BUDGETS, most_tokens, cost, limit)
    if not best:
        every = (affordable(shapes, FEWER_BUDGETS[:1], most_tokens, cost, math.inf) for shapes in sets)
        least = min(map(cost, itertools.chain.from_iterable(every)), default=None)
        if least is None:
            raise UserError(f"{most_tokens:.3g} tokens are too few for a grid: take a larger corpus")
        needed = f"{least:.2g} FLOPs" if budget.flops is not None else f"{least:.0f}s"
        raise UserError(f"budget={budget.text} is below what the smallest grid costs: give {needed} or more")
    told = [(expect(*candidate.cells(), centre=CENTRE), candidate) for candidate in best]
    found, chosen = min(told, key=lambda pair: standard_errors(pair[0])["a"])
    return chosen, found, warnings + found.warnings


def _search(
    sets: Sequence[tuple[Shape, ...]], counts: Sequence[int], most_tokens: float, cost: Cost, limit: float
) -> list[Candidate]:
    """The best by curvature, each with as many seeds as the budget allows."""
    scored: list[tuple[float, int, Candidate]] = []
    for shapes in sets:
        for candidate in affordable(shapes, counts, most_tokens, cost, limit):
            # the cost of more seeds is in proportion to that of two
            ceiling = min(MOST_SEEDS, int(2 * limit / cost(replace(candidate, seeds=2))) + 1)
            seeded = (replace(candidate, seeds=seeds) for seeds in range(ceiling, 0, -1))
            most = next(more for more in seeded if more.seeds == 1 or cost(more) <= limit)
            if cost(most) >= LEAST_SPENT * limit or most.seeds == MOST_SEEDS:
                scored.append((curvature_sd(most), len(scored), most))
    best = [candidate for _, _, candidate in sorted(scored)[:SIMULATED]]
    return [_stretched(candidate, most_tokens, cost, limit) for candidate in best]


def _stretched(candidate: Candidate, most_tokens: float, cost: Cost, limit: float) -> Candidate:
    """With its budgets spread as far as the limit allows, which the steps of the search leave open."""
    least, number = candidate.tokens[0], len(candidate.tokens)
    for spread in candidate.tokens[-1] / least * np.geomspace(TOKEN_RATIOS[1] / TOKEN_RATIOS[0], 1, 24):
        wider = replace(candidate, tokens=token_budgets(least, spread, number))
        if wider.tokens[-1] <= most_tokens and cost(wider) <= limit:
            return wider
    return candidate


def standard_errors(found: Expectation) -> dict[str, float]:
    """From the 95 % ranges; infinite where nothing can be fitted."""
    if not found.ranges:
        return dict.fromkeys(("alpha", "beta", "a"), math.inf)
    return {name: (high - low) / 3.92 for name, (low, high) in found.ranges.items()}


def cpu_grids(job: TrainConfig, flops: float) -> list[str]:
    """What the cpu grid would tell at these FLOPs: with params and tokens scaled alike, and with more seeds instead.

    What `job`'s corpus lacks in tokens goes into seeds.
    """
    sweep = compose_sweep(["-m", "+sweep=cpu", "tracking=none"])
    trunks = [trunk for one in sweep.jobs for trunk in make_trunks(one, one.tokenizer.vocab_size, "", "float32")]
    rows = np.array([(float(trunk.params.with_head), cell.tokens) for trunk in trunks for cell in trunk.cells])
    whole = flops / sum(trunk.flops_to_train for trunk in trunks)
    largest = rows[:, 1].max()
    scale = min(math.sqrt(whole), unique_tokens(job, math.sqrt(whole) * largest) / largest)

    def errors(scale: float) -> str:
        seeds = max(1, int(whole / scale**2 + 1e-9))
        trunk_R = np.repeat(np.arange(len(trunks) * seeds), len(trunks[0].cells))
        params_R, tokens_R = np.tile(scale * rows, (seeds, 1)).T
        return _errors(expect(params_R, tokens_R, trunk_R, centre=CENTRE))

    steps = round(scale * min(cell.steps for trunk in trunks for cell in trunk.cells))
    few = f" (its smallest cell would have {steps} steps, too few to trust)" if steps < LEAST_STEPS else ""
    lines = [f"of the cpu grid scaled to as much:   {errors(scale)}{few}"]
    return lines + ([f"of the cpu grid with as many seeds:  {errors(1.0)}"] if whole >= 2 else [])


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
    job = compose_sweep(template).jobs[0]
    vocab_size = job.model.vocab_size or prepare(job.data, job.tokenizer, 1).vocab_size
    costs = Costs(job) if budget.seconds is None else measured_costs(template, vocab_size, job)
    most = unique_tokens(job, 1)
    while True:
        chosen, found, warnings = propose(job, vocab_size, most, budget, costs)
        most = unique_tokens(job, chosen.tokens[-1])
        if chosen.tokens[-1] <= most:
            return describe(job, chosen, found, warnings, budget, costs, base, own)


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
    shapes = [make_shape(job, vocab_size, width, WIDTHS_PER_BLOCK[-1]) for width in pace_widths(job)]
    axis = ",".join(f"w{shape.width}-d{shape.depth}" for shape in shapes)
    sweep = compose_sweep([*template, f"shape={axis}", "seed=0"])
    trunks = [job_trunks[0] for job_trunks in trunks_by_job(sweep.jobs, open_store(sweep.jobs))]
    check_machine_for(sweep)
    check_fit(sweep, trunks)
    slots = sweep.slots or machine_slots(trunks)
    paces = measure(sweep, trunks, slots)
    if not paces:
        raise UserError("budget: the pace of this machine could not be measured: give the budget in FLOPs")
    return paced(job, shapes, [paces[trunk.name] for trunk in trunks], [trunk.batch_tokens for trunk in trunks], slots)


def describe(
    job: TrainConfig,
    chosen: Candidate,
    found: Expectation,
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
    return [
        as_yaml(chosen, name, base, f"Proposed for a budget of {budget.text}: {command}"),
        "",
        f"{counts}, {spent}; paste it into conf/sweep/{name}.yaml",
        f"expected standard errors:            {_errors(found)}",
        *cpu_grids(job, flops),
        f"from {DRAWS} simulated sweeps each, with {NOISE:.1%} noise, half of it the trunks'",
        *(f"warning: {warning}" for warning in warnings),
    ]


def _errors(found: Expectation) -> str:
    return ", ".join(f"{name} {error:.4f}" for name, error in standard_errors(found).items())
