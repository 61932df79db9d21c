"""Do the intervals that carry the doubt of tuning cover 95 %? Simulated sweeps and their tunings, fitted as real ones.

    python tests/laws/tuning/doubt_coverage.py [TABLES]

Six shapes and four budgets of a known law, with noise of .25 %, half of it the trunks'; each trained at a rate and a
batch that are right in the middle and off by up to a factor of 2 at the smallest and the largest shape. Both of these
were tuned at the smallest and the largest budget, 25 runs each with noise of their own. Without the doubt, the
intervals of the fit as trained are of another law.
"""

import json
import math
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from harness.laws.fit import Fit, fit
from harness.laws.table.table import as_table
from harness.laws.tune import tune
from harness.laws.tuning.doubt import by_tuning

TABLES, NOISE, DRAWS = 2000, 0.0025, 500
PARAMS, TOKENS = np.geomspace(1e5, 9e5, 6), np.geomspace(1e6, 8e6, 4)
LAW = {"E": 2.1, "alpha": 0.4, "beta": 0.45}
H = np.array([[0.016, -0.005], [-0.005, 0.014]])
STEPS = math.log(2) * np.arange(-2, 3)
NAMES = ["lr", "batch"]


def least(params, tokens):
    return LAW["E"] + 0.7 * (params / 3e5) ** -LAW["alpha"] + 1.2 * (tokens / 2e6) ** -LAW["beta"]


def best(params, tokens):
    """Log rate and batch, a last axis of two."""
    n, d = np.log(params / 3e5), np.log(tokens / 2.8e6)
    return np.stack([math.log(0.004) - 0.3 * n - 0.1 * d, math.log(512) + 0.1 * n + 0.3 * d], axis=-1)


def height(away):
    return ((away @ H) * away).sum(-1) / 2


def runs(cells, tried, generator) -> pd.DataFrame:
    """Runs at (params, tokens) with log settings (tokens.., K); budgets of one shape and setting share a trunk."""
    rows = []
    for params, settings_SK in zip(cells, tried, strict=True):
        for trunk, settings_K in enumerate(settings_SK):
            shared = generator.standard_normal()
            for tokens in TOKENS if len(settings_SK) == 1 else TOKENS[[0, -1]]:
                loss = least(params, tokens) * math.exp(height(settings_K - best(params, tokens)))
                error = NOISE * math.sqrt(0.5) * (shared + generator.standard_normal())
                lr, batch = np.exp(settings_K)
                rows.append({"trunk": f"{params:.0f}-{trunk}", "N": params, "D": tokens, "lr": lr, "batch": batch,
                             "loss": loss * math.exp(error)})  # fmt: skip
    return pd.DataFrame(rows)


def tables(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A sweep as trained, and the runs that tune both of its ends."""
    generator = np.random.default_rng(seed)
    middle_NK = best(PARAMS, np.full(6, TOKENS[1]))
    position_N = np.linspace(0, 1, 6)
    off_EK = math.log(2) * generator.uniform(-1, 1, (2, 2))
    off_NK = np.outer(np.maximum(1 - 2 * position_N, 0), off_EK[0])
    off_NK += np.outer(np.maximum(2 * position_N - 1, 0), off_EK[1])
    grid_SK = np.array([(i, j) for i in STEPS for j in STEPS])
    ends = [0, -1]
    trained = runs(PARAMS, (middle_NK + off_NK)[:, None], generator)
    return trained, runs(PARAMS[ends], [middle_NK[end] + grid_SK for end in ends], generator)


def chances(seed: int, folder: Path, draws: int = DRAWS) -> dict[str, bool]:
    """Which intervals of a sweep hold the truth: of the values at best settings, of the shifts that this table's fit
    would make if the bowls were known, of that fit, and of the fit as trained."""
    frame, tuning = tables(seed)
    path = folder / "tune.json"
    path.write_text(json.dumps(tune(tuning, NAMES, params="N", tokens="D").to_dict()))
    ours = _fit(frame, bootstrap=draws)
    found = by_tuning(ours, as_table(frame), path, draws, 0)["quantities"]
    truth = {"alpha": LAW["alpha"], "beta": LAW["beta"], "a": LAW["beta"] / (LAW["alpha"] + LAW["beta"]), "E": LAW["E"]}
    cells = best(frame["N"].to_numpy(), frame["D"].to_numpy())
    away = np.log(frame[NAMES].to_numpy()) - cells
    known = _fit(frame.assign(loss=frame["loss"] * np.exp(-height(away))), bootstrap=draws)
    hits = {}
    for name, value in truth.items():
        each = found[name]
        hits[f"{name} at the best settings"] = each["low"] < value < each["high"]
        shift = known.estimates[name] - ours.estimates[name]
        hits[f"{name}, its shift"] = each["shift"]["low"] < shift < each["shift"]["high"]
        hits[f"{name}, if the bowls were known"] = known.intervals[name][0] < value < known.intervals[name][1]
        hits[f"{name} as trained, which is another law"] = ours.intervals[name][0] < value < ours.intervals[name][1]
    return hits


def _fit(frame: pd.DataFrame, bootstrap: int = 0) -> Fit:
    return fit(frame, "chinchilla", "log_mse", params="N", tokens="D", bootstrap=bootstrap)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else TABLES
    hits = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(count):
            for name, hit in chances(seed, Path(folder)).items():
                hits[name].append(hit)
    for name, found in hits.items():
        print(f"{name:45} {np.mean(found):.1%} of {count:,} tables")
