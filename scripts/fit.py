"""Fits the laws to a run table, prints the exponents and writes fit.json.

    python scripts/fit.py runs=outputs/cpu                        a sweep
    python scripts/fit.py runs=outputs/cpu law=chinchilla         with another law as the headline
    python scripts/fit.py runs=their.csv columns.params=N columns.tokens=D columns.target=loss

Keys are given as key=value.
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
import check_environment  # noqa: F401

# isort: split
from rich.console import Console

from harness.commands import run_script
from harness.laws.settings import fit_config
from harness.laws.study import output_path, write_study
from harness.laws.summary import show, show_briefly
from harness.laws.table.pool import sources
from harness.records import renew_table
from harness.tracking.table import fetched


def main(arguments: list[str]) -> int:
    config = fit_config(arguments)
    config = replace(config, runs=fetched(config.runs))
    for path in sources(config.runs):
        renew_table(Path(path))
    study = write_study(config)
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    if config.verbose or not all(Path(path).is_dir() for path in sources(config.runs)):
        show(study, console)
        console.print(f"written to {output_path(config)}", soft_wrap=True, markup=False)
    else:
        show_briefly(study, console, config.runs)
    return 0


if __name__ == "__main__":
    run_script(main, "fit")
