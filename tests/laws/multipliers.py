"""Do the intervals of a multiplier cover 95 %? Simulated tables of two variants, compared as real ones are.

    python tests/laws/multipliers.py [TABLES [DRAWS]]

DRAWS 0 takes intervals from the curvature and starts each fit at the truth alone, which is several times as fast; real
ones start at 90 places and end at the same minimum (tests/laws/test_weights.py).

The grid of conf/sweep/cpu.yaml, and one of six trunks, under the additive and the coupled law that the cpu grid has,
with f and g of .7 to 1.4, .25 % noise, half of it the trunks', and none, half or four fifths of it common to runs of
one shape, seed and budget, or other seeds for the variant. Beside the coverage stand the median half-width of log m,
half of the central 95 % of its errors, the least that any unbiased estimate has where the covariance of the noise is
known, and how often a true null of shared exponents is rejected.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from unittest import mock

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from harness.laws import compare
from harness.laws.forms import FORMS, centred
from harness.laws.forms.variants import JointLaw, labelled

# Width, depth, seed.
GRIDS = {
    "36 cells in 9 trunks": ((176, 2, 0), (96, 3, 0), (112, 2, 0), (80, 2, 0), (64, 2, 0), (64, 2, 1), (48, 2, 0),
                             (48, 2, 1), (48, 2, 2)),
    "24 cells in 6 trunks": ((176, 2, 0), (112, 2, 0), (96, 2, 0), (80, 2, 0), (64, 2, 0), (48, 2, 0)),
}  # fmt: skip
BUDGETS = (1.0e6, 1.55e6, 2.35e6, 3.6e6)
# E, A, alpha, B, beta, gamma as fitted to the cpu grid.
LAWS = {
    "chinchilla_coupled": (2.3128, 1028.4, 0.6584, 4458.9, 0.6280, 0.6882),
    "chinchilla": (2.4666, 338.24, 0.58372, 672.73, 0.50387, 1.0),
}
# The part of the noise that pairs share; None: other seeds.
SHARES = (None, 0.0, 0.5, 0.8)
NOISE, TRUNK_SHARE = 0.0025, 0.5
LEAST, MOST = 0.7, 1.4
TABLES, DRAWS = 2000, 1000


@dataclass(frozen=True)
class Found:
    """Of log m: how often its interval covers, its median half-width, half of the central 95 % of the errors, and their
    bound; how often shared exponents are rejected."""

    covered: float
    half_width: float
    errors: float
    bound: float
    rejected: float
    certified: float


def table(grid: str, law: str, share: float | None, f: float, g: float, seed: int) -> pd.DataFrame:
    """Both variants around the truth: the second at (f N, g D)."""
    generator = np.random.default_rng(seed)
    E, A, alpha, B, beta, gamma = LAWS[law]
    trunks = GRIDS[grid]
    common, part = 0.0 if share is None else share, np.sqrt([TRUNK_SHARE, 1 - TRUNK_SHARE])
    shared = (generator.standard_normal((len(trunks), 1)), generator.standard_normal((len(trunks), len(BUDGETS))))
    rows = []
    for way, (in_params, in_tokens) in {"a": (1.0, 1.0), "b": (f, g)}.items():
        own = (generator.standard_normal((len(trunks), 1)), generator.standard_normal((len(trunks), len(BUDGETS))))
        noise = sum(
            size * (np.sqrt(common) * both + np.sqrt(1 - common) * alone)
            for size, both, alone in zip(part, shared, own, strict=True)
        )
        for trunk, (width, depth, number) in enumerate(trunks):
            params = 12 * width**2 * depth + 1026 * width
            number += 10 if share is None and way == "b" else 0
            for budget, tokens in enumerate(BUDGETS):
                inner = A * (in_params * params) ** -alpha + B * (in_tokens * tokens) ** -beta
                loss = (E + inner**gamma) * np.exp(NOISE * noise[trunk, budget])
                rows.append({
                    "way": way, "width": width, "depth": depth, "seed": number, "trunk": f"{way}{trunk}",
                    "params_with_head": params, "tokens": tokens, "loss": loss,
                })  # fmt: skip
    return pd.DataFrame(rows)


def truth(law: str, f: float, g: float) -> dict[str, float]:
    """The parameters of both variants."""
    E, A, alpha, B, beta, gamma = LAWS[law]
    found = {"E": E, "A": A, "alpha": alpha, "B": B, "beta": beta, "gamma": gamma}
    return found | {"A of b": A * f**-alpha, "B of b": B * g**-beta}


def bound(grid: str, law: str, share: float | None, f: float, g: float) -> float:
    """Half of the central 95 % of log m under the least variance that an unbiased estimate has, the covariance known
    (Cramer and Rao), at the linearised law."""
    frame = table(grid, law, None, f, g, 0)
    second = (frame["way"] == "b").to_numpy()
    joint = JointLaw(FORMS[law], ("a", "b"), frozenset(FORMS[law].internal) - {"A", "B"})
    at = centred(*(frame[name].to_numpy(float) for name in ("loss", "params_with_head", "tokens")))
    at = labelled(at, second.astype(np.intp))
    theta = joint.from_natural(truth(law, f, g), at)
    J = joint.derivatives(theta[None], at)[1][0]
    step = 1e-5 * np.eye(len(theta))
    gradient = np.zeros(len(theta))
    for sign in (1, -1):
        natural = joint.natural(theta + sign * step, at)
        f_P = (natural["A of b"] / natural["A"]) ** (-1 / natural["alpha"])
        g_P = (natural["B of b"] / natural["B"]) ** (-1 / natural["beta"])
        gradient += sign * np.log(f_P * g_P) / 2e-5
    trunks, budgets, common = len(GRIDS[grid]), len(BUDGETS), share or 0.0
    of_variant = TRUNK_SHARE * np.kron(np.eye(trunks), np.ones((budgets, budgets)))
    of_variant += (1 - TRUNK_SHARE) * np.eye(trunks * budgets)
    covariance = NOISE**2 * np.kron([[1.0, common], [common, 1.0]], of_variant)
    information = J.T @ np.linalg.solve(covariance, J)
    return float(1.96 * np.sqrt(gradient @ np.linalg.solve(information, gradient)))


def one(grid: str, law: str, share: float | None, draws: int, seed: int) -> tuple[float, ...]:
    """Whether m is covered, its half-width, its error, the bound; whether exponents are rejected; certified."""
    f, g = np.random.default_rng((seed, 1)).uniform(LEAST, MOST, 2)
    near = mock.patch.object(
        JointLaw, "starts", lambda form, relative_R, at: form.from_natural(truth(law, f, g), at)[None]
    )
    with nullcontext() if draws else near:
        found = compare(table(grid, law, share, f, g, seed), law=law, bootstrap=draws, seed=seed).content
    entry = found["variants"]["b"]
    m = entry["multiplier"]["equal_tokens"]
    covered = m["low"] <= f * g <= m["high"]
    half = float(np.log(m["high"] / m["low"])) / 2
    error = float(np.log(m["estimate"] / (f * g)))
    least = bound(grid, law, share, f, g)
    return covered, half, error, least, entry["exponents_shared"]["p"] < 0.05, found["certificate"]["certified"]


def calibrate(grid: str, law: str, share: float | None, tables: int, draws: int, workers: int = 1) -> Found:
    work = partial(one, grid, law, share, draws)
    if workers == 1:
        found = np.array(list(map(work, range(tables))), float)
    else:
        with ProcessPoolExecutor(workers) as pool:
            found = np.array(list(pool.map(work, range(tables), chunksize=10)), float)
    covered, *_, rejected, certified = found.mean(0).tolist()
    half, least = np.median(found[:, [1, 3]], axis=0).tolist()
    errors = float(np.diff(np.quantile(found[:, 2], [0.025, 0.975]))[0]) / 2
    return Found(covered, half, errors, least, rejected, certified)


def main(tables: int = TABLES, draws: int = DRAWS) -> int:
    names = ("m covers", "half-width", "errors", "bound", "rejected", "certified")
    shown = Table("grid", "law", "pairs share", *names, box=SIMPLE_HEAD)
    for grid in GRIDS:
        for law in LAWS:
            for share in SHARES:
                found = calibrate(grid, law, share, tables, draws, workers=2)
                words = "other seeds" if share is None else f"{share:.0%}"
                rates = [f"{each:.2%}" for each in vars(found).values()]
                shown.add_row(grid, law, words, *rates)
    print(f"{tables} simulated tables each, intervals from {f'{draws} draws' if draws else 'the curvature'}")
    Console(width=120).print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
