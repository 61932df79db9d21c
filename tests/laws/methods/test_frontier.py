"""The compute optimum against a search along the line of equal compute, and the points of it that a user names."""

import numpy as np
import pytest

from harness.errors import UserError
from harness.laws import fit
from harness.laws.methods.frontier import FrontierConfig, frontier, optimum
from harness.laws.settings import FitConfig, fit_config

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


def test_the_joint_law_has_its_optimum_where_a_search_finds_it():
    """Kaplan et al. 2020, table 2."""
    values = {"Nc": 6.4e13, "Dc": 1.8e13, "alpha": 0.076, "beta": 0.103}
    found = optimum({name: np.array([value]) for name, value in values.items()}, np.array([1e20]))
    params = float(np.exp(found["params"][0, 0])) * np.exp(np.linspace(-1, 1, 2001))
    loss = ((values["Nc"] / params) ** (0.076 / 0.103) + values["Dc"] / (1e20 / params)) ** 0.103
    assert np.argmin(loss) == 1000
    assert loss.min() == pytest.approx(float(np.exp(found["loss"][0, 0])), rel=1e-12)


@pytest.mark.parametrize(("law", "bootstrap"), [("chinchilla", 0), ("chinchilla", 200), ("kaplan_joint", 0)])
def test_points_that_are_named_lie_on_the_curve(simulated, law, bootstrap):
    result = fit(simulated(noise=0.001), law=law, loss="log_mse", bootstrap=bootstrap)
    curve = frontier(result)
    assert curve["at"] == [] and curve["serving"] is None
    flops = [curve["flops"][0], curve["flops"][40]]
    points = frontier(result, FrontierConfig(flops=flops))["at"]
    assert [point["flops"] for point in points] == flops
    assert points[1]["beyond"] == pytest.approx(4)
    for name in ("params", "tokens", "loss"):
        for key in ("value", "low", "high"):
            expected = [curve[name][key][0], curve[name][key][40]]
            assert [point[name][key] for point in points] == pytest.approx(expected)
    for point in points:
        ratio = point["tokens_per_param"]
        assert ratio["value"] == pytest.approx(point["tokens"]["value"] / point["params"]["value"])
        assert ratio["low"] < ratio["value"] < ratio["high"]


def test_the_truth_is_inside_the_intervals_far_beyond_the_rows(simulated):
    """A = .7 (4e5)^.4 and B = 1.2 (2e6)^.45, kappa 7; at 1e18 FLOPs, 4e4 times the most that was sampled."""
    point = frontier(fit(simulated(noise=0.0005), bootstrap=400), FrontierConfig(flops=1e18))["at"][0]
    product, A, B = 1e18 / 7, 0.7 * 4e5**0.4, 1.2 * 2e6**0.45
    params = (0.4 * A / (0.45 * B)) ** (1 / 0.85) * product ** (0.45 / 0.85)
    loss = 2.1 + A * params**-0.4 + B * (product / params) ** -0.45
    for name, truth in {"params": params, "tokens": product / params, "loss": loss}.items():
        assert point[name]["low"] < truth < point[name]["high"], name


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["frontier.flops=[1e15,-2]"], "frontier.flops=-2.0 is no compute: give FLOPs above 0"),
        (["frontier.flops=much"], "frontier.flops=much is no compute"),
        (["frontier.served_tokens=1e9"], "frontier.served_tokens needs frontier.loss"),
        (["frontier.served_tokens=-1", "frontier.loss=3"], "frontier.served_tokens=-1.0 is no number of tokens"),
        (["frontier.loss=0"], "frontier.loss=0.0 is no loss"),
        (["frontier.flops=1e15", "law=kaplan_flops"], "law=kaplan_flops has no compute optimum"),
        (["frontier.flop=1e15"], "there is no key frontier.flop; did you mean frontier.flops"),
    ],
)
def test_mistakes_are_told_before_any_work(arguments, sentence):
    with pytest.raises(UserError, match=sentence.replace("[", r"\[")):
        fit_config(["runs=nowhere", *arguments])


def test_flops_are_a_number_or_a_list():
    assert fit_config(["runs=x", "frontier.flops=1e15"]).frontier.budgets == [1e15]
    assert fit_config(["runs=x", "frontier.flops=[1e15,2000]"]).frontier.budgets == [1e15, 2000.0]
    assert FitConfig().frontier.budgets == []
