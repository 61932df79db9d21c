"""The settings of conf/sweep/random_settings.yaml are those that its comment draws."""

from pathlib import Path

import numpy as np
import pytest
import yaml

FILE = Path(__file__).parents[2] / "conf" / "sweep" / "random_settings.yaml"


def test_the_settings_are_those_of_the_draw():
    factor = 4.0 ** np.random.default_rng(0).uniform(-1, 1, (32, 4))
    grids = yaml.safe_load(FILE.read_text())["grids"]
    assert len(grids) == 32
    for (rate, decay, batch, warmup), lines in zip(factor, grids, strict=True):
        pairs = (line.split("=") for line in lines)
        found = {key.split(".")[1]: float(value) for key, value in pairs}
        assert found == {
            "learning_rate": pytest.approx(0.004 * rate, rel=5e-3),
            "weight_decay": pytest.approx(0.01 * decay, rel=5e-3),
            "batch_tokens": 128 * round(4 * batch),
            "warmup_tokens": pytest.approx(100_000 * warmup, rel=5e-3),
        }
