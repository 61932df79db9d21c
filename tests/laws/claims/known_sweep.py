"""Sweep directories with a known truth, as files alone."""

import hashlib
import json
from pathlib import Path

import pandas as pd

from harness.records import SweepFolder, write_sweep

# L = E + (A / N^alpha + B / D^beta)^gamma
TRUTH = {"E": 1.9, "A": 3000.0, "B": 4000.0, "alpha": 0.75, "beta": 0.65, "gamma": 0.6}
SHAPES = ((48, 2), (64, 2), (80, 2), (112, 2), (96, 3), (176, 2))
BUDGETS = (1e6, 1.55e6, 2.35e6, 3.6e6)


def law(params, tokens, truth=TRUTH):
    inner = truth["A"] / params ** truth["alpha"] + truth["B"] / tokens ** truth["beta"]
    return truth["E"] + inner ** truth["gamma"]


def write_cells(folder: Path, rows: list[dict], **stated) -> Path:
    folder.mkdir(parents=True)
    cells = [{key: row[key] for key in ("cell", "trunk", "width", "depth", "seed", "tokens")} for row in rows]
    write_sweep(SweepFolder(folder), {"sweep": folder.name, "law": "chinchilla_coupled", **stated, "cells": cells})
    pd.DataFrame(rows).to_csv(folder / "runs.csv", index=False)
    return folder


def cell(width: int, depth: int, tokens: float, loss_of, seed: int = 0) -> dict:
    """A row of the run table; loss_of is a function of the row so far."""
    inner = 12 * depth * width**2
    params = inner + 1024 * width
    trunk = f"w{width}-d{depth}-s{seed}"
    row = {
        "cell": f"{trunk}-t{tokens:g}", "trunk": trunk, "status": "finished", "width": width, "depth": depth,
        "seed": seed, "tokens": tokens, "params_with_head": params, "params_non_embedding": inner,
        "flops": 6 * params * tokens,
    }  # fmt: skip
    return row | {"loss": float(loss_of(row))}


def written(folder: Path, name: str, content: dict, **choices) -> None:
    """fit.json or compare.json, by what the sweep stated, with the digest of the run table beside it."""
    digest = hashlib.sha256((folder / "runs.csv").read_bytes()).hexdigest()
    filtered = choices.pop("filter", "")
    chosen = {"law": "chinchilla_coupled", "loss": "log_mse", "target": "loss"} | choices
    content = content | {
        "source": {"sha256": digest, "filter": filtered},
        "choices": content.get("choices", {}) | chosen,
    }
    (folder / f"{name}.json").write_text(json.dumps(content))
