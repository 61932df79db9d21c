"""The search for the grid within a budget whose fit would tell a best: shapes, tokens and seeds together.

First grids whose shapes are geometric in width, all with as many seeds; then the best of those, and the cpu grid made
larger or smaller, step by step towards a smaller standard error. Shapes: X shapes, P parameters of the law.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from harness.config import TrainConfig
from harness.sweep.candidates import (
    LEAST_HEADS,
    LEAST_REPEATS,
    MOST_SEEDS,
    Candidate,
    Cost,
    Shape,
    curvature_sd,
    least_tokens,
    make_shape,
    standard_error,
    token_budgets,
)

# A block for so much of the width, and no fewer than the model's own depth: conf/sweep/cpu.yaml and gpu.yaml.
WIDTHS_PER_BLOCK = (48, 64)
SHAPES, BUDGETS = (6, 7, 8), (4, 5, 6)
FEWER_SHAPES, FEWER_BUDGETS = (4, 5), (3, 4)
LOWEST_HEADS, WIDTH_RATIOS = (3, 4, 5, 6), np.geomspace(2, 16, 22)
SMALLEST, TOKEN_RATIOS = np.geomspace(1, 32, 16), np.geomspace(2, 40, 27)
STARTS = 3  # of the geometric grids
STEPS, GAIN = 40, 1e-3  # of the search from each, and the least that a step must gain
STRETCHES = (0.8, 0.95, 1.05, 1.25)


@dataclass(frozen=True)
class Bounds:
    """What a grid may hold; widths are multiples of the job's head size."""

    job: TrainConfig
    vocab_size: int
    most_tokens: float
    cost: Cost
    limit: float
    shapes: Sequence[int] = SHAPES  # how many
    budgets: Sequence[int] = BUDGETS

    def shape(self, heads: int, depth: int) -> Shape:
        return _shape(self, heads * self.job.model.head_size, max(self.job.model.depth, depth))

    def in_proportion(self, heads: int, width_per_block: int) -> Shape:
        return self.shape(heads, round(heads * self.job.model.head_size / width_per_block))

    def hold(self, candidate: Candidate) -> bool:
        shapes, tokens = candidate.shapes, candidate.tokens
        return (
            len(shapes) in self.shapes
            and len(tokens) in self.budgets
            and all(one.params < next_.params for one, next_ in itertools.pairwise(shapes))
            and shapes[0].width >= LEAST_HEADS * self.job.model.head_size
            and tokens[0] >= least_tokens(shapes)
            and tokens[-1] <= self.most_tokens
            and self.cost(candidate) <= self.limit
        )

    def __hash__(self) -> int:
        return id(self)


@cache
def _shape(bounds: Bounds, width: int, depth: int) -> Shape:
    return make_shape(bounds.job, bounds.vocab_size, width, depth)


def search(bounds: Bounds, others: Sequence[Candidate]) -> list[Candidate]:
    """Candidates within the bounds, each the end of a search; `others` are searched from too."""
    scored: dict[int, tuple[float, int, Candidate]] = {}  # the best of each number of shapes
    for order, single in enumerate(geometric(bounds)):
        candidate = _repeated(bounds, single)
        score, number = standard_error(candidate), len(candidate.shapes)
        if number not in scored or score < scored[number][0]:
            scored[number] = (score, order, candidate)
    starts = [candidate for _, _, candidate in sorted(scored.values())[:STARTS]]
    found = [climbed(bounds, start) for start in [*starts, *filter(bounds.hold, others)]]
    return list(dict.fromkeys(found))


def cheapest(bounds: Bounds) -> float:
    """What the smallest grid costs, infinite where the tokens hold none."""
    grids = (
        Candidate(shapes, token_budgets(least_tokens(shapes), TOKEN_RATIOS[0], number), fewest_seeds(len(shapes)))
        for shapes, number in itertools.product(shape_sets(bounds), bounds.budgets)
    )
    return min((bounds.cost(grid) for grid in grids if grid.tokens[-1] <= bounds.most_tokens), default=math.inf)


def geometric(bounds: Bounds) -> Iterator[Candidate]:
    """Grids geometric in width and in tokens, with the fewest seeds."""
    for shapes in shape_sets(bounds):
        for number, smallest in itertools.product(bounds.budgets, SMALLEST):
            for spread in TOKEN_RATIOS:
                tokens = token_budgets(least_tokens(shapes) * smallest, spread, number)
                candidate = Candidate(shapes, tokens, fewest_seeds(len(shapes)))
                if tokens[-1] > bounds.most_tokens or bounds.cost(candidate) > bounds.limit:
                    break  # what follows costs more
                yield candidate


def shape_sets(bounds: Bounds) -> list[tuple[Shape, ...]]:
    """Every set of shapes that is tried, geometric in width."""
    found: dict[tuple[Shape, ...], None] = {}
    for block, lowest, ratio, number in itertools.product(WIDTHS_PER_BLOCK, LOWEST_HEADS, WIDTH_RATIOS, bounds.shapes):
        shapes = tuple(
            bounds.in_proportion(round(part), block) for part in np.geomspace(lowest, lowest * ratio, number)
        )
        if len(set(shapes)) == number:
            found[shapes] = None
    return list(found)


