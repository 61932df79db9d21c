"""Chinchilla's three approaches to the compute-optimal exponents, beside each other (Hoffmann et al. 2022, section 3).

Shapes: S draws, R rows, V curves (one a trunk), C compute budgets.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from scipy import special
from scipy.interpolate import make_interp_spline

from harness.errors import UserError
from harness.laws.fit import Fit
from harness.laws.forms import Array
from harness.laws.noise import intervals as ci
from harness.laws.table.levels import budget_labels, level_values
from harness.laws.table.rows import Cells

# A profile needs a shape more than its polynomial has coefficients; a line needs more than two budgets.
LEAST_SHAPES, LEAST_BUDGETS = {2: 4, 3: 5}, 3
# Compute budgets at which curves are read where the table has no IsoFLOP profiles of its own.
READINGS = 12
# In params, either way of each minimum. On ten published IsoFLOP tables (Porian et al. 2024) the parabola's a is then
# within .020 (rms) of the authors' own; within a factor of 20 it is .040, over whole profiles, unweighted, .035.
NEAR = 4.0
# Where the fit drew no simulated tables, the procedures still need some.
LEAST_DRAWS = 1000
# Of the simulated sweeps; where more lose their optimum the number is not worth showing.
MOST_LOST = 0.2


@dataclass
class ApproachesConfig:
    """How approach 2 reads IsoFLOP profiles."""

    # the shapes within this factor of params of the lowest loss count; inf: whole profiles, their budgets unweighted,
    # as most published parabolas are
    within: float = NEAR

    def check(self) -> None:
        if not self.within > 1:
            shown = f"approaches.within={self.within:g}"
            raise UserError(f"{shown} is no factor above 1: give 4, or inf for whole profiles")


@dataclass(frozen=True)
class Line:
    """log y = intercept + slope log x with the 95 % interval of the slope (Student's t)."""

    intercept: float
    slope: float
    interval: tuple[float, float] | None


def power_line(x: Array, y: Array, weight: Array | None = None) -> Line:
    """Weighted least squares of log y on log x; weights are relative, None: all alike. None where two points."""
    log_x, log_y = np.log(x), np.log(y)
    weight = np.ones(len(log_x)) if weight is None else weight / weight.mean()
    mean_x, mean_y = np.average(log_x, weights=weight), np.average(log_y, weights=weight)
    spread = float((weight * (log_x - mean_x) ** 2).sum())
    slope = float((weight * (log_x - mean_x) * log_y).sum() / spread)
    intercept = float(mean_y - slope * mean_x)
    freedom = len(log_x) - 2
    if freedom < 1:
        return Line(intercept, slope, None)
    variance = float((weight * (log_y - intercept - slope * log_x) ** 2).sum()) / freedom
    half = float(special.stdtrit(freedom, ci.TAILS[1])) * float(np.sqrt(variance / spread))
    return Line(intercept, slope, (slope - half, slope + half))


@dataclass(frozen=True)
class Profile:
    """Losses over params at one compute: log losses are `reading_VR` @ log losses of the rows."""

    flops: float
    params_V: Array
    tokens_V: Array
    reading_VR: Array


@dataclass(frozen=True)
class Profiles:
    profiles: list[Profile]
    own: bool
    source: str


@dataclass(frozen=True)
class Optima:
    """What a procedure read off: log N* and log D* (S, C), nan where a table has none, with relative weights of the
    budgets, and what was left out."""

    flops_C: Array
    params_SC: Array
    tokens_SC: Array
    weight_C: Array
    dropped: list[str]


def profiles(cells: Cells) -> Profiles:
    """The IsoFLOP profiles of a table: at its own budgets, or read off the curves of its trunks."""
    rows = cells.rows
    budget_R = budget_labels(rows.flops)
    own = []
    for index, flops in enumerate(level_values(rows.flops, budget_R)):
        here = np.flatnonzero(budget_R == index)
        if len(np.unique(cells.shape_R[here])) >= LEAST_SHAPES[2]:
            reading_VR = np.zeros((len(here), len(rows)))
            reading_VR[np.arange(len(here)), here] = 1
            own.append(Profile(float(flops), rows.params[here], rows.tokens[here], reading_VR))
    if len(own) >= LEAST_BUDGETS:
        return Profiles(own, True, "the table's own IsoFLOP budgets")
    return Profiles(_read_curves(cells), False, "each trunk's losses over compute, a cubic spline of the logs")


def _read_curves(cells: Cells) -> list[Profile]:
    """Profiles at evenly spaced compute, from the curves that reach it; nothing is extrapolated."""
    rows = cells.rows
    trunk_R = np.zeros(len(rows), np.intp) if rows.cluster is None else rows.cluster
    curves = []
    for curve in np.unique(cells.shape_R * (trunk_R.max() + 1) + trunk_R):
        own = np.flatnonzero(cells.shape_R * (trunk_R.max() + 1) + trunk_R == curve)
        flops, first, inverse = np.unique(rows.flops[own], return_index=True, return_inverse=True)
        if len(flops) > 1:
            mean_XR = np.zeros((len(flops), len(rows)))
            mean_XR[inverse, own] = 1 / np.bincount(inverse)[inverse]
            curves.append((np.log(flops), rows.params[own[0]], np.log(rows.tokens[own[first]]), mean_XR))
    if not curves:
        return []
    low = sorted(curve[0][0] for curve in curves)
    high = sorted(curve[0][-1] for curve in curves)
    found = []
    for log_flops in np.linspace(low[0], high[-1], 4 * READINGS):
        reach = [curve for curve in curves if curve[0][0] - 1e-9 <= log_flops <= curve[0][-1] + 1e-9]
        if len({params for _, params, _, _ in reach}) < LEAST_SHAPES[2]:
            continue
        readings, tokens = [], []
        for x_X, _, log_tokens_X, mean_XR in reach:
            at = float(np.clip(log_flops, x_X[0], x_X[-1]))
            spline = make_interp_spline(x_X, np.column_stack([mean_XR, log_tokens_X]), k=min(3, len(x_X) - 1))
            value = spline(at)
            readings.append(value[:-1])
            tokens.append(float(np.exp(value[-1])))
        params_V = np.array([params for _, params, _, _ in reach])
        found.append(Profile(float(np.exp(log_flops)), params_V, np.array(tokens), np.array(readings)))
    keep = set(np.linspace(0, len(found) - 1, READINGS).round().astype(int).tolist()) if found else set()
    return [found[index] for index in sorted(keep)]


def polynomial(profiles: list[Profile], log_loss_SR: Array, degree: int, within: float) -> Optima:
    """Approach 2: the minimum of a polynomial in log N of each profile, inside its sampled range.

    Only shapes within a factor of the lowest one count: far from the minimum no profile is a polynomial. Budgets are
    weighted by how certain their minima are, over whole profiles (inf) not at all.
    """
    flops, params, tokens, weights, dropped = [], [], [], [], []
    for profile in profiles:
        log_params_V = np.log(profile.params_V)
        loss_SV = np.exp(log_loss_SR @ profile.reading_VR.T)
        away_V = np.abs(log_params_V - log_params_V[np.argmin(loss_SV[0])])
        near_V = away_V <= np.log(within) + 1e-9
        if len(np.unique(log_params_V[near_V].round(9))) < LEAST_SHAPES[degree]:
            dropped.append(f"{profile.flops:.3g} FLOPs: fewer than {LEAST_SHAPES[degree]} shapes near the lowest loss")
            continue
        middle = log_params_V[near_V].mean()
        x_V = log_params_V[near_V] - middle
        design_VK = np.vander(x_V, degree + 1, increasing=True)
        coefficient_SK = loss_SV[:, near_V] @ np.linalg.pinv(design_VK).T
        best_S = _lowest(coefficient_SK, x_V.min(), x_V.max())
        if np.isnan(best_S[0]):
            dropped.append(f"{profile.flops:.3g} FLOPs: the minimum is not inside the sampled params")
            continue
        slope, offset = np.polyfit(x_V, np.log(profile.tokens_V[near_V]), 1)
        flops.append(profile.flops)
        params.append(best_S + middle)
        tokens.append(slope * best_S + offset)
        weights.append(_certainty(coefficient_SK[0], float(best_S[0]), design_VK) if np.isfinite(within) else 1.0)
    return _optima(flops, params, tokens, weights, dropped, len(log_loss_SR))


def _certainty(coefficient_K: Array, best: float, design_VK: Array) -> float:
    """1 / variance of a polynomial's minimum, by the delta method, where every loss has a variance of 1."""
    order_K = np.arange(len(coefficient_K))
    slope_K = order_K * best ** np.maximum(order_K - 1, 0)
    bend = float((order_K * (order_K - 1) * best ** np.maximum(order_K - 2, 0)) @ coefficient_K)
    return bend**2 / float(slope_K @ np.linalg.pinv(design_VK.T @ design_VK) @ slope_K)


def _lowest(coefficient_SK: Array, low: float, high: float) -> Array:
    """Where polynomials (quadratic or cubic) have a minimum strictly between low and high, else nan; (S,)."""
    padded_SK = np.zeros((len(coefficient_SK), 4))
    padded_SK[:, : coefficient_SK.shape[1]] = coefficient_SK
    _, slope_S, bend_S, twist_S = padded_SK.T
    # The root of slope + 2 bend x + 3 twist x^2 at which the second derivative is positive, without cancellation.
    root_S = np.sqrt(np.maximum(bend_S**2 - 3 * twist_S * slope_S, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        where_S = np.where(bend_S > 0, -slope_S / (bend_S + root_S), (root_S - bend_S) / (3 * twist_S))
    proper_S = (bend_S**2 > 3 * twist_S * slope_S) & (where_S > low) & (where_S < high)
    return np.where(proper_S, where_S, np.nan)


def envelope(profiles: list[Profile], log_loss_SR: Array) -> Optima:
    """Approach 1: the shape of lowest loss at each compute, where a smaller and a larger one were sampled too."""
    flops, params, tokens, dropped = [], [], [], []
    for profile in profiles:
        log_params_V, log_tokens_V = np.log(profile.params_V), np.log(profile.tokens_V)
        best_S = np.argmin(log_loss_SR @ profile.reading_VR.T, axis=1)
        at_S = log_params_V[best_S]
        inside_S = (at_S > log_params_V.min() + 1e-9) & (at_S < log_params_V.max() - 1e-9)
        if not inside_S[0]:
            dropped.append(f"{profile.flops:.3g} FLOPs: the best shape is the smallest or largest that reaches it")
            continue
        flops.append(profile.flops)
        params.append(np.where(inside_S, at_S, np.nan))
        tokens.append(np.where(inside_S, log_tokens_V[best_S], np.nan))
    if len({round(float(best_S[0]), 9) for best_S in params}) < LEAST_BUDGETS:
        return _optima([], [], [], [], [*dropped, f"fewer than {LEAST_BUDGETS} shapes are best at some compute"], 0)
    return _optima(flops, params, tokens, [1.0] * len(flops), dropped, len(log_loss_SR))


def _optima(
    flops: list[float],
    params: list[Array],
    tokens: list[Array],
    weights: list[float],
    dropped: list[str],
    tables: int,
) -> Optima:
    params_SC, tokens_SC = (np.stack(parts, 1) if parts else np.empty((tables, 0)) for parts in (params, tokens))
    return Optima(np.array(flops), params_SC, tokens_SC, np.array(weights), dropped)


Procedures = dict[str, Callable[[list[Profile], Array], Optima]]
WHOLE = "_whole"


def _polynomials(within: float) -> Procedures:
    """Approach 2 by parabolas and cubics; over whole profiles it has names of its own."""
    degrees = {"isoflop_parabola": 2, "isoflop_cubic": 3}
    end = "" if np.isfinite(within) else WHOLE
    return {name + end: partial(polynomial, degree=degree, within=within) for name, degree in degrees.items()}


def approaches(
    cells: Cells, fit: Fit, bootstrap: int, seed: int, within: float = NEAR
) -> tuple[dict[str, Any] | None, list[str]]:
    """The section `approaches` of fit.json and its notes; None where the law has no compute optimum.

    Approach 2 takes shapes within a factor of each minimum, or with inf whole profiles; the other of the two (the
    default factor beside inf) stands beside it where their a differ by more than their intervals.

    Intervals: Student's t on the points of the line where the table has IsoFLOP budgets of its own; where budgets
    are read off curves, and so share runs, tables simulated around the law go through the whole procedure.
    `bias` is what a procedure makes of a from the law's own losses at these rows, less the law's own a: a
    parabola on a lopsided profile errs without any noise.
    """
    if "a" not in fit.estimates:
        return None, []
    problem, found = fit.problem, profiles(cells)
    law_R = problem.form.log_prediction(fit.theta_P[None], problem.at)
    tables = [np.log(problem.target[:1]), law_R]
    if not found.own:
        draws = ci.simulate(problem, fit.theta_P, fit.noise, bootstrap or LEAST_DRAWS, seed)
        tables += [np.log(target_SR) for target_SR, _ in draws]
    log_loss_SR = np.concatenate(tables) + np.log(problem.at.scale)
    chosen: Procedures = {"envelope": envelope} | _polynomials(within)
    entries = [_entry(name, run(found.profiles, log_loss_SR), fit) for name, run in chosen.items()]
    disagree = _disagreements([*entries, _parametric(fit)])
    for name, run in _polynomials(np.inf if np.isfinite(within) else NEAR).items():
        entry = _entry(name, run(found.profiles, log_loss_SR), fit)
        own = next(each for each in entries if each["name"].removesuffix(WHOLE) == name.removesuffix(WHOLE))
        # As they are quoted: much of what sets them apart is bias.
        if apart := _disagreements([own | {"bias": 0.0}, entry | {"bias": 0.0}]):
            entries.insert(entries.index(own) + 1, entry)
            disagree += apart
    entries.append(_parametric(fit))
    return {"source": found.source, "within": within, "approaches": entries, "disagree": disagree}, disagree


def _entry(name: str, optima: Optima, fit: Fit) -> dict[str, Any]:
    section: dict[str, Any] = {"name": name, "a": None, "b": None, "bias": None, "points": len(optima.flops_C)}
    section |= {"dropped": optima.dropped, "left_out": None}
    simulated_SC = optima.params_SC[2:]
    if len(optima.flops_C) < LEAST_BUDGETS:
        section["left_out"] = f"{len(optima.flops_C)} compute budgets have an optimum, {LEAST_BUDGETS} are needed"
        return section
    if len(simulated_SC) and (lost := float(np.isnan(simulated_SC).mean())) > MOST_LOST:
        section["left_out"] = f"noise moves {lost:.0%} of the simulated optima out of the sampled params"
        return section
    log_flops_C = np.log(optima.flops_C)
    for key, value_SC in (("a", optima.params_SC), ("b", optima.tokens_SC)):
        slope_S = _slopes(log_flops_C, value_SC, optima.weight_C)
        value = float(slope_S[0])
        if len(slope_S) > 2:
            low, high = (np.nanquantile(slope_S[2:], ci.TAILS) - np.nanmedian(slope_S[2:]) + value).tolist()
        else:
            line = power_line(optima.flops_C, np.exp(value_SC[0]), optima.weight_C)
            low, high = line.interval or (None, None)
        section[key] = {"value": value, "low": low, "high": high}
        if key == "a" and np.isfinite(slope_S[1]):
            section["bias"] = float(slope_S[1]) - fit.estimates["a"]
    section["flops"] = optima.flops_C
    section["optimal_params"], section["optimal_tokens"] = np.exp(optima.params_SC[0]), np.exp(optima.tokens_SC[0])
    return section


def _slopes(x_C: Array, y_SC: Array, weight_C: Array) -> Array:
    """Weighted least-squares slopes of y on x, (S,), over the points that a draw has."""
    weight_SC = np.where(np.isnan(y_SC), 0.0, weight_C)
    y_SC = np.nan_to_num(y_SC)
    total_S = weight_SC.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        from_SC = x_C - ((weight_SC @ x_C) / total_S)[:, None]
        return (weight_SC * from_SC * y_SC).sum(1) / (weight_SC * from_SC**2).sum(1)


def _parametric(fit: Fit) -> dict[str, Any]:
    value, interval = fit.estimates["a"], fit.intervals["a"]
    low, high = interval or (None, None)
    a = {"value": value, "low": low, "high": high}
    b = {"value": 1 - value, "low": None if high is None else 1 - high, "high": None if low is None else 1 - low}
    return {"name": "parametric", "a": a, "b": b, "bias": 0.0, "points": len(fit.rows), "dropped": [], "left_out": None}


def _disagreements(entries: list[dict[str, Any]]) -> list[str]:
    """Pairs whose a, less their bias, differ by more than their intervals, taken as independent, allow."""
    shown = [entry for entry in entries if entry["a"] and entry["a"]["low"] is not None]
    sentences = []
    for first, second in combinations(shown, 2):
        unbiased = [entry["a"]["value"] - (entry["bias"] or 0.0) for entry in (first, second)]
        apart = abs(unbiased[0] - unbiased[1])
        halves = [(entry["a"]["high"] - entry["a"]["low"]) / 2 for entry in (first, second)]
        if apart > np.hypot(*halves):
            sentences.append(
                f"The approaches {first['name']} (a {first['a']['value']:.3f}) and {second['name']} "
                f"(a {second['a']['value']:.3f}) disagree beyond their intervals."
            )
    return sentences
