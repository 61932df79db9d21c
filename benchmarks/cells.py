"""What a cell costs beside its training: make bench

The first figure is a warm worker's: jobs of one tiny cell each, one after another as a sweep's worker takes them, their
wall time less the training and evaluation that their records tell. The second is the evaluation of the cpu grid,
against the training of each shape's smallest cell, of its whole trunk, and of all.
"""

import statistics
import tempfile
import time
from pathlib import Path

from harness.data.synthetic import write_corpus
from harness.grid import make_trunks
from harness.records import read_record
from harness.sweep.compose import compose_sweep, open_store
from harness.sweep.launch import run_jobs
from harness.sweep.pace import measure_here
from harness.tracking import wait_for_own

CELLS, ROUNDS = 20, 3


def fixed_seconds(tracking: str) -> list[float]:
    """Seconds of each cell besides training and evaluation; the first, which warms up, is left out."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_corpus(folder / "letters.jsonl", documents=400, letters=255, seed=0)
        arguments = [
            "tokens=20e3", "model.width=16", "model.depth=1", "model.head_size=8", "model.seq_len=32",
            "tokenizer=bytes", "data=files", f"data.path={folder}/letters.jsonl", "data.validation_tokens=4000",
            f"data.store_directory={folder}/stores", f"output_directory={folder}", "optimizer.batch_tokens.value=256",
            "optimizer.warmup_tokens.value=1024", "device=cpu", f"tracking={tracking}",
        ]  # fmt: skip
        sweep = compose_sweep(["-m", *arguments, f"seed={','.join(map(str, range(CELLS + 1)))}"])
        found = []
        for job in sweep.jobs:
            start = time.perf_counter()
            run_jobs([job])
            took = time.perf_counter() - start
            (run,) = sweep.folder.path.glob(f"runs/*-s{job.seed}-*")
            record = read_record(run)
            assert record is not None and record["status"] == "finished", record
            found.append(took - record["wall_seconds"])
        wait_for_own(60)  # they write below the folder, which goes away
    return found[1:]


def evaluation_shares() -> None:
    """Evaluation as a share of training: of each shape's smallest cell, of its trunk with all cells, of the grid."""
    sweep = compose_sweep(["-m", "+sweep=cpu", "tracking=none", "device=cpu"])
    store = open_store(sweep.jobs)
    evaluating = training = 0.0
    trunks = [trunk for job in sweep.jobs for trunk in make_trunks(job, store.vocab_size, store.recipe_hash, "float32")]
    for trunk in trunks:
        paces = [measure_here(trunk) for _ in range(ROUNDS)]
        evaluation = statistics.median(pace.evaluation for pace in paces)
        step = statistics.median(pace.step for pace in paces)
        steps = trunk.flops_to_train / trunk.flops_per_token / trunk.batch_tokens
        evaluating, training = evaluating + len(trunk.cells) * evaluation, training + steps * step
        print(
            f"evaluation of {trunk.name}: {evaluation / (trunk.cells[0].steps * step):.1%} of the training of its "
            f"smallest cell, {len(trunk.cells) * evaluation / (steps * step):.1%} of its trunk's"
        )
    print(f"evaluation of the cpu grid: {evaluating / training:.1%} of its training")


if __name__ == "__main__":
    for tracking in ("none", "wandb"):
        found = fixed_seconds(tracking)
        print(
            f"a cell beside training and evaluation, warm worker, tracking={tracking}: median "
            f"{statistics.median(found):.3f} s, slowest of {len(found)} {max(found):.3f} s"
        )
    evaluation_shares()
