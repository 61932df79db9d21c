"""Sweep directories whose best learning rates are known powers of width and depth."""

import math
from pathlib import Path

import numpy as np
from known_sweep import cell, write_cells

WIDTHS, DEPTHS = (16, 32, 64, 128), (1, 2, 4)
RATES = (0.0015, 0.003, 0.006, 0.012, 0.024)
# exponents of width and depth; the best rate at w64-d2 is .006 under all
EXPONENTS = {"sp": (-0.5, -0.3), "mup": (-0.1, -0.2), "completep": (0.0, 0.0)}


def best(parametrization: str, width: float, depth: float, exponents=EXPONENTS) -> float:
    of_width, of_depth = exponents[parametrization]
    return 0.006 * (width / 64) ** of_width * (depth / 2) ** of_depth


def row(parametrization: str, width: int, depth: int, rate: float, above: float, seed: int = 0) -> dict:
    """A cell whose loss lies `above` 4 less .1 log of the width, in log."""
    found = cell(width, depth, 2e5, lambda row: (4 - 0.1 * math.log(width)) * math.exp(above), seed)
    name = f"{found['cell']}-{parametrization}-{rate:g}-s{seed}"
    return found | {
        "cell": name, "trunk": name, "parametrization": parametrization, "learning_rate": rate, "config_hash": name,
        "model.parametrization": parametrization, "optimizer.learning_rate.value": rate,
    }  # fmt: skip


def shapes(parametrization: str) -> list[tuple[int, int]]:
    widths = [(width, 2) for width in WIDTHS] if parametrization != "completep" else [(64, 2)]
    return [*widths, *((64, depth) for depth in DEPTHS if depth != 2)]


def rows_of(exponents=EXPONENTS, rates=RATES, names=tuple(EXPONENTS), shapes_of=shapes) -> list[dict]:
    """Losses of .03 times the square of the log of the rate over the best one."""
    return [
        row(name, width, depth, rate, 0.03 * math.log(rate / best(name, width, depth, exponents)) ** 2)
        for name in names
        for width, depth in shapes_of(name)
        for rate in rates
    ]


def with_noise(rows: list[dict], sd: float, seed: int) -> list[dict]:
    noise_R = sd * np.random.default_rng(seed).standard_normal(len(rows))
    return [row | {"loss": row["loss"] * math.exp(noise)} for row, noise in zip(rows, noise_R, strict=True)]


def sweep(folder: Path, rows: list[dict], **stated) -> Path:
    axes = ["model.parametrization", "optimizer.learning_rate.value"]
    return write_cells(folder, rows, axes=axes, **stated)
