"""What a fit on a grid could tell, by simulation, before anything is trained. Shapes: R cells."""

from dataclasses import dataclass

import numpy as np

from harness.errors import UserError
from harness.laws.checks.misfit import Measured
from harness.laws.forms import FORMS, Array, centred
from harness.laws.noise import intervals as ci
from harness.laws.noise.noise import Labels
from harness.laws.solving.certificate import NARROW_RATIO
from harness.laws.solving.losses import Loss
from harness.laws.solving.solver import Problem
from harness.laws.table.rows import Columns, Rows, check_levels

# A law and a noise like those of tiny models; E, the terms of params and of tokens at the grid's centre, in nats.
FLOOR, HEIGHTS, EXPONENTS = 2.1, (0.7, 1.2), (0.40, 0.45)
NOISE, TRUNK_SHARE = 0.002, 0.5
DRAWS = 500
# A range of a wider than this tells no way of scaling from another.
WIDE = 0.2


@dataclass(frozen=True)
class Expectation:
    """The 95 % ranges in which alpha, beta and a would be found, and sentences on what the grid cannot tell."""

    ranges: dict[str, tuple[float, float]]
    warnings: list[str]

    @property
    def sentence(self) -> str:
        alpha, beta = EXPONENTS
        truth = {"alpha": alpha, "beta": beta, "a": beta / (alpha + beta)}
        parts = [f"{name} = {truth[name]:.2f} as {low:.2f} to {high:.2f}" for name, (low, high) in self.ranges.items()]
        return (
            f"with {NOISE:.1%} noise, half of it the trunks', this grid would find {', '.join(parts)} (95 %, {DRAWS} "
            "simulated sweeps)"
        )


def expect(
    params_R: Array, tokens_R: Array, trunk_R: Labels, centre: tuple[float, float] | None = None, seed: int = 0
) -> Expectation:
    """Simulates sweeps over these cells and fits Chinchilla's law to each.

    centre: params and tokens where the terms have their heights, so that two grids are compared under one law; None is
    the grid's own centre. seed is the simulation's.
    """
    form = FORMS["chinchilla"]
    n_R, d_R = (np.log(values) - np.log(values).mean() for values in (params_R, tokens_R))
    heights = list(HEIGHTS)
    if centre is not None:
        own = (np.exp(np.log(params_R).mean()), np.exp(np.log(tokens_R).mean()))
        heights = [
            height * (here / there) ** -exponent
            for height, here, there, exponent in zip(HEIGHTS, own, centre, EXPONENTS, strict=True)
        ]
    loss_R = FLOOR + heights[0] * np.exp(-EXPONENTS[0] * n_R) + heights[1] * np.exp(-EXPONENTS[1] * d_R)
    ones_R = np.ones(len(loss_R))
    rows = Rows(params_R, tokens_R, 6 * params_R * tokens_R, loss_R, ones_R, trunk_R, False)
    try:
        check_levels(rows, Columns(), form, "the grid")
    except UserError as error:
        return Expectation({}, [f"no law of params and tokens can be fitted: {error}"])
    at = centred(loss_R, params_R, tokens_R)
    internal = {"E": FLOOR / at.scale, "A": np.log(heights[0] / at.scale), "alpha": EXPONENTS[0]}
    internal |= {"B": np.log(heights[1] / at.scale), "beta": EXPONENTS[1]}
    theta_P = np.array([internal[name] for name in form.internal])
    problem = Problem(form, at, (loss_R / at.scale)[None], ones_R, Loss("log_mse"))
    trunk_sd, cell_sd = (NOISE * np.sqrt(share) for share in (TRUNK_SHARE, 1 - TRUNK_SHARE))
    noise = Measured(trunk_sd, cell_sd, np.inf, trunk_R)
    draws = ci.refit(problem, theta_P, ci.simulate(problem, theta_P, noise, DRAWS, seed))
    natural = form.natural(draws.theta_SP, at)
    ranges = {name: tuple(ci.quantiles(natural[name]).tolist()) for name in ("alpha", "beta", "a")}
    return Expectation(ranges, _warnings(tokens_R / params_R, ranges["a"]))


def _warnings(ratio_R: Array, a: tuple[float, float]) -> list[str]:
    if ratio_R.max() < NARROW_RATIO * ratio_R.min():
        return [
            f"every cell has {ratio_R.min():.3g} to {ratio_R.max():.3g} tokens a parameter, so alpha and beta cannot "
            "be told apart: train each shape on several budgets"
        ]
    if a[1] - a[0] > WIDE:
        return ["a stays open: widen the range of params or of tokens, or add seeds"]
    return []
