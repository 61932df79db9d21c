"""What a fit, or a comparison, on a grid could tell before anything is trained. Shapes: R cells, P parameters."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from harness.errors import UserError
from harness.laws.checks.misfit import Measured
from harness.laws.forms import FORMS, Array, centred
from harness.laws.forms.variants import COEFFICIENTS, JointLaw, labelled
from harness.laws.noise import intervals as ci
from harness.laws.noise.noise import Labels
from harness.laws.noise.pairs import Groups, estimate_paired
from harness.laws.solving.certificate import NARROW_RATIO
from harness.laws.solving.losses import Loss
from harness.laws.solving.solver import Problem
from harness.laws.table.levels import budget_labels
from harness.laws.table.rows import Columns, Rows, check_levels
from harness.laws.variants.joint import LAWS, shareable
from harness.laws.variants.weights import gain, weights_of

# A law and a noise like those of tiny models; E, the terms of params and of tokens at the grid's centre, in nats.
FLOOR, HEIGHTS, EXPONENTS = 2.1, (0.7, 1.2), (0.40, 0.45)
NOISE, TRUNK_SHARE = 0.002, 0.5
# The coupled law of the cpu grid, likewise, and its gamma.
COUPLED_FLOOR, COUPLED_HEIGHTS, COUPLED_EXPONENTS, GAMMA = 2.31, (0.30, 0.51), (0.66, 0.63), 0.69
DRAWS = 500
# Of which a comparison's interval is the median.
NOISES = 100
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


def detectable(variants: Sequence[tuple[Array, Array, Labels]], law: str, seed: int = 0) -> float | None:
    """Half the width, in log, of the 95 % interval that a comparison of two variants would give of their multiplier.

    variants: params and tokens of each one's cells, and the label of their shape and seed, the same in both. The median
    over noise, none of it common to pairs, of what the curvature says, for variants that are alike. None where the law
    has no multipliers, or the cells do not carry it.
    """
    if law not in LAWS:
        return None
    params_R, tokens_R, pair_R = (np.concatenate([each[axis] for each in variants]) for axis in range(3))
    variant_R = np.repeat([0, 1], [len(each[0]) for each in variants])
    trunk_R = pair_R + variant_R * (int(pair_R.max()) + 1)
    form = JointLaw(FORMS[law], ("first", "second"), frozenset(shareable(law)))
    truth = _truth(law, params_R, tokens_R)
    terms_R = truth["A"] * params_R ** -truth["alpha"] + truth["B"] * tokens_R ** -truth["beta"]
    loss_R, ones_R = truth["E"] + terms_R ** truth["gamma"], np.ones(len(params_R))
    rows = Rows(params_R, tokens_R, 6 * params_R * tokens_R, loss_R, ones_R, trunk_R, False)
    try:
        check_levels(rows, Columns(), form, "the grid")
    except UserError:
        return None
    at = labelled(centred(loss_R, params_R, tokens_R), variant_R)
    theta_P = form.from_natural(truth | {f"{name} of second": truth[name] for name in COEFFICIENTS}, at)
    J_RP, _ = ci.influence(Problem(form, at, (loss_R / at.scale)[None], ones_R, Loss("log_mse")), theta_P)
    # log m = (A - A of second) / alpha + (B - B of second) / beta, which alpha and beta do not move where it is 0
    contrast_P = np.zeros(len(theta_P))
    for name, exponent in zip(COEFFICIENTS, ("alpha", "beta" if "beta" in form.internal else "alpha"), strict=True):
        contrast_P[form.internal.index(name)] = 1 / truth[exponent]
        contrast_P[form.internal.index(f"{name} of second")] = -1 / truth[exponent]
    cell_R = np.unique(np.stack([pair_R, budget_labels(tokens_R)]), axis=1, return_inverse=True)[1].ravel()
    groups = Groups(trunk_R, pair_R, cell_R, True)
    return _half_width(J_RP, contrast_P, groups, np.random.default_rng(seed))


def _half_width(J_RP: Array, contrast_P: Array, groups: Groups, generator: np.random.Generator) -> float:
    basis_RP, _ = np.linalg.qr(J_RP)
    halves = []
    for _ in range(NOISES):
        trunks_K = generator.standard_normal(int(groups.trunk_R.max()) + 1)
        apart_R = generator.standard_normal(len(J_RP))
        noise_R = NOISE * (np.sqrt(TRUNK_SHARE) * trunks_K[groups.trunk_R] + np.sqrt(1 - TRUNK_SHARE) * apart_R)
        found = estimate_paired(J_RP, noise_R - basis_RP @ (basis_RP.T @ noise_R), groups)
        spread_C, freedom_C = found.spread(contrast_P[None] @ gain(J_RP, weights_of(found)))
        halves.append(special.stdtrit(freedom_C[0], ci.TAILS[1]) * spread_C[0])
    return float(np.median(halves))


def _truth(law: str, params_R: Array, tokens_R: Array) -> dict[str, float]:
    """The parameters of a law of params and tokens whose terms have their heights at the grid's centre."""
    coupled = law == "chinchilla_coupled"
    exponents = COUPLED_EXPONENTS if coupled else EXPONENTS
    if law == "chinchilla_tied":
        exponents = (sum(EXPONENTS) / 2,) * 2
    params, tokens = (
        height * np.exp(exponent * np.log(part_R).mean())
        for height, part_R, exponent in zip(
            COUPLED_HEIGHTS if coupled else HEIGHTS, (params_R, tokens_R), exponents, strict=True
        )
    )
    floor, gamma = (COUPLED_FLOOR, GAMMA) if coupled else (FLOOR, 1.0)
    return {"E": floor, "A": params, "alpha": exponents[0], "B": tokens, "beta": exponents[1], "gamma": gamma}
