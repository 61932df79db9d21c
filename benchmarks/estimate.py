"""How long the smoke grid takes against what its plan says, three sweeps: python benchmarks/estimate.py 3

A machine that others use too speeds up and slows down between the measurement and the sweep, and the ratio with it; the
process seconds, whose estimate is of the same measurement, are printed beside the wall time.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.records import SweepFolder, read_sweep
from harness.sweep.snapshot import snapshot

ROOT = Path(__file__).parents[1]


def ratio(folder: Path, name: str) -> float:
    """Wall time over its estimate."""
    command = ["scripts/train.py", "-m", "+sweep=smoke", f"name={name}", f"output_directory={folder}", "tracking=none"]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (launch,) = read_sweep(SweepFolder(folder / name))["launches"]
    found = launch["wall_seconds"] / launch["estimated_seconds"]
    print(
        f"{name}: {launch['wall_seconds']:.0f} s, {found:.2f} of the {launch['estimated_seconds']:.0f} s estimated; "
        f"{snapshot(folder / name).process_seconds:.0f} process seconds; load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as text:
        ratios = [ratio(Path(text), f"sweep-{n}") for n in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3)]
    shown = ", ".join(f"{part:.2f}" for part in ratios)
    print(f"wall time over its estimate: {shown}; median {statistics.median(ratios):.2f}")
