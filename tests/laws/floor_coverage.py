"""Does E's interval hold the floor as often as it says? Tables simulated on the grid of conf/sweep/floor.yaml.

    python tests/laws/floor_coverage.py [tables]

Prints, for each law and noise, how many of the 95 % intervals of E hold the truth, and their median half-width over
the smallest excess of the table, which is its smallest loss less E. The noise is a part of the excess, half of its
variance the trunks'.
"""

import sys

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from harness.laws import fit

# Width and how many seeds, as in the sweep.
SEEDS = {128: 1, 96: 1, 64: 2, 48: 2, 32: 2, 16: 3, 8: 3}
BUDGETS = np.array([250e3, 500e3, 1e6, 2e6, 4e6])
VOCABULARY, DEPTH = 1024, 2
FLOOR, PARAMS_TERM, TOKENS_TERM, ALPHA, BETA = 1.9, 0.02, 0.03, 0.8, 0.6
GAMMA = {"chinchilla": 1.0, "chinchilla_coupled": 0.7}
NOISES = (0.005, 0.01, 0.02)
TABLES, DRAWS = 20, 400


def excess(params: float, tokens: float, gamma: float) -> float:
    terms = [PARAMS_TERM * (params / 1e5) ** -ALPHA, TOKENS_TERM * (tokens / 1e6) ** -BETA]
    return sum(term ** (1 / gamma) for term in terms) ** gamma


def table(law: str, noise: float, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    rows = []
    for width, seeds in SEEDS.items():
        params = 12 * DEPTH * width**2 + VOCABULARY * width
        for number in range(seeds):
            of_trunk = generator.standard_normal()
            for tokens in BUDGETS:
                error = noise * np.sqrt(0.5) * (of_trunk + generator.standard_normal())
                loss = FLOOR + excess(params, tokens, GAMMA[law]) * np.exp(error)
                trunk = f"w{width}-s{number}"
                rows.append({"trunk": trunk, "params_with_head": params, "tokens": tokens, "loss": loss})
    return pd.DataFrame(rows)


def one(law: str, noise: float, seed: int, draws: int) -> tuple[bool, float, bool]:
    """Whether E's interval holds the floor, its half-width over the smallest excess, and whether it is certified."""
    result = fit(table(law, noise, seed), law=law, loss="log_mse", bootstrap=draws, seed=seed)
    interval = result.intervals["E"]
    if interval is None:
        return False, float("inf"), result.certificate.certified
    smallest = min(excess(12 * DEPTH * w**2 + VOCABULARY * w, BUDGETS[-1], GAMMA[law]) for w in SEEDS)
    half = (interval[1] - interval[0]) / 2 / smallest
    return interval[0] <= FLOOR <= interval[1], half, result.certificate.certified


def main(tables: int) -> int:
    shown = Table("law", "noise of the excess", "holds the floor", "half-width", "certified", box=SIMPLE_HEAD)
    for law in GAMMA:
        for noise in NOISES:
            found = [one(law, noise, seed, DRAWS) for seed in range(tables)]
            inside, half, certified = map(list, zip(*found, strict=True))
            shown.add_row(
                law, f"{noise:.1%}", f"{sum(inside)} of {tables}", f"{np.median(half):.1%}",
                f"{sum(certified)} of {tables}",
            )  # fmt: skip
    Console(width=100).print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else TABLES))
