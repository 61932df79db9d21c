"""How often the interval of what symbols raise the floor by holds the true part: the grid of conf/sweep/insertion.yaml.

    python tests/laws/claims/insertion_coverage.py [tables]

Losses of the coupled law on a text of 1 nat, with noise of .25 %, half of it the trunks'; a line for each part.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from known_symbols import sweep

from harness.laws.claims.measured import Evidence
from harness.laws.claims.quantities import measure

NOISE = 0.0025
PARTS = (1.0, 0.97, 1.05)


def main(tables: int) -> None:
    for part in PARTS:
        inside, widths, none = 0, [], 0
        for table in range(tables):
            with tempfile.TemporaryDirectory() as folder:
                found = measure("insertion", Evidence(sweep(Path(folder) / "sweep", part, NOISE, table)))
            if found.doubts:
                none += 1
                continue
            inside += found.low <= part <= found.high
            widths.append(found.high - found.low)
        told = f"{inside / len(widths):.1%} inside, {np.median(widths):.3f} wide in the median"
        print(f"{part:g}: {told}; {none} of {tables} not certified", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
