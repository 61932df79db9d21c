"""Sweep directories of data=manifold whose exponents of the params are known."""

from itertools import product
from pathlib import Path

import numpy as np
from known_sweep import cell, write_cells

# Width and seed, as in conf/sweep/manifold.yaml.
TRUNKS = ((16, 0), (12, 0), (8, 0), (8, 1), (6, 0), (6, 1))
BUDGETS = (3e6, 6e6)


def sweep(folder: Path, exponents: dict[int, float], noise: float = 0.0, draw: int = 0, lacks: float = 0.0) -> Path:
    """An excess of .1 at 1,000 params without embeddings, noise a part of it, over a floor of 1.8 nats and d/1000.

    lacks: what each has more of at 6 M tokens, and twice of at 3 M.
    """
    generator = np.random.default_rng(draw)
    rows = []
    for (dimension, alpha), (width, seed), tokens in product(exponents.items(), TRUNKS, BUDGETS):
        row = cell(width, 1, tokens, lambda row: 0.0, seed)
        excess = 0.1 * (row["params_non_embedding"] / 1e3) ** -alpha + lacks * 6e6 / tokens
        loss = 1.8 + dimension / 1e3 + excess * np.exp(noise * generator.standard_normal())
        names = {key: f"{row[key]}-d{dimension}" for key in ("cell", "trunk")}
        total = row["params_with_head"] + 1024 * width
        rows.append(row | names | {"loss": loss, "params_total": total, "data.dimension": dimension})
    floors = {d: {"nats": 1.8 + d / 1e3, "expected": 1.8, "exponent": 4 / d} for d in exponents}
    return write_cells(folder, rows, axes=["data.dimension", "model.seq_len"], floors=floors)
