"""Sweep directories of a text with and without symbols whose floors are known."""

from itertools import product
from pathlib import Path

import numpy as np
from known_sweep import cell, write_cells

from harness.data.insertion import inserted_nats

# Width and seed, and budgets, as in conf/sweep/insertion.yaml.
TRUNKS = ((80, 0), (64, 0), (64, 1), (48, 0), (48, 1), (32, 0))
BUDGETS = (1.2e6, 2.4e6, 4.8e6, 9.6e6)
SHARES = {"plain": 0.0, "symbols": 0.25}


def sweep(
    folder: Path, part: float = 1.0, noise: float = 0.0, draw: int = 0, shares: dict = SHARES, alpha: float = 0.66
) -> Path:
    """A text of 1 nat whose learner sees (1 - q) of the tokens, and symbols that raise its floor by `part` of what they
    add; with them losses fall by `alpha` in params. Half of the noise is the trunks'."""
    generator = np.random.default_rng(draw)
    rows = []
    for (name, share), (width, seed) in product(shares.items(), TRUNKS):
        of_trunk = generator.standard_normal()
        for tokens in BUDGETS:
            row = cell(width, 2, tokens, lambda row: 0.0, seed)
            of_params = (row["params_non_embedding"] / 1e5) ** -(alpha if share else 0.66)
            terms = 0.25 * of_params + 0.35 * ((1 - share) * tokens / 1e6) ** -0.63
            loss = part * inserted_nats(share) + (1 - share) * (1 + terms**0.69)
            loss *= np.exp(noise * np.sqrt(0.5) * (of_trunk + generator.standard_normal()))
            names = {key: f"{row[key]}-{name}" for key in ("cell", "trunk")}
            row |= {"params_with_head": row["params_non_embedding"], "loss": loss, "data": f"store of {name}"}
            rows.append(row | names | {"variant": name})
    inserted = {f"store of {name}": {"share": q, "nats": inserted_nats(q)} for name, q in shares.items()}
    return write_cells(folder, rows, axes=["variant"], inserted=inserted)
