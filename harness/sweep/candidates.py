"""Grids that might be proposed: their bounds, what they cost, and to first order what their fits would tell.

Shapes: R cells, X shapes, B budgets, P parameters of the law.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from harness.accounting import count_params, train_flops_per_token
from harness.config import TrainConfig
from harness.grid import schedule_makespan
from harness.laws.design import EXPONENTS, FLOOR, HEIGHTS, NOISE, TRUNK_SHARE
from harness.laws.forms import Array
from harness.laws.noise.noise import Labels
from harness.sweep.pace import Pace

# Params and tokens at which the simulated law's terms have their heights.
CENTRE = (235e3, 1.0e6)
# Below these one measures the optimizer, the warmup or models that cannot copy yet, and not the law: docs/tuning.md.
LEAST_STEPS, MOST_WARMUP, LEAST_HEADS, LEAST_TOKENS_PER_PARAM = 900, 0.2, 3, 0.5
# Trunks that repeat a shape with another seed: they measure the noise.
LEAST_REPEATS = 2
MOST_SEEDS = 32


@dataclass(frozen=True, order=True)
class Shape:
    width: int
    depth: int
    params: int  # with_head
    flops_per_token: int
    least_tokens: float  # of a budget


@dataclass(frozen=True)
class Candidate:
    """Shapes and budgets, ascending, and how many seeds each shape has."""

    shapes: tuple[Shape, ...]
    tokens: tuple[float, ...]
    seeds: tuple[int, ...]

    @property
    def trunks(self) -> list[tuple[Shape, int]]:
        """The longest first."""
        pairs = list(zip(self.shapes, self.seeds, strict=True))
        return [(shape, seed) for shape, seeds in reversed(pairs) for seed in range(seeds)]

    def cells(self) -> tuple[Array, Array, Labels]:
        """Params, tokens and trunk of each cell, (R,)."""
        params = np.array([float(shape.params) for shape, _ in self.trunks])
        number = len(self.tokens)
        return np.repeat(params, number), np.tile(self.tokens, len(params)), np.repeat(np.arange(len(params)), number)

    @cached_property
    def information(self) -> tuple[Array, Array]:
        """Of a trunk of each shape: products of the slopes of log losses, and of those with their noise, (X, P, P)."""
        params_X = np.array([float(shape.params) for shape in self.shapes])
        (alpha, beta), (high_n, high_d) = EXPONENTS, HEIGHTS
        n_XB, d_XB = np.meshgrid(np.log(params_X / CENTRE[0]), np.log(np.array(self.tokens) / CENTRE[1]), indexing="ij")
        u_XB, v_XB = high_n * np.exp(-alpha * n_XB), high_d * np.exp(-beta * d_XB)
        slopes_XBP = np.stack([np.ones_like(u_XB), u_XB, -n_XB * u_XB, v_XB, -d_XB * v_XB], 2)
        slopes_XBP /= (FLOOR + u_XB + v_XB)[:, :, None]
        products_XPP = np.einsum("xbp,xbq->xpq", slopes_XBP, slopes_XBP)
        sums_XP = slopes_XBP.sum(1)
        noise_XPP = (1 - TRUNK_SHARE) * products_XPP + TRUNK_SHARE * sums_XP[:, :, None] * sums_XP[:, None, :]
        return products_XPP, noise_XPP


def curvature_sd(products_PP: Array, noise_PP: Array) -> Array:
    """The standard error of a to first order, for least squares of log losses with the noise of trunks and cells.

    The arguments are `Candidate.information` summed over trunks; axes before the last two are kept.
    """
    alpha, beta = EXPONENTS
    of_a_P = np.array([0, 0, -beta, 0, alpha]) / (alpha + beta) ** 2
    weights_P = np.linalg.solve(products_PP, of_a_P[:, None])[..., 0]
    return NOISE * np.sqrt(np.einsum("...p,...pq,...q->...", weights_P, noise_PP, weights_P))


def standard_error(candidate: Candidate) -> float:
    """Of a, by the curvature."""
    return float(curvature_sd(*(np.einsum("x,xpq->pq", candidate.seeds, part) for part in candidate.information)))


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
        pairs = zip(candidate.shapes, candidate.seeds, strict=True)
        return self.trained(candidate.tokens) * sum(seeds * shape.flops_per_token for shape, seeds in pairs)

    def seconds(self, candidate: Candidate) -> float:
        tokens = self.trained(candidate.tokens) + len(candidate.tokens) * self.evaluation_tokens
        # the longest first, as `trunks`
        flops_X = np.array([float(shape.flops_per_token) for shape in reversed(candidate.shapes)])
        # FLOPs a second are interpolated, and beyond what was measured the nearest
        rate_X = np.interp(np.log(flops_X), np.log(self.known_R), self.known_R / self.seconds_R)
        return schedule_makespan(np.repeat(tokens * flops_X / rate_X, candidate.seeds[::-1]).tolist(), self.slots)


Cost = Callable[[Candidate], float]


def make_shape(job: TrainConfig, vocab_size: int, width: int, depth: int) -> Shape:
    """A shape, and the fewest tokens that a budget of it may have."""
    model = replace(job.model, width=width, depth=depth)
    params = count_params(model, vocab_size).with_head
    rules = {name: job.optimizer.by_size()[name].at(params, None) for name in ("batch_tokens", "warmup_tokens")}
    least = max(LEAST_STEPS * rules["batch_tokens"], rules["warmup_tokens"] / MOST_WARMUP)
    return Shape(width, depth, params, train_flops_per_token(model, vocab_size), least)


def least_tokens(shapes: Sequence[Shape]) -> float:
    """Of the smallest budget of a grid of these shapes."""
    return max(max(part.least_tokens for part in shapes), LEAST_TOKENS_PER_PARAM * shapes[-1].params)


def paced(
    job: TrainConfig, shapes: Sequence[Shape], paces: Sequence[Pace], batches: Sequence[int], slots: int
) -> Costs:
    """The costs from a measurement of `shapes`; `batches` are their tokens a step."""
    seconds = [pace.step / batch for pace, batch in zip(paces, batches, strict=True)]
    evaluation = [pace.evaluation / second for pace, second in zip(paces, seconds, strict=True)]
    flops = np.array([float(shape.flops_per_token) for shape in shapes])
    return Costs(job, slots, flops, np.array(seconds), float(np.median(evaluation)))


def token_budgets(least: float, spread: float, number: int) -> tuple[float, ...]:
    """Geometric, each rounded up to three digits."""
    return tuple(_rounded(part) for part in np.geomspace(least, least * spread, number).tolist())


def _rounded(tokens: float) -> float:
    unit = 10.0 ** (math.floor(math.log10(tokens)) - 2)
    return math.ceil(round(tokens / unit, 6)) * unit
