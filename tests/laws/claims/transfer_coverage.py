"""How often the interval of a best rate's move holds the true one: the shapes and rates of conf/sweep/coordinates.yaml.

    python tests/laws/claims/transfer_coverage.py [tables]

Losses of a known bowl, steeper towards small rates as those of the sweep are, with noise of .4 %; a line for each true
factor of mup over the widths.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml
from known_rates import EXPONENTS, row, sweep, with_noise

from harness.laws.claims.measured import Evidence
from harness.laws.claims.quantities import measure

NOISE, BEND, CUBIC = 0.004, 0.09, -0.012
FACTORS = (1.0, 1.2, 1.5, 2.0)
WIDTHS = 128 / 16


def tried() -> list[tuple[str, int, int, int, float]]:
    """Parametrization, width, depth, seed and rate of each cell of the sweep."""
    found = {}
    for lines in yaml.safe_load(Path("conf/sweep/coordinates.yaml").read_text())["grids"]:
        names, shapes, rates = (line.partition("=")[2].split(",") for line in lines)
        for shape in shapes:
            width, depth, *seed = (int(part[1:]) for part in shape.split("-"))
            for name in names:
                found |= dict.fromkeys((name, width, depth, *(seed or [0]), float(rate)) for rate in rates)
    return list(found)


def rows_of(power: float) -> list[dict]:
    exponents = EXPONENTS | {"mup": (power, -0.1), "sp": (-1.0, -0.1)}
    found = []
    for name, width, depth, seed, rate in tried():
        of_width, of_depth = exponents[name]
        v = np.log(rate / (0.0072 * (width / 45) ** of_width * (depth / 2) ** of_depth))
        found.append(row(name, width, depth, rate, BEND / 2 * v**2 + CUBIC * v**3, seed))
    return found


def main(tables: int) -> None:
    for factor in FACTORS:
        rows = rows_of(np.log(factor) / np.log(WIDTHS))
        inside, widths, doubted = 0, [], 0
        for table in range(tables):
            with tempfile.TemporaryDirectory() as folder:
                found = measure("transfer", Evidence(sweep(Path(folder) / "sweep", with_noise(rows, NOISE, table))))
            inside += found.low <= factor * (1 + 1e-9) and factor <= found.high
            widths.append(found.high / found.low)
            doubted += bool(found.doubts)
        told = f"{inside / tables:.1%} inside, high over low {np.median(widths):.2f} in the median"
        print(f"factor {factor:g}: {told}, {doubted} of {tables} doubted", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
