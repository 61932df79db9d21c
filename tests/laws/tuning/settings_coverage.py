"""Do the intervals of minima, rules and penalties cover 95 %? Simulated tables, fitted as real ones are.

    python tests/laws/tuning/settings_coverage.py [TABLES]
"""

import sys
from collections import defaultdict

import numpy as np
from test_minima import SIZES, chances, simulated

TABLES, NOISE = 2000, 0.0025

if __name__ == "__main__":
    tables = int(sys.argv[1]) if len(sys.argv) > 1 else TABLES
    hits = defaultdict(list)
    for seed in range(tables):
        for name, found in chances(simulated(seed, NOISE)).items():
            hits[name] += found
    for name, found in hits.items():
        print(f"{name:45} {np.mean(found):.1%} of {len(found):,} ({tables:,} tables, {len(SIZES.params_C)} sizes)")
