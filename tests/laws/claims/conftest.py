from pathlib import Path

import numpy as np
import pytest
from known_sweep import BUDGETS, SHAPES, cell, law, write_cells


@pytest.fixture
def grid(tmp_path) -> Path:
    """The cells of TRUTH by params with the head, with noise of .01 %."""
    noise = iter(np.random.default_rng(1).normal(0, 1e-4, 100))

    def loss(row):
        return law(row["params_with_head"], row["tokens"]) * np.exp(next(noise))

    rows = [cell(width, depth, tokens, loss) for width, depth in SHAPES for tokens in BUDGETS]
    return write_cells(tmp_path / "grid", rows)
