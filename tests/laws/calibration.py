"""Do 95 % intervals cover 95 %? Simulated sweeps with a known truth, fitted as real ones are: make calibrate

Two grids of the shape of the cpu grid, with noise of each cell alone, analysed by rows, and with half of its variance
shared by the cells of a trunk, analysed by trunks as sweeps are by default; and how the default fares where trunks
share nothing or nearly all. Beside the coverage stands the median width of the intervals over the range that holds the
central 95 % of the estimates: 1 is as narrow as these tables allow.
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from harness.laws import fit

SHAPES = ((32, 2), (48, 2), (64, 2), (80, 3), (96, 3), (128, 4))
MORE_SHAPES = (*SHAPES, (40, 2), (56, 2), (72, 3), (88, 3), (112, 4), (144, 4))
GRIDS = {
    "24 cells in 6 trunks": (SHAPES, 4),
    "60 cells in 12 trunks": (MORE_SHAPES, 5),
    "12 cells in 3 trunks": (SHAPES[::2], 4),
}
LEAST_TOKENS, MOST_TOKENS = 1e6, 4e6
TRUTH = {"alpha": 0.40, "beta": 0.45, "E": 2.1, "a": 0.45 / 0.85}
NOISE = 0.002
SWEEPS, DRAWS = 1000, 1000
# What the noise is called, the trunk's part of its variance, and whether the table names its trunks.
NOISES = {
    "rows, by rows": (0.0, False),
    "half trunks'": (0.5, True),
    "rows, by trunks": (0.0, True),
    "80 % trunks'": (0.8, True),
}
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """`coverage` by parameter, and median width over the spread that the estimates have."""

    grid: str
    noise: str
    coverage: dict[str, float]
    width: dict[str, float]
    certified: float


def sweep(grid: str, noise: str, seed: int) -> pd.DataFrame:
    """A run table around the truth."""
    generator = np.random.default_rng(seed)
    shared, named = NOISES[noise]
    shapes, budgets = GRIDS[grid]
    rows = []
    for width, depth in shapes:
        params = 12 * width**2 * depth + 1024 * width
        trunk = generator.standard_normal()
        for tokens in np.geomspace(LEAST_TOKENS, MOST_TOKENS, budgets):
            loss = TRUTH["E"] + 0.7 * (params / 4e5) ** -TRUTH["alpha"] + 1.2 * (tokens / 2e6) ** -TRUTH["beta"]
            error = np.sqrt(shared) * trunk + np.sqrt(1 - shared) * generator.standard_normal()
            row = {"trunk": f"w{width}-d{depth}"} if named else {}
            rows.append(row | {"params_with_head": params, "tokens": tokens, "loss": loss * np.exp(NOISE * error)})
    return pd.DataFrame(rows)


def one(grid: str, noise: str, draws: int, seed: int) -> tuple[list[tuple[float, float, float]], bool]:
    """Estimate and interval of every parameter of TRUTH from one simulated sweep; an interval that is none is empty."""
    result = fit(sweep(grid, noise, seed), loss="log_mse", bootstrap=draws, seed=seed)
    ends = [result.intervals[name] or (np.nan, np.nan) for name in TRUTH]
    values = [(result.estimates[name], *pair) for name, pair in zip(TRUTH, ends, strict=True)]
    return values, result.certificate.certified


def calibrate(grid: str, noise: str, sweeps: int, draws: int, workers: int = 1) -> Calibration:
    work = partial(one, grid, noise, draws)
    seeds = range(sweeps)
    if workers == 1:
        found = list(map(work, seeds))
    else:
        with ProcessPoolExecutor(workers) as pool:
            found = list(pool.map(work, seeds, chunksize=10))
    values_STX = np.array([values for values, _ in found])
    estimate_ST, low_ST, high_ST = np.moveaxis(values_STX, 2, 0)
    truth_T = np.array(list(TRUTH.values()))
    covered_T = ((low_ST <= truth_T) & (truth_T <= high_ST)).mean(0)
    deserved_T = np.subtract(*np.quantile(estimate_ST, (0.975, 0.025), axis=0))
    width_T = np.nanmedian(high_ST - low_ST, axis=0) / deserved_T
    by_name = [dict(zip(TRUTH, part.tolist(), strict=True)) for part in (covered_T, width_T)]
    return Calibration(grid, noise, *by_name, certified=float(np.mean([certified for _, certified in found])))


def all_of_them(sweeps: int, draws: int, workers: int) -> Iterator[Calibration]:
    for grid in GRIDS:
        for noise in NOISES:
            yield calibrate(grid, noise, sweeps, draws, workers)


def main() -> int:
    names = [f"{kind} {name}" for name in TRUTH for kind in ("covers", "width")]
    table = Table("grid", "noise", *names, "certified", box=SIMPLE_HEAD)
    for found in all_of_them(SWEEPS, DRAWS, workers=2):
        parts = [text for name in TRUTH for text in (f"{found.coverage[name]:.1%}", f"{found.width[name]:.2f}")]
        table.add_row(found.grid, found.noise, *parts, f"{found.certified:.1%}")
    print(f"{SWEEPS} simulated sweeps each, {NOISE:.1%} noise, intervals from {DRAWS} draws; truth {TRUTH}")
    Console(width=160).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
