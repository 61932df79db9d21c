"""A setting of 0 beside the best above it: a known cost is found, with an interval, and a sentence that judges it."""

import math

import numpy as np
import pandas as pd
import pytest
from test_minima import BEST_CK, SIZES, H, frame

from harness.laws.tune import lines, tune


def at_zero(cost: float, lean: float = 0.3) -> pd.DataFrame:
    """Rows at a batch of 0, three rates a size: `cost` above the best in log loss, at a rate exp(lean) times the best
    one above 0."""
    rows = []
    for cell, (params, tokens) in enumerate(zip(SIZES.params_C, SIZES.tokens_C, strict=True)):
        floor = 2 + (params**-0.5 * 300 + tokens**-0.5 * 900)
        for lr in (0.002, 0.004, 0.008):
            v = math.log(lr) - BEST_CK[cell, 0] - lean
            loss = floor * math.exp(cost + H[0, 0] * v**2 / 2)
            rows.append({"N": params, "D": tokens, "lr": lr, "batch": 0.0, "loss": loss})
    return pd.DataFrame(rows)


def costs_of(cost: float, noise: float = 0.0, seed: int = 0) -> dict:
    table = pd.concat([frame(), at_zero(cost)], ignore_index=True)
    table["loss"] *= np.exp(noise * np.random.default_rng(seed).standard_normal(len(table)))
    return tune(table, ["lr", "batch"]).to_dict()


def test_a_known_cost_is_found_at_every_size():
    """Also where the best rate is another one there: the minimum over the rates at 0 is set beside that above it."""
    found = costs_of(0.005)["zeros"]["batch"]
    assert found["estimate"] == pytest.approx(math.expm1(0.005), abs=1e-6)
    assert found["rows"] == 24 and len(found["cells"]) == 8
    assert [cell["estimate"] for cell in found["cells"]] == pytest.approx([math.expm1(0.005)] * 8, abs=1e-6)
    assert (found["cells"][-1]["params"], found["cells"][-1]["tokens"]) == (8e5, 4e6)


@pytest.mark.parametrize(
    ("cost", "word"), [(0.01, "worse"), (0.0, "as good, as far as the runs tell"), (-0.01, "better")]
)
def test_it_is_judged_in_words(cost, word):
    content = costs_of(cost, noise=0.0025)
    (said,) = [line for line in lines(content) if line.startswith("batch = 0 is")]
    assert said.startswith(f"batch = 0 is {word}: it costs ") and said.endswith(" beside the best above 0")
    found = content["zeros"]["batch"]
    assert found["low"] < math.expm1(cost) < found["high"]


def test_the_bowl_is_that_of_the_rows_above_0():
    alone = tune(frame(), ["lr", "batch"]).to_dict()
    assert costs_of(0.005)["settings"]["lr"]["rule"]["value"] == pytest.approx(alone["settings"]["lr"]["rule"]["value"])

