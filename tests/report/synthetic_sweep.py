"""A sweep directory with a known truth: a Chinchilla surface with noise, curves, and a fit made from the truth."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

E, A, B, ALPHA, BETA = 2.1, 103.0, 805.0, 0.38, 0.46
EXPONENT_A = BETA / (ALPHA + BETA)
SHAPES = ((48, 2), (64, 2), (64, 4), (96, 3), (112, 4), (128, 4))
BUDGETS = (1.0e6, 1.5e6, 2.4e6, 3.6e6)
REPEATED = ((48, 2), (64, 2))
VOCABULARY, SEQ_LEN, BATCH_TOKENS = 1024, 128, 1024


def surface(params, tokens):
    return E + A * np.asarray(params, float) ** -ALPHA + B * np.asarray(tokens, float) ** -BETA


def cell_row(width: int, depth: int, seed: int, budget: float, noise: float) -> dict:
    non_embedding = 12 * depth * width**2 + width
    with_head = non_embedding + VOCABULARY * width
    steps = int(budget) // BATCH_TOKENS
    tokens = steps * BATCH_TOKENS
    flops = tokens * (6 * with_head + 12 * depth * width * SEQ_LEN)
    loss = float(surface(with_head, tokens) * np.exp(noise))
    trunk = f"w{width}-d{depth}-s{seed}"
    cell = f"w{width}-d{depth}-t{budget / 1e6:g}M-s{seed}-{hashlib.sha256(f'{trunk}{budget}'.encode()).hexdigest()[:8]}"
    return {
        "cell": cell,
        "trunk": trunk,
        "status": "finished",
        "width": width,
        "depth": depth,
        "heads": width // 16,
        "seq_len": SEQ_LEN,
        "vocab_size": VOCABULARY,
        "seed": seed,
        "tokens": tokens,
        "unique_tokens": tokens,
        "epochs": 1.0,
        "batch_tokens": BATCH_TOKENS,
        "steps": steps,
        "learning_rate": 0.02,
        "schedule": "wsd",
        "params_total": with_head + VOCABULARY * width,
        "params_non_embedding": non_embedding,
        "params_with_head": with_head,
        "flops": flops,
        "flops_6nd": 6 * with_head * tokens,
        "loss": loss,
        "loss_se": 0.012,
        "bits_per_byte": loss / np.log(2) / 2.93,
        "wall_seconds": flops / 4e10,
        "tokens_per_second": tokens / (flops / 4e10),
        "device": "cpu",
        "flops_utilization": None,
        "config_hash": "0" * 12,
        "code_version": "1a2b3c4",
        "bytes_per_token": 2.93,
        "precision": "float32",
        "family": "gpt",
        "parametrization": "sp",
        "error": None,
    }


def make_rows(seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    rows = []
    for width, depth in SHAPES:
        for trunk_seed in (0, 1) if (width, depth) in REPEATED else (0,):
            shared = 0.0008 * rng.standard_normal()
            for budget in BUDGETS:
                rows.append(cell_row(width, depth, trunk_seed, budget, shared + 0.0008 * rng.standard_normal()))
    return rows


def curve(row: dict, rng: np.random.Generator) -> list[dict]:
    """Trunk prefix and cooldown of one cell: hot loss .12 nats above the surface, cooled to it over the last 20 %."""
    steps, points = row["steps"], []
    branch = int(0.8 * steps)
    for step in [*range(1, 20), *range(20, branch, 12), *range(branch, steps, 6), steps]:
        tokens = step * BATCH_TOKENS
        decay = max(0.0, (step - branch) / (steps - branch))
        start = (4.83 / B) ** (-1 / BETA)
        loss = float(surface(row["params_with_head"], tokens + start)) + 0.12 * (1 - np.sqrt(decay))
        points.append(
            {
                "phase": "trunk" if step <= branch else "cooldown",
                "step": step,
                "tokens": tokens,
                "flops": row["flops"] * tokens / row["tokens"],
                "train_loss": loss + 0.05 * rng.standard_normal(),
                "learning_rate": row["learning_rate"] * (1 - np.sqrt(decay)),
                "grad_norm": 0.5,
                "tokens_per_second": 3e4,
            }
        )
    return points


def estimates(shift: float = 0.0) -> dict:
    alpha, beta = ALPHA + shift, BETA + shift / 2
    return {"E": E, "A": A, "B": B, "alpha": alpha, "beta": beta, "a": beta / (alpha + beta)}


def hand_fit(params="params_with_head", loss="log_mse", shift=0.0, certified=True, target="loss", rows=32) -> dict:
    values = estimates(shift)
    widths = {"E": 0.11, "A": 41.0, "B": 260.0, "alpha": 0.035, "beta": 0.028, "a": 0.031}
    return {
        "law": "chinchilla",
        "loss": loss,
        "delta": 1e-3,
        "params": params,
        "tokens": "tokens",
        "target": target,
        "rows": rows,
        "estimates": values,
        "intervals": {key: [values[key] - width, values[key] + width] for key, width in widths.items()},
        "objective": 3.21e-5,
        "predicts": f"L = E + A / N^alpha + B / D^beta; L = {target}, N = {params}, D = tokens",
        "certificate": {
            "certified": certified,
            "converged": certified,
            "gradient_norm": 2e-9,
            "tolerance": 1e-8,
            "starts": 30,
            "starts_agree": 29,
            "moved": True,
            "at_bound": [],
            "rank": 5,
            "condition": 3.1e4,
            "identified": certified,
            "reasons": [] if certified else ["the exponents are not identified by these cells"],
        },
    }


def kaplan_fit(params: str, prefix: str, exponent: float, certified: bool) -> dict:
    fit = hand_fit(params=params, certified=certified)
    values = {f"{prefix}c": 4.2e9, "alpha": exponent}
    intervals = {f"{prefix}c": [2.1e9, 8.8e9], "alpha": [exponent - 0.01, exponent + 0.01]}
    return fit | {"law": f"kaplan_{prefix}", "estimates": values, "intervals": intervals, "rows": 6}


def hand_frontier(table: pd.DataFrame) -> dict:
    kappa = float(np.exp(np.log(table.flops / table.params_with_head / table.tokens).mean()))
    flops = np.geomspace(table.flops.min() / 4, table.flops.max() * 30, 60)
    factor = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))
    params = factor * (flops / kappa) ** EXPONENT_A
    tokens = flops / kappa / params
    spread = 1 + 0.06 * np.abs(np.log10(flops / np.exp(np.log(table.flops).mean())))
    curves = {"params": params, "tokens": tokens}
    frontier = {key: {"value": value, "low": value / spread, "high": value * spread} for key, value in curves.items()}
    loss = surface(params, tokens)
    frontier["loss"] = {"value": loss, "low": loss * 0.995, "high": loss * 1.005}
    return {
        "flops": flops.tolist(),
        **{key: {name: values.tolist() for name, values in columns.items()} for key, columns in frontier.items()},
        "sampled_flops": [float(table.flops.min()), float(table.flops.max())],
        "equations": {"params": [factor * kappa**-EXPONENT_A, EXPONENT_A], "tokens": [1.3, 1 - EXPONENT_A]},
    }


def hand_holdout(table: pd.DataFrame, name: str, test: pd.DataFrame, description: str, certified: bool) -> dict:
    rows = []
    for number, row in enumerate(test.to_dict("records")):
        predicted = float(surface(row["params_with_head"], row["tokens"]))
        competitor = row["loss"] * (1.009 + 0.002 * number)
        rows.append({key: row[key] for key in ("cell", "width", "depth", "tokens", "flops", "loss")})
        rows[-1] |= {
            "params": row["params_with_head"],
            "predicted": predicted,
            "relative_error": predicted / row["loss"] - 1,
            "competitor_predicted": competitor,
            "competitor_relative_error": competitor / row["loss"] - 1,
        }

    def mean(key):
        return float(np.mean([abs(row[key]) for row in rows]))

    return {
        "name": name,
        "description": description,
        "n_train": len(table) - len(test),
        "n_test": len(test),
        "mean_relative_error": mean("relative_error"),
        "competitor_mean_relative_error": mean("competitor_relative_error"),
        "certified": certified,
        "rows": rows,
    }


def hand_bands(table: pd.DataFrame) -> dict:
    tokens = np.geomspace(table.tokens.min() / 1.15, table.tokens.max() * 1.15, 30)
    params = np.geomspace(table.params_with_head.min() / 1.15, table.params_with_head.max() * 1.15, 30)

    def band(value):
        return {"predicted": value.tolist(), "low": (value * 0.998).tolist(), "high": (value * 1.002).tolist()}

    return {
        "by_tokens": [
            {"params": n, "tokens": tokens.tolist(), **band(surface(n, tokens))}
            for n in sorted(set(table.params_with_head.tolist()))
        ],
        "by_params": [
            {"tokens": d, "params": params.tolist(), **band(surface(params, d))}
            for d in sorted(set(table.tokens.tolist()))
        ],
    }


def hand_source(table: pd.DataFrame) -> dict:
    return {
        "path": "runs.csv",
        "sha256": "f" * 64,
        "rows": len(table),
        "rows_used": len(table),
        "excluded": [],
        "filter": None,
        "columns": {"params": "params_with_head", "tokens": "tokens", "target": "loss", "cluster": "trunk"},
    }


def hand_moves(certified: bool) -> list[dict]:
    def move(value):
        return {"value": ALPHA + value, "move": value, "low": -0.05, "high": 0.06, "inside": True}

    moved = {"rows": 24, "certified": certified, "alpha": move(0.021), "beta": move(-0.014), "a": move(-0.017)}
    return [{"dropped": dropped} | moved for dropped in ("smallest width 48", "smallest budget 1M")]


def hand_residuals(table: pd.DataFrame) -> list[dict]:
    predicted = surface(table.params_with_head, table.tokens)
    return [
        {"cell": cell, "params": n, "tokens": d, "loss": loss, "predicted": p, "residual": float(np.log(loss / p))}
        for cell, n, d, loss, p in zip(
            table.cell, table.params_with_head, table.tokens, table.loss.to_numpy(), predicted, strict=True
        )
    ]


def hand_study(table: pd.DataFrame, certified: bool = True) -> dict:
    table = table[table.status == "finished"]
    largest, most = table[table.width == 128], table[table.flops > table.flops.quantile(0.85)]
    seed_noise = {
        "sd_nats": 0.0041, "sd_relative": 0.00098, "groups": 8, "degrees_of_freedom": 8, "trunk_sd_relative": 0.0007,
        "cell_sd_relative": 0.0007,
    }  # fmt: skip
    choices = {
        "law": "chinchilla", "loss": "log_mse", "delta": 1e-3, "params": "params_with_head", "tokens": "tokens",
        "target": "loss", "bootstrap": 400, "seed": 0, "interval_method": "parametric by trunk",
    }  # fmt: skip
    return {
        "schema": 1,
        "source": hand_source(table),
        "choices": choices,
        "versions": {"harness": "0.1.0", "scipy": "1.16.0"},
        "fit": hand_fit(certified=certified),
        "by_loss": [
            hand_fit(loss=loss, shift=0.004 * n, certified=certified)
            for n, loss in enumerate(("log_mse", "huber", "lad", "mse"))
        ],
        "by_params": [
            hand_fit(params=params, shift=shift, certified=certified and params != "params_total")
            for params, shift in (("params_with_head", 0.0), ("params_total", 0.06), ("params_non_embedding", -0.07))
        ],
        "kaplan": {
            "params": kaplan_fit("params_with_head", "N", 0.11, certified),
            "tokens": kaplan_fit("params_with_head", "D", 0.14, certified),
            "flops": kaplan_fit("params_with_head", "C", 0.07, certified),
        },
        "frontier": hand_frontier(table),
        "seed_noise": seed_noise,
        "holdouts": [
            hand_holdout(table, "largest_shape", largest, "the largest shape from the other shapes", certified),
            hand_holdout(table, "most_compute", most, "the cells with the most compute from the rest", certified),
        ],
        "moves": hand_moves(certified),
        "residuals": hand_residuals(table),
        "bands": hand_bands(table),
        "notes": ["FLOPs of the frontier: kappa = 7.1 from the cells' own exact FLOPs."],
    }


def write_sweep(directory: Path, rows: list[dict], name: str = "synthetic", study: dict | None = None) -> Path:
    """A sweep directory as the harness leaves it behind, fit.json only where `study` is given."""
    rng = np.random.default_rng(1)
    planned = (
        "cell",
        "trunk",
        "width",
        "depth",
        "heads",
        "seed",
        "tokens",
        "steps",
        "batch_tokens",
        "learning_rate",
        "params_total",
        "params_non_embedding",
        "params_with_head",
        "flops",
    )
    sweep = {
        "schema": 1,
        "sweep": name,
        "code_version": "1a2b3c4",
        "packages": {"torch": "2.13.0"},
        "overrides": ["+sweep=cpu"],
        "law": "chinchilla",
        "slots": 2,
        "estimated_seconds": 500.0,
        "cells": [{key: row[key] for key in planned} for row in rows],
    }
    directory.mkdir(parents=True)
    (directory / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    for row in rows:
        folder = directory / "runs" / row["cell"]
        folder.mkdir(parents=True)
        (folder / "curve.jsonl").write_text("".join(json.dumps(point) + "\n" for point in curve(row, rng)))
    pd.DataFrame(rows).to_csv(directory / "runs.csv", index=False)
    if study is not None:
        study["source"]["sha256"] = hashlib.sha256((directory / "runs.csv").read_bytes()).hexdigest()
        (directory / "fit.json").write_text(json.dumps(study))
    return directory


def diverge(row: dict, error: str = "the loss was NaN at step 412") -> dict:
    return row | {"status": "diverged", "loss": None, "loss_se": None, "bits_per_byte": None, "error": error}
