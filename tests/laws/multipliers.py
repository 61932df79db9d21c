"""Do the intervals of a multiplier cover 95 %? Simulated tables of two variants, compared as real ones are.

    python tests/laws/multipliers.py [TABLES [DRAWS]]      DRAWS 0: intervals from the curvature

The grid of conf/sweep/cpu.yaml, and one of six trunks, under the additive and the coupled law that the cpu grid has,
with f and g of .7 to 1.4, .25 % noise, half of it the trunks', and none, half or four fifths of it common to runs of
one shape, seed and budget, or other seeds for the variant. Beside the coverage stand the median half-width of log m,
and how often a true null of shared exponents is rejected.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from harness.laws import compare

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
    """Of m: how often its interval covers, the median half-width of log m; how often shared exponents are rejected."""

    covered: float
    half_width: float
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


def one(grid: str, law: str, share: float | None, draws: int, seed: int) -> tuple[float, float, float, float]:
    f, g = np.random.default_rng((seed, 1)).uniform(LEAST, MOST, 2)
    found = compare(table(grid, law, share, f, g, seed), law=law, bootstrap=draws, seed=seed).content
    entry = found["variants"]["b"]
    m = entry["multiplier"]["equal_tokens"]
    covered = m["low"] <= f * g <= m["high"]
    half = float(np.log(m["high"] / m["low"])) / 2
    return covered, half, entry["exponents_shared"]["p"] < 0.05, found["certificate"]["certified"]


def calibrate(grid: str, law: str, share: float | None, tables: int, draws: int, workers: int = 1) -> Found:
    work = partial(one, grid, law, share, draws)
    if workers == 1:
        found = np.array(list(map(work, range(tables))), float)
    else:
        with ProcessPoolExecutor(workers) as pool:
            found = np.array(list(pool.map(work, range(tables), chunksize=10)), float)
    covered, _, rejected, certified = found.mean(0).tolist()
    return Found(covered, float(np.median(found[:, 1])), rejected, certified)


def main(tables: int = TABLES, draws: int = DRAWS) -> int:
    shown = Table("grid", "law", "pairs share", "m covers", "half-width", "rejected", "certified", box=SIMPLE_HEAD)
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
