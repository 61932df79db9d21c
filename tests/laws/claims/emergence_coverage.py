"""How often the interval of a ratio of widths holds the true one: the shapes and budgets of conf/sweep/emergence.yaml.

    python tests/laws/claims/emergence_coverage.py [tables]

Trunks of the same true ratio switch on at other tokens each (20 %), faster or slower (10 % in the width), with a ratio
that differs by 15 %, as seeds and shapes do; cells have a noise of .02 in exact match where it moves, and of .01 in the
loss. Two tasks, of which the second has the largest ratio, and a line for each pair of true ratios.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from known_tasks import BUDGETS, logistic, rows_of, sweep, with_task

from harness.laws.claims.measured import Evidence
from harness.laws.claims.quantities import measure

# True ratios of copying and of brackets, the decades in which their losses fall, and where they are half of the way.
RATIOS = ((0.25, 0.8), (0.25, 0.5), (0.25, 0.25), (0.5, 0.5))
LOSSES, HALF = (0.4, 0.9), (200e3, 500e3)
MIDDLE, WIDTHS, OWN, NOISE = 0.2, 0.1, 0.15, (0.02, 0.01)


def drawn(ratios: tuple[float, float], random: np.random.Generator) -> list[dict]:
    rows = rows_of()
    for name, symbols, ratio, width, half in zip(("copying", "brackets"), (26, 4), ratios, LOSSES, HALF, strict=True):
        curves = []
        for first in range(0, len(rows), len(BUDGETS)):
            trunk, (move, slow, own) = rows[first : first + len(BUDGETS)], random.standard_normal(3)
            tokens, of_loss = half * np.exp(MIDDLE * move), width * np.exp(WIDTHS * slow)
            of_exact = of_loss * ratio * np.exp(OWN * own)
            exact, fallen = logistic(trunk, 1.4 * tokens, of_exact), logistic(trunk, tokens, of_loss)
            exact = exact + NOISE[0] * 2 * np.sqrt(exact * (1 - exact)) * random.standard_normal(len(trunk))
            curves.append([np.clip(exact, 0, 1), fallen + NOISE[1] * random.standard_normal(len(trunk))])
        exact, fallen = np.concatenate(curves, axis=1)
        rows = with_task(rows, name, symbols, exact, fallen, fallen)
    return rows


def main(tables: int) -> None:
    for ratios in RATIOS:
        random, inside, widths = np.random.default_rng(0), 0, []
        for _ in range(tables):
            with tempfile.TemporaryDirectory() as folder:
                tasks = {"copying": (7, 26), "brackets": (4, 4)}
                found = measure("emergence", Evidence(sweep(Path(folder) / "e", drawn(ratios, random), **tasks)))
            inside += found.low <= max(ratios) <= found.high
            widths.append(found.high / found.low)
        said = f"{inside / tables:.1%} inside, high over low {np.median(widths):.2f} in the median"
        print(f"ratios {ratios[0]:g} and {ratios[1]:g}: {said}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
