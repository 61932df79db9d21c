"""How often the interval of a range over aspect ratios holds the true one: the shapes of conf/sweep/shape.yaml.

    python tests/laws/claims/aspect_coverage.py [tables]

Losses of a known surface with noise of .25 %; a line for each true range.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml
from known_sweep import cell, write_cells
from test_quantities import surface

from harness.laws.claims.measured import Evidence
from harness.laws.claims.quantities import measure

NOISE = 0.0025
RANGES = (0.0005, 0.002, 0.005, 0.01, 0.02)


def shapes() -> list[tuple[int, int]]:
    axes = yaml.safe_load(Path("conf/sweep/shape.yaml").read_text())["hydra"]["sweeper"]["params"]["shape"]
    return [tuple(int(part[1:]) for part in shape.split("-")[:2]) for shape in axes.replace(" ", "").split(",")]


def main(tables: int) -> None:
    ratios = [width / depth for width, depth in shapes()]
    widest = max(np.log(max(ratios) / 16), np.log(16 / min(ratios)))
    for wanted in RANGES:
        clean = surface(np.log1p(wanted) / widest**2)
        inside, widths = 0, []
        for table in range(tables):
            rows = [cell(width, depth, 1e6, clean, seed) for seed, (width, depth) in enumerate(shapes())]
            noise_R = NOISE * np.random.default_rng(table).standard_normal(len(rows))
            rows = [row | {"loss": row["loss"] * np.exp(noise)} for row, noise in zip(rows, noise_R, strict=True)]
            with tempfile.TemporaryDirectory() as folder:
                found = measure("aspect", Evidence(write_cells(Path(folder) / "sweep", rows)))
            inside += found.low <= wanted <= found.high
            widths.append(found.high - found.low)
        print(f"range {wanted:.2%}: {inside / tables:.1%} inside, median width {np.median(widths):.2%}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
