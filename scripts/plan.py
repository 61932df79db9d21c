"""Prints what scripts/train.py would train and what it would cost, and trains nothing; or proposes a grid.

    python scripts/plan.py -m +sweep=cpu                          the cells of a sweep, their steps, FLOPs and time
    python scripts/plan.py budget=1e15                            a grid for so many FLOPs
    python scripts/plan.py -m +sweep=gpu machine=h100             the same on a machine that is not here, estimated

budget= (FLOPs, or a time as 10min) and machine= (h200, h100, a100, l40s, 4090, 3090, mps) are keys of this script
alone; the others are those of scripts/train.py, given as key=value.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
import check_environment  # noqa: F401

# isort: split
import numpy as np
from rich.console import Console

from harness.commands import run_script
from harness.errors import UserError
from harness.grid import Trunk
from harness.laws.claims.claim import claim_of
from harness.laws.claims.quantities import needed
from harness.laws.design import NOISE, detectable, expect
from harness.sweep import propose
from harness.sweep.compose import compose_sweep
from harness.sweep.machines import plan_elsewhere
from harness.sweep.plan import Plan
from harness.sweep.run import prepare_plan
from harness.sweep.variants import pairing


def what_it_could_tell(plan: Plan) -> list[str]:
    """Sentences on the exponents that a fit of this grid would find, or of its first variant.

    None of a grid whose claim is decided without a fit.
    """
    name, trunks = next(iter(plan.variants.items()), ("", plan.trunks))
    claim = claim_of(trunks[0].job.claim, trunks[0].job.law)
    if claim and needed(claim.quantity) is None:
        return []
    cells = [(trunk.params.with_head, cell.tokens, index) for index, trunk in enumerate(trunks) for cell in trunk.cells]
    params_R, tokens_R, trunk_R = (np.array(values) for values in zip(*cells, strict=True))
    found = expect(params_R.astype(float), tokens_R.astype(float), trunk_R)
    said = ([found.sentence] if found.ranges else []) + [f"warning: {warning}" for warning in found.warnings]
    said = [f"{name} alone: {line}" if name else line for line in said]
    return pairing(plan.variants) + difference_it_could_tell(plan) + said


def difference_it_could_tell(plan: Plan) -> list[str]:
    """A sentence on how well a comparison of its variants would know what they are worth."""
    runs: dict[tuple[int, int, int], int] = {}
    cells = [
        [
            (trunk.params.with_head, cell.tokens, runs.setdefault(_run(trunk), len(runs)))
            for trunk in trunks for cell in trunk.cells
        ]
        for trunks in plan.variants.values()
    ]  # fmt: skip
    arms = [(params_R.astype(float), tokens_R.astype(float), run_R)
            for params_R, tokens_R, run_R in (np.array(arm).T for arm in cells)]  # fmt: skip
    found = [detectable((arms[0], arm), plan.jobs[0][0].job.law) for arm in arms[1:]]
    known = [half for half in found if half is not None]
    if not known:
        return []
    baseline = next(iter(plan.variants))
    return [
        f"detectable: a variant worth {np.expm1(max(known)):.1%} more or less compute than {baseline} (95 %, with "
        f"{NOISE:.1%} noise, half of it the trunks', none common to pairs)"
    ]


def _run(trunk: Trunk) -> tuple[int, int, int]:
    return trunk.job.model.width, trunk.job.model.depth, trunk.job.seed


def main(arguments: list[str]) -> int:
    console = Console()
    own = {key: [argument for argument in arguments if argument.startswith(f"{key}=")] for key in ("budget", "machine")}
    rest = [argument for argument in arguments if argument not in own["budget"] + own["machine"]]
    if own["budget"] and own["machine"]:
        raise UserError("budget= is measured on this machine: leave machine= out, or plan a grid with it")
    if own["budget"]:
        for line in propose.proposal(own["budget"][-1].removeprefix("budget="), rest):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        return 0
    sweep = compose_sweep(rest)
    lines: list[str] = []
    if own["machine"]:
        plan, lines = plan_elsewhere(sweep, own["machine"][-1].removeprefix("machine="))
    else:
        _, plan = prepare_plan(sweep, console)
    console.print(plan.table())
    console.print(plan.summary())
    for line in lines + (what_it_could_tell(plan) if sweep.multirun else []):
        console.print(line, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    run_script(main, "train")
