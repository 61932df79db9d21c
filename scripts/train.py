"""Trains one job, or with -m a sweep.

    python scripts/train.py -m +sweep=cpu                         a named grid of conf/sweep
    python scripts/train.py -m +sweep=cpu seed=1 name=cpu-s1      the same with another seed, in a folder of its own
    python scripts/train.py shape=w64-d4 'tokens=[1e6,2e6]'       one trunk, a cooldown for each budget

Keys are given as key=value, entries of conf/ as group=entry; with -m, key=a,b,c is an axis, as in
optimizer=adamw,muon; what it gives is compared, not pooled (docs/variants.md).
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
import check_environment  # noqa: F401

# isort: split
from harness.commands import run_script
from harness.sweep.run import train

if __name__ == "__main__":
    run_script(train, "train")
