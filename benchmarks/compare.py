"""CPU seconds of a comparison of 2,000 rows in five variants against the same table's single fit: make bench

Both with 2,000 draws, interleaved, medians of the rounds asked for; the single fit takes all rows as runs of one law.
"""

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from harness.laws import compare, fit

VARIANTS, DRAWS, ROUNDS = 5, 2000, 1
# Shapes, seeds, budgets: 400 cells of each variant.
GRIDS = {"25 shapes of four seeds and four budgets": (25, 4, 4), "20 shapes of 20 budgets": (20, 1, 20)}
# E, A, alpha, B, beta, gamma as fitted to the cpu grid.
LAWS = {"chinchilla": (2.4666, 338.24, 0.58372, 672.73, 0.50387, 1.0),
        "chinchilla_coupled": (2.3128, 1028.4, 0.6584, 4458.9, 0.6280, 0.6882)}  # fmt: skip


def table(law: str, shapes: int, seeds: int, budgets: int) -> pd.DataFrame:
    """Each variant at params and tokens of its own worth, .25 % noise, half of it the trunks'."""
    generator = np.random.default_rng(0)
    E, A, alpha, B, beta, gamma = LAWS[law]
    rows = []
    for variant in range(VARIANTS):
        f, g = generator.uniform(0.8, 1.25, 2)
        for shape, params in enumerate(np.geomspace(1e5, 1.6e6, shapes)):
            for seed in range(seeds):
                trunk = generator.standard_normal()
                for tokens in np.geomspace(1e6, 8e6, budgets):
                    noise = 0.0025 * (trunk + generator.standard_normal()) / np.sqrt(2)
                    loss = E + (A * (f * params) ** -alpha + B * (g * tokens) ** -beta) ** gamma
                    rows.append((f"v{variant}", f"v{variant}-{shape}-{seed}", shape, 2, seed, params, tokens,
                                 loss * np.exp(noise)))  # fmt: skip
    columns = ["way", "trunk", "width", "depth", "seed", "params_with_head", "tokens", "loss"]
    return pd.DataFrame(rows, columns=columns)


def timed(work: Callable[[], Any]) -> float:
    """CPU seconds of all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main(rounds: int = ROUNDS) -> int:
    for grid, sizes in GRIDS.items():
        for law in LAWS:
            frame = table(law, *sizes)
            single = frame.drop(columns="way")
            fitted, compared = [], []
            for _ in range(rounds):
                fitted.append(timed(partial(fit, single, law, "log_mse", bootstrap=DRAWS)))
                compared.append(timed(partial(compare, frame, "way", law=law, bootstrap=DRAWS)))
            ours, plain = statistics.median(compared), statistics.median(fitted)
            times = f"{ours:.1f} against {plain:.1f}: {ours / plain:.2f} times"
            print(f"{len(frame)} rows, {grid}, {law}: {times}", flush=True)
    return 0


if __name__ == "__main__":
    print(f"CPU seconds of comparing {VARIANTS} variants against fitting all rows as one, {DRAWS} draws")
    sys.exit(main(*map(int, sys.argv[1:])))
