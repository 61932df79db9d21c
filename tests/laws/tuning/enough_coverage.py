"""Do the intervals of what the best of random settings costs, and of p, cover 95 %? Simulated tables of 32 settings.

    python tests/laws/tuning/enough_coverage.py [TABLES]
"""

import sys

import numpy as np
from test_enough import chances, drawn, true_power

TABLES = 2000

if __name__ == "__main__":
    tables = int(sys.argv[1]) if len(sys.argv) > 1 else TABLES
    for settings in (2, 3):
        p = true_power(20_000, (2, 4, 8), settings=settings)
        found = [chances(drawn(seed, settings=settings), p, settings) for seed in range(tables)]
        for name in found[0]:
            share = np.mean([each[name] for each in found])
            print(f"{settings} settings, p = {p:.2f}: {name} {share:.1%} of {tables:,} tables")
