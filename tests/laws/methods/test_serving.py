"""The cheapest model of a loss where some of its tokens are served."""

import numpy as np
import pytest
from rich.console import Console

from harness.errors import UserError
from harness.laws import fit
from harness.laws.methods.frontier import FrontierConfig, frontier, optimum
from harness.laws.methods.serving import cheapest, terms
from harness.laws.settings import FitConfig
from harness.laws.study import study
from harness.laws.summary import show
from harness.laws.table.table import as_table

LAWS = {
    "chinchilla": {"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.34, "beta": 0.37},
    "chinchilla_tied": {"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.34},
    "chinchilla_coupled": {"E": 1.7, "A": 400.0, "B": 900.0, "alpha": 0.5, "beta": 0.4, "gamma": 0.6},
    "kaplan_joint": {"Nc": 6.4e13, "Dc": 1.8e13, "alpha": 0.076, "beta": 0.103},
}


def natural(values):
    return {name: np.array([value]) for name, value in values.items()}


def numbers(values, loss, served, kappa=6.0):
    found = cheapest(terms(natural(values)), loss, served, kappa)
    return {name: float(np.exp(value[0, 0])) for name, value in found.items()}


def test_a_case_in_closed_form():
    """L = 1 / N + 1 / D = 1 and 9 tokens served: q = 1 / D solves k q^2 + 2 q = 1 with k = 9 / 3, so q = 1/3.

    Training costs 6 * 1.5 * 3, serving 2 * 1.5 * 9.
    """
    values = {"E": 0.0, "A": 1.0, "B": 1.0, "alpha": 1.0, "beta": 1.0}
    expected = {"params": 1.5, "tokens": 3.0, "tokens_per_param": 2.0, "training_flops": 27.0, "total_flops": 54.0}
    assert numbers(values, 1.0, 9.0) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("law", LAWS)
def test_nothing_served_is_the_compute_optimum(law):
    best = {name: float(value[0, 0]) for name, value in optimum(natural(LAWS[law]), np.array([1e18])).items()}
    found = numbers(LAWS[law], float(np.exp(best["loss"])), 0.0)
    assert found["params"] == pytest.approx(np.exp(best["params"]), rel=1e-10)
    assert found["tokens"] == pytest.approx(np.exp(best["tokens"]), rel=1e-10)
    assert found["training_flops"] == found["total_flops"] == pytest.approx(6e18, rel=1e-10)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("served", [1e6, 1e10, 1e14])
def test_no_other_model_of_that_loss_costs_less(law, served):
    start = optimum(natural(LAWS[law]), np.array([1e18]))
    loss, part = float(np.exp(start["loss"][0, 0])), terms(natural(LAWS[law]))
    odds = np.linspace(-4, 12, 160_001)
    params, tokens = part.iso_loss(loss, odds[None])
    assert np.exp(part.log_loss(params, tokens)) == pytest.approx(loss)
    total = np.exp(params) * (6 * np.exp(tokens) + 2 * served)
    found = numbers(LAWS[law], loss, served)
    assert total.min() == pytest.approx(found["total_flops"], rel=1e-8)
    assert total.min() >= found["total_flops"] * (1 - 1e-12)
    assert np.exp(params[0, np.argmin(total)]) == pytest.approx(found["params"], rel=1e-3)
    assert found["params"] <= np.exp(start["params"][0, 0])


@pytest.fixture(scope="module")
def table(simulated):
    return simulated(noise=0.0005)


@pytest.mark.parametrize("bootstrap", [0, 400])
def test_intervals_hold_the_truth(table, bootstrap):
    served = frontier(fit(table, bootstrap=bootstrap), FrontierConfig(loss=3.0, served_tokens=1e9))["serving"]
    truth = numbers({"E": 2.1, "A": 0.7 * 4e5**0.4, "B": 1.2 * 2e6**0.45, "alpha": 0.4, "beta": 0.45}, 3.0, 1e9, 7.0)
    assert set(truth) < set(served)
    assert served["beyond"] > 1
    for name, value in truth.items():
        assert served[name]["low"] < value < served[name]["high"], name
    assert served["total_flops"]["value"] < served["optimal_total_flops"]


def test_a_loss_at_the_floor_is_refused_and_one_near_it_has_no_upper_end(table):
    result = fit(table, bootstrap=400)
    floor = result.estimates["E"]
    with pytest.raises(UserError, match=r"frontier.loss=2 is not above the fit's floor E = 2\.1.*: give a higher loss"):
        frontier(result, FrontierConfig(loss=2.0))
    # The floor's interval holds this loss: some simulated fits never reach it.
    served = frontier(result, FrontierConfig(loss=floor + 0.001, served_tokens=1e9))["serving"]
    assert np.isfinite(served["params"]["value"])
    assert served["params"]["low"] < served["params"]["value"]
    assert not np.isfinite(served["params"]["high"])


def test_the_terminal_shows_what_was_asked_for(table):
    config = FitConfig(runs="x", bootstrap=0, frontier=FrontierConfig([1e15, 1e12], 3.0, 1e9))
    report = study(as_table(table), config)
    console = Console(record=True, width=400)
    show(report, console)
    text = console.export_text()
    point = report["frontier"]["at"][0]
    assert (
        f"at 1e+15 FLOPs, {point['beyond']:.3g} times the most compute sampled: N* {point['params']['value']:.4g} ("
        in text
    )
    assert "at 1e+12 FLOPs: N* " in text
    assert "loss 3 with 1e+09 tokens served, " in text and " of the compute-optimal model" in text
    report["frontier"]["at"][1]["loss"] = {"value": 2.5, "low": 2.25, "high": None}
    report["frontier"]["at"][1]["params"] = {"value": 2e6, "low": None, "high": None}
    doubted = report | {"fit": report["fit"] | {"certificate": report["fit"]["certificate"] | {"certified": False}}}
    show(doubted, console)
    text = console.export_text()
    assert text.count(" (NOT certified)") == 3
    assert "N* 2e+06 (no interval)" in text and "L* 2.5 (2.25 to no upper end)" in text
