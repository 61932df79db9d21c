"""A grid of 6 shapes x 4 budgets on two cores against a plain loop that trains its cells one after another: make bench

The plain loop is that of benchmarks/step.py with the grid's schedule, batches, rate and validation, each cell from its
first step, in one process. Torch's default threads and one thread are both tried, and the faster counts. Budgets go
from .05 to .19 M tokens, and 24 k validate. The ratio of the wall times is taken apart into the tokens that trunks
save, the second process, and the step. So few steps tell nothing of losses: those are compared after 1 M tokens of
one shape.
"""

import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from step import PlainGPT  # noqa: E402

from harness.data.batches import Batches  # noqa: E402
from harness.grid import Trunk  # noqa: E402
from harness.jobs import compose_grid, open_store, plan_trunks  # noqa: E402
from harness.sweep import train  # noqa: E402
from harness.training.schedule import cooldown_factor, trunk_factor  # noqa: E402

GRID = [
    "shape=w144-d3,w112-d2,w96-d2,w80-d2,w64-d2,w48-d2", "tokens=[52e3,80e3,122e3,185e3]",
    "optimizer.warmup_tokens.value=10e3", "data.validation_tokens=24000", "device=cpu", "tracking=none",
]  # fmt: skip


ONE_CELL = ["shape=w48-d2", "tokens=1e6", "device=cpu", "tracking=none"]


def ours(folder: str, arguments: list[str]) -> tuple[float, float]:
    """Wall seconds of a sweep, start to run table, and its mean loss."""
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        status = train(["-m", *arguments, "name=ours", f"output_directory={folder}"])
    assert status == 0
    return time.perf_counter() - start, pd.read_csv(f"{folder}/ours/runs.csv")["loss"].mean()


def plain_cell(trunk: Trunk, steps: int, branch_step: int, batches: Batches, validation: np.ndarray) -> float:
    """The validation loss of one cell, trained from scratch."""
    torch.manual_seed(0)
    job = trunk.job
    model = PlainGPT(job.model.width, job.model.depth)
    adamw = torch.optim.AdamW(model.parameters(), lr=trunk.learning_rate, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adamw,
        lambda step: trunk_factor(step, trunk.warmup_steps) if step < branch_step
        else cooldown_factor(step, branch_step, steps),
    )  # fmt: skip
    for step in range(steps):
        inputs_BT, targets_BT = batches.batch(step)
        adamw.zero_grad()
        model.loss(inputs_BT, targets_BT).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        schedule.step()
    length = job.model.seq_len
    count = (len(validation) - 1) // length
    tokens = torch.from_numpy(validation[: count * length + 1].astype(np.int64))
    with torch.no_grad():
        parts = [
            model.loss(inputs[None], targets[None])
            for inputs, targets in zip(tokens[:-1].split(length), tokens[1:].split(length), strict=True)
        ]
    return torch.stack(parts).mean().item()


def plain(arguments: list[str], threads: int) -> tuple[float, float]:
    """Wall seconds of all cells one after another, and their mean loss."""
    torch.set_num_threads(threads)
    grid = compose_grid(["-m", *arguments])
    store = open_store(grid.jobs)
    start, losses = time.perf_counter(), []
    for (trunk,) in plan_trunks(grid.jobs, store):
        batches = Batches(store.train, trunk.job.model.seq_len, trunk.batch_sequences, 0, "cpu")
        losses += [plain_cell(trunk, c.steps, c.branch_step, batches, store.validation) for c in trunk.cells]
    return time.perf_counter() - start, float(np.mean(losses))


def main() -> None:
    # The plain loop first: a sweep makes settings of this process that it would not have.
    loop, threads = min((plain(GRID, threads)[0], threads) for threads in (torch.get_num_threads(), 1))
    _, plain_loss = plain(ONE_CELL, threads)
    with tempfile.TemporaryDirectory() as two_folder, tempfile.TemporaryDirectory() as one_folder:
        two, _ = ours(two_folder, [*GRID, "slots=2"])
        one, _ = ours(one_folder, [*GRID, "slots=1"])
    with tempfile.TemporaryDirectory() as folder:
        _, loss = ours(folder, ONE_CELL)
    jobs = compose_grid(["-m", *GRID]).jobs
    trunks = [trunk for (trunk,) in plan_trunks(jobs, open_store(jobs))]
    alone = sum(cell.flops for trunk in trunks for cell in trunk.cells)
    saved = alone / sum(trunk.flops_to_train for trunk in trunks)
    print(f"wall time {two / loop:.2f} of the plain loop's ({threads} threads): {loop / two:.1f} times as fast")
    print(f"  FLOPs that trunks save {saved:.2f} x second process {one / two:.2f} x step, evaluation and all the rest "
          f"{loop / one / saved:.2f}")  # fmt: skip
    print(f"loss of w48-d2 after 1 M tokens: {loss:.3f} against {plain_loss:.3f}")


if __name__ == "__main__":
    main()
