"""Shows a running, finished or dead sweep from its files alone.

    python scripts/status.py runs=outputs/cpu                     from another terminal or machine
    make status SWEEP=cpu                                         the same
    python scripts/status.py runs=/scratch/me/outputs/gpu         one that a cluster trains, on a shared disk

Keys are given as key=value.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
import check_environment  # noqa: F401

# isort: split
from rich.console import Console

from harness.commands import compose_config, run_script
from harness.errors import UserError
from harness.records import SweepFolder
from harness.sweep.progress import outcome, render
from harness.sweep.snapshot import disk_bytes, snapshot
from harness.sweep.stage import stages


def main(arguments: list[str]) -> int:
    runs = compose_config("status", arguments).runs
    if not runs:
        raise UserError("runs is not given: name a sweep's folder, as in runs=outputs/cpu")
    folder, console = SweepFolder(Path(str(runs))), Console()
    said = stages(folder.path)
    for line in said:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if said and not folder.sweep_yaml.exists():
        return 0
    now = snapshot(folder.path)
    console.print(render(now))
    console.print()
    for line in outcome(now, disk_bytes(folder.path)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    run_script(main, "status")
