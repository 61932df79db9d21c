"""What mirroring a cell to W&B costs its training, offline and to a server on this machine: make bench

One process trains the same trunk of two short cells again and again, with tracking and without, interleaved, on one
core that its mirrors have to share. Whatever else the machine does disturbs the seconds of training, but neither those
that the training process spends in calls of harness.tracking nor those that a mirror has from the core meanwhile.
"""

import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import tracking
from harness.data.synthetic import write_corpus
from harness.records import SweepFolder, is_final
from harness.sweep.compose import compose_sweep, open_store, trunks_by_job
from harness.training import worker as training
from harness.training.device import resolve

sys.path.append(str(Path(__file__).parents[1] / "tests" / "tracking"))
from wandb_server import WandbServer  # noqa: E402

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
MODES = ("none", "offline", "online")


class Timed:
    """The tracking of harness.training.worker; takes the time of its calls and of the mirror beside the training."""

    def __init__(self) -> None:
        self.calls = self.beside = 0.0

    @contextlib.contextmanager
    def start(self, *arguments: Any) -> Iterator[tracking.mirrors.Mirror]:
        started = time.perf_counter()
        mirror = tracking.start(*arguments)
        self.calls += time.perf_counter() - started
        yield mirror
        self.beside = cpu_seconds(mirror.pid) if mirror.pid else 0.0
        started = time.perf_counter()
        mirror.close()
        self.calls += time.perf_counter() - started


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and all below it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = [
        int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
    ]
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + sum(map(cpu_seconds, children))


def train(folder: Path, mode: str, number: int) -> tuple[float, float, float]:
    """Seconds a cell: of training, of calls of harness.tracking, and of the mirror's CPU time meanwhile."""
    sweep = compose_sweep(
        [
            f"name={mode}-{number}", f"tracking.mode={mode}", "shape=w32-d2", "tokens=[60e3,120e3]", "data=files",
            f"output_directory={folder}", f"data.path={folder}/letters.jsonl", "data.validation_tokens=4000",
            f"data.store_directory={folder}/stores", "tokenizer=bytes", "model.seq_len=64", "model.head_size=8",
            "optimizer.batch_tokens.value=256", "optimizer.warmup_tokens.value=1024", "device=cpu",
        ]
    )  # fmt: skip
    store = open_store(sweep.jobs)
    ((trunk,),) = trunks_by_job(sweep.jobs, store)
    training.tracking = timed = Timed()  # type: ignore[assignment]
    written = SweepFolder(folder / f"{mode}-{number}")
    started = time.perf_counter()
    training.run_trunk(trunk, store, resolve(trunk.job), written, "benchmark")
    seconds = time.perf_counter() - started
    assert all(is_final(written.run(cell.name)) for cell in trunk.cells)
    said = tracking.wait(written.path, 120)
    assert mode == "none" or len(said) == 1 and said[0].startswith("W&B: 2 runs"), said
    return seconds / len(trunk.cells), timed.calls / len(trunk.cells), timed.beside / len(trunk.cells)


def main() -> None:
    core = min(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as text, WandbServer() as server:
        os.environ |= {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0123456789" * 4}
        write_corpus(Path(text) / "letters.jsonl", documents=1200, letters=255, seed=0)
        os.sched_setaffinity(0, {core})
        train(Path(text), "none", -1)
        spent: dict[str, list[tuple[float, float, float]]] = {mode: [] for mode in MODES}
        for number in range(ROUNDS):
            for mode in MODES:
                spent[mode].append(train(Path(text), mode, number))
    medians = {mode: [statistics.median(values) for values in zip(*spent[mode], strict=True)] for mode in MODES}
    bare = medians["none"][0]
    print(f"tracking a cell that trains for {bare:.2f} s, medians of {ROUNDS} interleaved rounds on one core")
    for mode in MODES[1:]:
        whole, calls, beside = medians[mode]
        print(
            f"{mode:8} {whole - bare:+.2f} s of training a cell; {1000 * calls:.1f} ms in the training process, "
            f"{beside:.2f} s of CPU time in the mirror meanwhile"
        )


if __name__ == "__main__":
    main()
