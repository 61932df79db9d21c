"""The figure of a tuning: its minima with intervals and rule, and its runs in the bowl."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.laws.tune import tune
from harness.report.minima import minima, write_minima

sys.path.append(str(Path(__file__).parents[1] / "laws" / "tuning"))
from test_minima import frame  # noqa: E402


@pytest.fixture(scope="module")
def tuned():
    return tune(frame(), ["lr", "batch"])


def data(spec: dict) -> list[list[dict]]:
    """The data of a chart, a list a set."""
    return list(spec["datasets"].values())


def test_minima_rule_and_bowl_are_drawn(tuned):
    spec = minima(tuned).chart.to_dict()
    assert len(spec["vconcat"]) == 2
    sets = data(spec)
    (bests,) = [each for each in sets if "bracketed" in each[0] and each[0]["best"] < 1]
    # lr = .004 (N / 282842.7)^-.3 (D / 2e6)^-.1 at N = 8e5, D = 4e6: .004 2^-.55
    (last,) = [cell for cell in bests if cell["params"] == 8e5 and cell["tokens"] == 4e6]
    assert (last["best"], last["budget"]) == (pytest.approx(0.004 * 2**-0.55), "4M")
    # without noise each run lies in the bowl along one setting: 100 (exp(.016 v^2 / 2) - 1)
    (runs,) = [each for each in sets if "weight" in each[0] and max(row["percent"] for row in each) > 1.6]
    for row in runs:
        assert row["percent"] == pytest.approx(100 * np.expm1(0.008 * np.log(row["factor"]) ** 2), abs=1e-6)
    assert len({row["budget"] for row in runs}) == 2 and len(runs) > 100


def test_a_tuning_of_one_size_and_setting_is_written(tuned, tmp_path):
    one = frame().query("N == 1e5 and D == 1e6 and batch == 512")
    noisy = one.assign(loss=one["loss"] * np.exp(1e-4 * np.arange(len(one)) % 3))
    write_minima(tune(pd.concat([noisy, noisy.assign(seed=1)]), ["lr"]), tmp_path / "their.tune.json")
    svg = (tmp_path / "their.tune.svg").read_text()
    assert "best lr" in svg and "lr over its best" in svg and len(re.findall("<svg", svg)) == 1
    assert (tmp_path / "their.tune.png").read_bytes()[:4] == b"\x89PNG"
    assert "NOT certified" not in json.dumps(minima(tuned).caption)
