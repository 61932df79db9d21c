"""The compute optimum against a search along the line of equal compute."""

import numpy as np
import pytest

from harness.laws.frontier import optimum

LAWS = {
    "chinchilla": {"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.34, "beta": 0.37, "a": 0.37 / 0.71},
    "chinchilla_tied": {"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.34, "a": 0.5},
    "chinchilla_coupled": {"E": 1.7, "A": 400.0, "B": 900.0, "alpha": 0.5, "beta": 0.4, "gamma": 0.6, "a": 0.4 / 0.9},
}


@pytest.mark.parametrize("law", LAWS)
def test_no_other_split_of_the_compute_does_better(law):
    values = LAWS[law]
    product = 1e14
    found = optimum({name: np.array([value]) for name, value in values.items()}, np.array([product]))
    best = {name: float(np.exp(part[0, 0])) for name, part in found.items()}
    assert best["params"] * best["tokens"] == pytest.approx(product)
    params = best["params"] * np.exp(np.linspace(-1, 1, 2001))
    inner = values["A"] * params ** -values["alpha"]
    inner = inner + values["B"] * (product / params) ** -values.get("beta", values["alpha"])
    loss = values["E"] + inner ** values.get("gamma", 1)
    assert np.argmin(loss) == 1000
    assert loss.min() == pytest.approx(best["loss"], rel=1e-12)
