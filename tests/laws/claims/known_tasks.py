"""Sweep directories whose tasks switch on in known ways."""

import math
from pathlib import Path

import numpy as np
from known_sweep import cell, write_cells
from scipy.special import expit

# Those of conf/sweep/emergence.yaml.
SHAPES = ((96, 0), (96, 1), (64, 0), (64, 1), (48, 0), (48, 1), (32, 0), (32, 1), (24, 0), (16, 0))
BUDGETS = (
    62.5e3, 88e3, 125e3, 150e3, 177e3, 210e3, 250e3, 300e3, 354e3, 420e3, 500e3, 595e3, 707e3, 1.0e6, 1.41e6, 2.0e6,
)  # fmt: skip
WIDTH = 2 * math.log(9)  # of a logistic curve, from a tenth to nine tenths


def rows_of(shapes=SHAPES, budgets=BUDGETS) -> list[dict]:
    return [cell(width, 2, tokens, lambda row: 2.0, seed) for width, seed in shapes for tokens in budgets]


def logistic(rows: list[dict], tokens: float, width: float) -> np.ndarray:
    """Of each row, from 0 to 1: half at a number of tokens, `width` decades from a tenth to nine tenths."""
    x = np.log10([row["tokens"] / tokens for row in rows])
    return expit(x * WIDTH / width)


def with_task(rows: list[dict], name: str, symbols: int, exact, accuracy, fallen) -> list[dict]:
    """Rows with a task's columns; `accuracy` and how far the loss has `fallen` go from 0, guessing, to 1, perfect."""
    columns = {
        f"exact_{name}": exact,
        f"accuracy_{name}": 1 / symbols + np.asarray(accuracy) * (1 - 1 / symbols),
        f"loss_{name}": math.log(symbols) * (1 - np.asarray(fallen)),
        f"loss_se_{name}": np.full(len(rows), 0.01),
    }
    added = [dict(zip(columns, map(float, values), strict=True)) for values in zip(*columns.values(), strict=True)]
    return [row | more for row, more in zip(rows, added, strict=True)]


def sweep(folder: Path, rows: list[dict], **tasks: tuple[int, int]) -> Path:
    """tasks: the tokens of an answer and how many each may be, by name."""
    stated = {name: {"task": name, "tokens": tokens, "symbols": symbols} for name, (tokens, symbols) in tasks.items()}
    texts = {name: "recipe" for name in tasks}
    return write_cells(folder, rows, **({"validation": texts, "tasks": stated} if tasks else {}))
