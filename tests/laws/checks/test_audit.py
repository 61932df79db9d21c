"""Estimates of others: at the minimum, short of it, without a floor, and where their optimiser began."""

import json

import numpy as np
import pandas as pd
import pytest

from harness.errors import UserError
from harness.laws import audit, fit

CHOICES = {"loss": "log_mse"}


def test_our_own_estimates_stand_and_rounding_for_print_does_not_matter(simulated):
    table = simulated(noise=0.002)
    result = fit(table, **CHOICES)
    judged = audit(table, "chinchilla", result.estimates, **CHOICES)
    assert judged.sound
    assert judged.objective == pytest.approx(result.objective, rel=1e-9)
    assert judged.gradient < 1e-6
    rounded = {name: float(f"{value:.4g}") for name, value in result.estimates.items()}
    assert audit(table, "chinchilla", rounded, **CHOICES).sound


@pytest.mark.parametrize("loss", ["huber", "lad", "log_mse", "mse"])
def test_the_objective_is_that_of_the_estimates(loss):
    """L = 1 + 8 / N + 8 / D at N and D of 1, 2, 4, 8, predicted as 17, 9, 5, 3 on the diagonal."""
    N, D = (part.ravel() for part in np.meshgrid([1.0, 2, 4, 8], [1.0, 2, 4, 8]))
    table = {"N": N, "D": D, "loss": (1 + 8 / N + 8 / D) * np.where(N == D, 1.01, 1.0)}
    judged = audit(
        table,
        "chinchilla",
        {"E": 1, "A": 8, "B": 8, "alpha": 1, "beta": 1},
        loss,
        params="N",
        tokens="D",
        target="loss",
        units={"params": 1},
    )
    # Four residuals of log 1.01 = .00995033; huber at 1e-3 is 1e-3 (.00995033 - .0005); mse: .17, .09, .05, .03.
    least = {"huber": 4e-3 * 0.00945033, "lad": 4 * 0.00995033, "log_mse": 4 * 0.00995033**2, "mse": 0.0404}
    assert judged.objective == pytest.approx(least[loss], rel=1e-5)


def test_estimates_short_of_the_minimum_and_at_a_start_are_named(simulated):
    start = {"E": 1.0, "A": 400.0, "B": 400.0, "alpha": 0.3, "beta": 0.3}
    judged = audit(simulated(noise=0.002), "chinchilla", start, starts=[{"E": 2.0}, start], **CHOICES)
    assert (judged.sound, judged.start) == (False, 1)
    assert judged.verdict[0] == (
        "They equal a start point of the optimiser (E = 1, A = 400, B = 400, alpha = 0.3, beta = 0.3): it did not move."
    )
    assert judged.verdict[1].startswith("They are not at the minimum: their objective is ")
    assert judged.gradient > 0.5


def test_terms_that_are_zero_are_named(simulated):
    table = simulated()
    estimates = fit(table, **CHOICES).estimates | {"E": 0.0, "B": 0.0}
    judged = audit(table, "chinchilla", estimates, **CHOICES)
    assert judged.vanished == ["E", "B"]
    assert "B is 0: that term has vanished from the law." in judged.verdict


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"E": None}, "audit: the estimates of chinchilla lack E: give E, A, B, alpha, beta as finite numbers"),
        ({"A": -1.0}, "audit: A=-1 is no value of chinchilla: give one above 0"),
        ({"alpha": 0.0}, "audit: alpha=0 is no value of chinchilla"),
    ],
)
def test_estimates_that_are_none_are_refused(simulated, change, message):
    estimates = {"E": 1.0, "A": 1.0, "B": 1.0, "alpha": 1.0, "beta": 1.0} | change
    given = {name: value for name, value in estimates.items() if value is not None}
    with pytest.raises(UserError, match=message):
        audit(simulated(), "chinchilla", given)


def gemstones(published, law, runs, delta):
    """A stored fit of Gemstones and its verdict; coefficients and floor are stored as logs, exponents first to last."""
    names = {"chinchilla": ("A", "B", "alpha", "beta"), "width_depth": ("A", "G", "B", "alpha", "gamma", "beta")}[law]
    kind = "parameters" if law == "chinchilla" else "width_depth"
    stored = json.loads((published / "gemstones" / "published_fits.json").read_text())
    entry = stored[f"parameters_delta-{delta}/approach_3_{kind}_grid_search_0_{runs}.json"]
    values = [*np.exp(entry["coefficients"]["0"]), *entry["exponents"]["0"]]
    estimates = dict(zip(names, values, strict=True)) | {"E": np.exp(entry["irreducible_error"]["0"])}
    columns = {"params": "params_active_precise", "target": "final_loss"}
    table = published / "gemstones" / f"runs_{runs}.csv"
    return entry["loss"]["0"], audit(table, law, estimates, delta=10.0**-delta, **columns)


def test_a_published_fit_that_had_not_converged_is_beaten(published):
    stored, judged = gemstones(published, "chinchilla", "cool_end", 4)
    assert judged.objective == pytest.approx(stored, abs=1e-10)
    assert judged.fit.certificate.certified
    assert judged.fit.objective == pytest.approx(2.0478e-4, abs=1e-8)
    assert judged.verdict == [
        "They are not at the minimum: their objective is 0.0002059406, 0.57% above the 0.0002047791 that is reached "
        "here, and the relative gradient is 3.1e-02 instead of 0."
    ]


def test_a_published_fit_without_a_floor_is_flagged(published):
    stored, judged = gemstones(published, "width_depth", "hot_100b+", 3)
    assert judged.objective == pytest.approx(stored, abs=1e-10)
    assert judged.vanished == ["E"]
    assert judged.verdict[0] == "E is 0: that term has vanished from the law."
    assert "Our own fit is not certified: E is at the lower bound 0." in judged.verdict


def test_published_estimates_that_never_moved_are_flagged(published):
    folder = published / "porian_isoflop"
    optima = pd.read_csv(folder / "optimal_pairs.csv").dropna()
    starts = [{"A": np.exp(5), "E": E, "alpha": 0.1} for E in (1.0, np.exp(0.5))]
    columns = {"params": "N_star", "tokens": "D_star", "target": "loss_star"}
    stuck = 0
    for stored in pd.read_csv(folder / "published_fits.csv").to_dict("records"):
        rows = optima[optima["config"] == stored["config"]]
        estimates = {name: stored[f"loss_fit_weighted_{name}"] for name in ("A", "E", "alpha")}
        judged = audit(rows, "kaplan_flops_floor", estimates, starts=starts, **columns)
        moved = stored["config"] == "rw|base|long|kaplan|standard|val"
        assert (judged.start is None) == moved
        stuck += judged.start is not None
        assert moved or "it did not move" in judged.verdict[0]
    assert stuck == 9
