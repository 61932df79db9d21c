"""Where the fitting losses disagree, the headline says so first and names the rows."""

from io import StringIO

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from harness.laws import by_loss, fit
from harness.laws.checks.agreement import disagreement, sentence
from harness.laws.checks.quality import quality
from harness.laws.settings import FitConfig
from harness.laws.study import study
from harness.laws.summary import show
from harness.laws.table.levels import budget_labels, shape_labels
from harness.laws.table.rows import Cells
from harness.laws.table.table import as_table


def found(frame):
    table = as_table(frame)
    fits = by_loss(table)
    rows = fits["log_mse"].rows
    cells = Cells(table, rows, shape_labels(table.frame, rows.params), budget_labels(rows.tokens))
    return disagreement(cells, list(fits.values()), quality(cells, fits["log_mse"])[0])


@pytest.mark.parametrize("factor", [3.0, 0.4])
@pytest.mark.parametrize("rows", [[14], [5, 27]])
def test_rows_that_split_the_losses_are_named(simulated, factor, rows):
    table = simulated(noise=0.001).drop(columns="trunk")
    table.loc[rows, "loss"] *= factor
    apart = found(table)
    assert sorted(apart["rows"]) == sorted(table["cell"][rows]) and apart["lie_off"]
    clean = fit(table.drop(index=rows), loss="huber").estimates[apart["of"]]
    assert apart["without"] == pytest.approx([clean, clean], abs=0.02)
    values = {entry["loss"]: entry["value"] for entry in apart["losses"]}
    assert (
        min(abs(value - clean) for value in values.values())
        < 0.05
        < max(abs(value - clean) for value in values.values())
    )
    said = sentence(apart)
    assert said.startswith("The fitting losses disagree") and f": {apart['of']} is " in said
    assert all(table["cell"][row] in said for row in rows)


def test_losses_that_agree_say_nothing(simulated):
    """Of 12 sweeps with gaussian noise none."""
    assert sentence(None) is None
    assert [seed for seed in range(12) if found(simulated(noise=0.002, seed=seed)) is not None] == []


def test_it_is_said_before_any_number(simulated):
    table = simulated(noise=0.001).drop(columns="trunk")
    table.loc[14, "loss"] *= 3
    report = study(as_table(table), FitConfig(runs="x", bootstrap=0))
    console = Console(file=StringIO(), width=1000, record=True)
    show(report, console)
    text = console.export_text()
    assert text.startswith("The fitting losses disagree")
    assert text.count(table["cell"][14]) >= 1 and text.count("The fitting losses disagree") == 1
    assert report["disagreement"]["rows"] == [table["cell"][14]]


OWN_C = pd.DataFrame([
    {"N": n, "D": d, "flops": c, "loss": 1.7 + 600 / c**0.12}
    for n in (1e6, 3e6, 1e7, 3e7, 1e8) for d in (1e8, 3e8, 1e9, 3e9, 1e10)
    for c in [6 * n * d * (1 + 4 * (1e6 / n) ** 0.5)]
])  # fmt: skip
LAW = {"law": "kaplan_flops_floor", "loss": "log_mse"}


def test_a_law_of_compute_is_taken_at_each_rows_own_compute():
    report = study(as_table(OWN_C), FitConfig(runs="x", bootstrap=0, law="kaplan_flops_floor"))
    assert [entry["name"] for entry in report["holdouts"]] == ["largest_shape", "largest_budget", "most_compute"]
    for entry in report["holdouts"]:
        assert entry["mean_relative_error"] < 1e-6 and entry["inside"] == entry["n_test"]
    assert max(abs(row["residual"]) for row in report["residuals"]) < 1e-6
    ranked = {entry["law"]: entry for entry in report["ranking"]}
    assert ranked["kaplan_flops_floor"]["mean_relative_error"] < 1e-6
    assert all(part["inside"] for entry in report["moves"] for part in [entry["alpha"]])
    # Along a shape's curve C / (N D) is the shape's own: 30 at N = 1e6, 6 (1 + 4 / 10) = 8.4 at 1e8.
    for band, ratio in ((report["bands"]["by_tokens"][0], 30.0), (report["bands"]["by_tokens"][-1], 8.4)):
        compute = ratio * band["params"] * np.array(band["tokens"])
        assert band["predicted"] == pytest.approx(1.7 + 600 / compute**0.12, rel=1e-6)


def test_predictions_at_a_compute_of_ones_own():
    result = fit(OWN_C, params="N", tokens="D", **LAW)
    assert result.predict(flops=1e18) == pytest.approx(1.7 + 600 / 1e18**0.12, rel=1e-6)
    # Without one, C is the rows' own multiple of N D.
    kappa = np.exp(np.log(OWN_C["flops"] / OWN_C["N"] / OWN_C["D"]).mean())
    assert result.predict(1e7, 1e9) == pytest.approx(1.7 + 600 / (kappa * 1e16) ** 0.12, rel=1e-6)
    low, high = result.predict_interval(flops=np.array([1e17, 1e18]))
    assert (low <= high).all() and low.shape == (2,)


def test_a_table_of_compute_alone_says_nothing_of_what_it_lacks():
    table = OWN_C[["flops", "loss"]].rename(columns={"flops": "C"}).drop_duplicates("C")
    report = study(as_table(table), FitConfig(runs="x", bootstrap=0, law="kaplan_flops_floor"))
    assert [entry["name"] for entry in report["holdouts"]] == ["most_compute"]
    assert report["holdouts"][0]["mean_relative_error"] < 1e-6
    assert report["seed_noise"] is report["lack_of_fit"] is report["fit"]["params"] is None
    assert report["residuals"][0]["params"] is report["residuals"][0]["tokens"] is None
    assert [entry["dropped"][:16] for entry in report["moves"]] == ["smallest compute"]
    assert report["quality"]["units"] == [] and report["quality"]["duplicates"]["count"] == 0
    assert not any(word in note for note in report["notes"] for word in ("seed", "budget", "params", "shape"))
    console = Console(file=StringIO(), width=200, record=True)
    show(report, console)
    assert "params_with_head" not in console.export_text()
    with pytest.raises(Exception, match="predict: kaplan_flops_floor needs flops too: give flops="):
        fit(table, **LAW).predict(1e6, 1e9)


@pytest.mark.parametrize(
    ("law", "column", "letter"), [("kaplan_params_floor", "N", "params"), ("kaplan_tokens_floor", "D", "tokens")]
)
def test_a_law_of_one_variable_needs_that_one_alone(law, column, letter):
    values = np.geomspace(1e6, 1e9, 12)
    table = pd.DataFrame({column: values, "loss": 2 + 50 / values**0.25})
    report = study(as_table(table), FitConfig(runs="x", bootstrap=0, law=law))
    assert report["fit"]["estimates"]["alpha"] == pytest.approx(0.25, abs=1e-6)
    assert report["source"]["columns"][letter] == column
    assert len(report["holdouts"]) == 1 and report["holdouts"][0]["mean_relative_error"] < 1e-6
