"""Whether this GPU box trains as the documents say: make gpu-check, or python benchmarks/gpu_check.py.

A line a check, with its bound, in under eight minutes on one H100; all of it goes to docs/gpu.json, and the exit status
is 1 where a bound is missed. `python benchmarks/gpu_check.py cpu` runs the checks that need no GPU on small shapes of a
CPU and writes nothing: it shows that this script works.
"""

import hashlib
import importlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch._inductor.config as inductor_config
from rich.console import Console
from rich.table import Table

from harness.config import TrainConfig
from harness.data.tokens import TokenStore
from harness.grid import Trunk, make_trunks
from harness.sweep.compose import compose_sweep, open_store
from harness.sweep.sharing import best, side_by_side, told
from harness.training.device import Device, configure_process, matmul_rate, resolve, uuid_of
from harness.training.energy import joules
from harness.training.evaluation import evaluate
from harness.training.gpus import seen
from harness.training.machine import check_machine, nvidia_smi
from harness.training.memory import evaluation_bytes, step_bytes
from harness.training.ranks import Ranks
from harness.training.spawn import on_ranks
from harness.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
ON_CPU = sys.argv[1:2] == ["cpu"]
SMALL, MIDDLE, LARGE = ("w32-d1", "w32-d2", "w64-d1") if ON_CPU else ("w64-d2", "w256-d4", "w768-d12")
SWEEP, VOCAB, STEPS, COUNTS = ("smoke", 1024, 6, (1, 2)) if ON_CPU else ("gpu-large", 50_257, 60, (1, 2, 4))
TURNS = 5  # of the two ways that are compared
TOKENS = np.random.default_rng(0).integers(0, VOCAB, 2**22 + 1).astype(np.uint16)
STORE: Any = SimpleNamespace(train=TOKENS, bytes_per_token=4.0, evaluated=lambda seq_len: TOKENS[:100_001])


@dataclass(frozen=True)
class Found:
    """What was looked at, what it showed, its bound, and whether that holds; None where there is none."""

    what: str
    showed: str
    bound: str = ""
    holds: bool | None = None


def job_of(shape: str, *more: str) -> TrainConfig:
    device = "cpu" if ON_CPU else "cuda"
    sweep = [f"+sweep={SWEEP}", "hydra.mode=RUN", f"shape={shape}", f"device={device}", "tracking=none"]
    return compose_sweep([*sweep, *more]).jobs[0]


def trainer_of(shape: str, device: Device | None = None, *more: str) -> Trainer:
    """A trainer on tokens of a fixed generator, on this machine's device or another."""
    job = job_of(shape, *more)
    device = device or resolve(job)
    configure_process(job, device)
    return Trainer(make_trunks(job, VOCAB, "gpu-check", device.precision)[0], STORE, device)


def train(one: Trainer, last: int) -> float:
    """Trains up to a step; the median seconds of those after the first."""
    times = []
    while one.step < last:
        began = time.perf_counter()
        one.take(one.step, 1.0)
        one.device.synchronize()
        one.step += 1
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:] or times)


def digest(one: Trainer) -> str:
    content = io.BytesIO()
    for parameter in one.parameters:
        content.write(parameter.detach().float().cpu().numpy().tobytes())
    return hashlib.sha256(content.getvalue()).hexdigest()


def box() -> Iterator[Found]:
    check_machine(job_of(SMALL))
    yield Found("torch", f"{torch.__version__}, CUDA {torch.version.cuda}")
    for line in nvidia_smi("--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"):
        yield Found("GPU, driver, memory", line)
    for gpu in [] if ON_CPU else seen():
        yield Found(f"free memory of GPU {gpu.index}", f"{gpu.free / 1e9:.1f} of {gpu.total / 1e9:.1f} GB")
    others = nvidia_smi("--query-compute-apps=pid,used_memory", "--format=csv,noheader")
    yield Found("other processes on the GPUs", str(len(others)), "none", not others)


