"""Trains one job, or with -m a grid: python scripts/train.py -m +sweep=cpu"""

from harness.commands import run_script
from harness.sweep.run import train

if __name__ == "__main__":
    run_script(train)