def fewest_seeds(shapes: int) -> tuple[int, ...]:
    """The two smallest shapes repeated, where repeating costs least."""
    return (2,) * LEAST_REPEATS + (1,) * (shapes - LEAST_REPEATS)


def _repeated(bounds: Bounds, candidate: Candidate) -> Candidate:
    """With the most seeds, alike for every shape."""
    double = bounds.cost(replace(candidate, seeds=(2,) * len(candidate.shapes)))
    for seeds in range(min(MOST_SEEDS, int(2 * bounds.limit / double) + 1), 1, -1):
        alike = replace(candidate, seeds=(seeds,) * len(candidate.shapes))
        if bounds.cost(alike) <= bounds.limit:
            return alike
    return candidate


def seeded(bounds: Bounds, candidate: Candidate) -> Candidate | None:
    """With seeds where each tells most for what it costs, as many as the limit holds; None where repeats do not fit."""
    products_XPP, noise_XPP = candidate.information
    flops_X = np.array([float(shape.flops_per_token) for shape in candidate.shapes])
    seeds_X = np.ones(len(flops_X), int)
    left = np.ones(len(flops_X), bool)
    if bounds.cost(replace(candidate, seeds=tuple(seeds_X.tolist()))) > bounds.limit:
        return None
    while left.any():
        more_X = np.maximum(1, seeds_X // 4)
        sum_PP, noise_PP = (np.einsum("x,xpq->pq", seeds_X, part) for part in (products_XPP, noise_XPP))
        # the last row is the grid as it is
        steps_XPP = np.concatenate([more_X, [0]])[:, None, None]
        told = curvature_sd(
            sum_PP + steps_XPP * np.concatenate([products_XPP, products_XPP[:1]]),
            noise_PP + steps_XPP * np.concatenate([noise_XPP, noise_XPP[:1]]),
        )
        worth_X = np.where(left, np.log(told[-1] / told[:-1]) / (more_X * flops_X), -math.inf)
        place = int(np.argmax(worth_X))
        for step in (int(more_X[place]), 1):
            seeds_X[place] += step
            fits = bounds.cost(replace(candidate, seeds=tuple(seeds_X.tolist()))) <= bounds.limit
            if fits and seeds_X[place] <= MOST_SEEDS:
                break
            seeds_X[place] -= step
        else:
            left[place] = False
    found = replace(candidate, seeds=tuple(seeds_X.tolist()))
    return found if sum(found.seeds) - len(found.seeds) >= LEAST_REPEATS else None


def climbed(bounds: Bounds, candidate: Candidate) -> Candidate:
    """Where steps to the best neighbour end."""
    best = min([candidate, *filter(None, [seeded(bounds, candidate)])], key=standard_error)
    for _ in range(STEPS):
        nearby = (seeded(bounds, near) for near in dict.fromkeys(neighbours(bounds, best)) if bounds.hold(near))
        held = [near for near in nearby if near is not None]
        nearest = min(held, key=standard_error, default=best)
        if standard_error(nearest) > (1 - GAIN) * standard_error(best):
            break
        best = nearest
    return best


def neighbours(bounds: Bounds, candidate: Candidate) -> Iterator[Candidate]:
    """One shape narrower, wider, gone or new, one budget fewer or more, tokens lower, higher or spread otherwise."""
    shapes, tokens = candidate.shapes, candidate.tokens
    candidate = replace(candidate, seeds=(1,) * len(shapes))
    size = bounds.job.model.head_size
    for place, block in itertools.product(range(len(shapes)), WIDTHS_PER_BLOCK):
        heads = shapes[place].width // size
        for other in (heads - 1, heads, heads + 1):
            if other >= LEAST_HEADS:
                yield _of_shapes(candidate, [*shapes[:place], bounds.in_proportion(other, block), *shapes[place + 1 :]])
        above = shapes[place + 1].width // size if place + 1 < len(shapes) else round(1.4 * heads)
        yield _of_shapes(candidate, [*shapes, bounds.in_proportion(round(math.sqrt(heads * above)), block)])
    for place in range(len(shapes)):
        yield _of_shapes(candidate, [*shapes[:place], *shapes[place + 1 :]])
    least, spread, number = tokens[0], tokens[-1] / tokens[0], len(tokens)
    for more in (-1, 1):
        yield replace(candidate, tokens=token_budgets(least, spread, max(2, number + more)))
    for low, high in itertools.product((1.0, *STRETCHES), repeat=2):
        start = max(least * low, least_tokens(shapes))
        yield replace(candidate, tokens=token_budgets(start, max(1.1, spread * high), number))


def _of_shapes(candidate: Candidate, shapes: Sequence[Shape]) -> Candidate:
    """With these shapes, ascending, and budgets that are not too small for them."""
    ordered = tuple(sorted(set(shapes), key=lambda shape: shape.params))
    tokens, floor = candidate.tokens, least_tokens(ordered)
    if tokens[0] < floor:
        tokens = token_budgets(floor, max(1.1, tokens[-1] / floor), len(tokens))
    return Candidate(ordered, tokens, (1,) * len(ordered))
