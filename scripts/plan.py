"""Prints what scripts/train.py would train, and trains nothing: python scripts/plan.py -m +sweep=cpu"""

from rich.console import Console

from harness.commands import run_script
from harness.sweep import compose_grid, prepare_plan, store_line


def main(arguments: list[str]) -> int:
    console = Console()
    store, plan = prepare_plan(compose_grid(arguments))
    console.print(store_line(store))
    console.print(plan.table())
    console.print(plan.summary())
    return 0


if __name__ == "__main__":
    run_script(main)
