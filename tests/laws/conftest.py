import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SHAPES = ((48, 2), (48, 4), (64, 3), (80, 4), (96, 4), (128, 4))
BUDGETS = (1e6, 1.6e6, 2.5e6, 4e6)


@pytest.fixture(scope="session")
def published() -> Path:
    """The published runs, which are no part of the project; PUBLISHED_RUNS names another place."""
    folder = Path(os.environ.get("PUBLISHED_RUNS", ROOT.parent / "shared" / "published"))
    if not (folder / "expected.json").exists():
        pytest.skip(f"the published runs are not at {folder}: set PUBLISHED_RUNS to their folder")
    return folder


@pytest.fixture(scope="session")
def simulated() -> Callable[..., pd.DataFrame]:
    """Run tables with a known truth: six shapes, two of them with a second seed, four budgets."""

    def build(
        alpha: float = 0.4, beta: float = 0.45, E: float = 2.1, noise: float = 0.0, seed: int = 0
    ) -> pd.DataFrame:
        generator = np.random.default_rng(seed)
        rows = []
        for run, (width, depth) in enumerate(SHAPES + SHAPES[:2]):
            params = 12 * width**2 * depth + 1024 * width
            shared = generator.standard_normal()
            for tokens in BUDGETS:
                error = noise * np.sqrt(0.5) * (shared + generator.standard_normal())
                loss = E + 0.7 * (params / 4e5) ** -alpha + 1.2 * (tokens / 2e6) ** -beta
                second = int(run >= len(SHAPES))
                rows.append(
                    {
                        "cell": f"w{width}-d{depth}-t{tokens:g}-s{second}",
                        "trunk": f"w{width}-d{depth}-s{second}",
                        "status": "finished",
                        "width": width,
                        "depth": depth,
                        "seed": second,
                        "tokens": tokens,
                        "schedule": "wsd",
                        "params_with_head": params,
                        "params_total": params + 1024 * width,
                        "params_non_embedding": 12 * width**2 * depth,
                        "flops": 7.0 * params * tokens,
                        "loss": loss * np.exp(error),
                    }
                )
        return pd.DataFrame(rows)

    return build


@pytest.fixture
def sweep(tmp_path: Path, simulated: Callable[..., pd.DataFrame]) -> Path:
    """A sweep directory as training leaves it, with 0.1 % noise."""
    folder = tmp_path / "sweep"
    folder.mkdir()
    frame = simulated(noise=0.001)
    frame.to_csv(folder / "runs.csv", index=False)
    plan = {"schema": 1, "sweep": "sweep", "cells": [{"cell": cell} for cell in frame["cell"]]}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(plan))
    return folder
