"""CPU seconds that status, run table and fit take for a sweep of 2,000 cells: make bench

500 trunks (25 shapes, 20 seeds) of 4 budgets, with records, curves and a sweep.yaml as a sweep writes them; losses are
of Chinchilla's law with the noise of trunks and cells. The fit is the headline of scripts/fit.py with its 2,000
simulated tables; all that the script does, with its other laws, losses, hold-outs and moves, is given beside it.
Imports are in no figure.
"""

import itertools
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from harness.grid import make_trunks
from harness.laws import fit
from harness.laws.settings import fit_config
from harness.laws.study import write_study
from harness.records import SCHEMA, SweepFolder, write_sweep, write_table
from harness.sweep.compose import Sweep, compose_sweep
from harness.sweep.plan import Plan
from harness.sweep.progress import outcome, render
from harness.sweep.run import sweep_file
from harness.sweep.snapshot import disk_bytes, snapshot

WIDTHS, DEPTHS, SEEDS = (48, 64, 80, 96, 112), (1, 2, 3, 4, 5), 20
TOKENS = (0.52e6, 0.8e6, 1.22e6, 1.85e6)
VOCAB, CURVE_ROWS = 1024, 200


def write_files(folder: SweepFolder, sweep: Sweep) -> None:
    trunks = [make_trunks(job, VOCAB, "benchmark", "float32")[0] for job in sweep.jobs]
    whole = Plan("large", tuple((trunk,) for trunk in trunks), 2, "cpu", 0, frozenset(), {}, {})
    launch = {"started": time.time(), "estimated_seconds": 3600.0, "wall_seconds": 3500.0}
    folder.path.mkdir(parents=True)
    write_sweep(folder, sweep_file(sweep, whole, launch))
    chance = np.random.default_rng(0)
    for trunk in trunks:
        job, common = trunk.job, 0.0014 * chance.standard_normal()
        for cell in trunk.cells:
            noise = np.exp(common + 0.0014 * chance.standard_normal())
            loss = (2.1 + 0.7 * (trunk.params.with_head / 2.3e5) ** -0.4 + 1.2 * (cell.tokens / 1e6) ** -0.45) * noise
            seconds = cell.flops / 1e11
            record = {
                "schema": SCHEMA, "cell": cell.name, "status": "finished", "trunk": trunk.name,
                "config_hash": cell.config_hash, "width": job.model.width, "depth": job.model.depth,
                "heads": job.model.heads, "seq_len": job.model.seq_len, "vocab_size": VOCAB, "seed": job.seed,
                "tokens": cell.tokens, "unique_tokens": cell.tokens, "epochs": 1.0, "batch_tokens": trunk.batch_tokens,
                "steps": cell.steps, "learning_rate": trunk.learning_rate, "schedule": "wsd",
                "params_total": trunk.params.total, "params_non_embedding": trunk.params.non_embedding,
                "params_with_head": trunk.params.with_head, "flops": cell.flops,
                "flops_6nd": 6 * trunk.params.with_head * cell.tokens, "loss": loss, "loss_se": 0.006,
                "bits_per_byte": loss / 2.04, "wall_seconds": 1.1 * seconds, "tokens_per_second": cell.tokens / seconds,
                "device": "cpu", "flops_utilization": 0.5, "code_version": "benchmark", "family": "gpt",
                "parametrization": "mup", "optimizer": "adamw", "precision": "float32", "data": "benchmark",
                "bytes_per_token": 2.94, "error": None,
            }  # fmt: skip
            row = {"phase": "cooldown", "step": cell.steps, "tokens": cell.tokens, "flops": cell.flops,
                   "train_loss": loss, "learning_rate": 1e-3, "grad_norm": 0.5, "tokens_per_second": 3e4,
                   "flops_utilization": 0.5}  # fmt: skip
            run = folder.run(cell.name)
            run.mkdir(parents=True)
            (run / "run.json").write_text(json.dumps(record, indent=1))
            (run / "curve.jsonl").write_text((json.dumps(row) + "\n") * CURVE_ROWS)


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    start = time.process_time()
    result = work(*arguments)
    return time.process_time() - start, result


def status(sweep: Path) -> None:
    now = snapshot(sweep)
    assert now.count("finished") == 2000
    with open("/dev/null", "w") as nowhere:
        Console(file=nowhere).print(render(now), *outcome(now, disk_bytes(sweep)))


if __name__ == "__main__":
    shapes = ",".join(
        f"w{w}-d{d}" + (f"-s{s}" if s else "") for w, d, s in itertools.product(WIDTHS, DEPTHS, range(SEEDS))
    )
    tokens = f"tokens=[{','.join(map(str, TOKENS))}]"
    with tempfile.TemporaryDirectory() as text:
        composing, sweep = timed(
            compose_sweep, ["-m", f"shape={shapes}", tokens, "name=large", f"output_directory={text}", "tracking=none"]
        )
        write_files(sweep.folder, sweep)
        path = sweep.folder.path
        seconds = {
            "status": timed(status, path)[0],
            "run table": timed(write_table, sweep.folder)[0],
            "headline fit": timed(lambda: fit(str(path), loss="log_mse", bootstrap=2000))[0],
        }
        study = timed(write_study, fit_config([f"runs={path}"]))[0]
        shown = ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())
        print(f"2,000 cells: {shown}; together {sum(seconds.values()):.2f} s")
        print(f"all of scripts/fit.py {study:.1f} s; composing the 500 jobs {composing:.1f} s")
