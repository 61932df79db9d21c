"""How often is a shape said to leave the common curve of training where none does, and where one does?

    python tests/laws/collapse_coverage.py [sweeps]

Sweeps like the `cpu` grid around a known law, each fitted and judged as a real one is, curves as files. A row of a
curve, 17.9 k tokens, has .87 % of noise of its text, as measured there, which the shapes of one seed share (or do not,
where it says apart); trunks have .2 % of their own, cells .15 %. A shape that is mistuned has every loss too high, of
its curves and at the end of each budget.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Shown

from harness.laws.checks.collapse import by_curves
from harness.laws.fit import fit_rows
from harness.laws.study import cells_of
from harness.laws.table.rows import Columns, read_rows
from harness.laws.table.table import as_table

# Width, depth and how many seeds, as in conf/sweep/cpu.yaml.
SEEDS = {(176, 2): 1, (96, 3): 1, (112, 2): 1, (80, 2): 1, (64, 2): 2, (48, 2): 3}
BUDGETS = np.array([1.0e6, 1.55e6, 2.35e6, 3.6e6])
LAW = {"E": 2.41, "A": 3536.0, "B": 4604.0, "alpha": 0.772, "beta": 0.641, "gamma": 0.666}
ROW_TOKENS, WARMUP, COOLED = 17920, 1e5, 0.8
TEXT_SD, TRUNK_SD, CELL_SD = 0.0087, 0.002, 0.0015
HOT = 0.037  # how far the loss of a trunk lies above that of a run that is decayed there
SWEEPS = 100
# Which shape's losses are too high, by how much, and whether trunks of one seed have texts apart.
CASES = [
    ("none", 0.0, False), ("none", 0.0, True), ("w80-d2", 0.01, False), ("w112-d2", 0.01, False),
    ("w112-d2", 0.015, False), ("w112-d2", 0.02, False), ("w48-d2", 0.02, False), ("w176-d2", 0.02, False),
]  # fmt: skip


def law(params: float, tokens: np.ndarray) -> np.ndarray:
    terms = LAW["A"] * params ** -LAW["alpha"] + LAW["B"] * tokens ** -LAW["beta"]
    return LAW["E"] + terms ** LAW["gamma"]


def curve(params: float, tokens: float, errors: np.ndarray) -> list[dict]:
    """The rows of a cell's curve; errors: of each row of its trunk, in log loss."""
    ends = np.append(np.arange(1, int(tokens // ROW_TOKENS) + 1) * ROW_TOKENS, tokens)
    ends = np.unique(ends[ends <= tokens])
    middle = ends - np.diff(ends, prepend=0.0) / 2
    done = np.clip((middle / tokens - COOLED) / (1 - COOLED), 0.0, 1.0)
    loss = law(params, middle) * np.exp(errors[: len(ends)] + HOT * (1 - np.sqrt(done)))
    return [{"phase": "trunk" if share == 0 else "cooldown", "tokens": float(end), "train_loss": float(each)}
            for end, each, share in zip(ends, loss, done, strict=True)]  # fmt: skip


def write(
    folder: Path,
    seed: int,
    mistuned: dict[str, float],
    noise: float = 1.0,
    seeds: dict[tuple[int, int], int] | None = None,
    apart: bool = False,
) -> None:
    """A sweep's runs.csv and curves; mistuned: by how much the log losses of a shape are too high. apart: trunks of one
    seed have texts of their own."""
    generator = np.random.default_rng(seed)
    texts = noise * TEXT_SD * generator.standard_normal((20, int(BUDGETS[-1] // ROW_TOKENS) + 2))
    rows: list[dict] = []
    for (width, depth), count in (seeds or SEEDS).items():
        params = 12 * depth * width**2 + 1024 * width
        for number in range(count):
            trunk = len(rows) // len(BUDGETS)
            shared = noise * TRUNK_SD * generator.standard_normal() + mistuned.get(f"w{width}-d{depth}", 0.0)
            for tokens in BUDGETS.tolist():
                error = shared + noise * CELL_SD * generator.standard_normal()
                cell = f"w{width}-d{depth}-t{tokens / 1e6:g}M-s{number}"
                loss = float(law(params, np.array(tokens))) * np.exp(error)
                rows.append({"cell": cell, "trunk": f"w{width}-d{depth}-s{number}", "status": "finished",
                             "width": width, "depth": depth, "seed": number, "tokens": tokens, "warmup_tokens": WARMUP,
                             "params_with_head": params, "flops": 7.0 * params * tokens, "loss": loss})  # fmt: skip
                (folder / "runs" / cell).mkdir(parents=True)
                points = curve(params, tokens, texts[trunk if apart else number] + shared)
                (folder / "runs" / cell / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in points))
    pd.DataFrame(rows).to_csv(folder / "runs.csv", index=False)


def judged(folder: Path) -> dict:
    """The section `collapse` of a sweep's fit.json, its law fitted as the harness does."""
    table, columns = as_table(pd.read_csv(folder / "runs.csv")), Columns()
    rows = read_rows(table, columns, "chinchilla_coupled")
    fit = fit_rows(rows, columns, "chinchilla_coupled", "log_mse")
    cells = cells_of(table, rows)
    found = by_curves(fit, cells, cells.shape_R, [str(folder)])
    assert found is not None
    return found


def left(seed: int, mistuned: dict[str, float], apart: bool) -> list[str] | None:
    """The shapes that are said to leave; None where the law is not certified."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), seed, mistuned, apart=apart)
        found = judged(Path(folder))
    return [entry["shape"] for entry in found["shapes"] if entry["leaves"]] if "shapes" in found else None


def main(sweeps: int) -> int:
    shown = Shown("too high", "by", "texts", "judged", "it is named", "another is named", box=SIMPLE_HEAD)
    for shape, by, apart in CASES:
        told = [names for seed in range(sweeps) if (names := left(seed, {shape: by}, apart)) is not None]
        named, others = sum(shape in names for names in told), sum(bool(set(names) - {shape}) for names in told)
        shown.add_row(
            shape, f"{by:.1%}", "apart" if apart else "shared", f"{len(told)} of {sweeps}", f"{named} of {len(told)}",
            f"{others} of {len(told)}",
        )  # fmt: skip
    Console(width=100).print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else SWEEPS))
