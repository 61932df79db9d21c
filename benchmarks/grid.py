"""A grid of 6 shapes x 4 budgets on two cores against a plain loop that trains its cells one after another: make bench

The plain loop is that of benchmarks/step.py with the grid's schedule, batches, rate, decay and validation, each cell
from its first step, in one process. Torch's default threads and one thread are both tried, and the faster counts. The
ratio of the wall times is taken apart into the tokens that trunks save, the second process, and the step.

At a tenth of the cpu grid's budgets. So few steps tell nothing of losses: `python benchmarks/grid.py w48-d2 w64-d2`
takes the budgets whole, of these shapes, with one thread only.
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
from harness.sweep.compose import compose_sweep, open_store, trunks_by_job  # noqa: E402
from harness.sweep.run import train  # noqa: E402
from harness.training.schedule import cooldown_factor, trunk_factor  # noqa: E402

SHAPES = ["w176-d2", "w96-d3", "w112-d2", "w80-d2", "w64-d2", "w48-d2"]
TENTH = ["tokens=[100e3,155e3,235e3,360e3]", "optimizer.warmup_tokens.value=10e3", "data.validation_tokens=20000"]
WHOLE = ["tokens=[1e6,1.55e6,2.35e6,3.6e6]"]


def ours(arguments: list[str], slots: int) -> tuple[float, list[float]]:
    """Wall seconds of a sweep, start to run table, and the loss of each cell, in the order of its jobs."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            status = train(["-m", *arguments, f"slots={slots}", "name=ours", f"output_directory={folder}"])
        seconds = time.perf_counter() - start
        assert status == 0
        table = pd.read_csv(f"{folder}/ours/runs.csv").set_index(["width", "depth", "tokens"])["loss"]
    return seconds, [
        table[trunk.job.model.width, trunk.job.model.depth, cell.tokens]
        for trunk in trunks(arguments) for cell in trunk.cells
    ]  # fmt: skip


def trunks(arguments: list[str]) -> list[Trunk]:
    jobs = compose_sweep(["-m", *arguments]).jobs
    return [trunk for (trunk,) in trunks_by_job(jobs, open_store(jobs))]


def plain_cell(trunk: Trunk, steps: int, branch_step: int, batches: Batches, validation: np.ndarray) -> float:
    """The validation loss of one cell, trained from scratch."""
    torch.manual_seed(0)
    job = trunk.job
    model = PlainGPT(job.model.width, job.model.depth)
    adamw = torch.optim.AdamW(
        model.parameters(), lr=trunk.learning_rate, betas=(0.9, 0.95), weight_decay=trunk.weight_decay
    )
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


def plain(arguments: list[str], threads: int) -> tuple[float, list[float]]:
    """Wall seconds of all cells one after another, and the loss of each."""
    torch.set_num_threads(threads)
    store = open_store(compose_sweep(["-m", *arguments]).jobs)
    start, losses = time.perf_counter(), []
    for trunk in trunks(arguments):
        seq_len = trunk.job.model.seq_len
        batches = Batches(store.train, seq_len, trunk.batch_sequences, 0, "cpu")
        losses += [plain_cell(trunk, c.steps, c.branch_step, batches, store.evaluated(seq_len)) for c in trunk.cells]
    return time.perf_counter() - start, losses


def main() -> None:
    shapes = sys.argv[1:]
    arguments = [f"shape={','.join(shapes or SHAPES)}", "device=cpu", "tracking=none", *(WHOLE if shapes else TENTH)]
    # The plain loop first: a sweep makes settings of this process that it would not have.
    counts = (1,) if shapes else (torch.get_num_threads(), 1)
    loop, losses, threads = min((*plain(arguments, threads), threads) for threads in counts)
    (two, found), (one, _) = ours(arguments, 2), ours(arguments, 1)
    planned = trunks(arguments)
    saved = sum(cell.flops for t in planned for cell in t.cells) / sum(t.flops_to_train for t in planned)
    print(f"wall time {two / loop:.2f} of the plain loop's ({threads} threads): {loop / two:.1f} times as fast")
    print(f"  FLOPs that trunks save {saved:.2f} x second process {one / two:.2f} x step, evaluation and all the rest "
          f"{loop / one / saved:.2f}")  # fmt: skip
    gains = [100 * (1 - ours / theirs) for ours, theirs in zip(found, losses, strict=True)]
    print(f"  losses lower by {min(gains):.1f} to {max(gains):.1f} %, mean {np.mean(gains):.1f} %: "
          f"{np.mean(found):.3f} against {np.mean(losses):.3f} nats")  # fmt: skip


if __name__ == "__main__":
    main()