def memory() -> Iterator[Found]:
    for shape in (SMALL, MIDDLE, LARGE):
        began = time.perf_counter()
        one = trainer_of(shape)
        train(one, 1)
        notes = "; ".join(one.notes) or "as it should"
        first = f"{time.perf_counter() - began:.0f} s, {notes}"
        yield Found(f"{shape}: first step, compiling included", first, "no fall-back", not one.notes)
        if ON_CPU:
            continue
        model, device, params = one.trunk.job.model, one.device, one.trunk.params.total
        tokens = min(one.micro_sequences, one.trunk.batch_sequences) * model.seq_len
        torch.cuda.reset_peak_memory_stats()
        train(one, 3)
        yield estimated(f"{shape}: a step", step_bytes(model, VOCAB, params, tokens, device))
        torch.cuda.reset_peak_memory_stats()
        evaluate(one.model, TOKENS[:100_001], model.seq_len, 4.0, device)
        yield estimated(f"{shape}: an evaluation", evaluation_bytes(model, VOCAB, params, device.precision))
        del one
        device.release()


def estimated(what: str, estimate: float) -> Found:
    true = torch.cuda.max_memory_allocated()
    ratio = estimate / true
    return Found(f"memory of {what}, estimate over true", f"{ratio:.2f} ({true / 1e9:.2f} GB)", "1 to 1.4",
                 1 <= ratio <= 1.4)  # fmt: skip


def agreement() -> Iterator[Found]:
    """One step from the same weights, against float32 on a CPU."""
    cpu = Device(torch.device("cpu"), "float32", False)
    here = resolve(job_of(SMALL))
    ways = {"bf16, compiled": (replace(here, precision="bf16"), 1e-3, 5e-2),
            "float32, op by op": (replace(here, precision="float32", compile=False), 1e-5, 1e-4)}  # fmt: skip
    fewer = "optimizer.batch_tokens.value=4096"
    for shape in (SMALL, MIDDLE):
        true = trainer_of(shape, cpu, fewer)
        loss = true.gradients(0)[0].item()
        for name, (device, of_loss, of_gradients) in ways.items():
            one = trainer_of(shape, device, fewer)
            error = abs(one.gradients(0)[0].item() / loss - 1)
            yield Found(f"{shape}: loss in {name}", f"off by {error:.1e}", f"{of_loss:g}", error <= of_loss)
            worst = max(map(apart, one.parameters, true.parameters))
            yield Found(f"{shape}: worst gradient in {name}", f"off by {worst:.1e}", f"{of_gradients:g}",
                        worst <= of_gradients)  # fmt: skip


def apart(one: torch.Tensor, true: torch.Tensor) -> float:
    """The relative distance of two parameters' gradients."""
    assert one.grad is not None and true.grad is not None
    return float((one.grad.cpu().float() - true.grad).norm() / true.grad.norm())


