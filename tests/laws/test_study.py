import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console

from harness.errors import UserError
from harness.laws import fit
from harness.laws.methods.frontier import frontier, optimum
from harness.laws.methods.kaplan import envelope
from harness.laws.prediction.holdout import additive_prediction
from harness.laws.settings import FitConfig, fit_config
from harness.laws.study import study, write_study
from harness.laws.summary import show
from harness.laws.table.levels import budget_labels, grouped, shape_labels
from harness.laws.table.rows import Cells, Columns, read_rows
from harness.laws.table.table import as_table, read_runs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def report(simulated):
    return study(as_table(simulated(noise=0.001)), FitConfig(runs="the table", bootstrap=400))


def numbers(value):
    """Every number in nested dictionaries and lists."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers(part)
    elif isinstance(value, float | int):
        yield value


def test_the_report_is_complete_and_finite(report):
    assert list(report) == [
        "schema",
        "source",
        "choices",
        "versions",
        "fit",
        "by_loss",
        "disagreement",
        "by_params",
        "by_text",
        "accounting",
        "kaplan",
        "approaches",
        "frontier",
        "seed_noise",
        "validation_text",
        "lack_of_fit",
        "by_noise",
        "noise",
        "holdouts",
        "ranking",
        "recommended",
        "combination",
        "moves",
        "residuals",
        "quality",
        "bands",
        "notes",
    ]
    assert report["source"]["rows"] == report["source"]["rows_used"] == 32
    assert [entry["loss"] for entry in report["by_loss"]] == ["huber", "lad", "log_mse", "mse"]
    counts = ["params_with_head", "params_total", "params_non_embedding"]
    assert [entry["params"] for entry in report["by_params"]] == counts
    assert all(np.isfinite(number) for number in numbers(report))
    json.dumps(report, allow_nan=False)


def test_headline(report):
    head = report["fit"]
    assert head["certificate"]["certified"]
    for key, truth in {"alpha": 0.4, "beta": 0.45, "E": 2.1}.items():
        low, high = head["intervals"][key]
        assert low < truth < high
    assert "normal noise of trunks and of cells" in head["interval_method"]
    assert report["noise"]["trunk_sd"] == pytest.approx(0.0007, abs=0.0006)
    assert report["noise"]["cell_sd"] == pytest.approx(0.0007, abs=0.0003)
    assert report["seed_noise"]["degrees_of_freedom"] == 8
    assert report["seed_noise"]["sd_relative"] == pytest.approx(0.001, abs=0.0008)


def test_no_number_is_cut_short_in_a_narrow_terminal(report):
    console = Console(record=True, width=40, file=StringIO())
    show(report, console)
    text = console.export_text()
    assert "…" not in text
    head = report["fit"]
    for key in ("alpha", "beta", "a", "E"):
        low, high = head["intervals"][key]
        assert f" {head['estimates'][key]:.3f} {low:.3f}-{high:.3f}" in text
    assert text.index("recommended: chinchilla: chinchilla predicts held-out cells best, to 0.") > 0
    assert console.width == 40


def test_a_sweep_states_the_law_of_its_headline(sweep):
    plan = yaml.safe_load((sweep / "sweep.yaml").read_text())
    (sweep / "sweep.yaml").write_text(yaml.safe_dump(plan | {"law": "chinchilla_coupled"}))
    found = write_study(FitConfig(runs=str(sweep), bootstrap=0))
    assert found["choices"]["law"] == found["fit"]["law"] == "chinchilla_coupled"
    console = Console(record=True, width=120, file=StringIO())
    show(found, console)
    additive = next(entry for entry in found["ranking"] if entry["law"] == "chinchilla")
    assert f"by chinchilla, the additive law: a {additive['a']['value']:.3f} (" in console.export_text()
    other = write_study(FitConfig(runs=str(sweep), bootstrap=0, law="chinchilla"))
    assert other["choices"]["law"] == "chinchilla"
    assert other["fit"]["estimates"]["a"] == additive["a"]["value"]


def test_frontier_by_hand():
    """With A = B and alpha = beta = 1/2, N* = D* = sqrt(C / kappa) and L* = E + 2 A / (C / kappa)^(1/4)."""
    natural = {"E": 1.0, "A": 10.0, "B": 10.0, "alpha": 0.5, "beta": 0.5, "a": 0.5}
    best = optimum({key: np.array([value]) for key, value in natural.items()}, np.array([1e16]))
    assert np.exp(best["params"][0, 0]) == pytest.approx(1e8)
    assert np.exp(best["tokens"][0, 0]) == pytest.approx(1e8)
    assert np.exp(best["loss"][0, 0]) == pytest.approx(1 + 20 / 1e4)


def test_frontier_is_the_minimum_over_params(simulated):
    result = fit(simulated(), loss="log_mse")
    curve = frontier(result)
    assert curve["flops_per_product"] == pytest.approx(7)
    for index in (0, 20, 40):
        flops, params = curve["flops"][index], curve["params"]["value"][index]
        losses = [float(result.predict(params * f, flops / 7 / (params * f))) for f in (0.9, 1, 1.1)]
        assert losses[1] == min(losses) == pytest.approx(curve["loss"]["value"][index])
        coefficient, exponent = curve["equations"]["params"]
        assert coefficient * flops**exponent == pytest.approx(params)
        coefficient, exponent = curve["equations"]["tokens"]
        assert coefficient * flops**exponent == pytest.approx(flops / 7 / params)
    assert frontier(fit(simulated(), law="kaplan_flops")) is None


def test_frontier_intervals_hold_the_curve(report):
    for name in ("params", "tokens", "loss"):
        part = report["frontier"][name]
        low, value, high = (np.array(part[key]) for key in ("low", "value", "high"))
        assert ((low < value) & (value < high)).all()


def test_holdouts(report):
    largest, longest, most = report["holdouts"]
    assert (largest["name"], largest["n_train"], largest["n_test"]) == ("largest_shape", 28, 4)
    assert {(row["width"], row["depth"]) for row in largest["rows"]} == {(128, 4)}
    assert (longest["name"], longest["n_train"], longest["n_test"]) == ("largest_budget", 24, 8)
    assert {row["tokens"] for row in longest["rows"]} == {4e6}
    assert (most["name"], most["n_train"], most["n_test"]) == ("most_compute", 26, 6)
    assert min(row["flops"] for row in most["rows"]) == pytest.approx(sorted(_flops())[-6])
    for entry in report["holdouts"]:
        assert entry["mean_relative_error"] < 0.005
        assert entry["mean_relative_error"] < entry["competitor_mean_relative_error"] / 3
        assert entry["certified"]
        assert entry["inside"] == sum(row["low"] <= row["loss"] <= row["high"] for row in entry["rows"])
        for row in entry["rows"]:
            assert row["relative_error"] == pytest.approx(row["predicted"] / row["loss"] - 1)
            assert row["low"] < row["predicted"] < row["high"]


def _flops():
    shapes = ((48, 2), (48, 4), (64, 3), (80, 4), (96, 4), (128, 4), (48, 2), (48, 4))
    return [7 * (12 * w * w * d + 1024 * w) * tokens for w, d in shapes for tokens in (1e6, 1.6e6, 2.5e6, 4e6)]


def test_the_competitor_is_exact_on_its_own_ground(simulated):
    """log L = 1 - .1 log N - .05 log D is an additive table whose effects are straight lines."""
    table = simulated()
    table["loss"] = np.exp(1 - 0.1 * np.log(table["params_with_head"]) - 0.05 * np.log(table["tokens"]))
    rows = read_rows(as_table(table), Columns(), "chinchilla")
    shapes, budgets = shape_labels(table, rows.params), budget_labels(rows.tokens)
    for train in (shapes < 5, budgets < 3, rows.flops < np.median(rows.flops)):
        assert additive_prediction(rows, shapes, budgets, train) == pytest.approx(rows.loss)
    assert additive_prediction(rows, shapes, np.arange(32), shapes < 5) == pytest.approx(rows.loss)


def test_the_competitor_keeps_measured_effects(simulated):
    """A budget effect that is no straight line is taken as measured; an unseen shape's is the line's."""
    table = simulated()
    bump = table["tokens"].map({1e6: 0.3, 1.6e6: 0.0, 2.5e6: 0.2, 4e6: 0.1})
    table["loss"] = np.exp(1 - 0.1 * np.log(table["params_with_head"]) + bump)
    rows = read_rows(as_table(table), Columns(), "chinchilla")
    shapes, budgets = shape_labels(table, rows.params), budget_labels(rows.tokens)
    assert additive_prediction(rows, shapes, budgets, shapes < 5) == pytest.approx(rows.loss)


def test_moves(report):
    width, budget = report["moves"]
    assert (width["dropped"], width["rows"]) == ("smallest width 48", 16)
    assert (budget["dropped"], budget["rows"]) == ("smallest budget, 1e+06 tokens", 24)
    for key in ("alpha", "beta", "a"):
        part = budget[key]
        assert part["move"] == pytest.approx(part["value"] - report["fit"]["estimates"][key])
        assert part["low"] < 0 < part["high"]
        assert part["inside"] == (part["low"] <= part["move"] <= part["high"])


def test_a_cell_outside_the_regime_moves_the_exponents(simulated):
    table = simulated(noise=0.0005)
    table.loc[table["tokens"] == 1e6, "loss"] *= 1.02
    moves = study(as_table(table), FitConfig(runs="x", bootstrap=0))["moves"]
    assert not moves[1]["beta"]["inside"]


def test_kaplan_uses_the_rows_that_do_not_bind(report, simulated):
    assert {key: entry["rows"] for key, entry in report["kaplan"].items()} == {
        "params": 8,
        "tokens": 4,
        "flops": report["kaplan"]["flops"]["rows"],
    }
    table = pd.DataFrame(
        {
            "params_with_head": [1.0, 2, 3, 4, 5],
            "tokens": [1.0, 1, 1, 1, 1],
            "flops": [1.0, 2, 2, 3, 4],
            "loss": [5.0, 4, 3, 3.5, 2],
        }
    )
    rows = read_rows(as_table(table), Columns(), "chinchilla")
    keep, _ = envelope(Cells(as_table(table), rows, np.arange(5), np.zeros(5, int)))
    assert keep.tolist() == [True, False, True, False, True]


def test_levels():
    frame = pd.DataFrame({"width": ["64", "48", "48"], "depth": ["2", "4", "2"]})
    assert shape_labels(frame, np.array([3e5, 2e5, 1e5])).tolist() == [2, 1, 0]
    assert shape_labels(pd.DataFrame(), np.array([3e5, 1e5, 3e5])).tolist() == [1, 0, 1]
    assert grouped(np.geomspace(1, 1.21, 1000), np.log(1.1)).max() == 1
    assert budget_labels(np.array([4.01e6, 1e6, 3.99e6, 1.002e6])).tolist() == [1, 0, 1, 0]


def test_a_foreign_table_without_compute_trunks_or_grid(tmp_path):
    generator = np.random.default_rng(0)
    N, D = np.exp(generator.uniform(np.log([1e7, 1e9]), np.log([1e9, 1e11]), (50, 2))).T
    loss = (1.8 + 400 / N**0.34 + 2000 / D**0.37) * np.exp(0.003 * generator.standard_normal(50))
    pd.DataFrame({"N": N, "D": D, "L": loss}).to_csv(tmp_path / "t.csv", index=False)
    arguments = ["columns.params=N", "columns.tokens=D", "columns.target=L", "bootstrap=200"]
    config = fit_config([f"runs={tmp_path / 't.csv'}", *arguments])
    report = write_study(config)
    assert json.loads((tmp_path / "t.fit.json").read_text()) == report
    assert "wild bootstrap" in report["choices"]["interval_method"]
    assert [entry["params"] for entry in report["by_params"]] == ["N"]
    assert report["kaplan"]["params"] is None
    assert report["seed_noise"] is None
    notes = " ".join(report["notes"])
    for part in ("C = 6 N D", "rows count as independent", "Kaplan's law in params is left out"):
        assert part in notes
    assert len(report["bands"]["by_tokens"]) == 12


def test_notes_name_what_a_reader_must_know(simulated):
    table = simulated(noise=0.001).assign(epochs=1.0)
    table.loc[0, "epochs"] = 2.0
    table["loss"] = table["params_with_head"] ** -0.2 * table["tokens"] ** -0.05 * 50
    report = study(as_table(table), FitConfig(runs="x", bootstrap=200, filter="seed==0"))
    notes = " ".join(report["notes"])
    assert "The fit is not certified: E is at the lower bound 0" in notes
    assert "repeat their data" in notes
    assert "8 rows are left out" in notes
    assert report["source"]["excluded"][0] == {"cell": "w48-d2-t1e+06-s1", "why": "filter seed==0"}
    console = Console(record=True, width=140)
    show(report, console)
    assert "NOT certified: E is at the lower bound 0" in console.export_text()


def test_a_small_table_leaves_out_what_it_cannot_check(simulated):
    table = simulated(noise=0.001)
    table = table[table["width"].isin([48, 64]) & (table["tokens"] < 3e6) & (table["seed"] == 0)]
    report = study(as_table(table), FitConfig(runs="x", bootstrap=0))
    assert [entry["name"] for entry in report["holdouts"]] == ["most_compute"]
    assert report["moves"] == []
    notes = " ".join(report["notes"])
    assert "hold-out largest_shape is left out" in notes
    assert "Under this law 3 trunks do not show what their cells share, so the intervals allow any share" in notes
    assert report["noise"]["trunk_sd"] is None and report["noise"]["cell_sd"] > 0
    assert "the move without the smallest width 48 is left out" in notes


def test_a_large_table_leaves_out_what_grows_with_its_square(simulated, monkeypatch):
    monkeypatch.setattr("harness.laws.study.MANY_ROWS", 10)
    report = study(as_table(simulated(noise=0.001)), FitConfig(runs="x"))
    assert report["notes"][1] == (
        "The table has 32 rows: intervals come from the curvature, every 4th residual is listed, and hold-outs, "
        "moves, ranking and approaches are left out; filter= to 10 rows or fewer gives them."
    )
    assert len(report["residuals"]) == 8
    assert report["holdouts"] == report["moves"] == report["ranking"] == []
    assert report["choices"]["bootstrap"] == 0
    assert report["fit"]["intervals"]["a"][0] < 0.45 / 0.85 < report["fit"]["intervals"]["a"][1]


def test_texts_reach_the_configuration_as_they_are():
    config = fit_config(["runs=/a b/it's,=(1).csv", "filter=width>=48 and schedule=='wsd'", "columns.target=eval/c4 x"])
    assert config.runs == "/a b/it's,=(1).csv"
    assert config.filter == "width>=48 and schedule=='wsd'"
    assert config.columns.target == "eval/c4 x"
    assert fit_config(["runs='quoted'", "out=null", "bootstrap=300"]).runs == "quoted"


def run_script(*arguments, cwd=ROOT):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "scripts" / "fit.py"), *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def test_script_writes_and_prints(sweep):
    done = run_script(f"runs={sweep}", "bootstrap=400", "verbose=true")
    assert done.returncode == 0, done.stderr
    report = json.loads((sweep / "fit.json").read_text())
    assert report["source"]["path"] == str(sweep / "runs.csv")
    assert report["choices"]["bootstrap"] == 400
    assert f"{report['fit']['estimates']['alpha']:.3f}" in done.stdout
    for part in ("hold-out: the largest shape", "without the smallest width 48", "certified: gradient"):
        assert part in done.stdout


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("runs=/nowhere", "runs=/nowhere does not exist"),
        ("bogus=1", "there is no key bogus"),
        ("bootstrap=many", "bootstrap"),
        ("columns.params=width_of_it", "no column 'width_of_it'"),
    ],
)
def test_script_refuses_in_one_sentence(sweep, argument, message):
    done = run_script(f"runs={sweep}", argument)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not (sweep / "fit.json").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"params_with_head,tokens,loss\n1,2,3\n1,2,nan\n",
            "row 3, column loss: 'nan' is not a positive number between",
        ),
        (b"params_with_head,tokens,loss\n1,2,3\n", "has 1 usable row, and chinchilla needs at least 6: add runs"),
        ("params_with_head,tokens\n1,2\n".encode("utf-16-le"), "holds a zero byte after 1 characters: save it as"),
    ],
)
def test_script_refuses_a_bad_table_in_one_sentence(tmp_path, content, message):
    path = tmp_path / "runs.csv"
    path.write_bytes(content)
    done = run_script(f"runs={path}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {path}") and message in done.stderr
    assert done.stderr.count("\n") == 1


def test_configurations_that_cannot_be(sweep):
    with pytest.raises(UserError, match="runs has no value"):
        fit_config([])
    with pytest.raises(UserError, match="columns.params is empty"):
        fit_config(["runs=x", "columns.params="])
    with pytest.raises(UserError, match="is not a file in an existing folder"):
        write_study(FitConfig(runs=str(sweep), out=str(sweep / "none" / "fit.json")))
    with pytest.raises(UserError, match="out=/proc/fit.json lies in a folder that cannot be written to"):
        write_study(FitConfig(runs=str(sweep), out="/proc/fit.json"))
    assert read_runs(sweep).rows_read == 32
