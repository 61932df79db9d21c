"""How often the interval of the farthest exponent holds the true one: the shapes of conf/sweep/manifold.yaml.

    python tests/laws/claims/dimension_coverage.py [tables]

Excesses of known powers of the params, with noise of 5 %; a line for each set of ratios of the exponents to 4/d. Where
an exponent may be 0 there is no interval.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from known_dimensions import sweep

from harness.laws.claims.measured import Evidence
from harness.laws.claims.quantities import measure

NOISE = 0.05
RATIOS = {"all 1": (1, 1, 1), "one 1.5": (1, 1.5, 1), "all 1.5": (1.5, 1.5, 1.5), "one .6": (1, 0.6, 1)}
DIMENSIONS = (4, 8, 16)


def main(tables: int) -> None:
    for name, ratios in RATIOS.items():
        exponents = {d: 4 / d * ratio for d, ratio in zip(DIMENSIONS, ratios, strict=True)}
        factor, least = max(max(ratio, 1 / ratio) for ratio in ratios), min(ratios)
        inside, bounded, widths, none = 0, 0, [], 0
        for table in range(tables):
            with tempfile.TemporaryDirectory() as folder:
                found = measure("dimension", Evidence(sweep(Path(folder) / "sweep", exponents, NOISE, table)))
            if found.low is None:
                none += 1
                continue
            (own,) = (row for row in found.rows if row.label == "the lowest")
            inside += found.low <= factor * (1 + 1e-9) and factor <= found.high
            bounded += own.low <= least <= own.high
            widths.append(found.high / found.low)
        share, lowest = inside / len(widths), bounded / len(widths)
        told = f"{share:.1%} inside, high over low {np.median(widths):.2f} in the median; the lowest {lowest:.1%}"
        print(f"{name}: {told} inside; {none} of {tables} without one", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