def repeats() -> Iterator[Found]:
    """The same steps twice; and half of them, then the rest from a state in a new process."""
    whole = trainer_of(MIDDLE)
    train(whole, STEPS)
    expected = digest(whole)
    again = trainer_of(MIDDLE)
    train(again, STEPS)
    yield Found(f"{MIDDLE}: the same {STEPS} steps twice", "the same bits" if digest(again) == expected else "others",
                "the same bits", digest(again) == expected)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        half = trainer_of(MIDDLE)
        train(half, STEPS // 2)
        torch.save(half.state(), f"{folder}/state.pt")
        device = ["cpu"] if ON_CPU else []
        done = subprocess.run(
            [sys.executable, __file__, *device, "resume", folder], capture_output=True, text=True,
            env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": folder},
        )  # fmt: skip
        same = done.stdout.strip() == expected
        yield Found(f"{MIDDLE}: resumed in a new process that compiles anew", "the same bits" if same else
                    (done.stderr.strip().splitlines() or ["others"])[-1][:200], "the same bits", same)  # fmt: skip


def strictness() -> Iterator[Found]:
    """What exact repeatability costs: the same steps with it and without, each way compiled by itself, in turns."""
    ways = {way: trainer_of(MIDDLE) for way in (True, False)}
    times: dict[bool, list[float]] = {True: [], False: []}
    kept = torch.are_deterministic_algorithms_enabled()
    try:
        for turn in range(TURNS + 1):
            for way in (True, False) if turn % 2 else (False, True):
                set_strict(way)  # before the first step, which compiles by it
                times[way].append(train(ways[way], ways[way].step + STEPS // 3))
    finally:
        set_strict(kept)
    strict, free = (statistics.median(times[way][1:]) for way in (True, False))  # the first turn warms up
    yield Found(f"{MIDDLE}: a step, exactly repeatable and not", f"{1000 * strict:.2f} and {1000 * free:.2f} ms, "
                f"{strict / free - 1:+.1%}")  # fmt: skip


def set_strict(strict: bool) -> None:
    """Kernels that repeat exactly, of torch and, in what is compiled from here on, of inductor; or whatever is fast."""
    torch.use_deterministic_algorithms(strict)
    if hasattr(inductor_config, "deterministic"):
        inductor_config.deterministic = strict


def resume(folder: str) -> None:
    one = trainer_of(MIDDLE)
    one.restore(torch.load(f"{folder}/state.pt", weights_only=True, map_location="cpu"))
    train(one, STEPS)
    print(digest(one))


def speed() -> Iterator[Found]:
    for shape in (SMALL, MIDDLE, LARGE):
        one = trainer_of(shape)
        uuid = uuid_of(one.device) or ""
        train(one, 2)
        before, began = joules(uuid), time.perf_counter()
        seconds = train(one, 14)
        after, took = joules(uuid), time.perf_counter() - began
        share = one.trunk.batch_tokens * one.trunk.flops_per_token / seconds / matmul_rate(one.device)
        yield Found(f"{shape}: a step", f"{1000 * seconds:.1f} ms, {share:.0%} of the rate of large products")
        if shape == LARGE and before is not None and after is not None:
            yield Found(f"{shape}: power over these steps", f"{(after - before) / took:.0f} W")
        del one
    muon = train(trainer_of(MIDDLE, None, "optimizer=muon"), 12)
    yield Found(f"{MIDDLE}: a step by Muon", f"{1000 * muon:.1f} ms")


class Call:
    """What a CPU has for a graph: the step itself."""

    def __init__(self, run: Callable[[], None], device: Device):
        self.replay = run

    def reset(self) -> None:
        pass


def graph() -> Iterator[Found]:
    """A small model's steps launched one by one, and as one graph from the first on."""
    few = "optimizer.batch_tokens.value=1024"
    plain, whole = trainer_of(SMALL, None, few), trainer_of(SMALL, None, few)
    plain.graph, whole.graph = plain.step_graph(), whole.step_graph(**({"capture": Call} if ON_CPU else {}))
    plain.graph.wanted, whole.graph.wanted = False, True
    seconds = train(plain, STEPS), train(whole, STEPS)
    why = "; ".join(whole.notes) or "a step is captured"
    yield Found(f"{SMALL}: a step as one graph", why, "no fall-back", whole.graph.graph is not None)
    same = digest(plain) == digest(whole) and torch.equal(plain.loss_sum, whole.loss_sum)
    yield Found(f"{SMALL}: {STEPS} steps by a graph", "the same bits" if same else "others", "the same bits", same)
    times = f"{1000 * seconds[0]:.2f} and {1000 * seconds[1]:.2f} ms, {seconds[0] / seconds[1]:.1f} times as fast"
    yield Found(f"{SMALL}: a step plainly and by a graph", times)


def several() -> Iterator[Found]:
    """Two ranks, twice, against a process that adds up the same two halves of each batch."""
    if not ON_CPU and torch.cuda.device_count() < 2:
        yield Found("two GPUs", "not looked at: here is one")
        return
    more = [] if ON_CPU else ["optimizer.batch_tokens.value=32768"]
    device = "cpu" if ON_CPU else "cuda"
    asked = ["+sweep=smoke", "hydra.mode=RUN", f"shape={MIDDLE}", f"device={device}", "tracking=none", "gpus=2", *more]
    job = compose_sweep(asked).jobs[0]
    check_machine(job)
    store = open_store([job])
    devices = [resolve(job, number) for number in (0, 1)]
    trunk = make_trunks(job, store.vocab_size, store.recipe_hash, devices[0].precision)[0]
    work = importlib.import_module(Path(__file__).stem).stepped  # by a name that the ranks know, too
    once, again = (on_ranks(partial(work, trunk, STEPS), trunk, devices) for _ in range(2))
    halves = replace(job.optimizer, micro_batch_tokens=trunk.batch_tokens // 2)
    configure_process(job, devices[0])
    alone = stepped(replace(trunk, job=replace(job, gpus=1, optimizer=halves)), STEPS, store, devices[0])
    same = once[0] == again[0]
    yield Found(f"{MIDDLE}: {STEPS} steps by two ranks, twice", "the same bits" if same else "others",
                "the same bits", same)  # fmt: skip
    error = abs(once[1] / alone[1] - 1)
    bits = "the same bits" if once[0] == alone[0] else "other bits"
    yield Found(f"{MIDDLE}: their loss, against one process", f"off by {error:.1e}, {bits}", "1e-4", error <= 1e-4)
    yield Found(f"{MIDDLE}: a step by two ranks and by one", f"{1000 * once[2]:.1f} and {1000 * alone[2]:.1f} ms")


def stepped(
    trunk: Trunk, steps: int, store: TokenStore, device: Device, ranks: Ranks | None = None
) -> tuple[str, float, float]:
    """The weights after so many steps, the sum of their losses, and the seconds of one."""
    one = Trainer(trunk, store, device, ranks=ranks)
    seconds = train(one, steps)
    return digest(one), one.loss_sum.item(), seconds


def sharing() -> Iterator[Found]:
    """One, two and four processes of a shape on one GPU; the number that a sweep of that shape alone would take."""
    for shape in (SMALL, MIDDLE):
        trunk = make_trunks(job_of(shape), VOCAB, "gpu-check", resolve(job_of(shape)).precision)[0]
        with tempfile.TemporaryDirectory() as folder:
            rates = side_by_side(trunk, COUNTS, 0, Path(folder), STORE)
        yield Found(f"{shape}: processes on one GPU", f"{told(trunk, rates)}: {best(rates)} taken")


def sweep() -> Iterator[Found]:
    """The smoke sweep on this device, and again: every cell, near its estimate, nothing trained twice."""
    with tempfile.TemporaryDirectory() as folder:
        device = "cpu" if ON_CPU else "cuda"
        command = [
            sys.executable, "scripts/train.py", "-m", "+sweep=smoke", f"device={device}", "tracking=none",
            f"output_directory={folder}",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        ended = "15 of 15 cells finished" in done.stdout
        said = (done.stdout + done.stderr).strip().splitlines() or ["nothing"]
        yield Found("smoke sweep", "15 of 15 cells" if ended else said[-1][:200], "15 of 15 cells", ended)
        took = next((line for line in said if line.startswith("took ")), "no time")
        yield Found("smoke sweep, time", took)
        stamps = {path: path.stat().st_mtime_ns for path in Path(folder).glob("smoke/runs/*/run.json")}
        subprocess.run(command, cwd=ROOT, capture_output=True)
        kept = bool(stamps) and all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
        yield Found("smoke sweep, again", "nothing trained" if kept else "cells trained again", "nothing trained", kept)


def looked_at(check: Callable[[], Iterator[Found]]) -> Iterator[Found]:
    """What a check finds; where it raises, that, and the other checks go on."""
    try:
        yield from check()
    except Exception as error:
        yield Found(check.__name__, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", "no error", False)


def main() -> int:
    table = Table("check", "showed", "bound", "holds", box=None, padding=(0, 2, 0, 0))
    found = []
    for check in (box, memory, agreement, repeats, strictness, speed, graph, sharing, several, sweep):
        for line in looked_at(check):
            found.append(line)
            holds = {True: "yes", False: "NO", None: ""}[line.holds]
            table.add_row(line.what, line.showed, line.bound, holds)
            print(f"{line.what}: {line.showed}", file=sys.stderr, flush=True)
    Console(width=160).print(table)
    if not ON_CPU:
        (ROOT / "docs" / "gpu.json").write_text(json.dumps([asdict(line) for line in found], indent=1) + "\n")
    missed = sum(line.holds is False for line in found)
    print(f"{missed} of {sum(line.holds is not None for line in found)} bounds missed")
    return int(missed > 0)


if __name__ == "__main__":
    if "resume" in sys.argv:
        resume(sys.argv[-1])
    else:
        sys.exit(main())
