"""Forecasts from a table: their numbers, their files, and what is refused."""

import json
import runpy
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.errors import UserError
from harness.laws import fit
from harness.laws.forecast import check_place, forecast_config, of_table, read_fitted
from harness.laws.prediction.forecast import digest, lines, read, read_all, write
from harness.laws.prediction.growth import growth

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def table(tmp_path_factory, simulated) -> Path:
    path = tmp_path_factory.mktemp("foreign") / "their.csv"
    named = {"params_with_head": "N", "tokens": "D", "loss": "loss", "flops": "C"}
    simulated(noise=1e-3)[[*named]].rename(columns=named).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def config(table):
    given = ["columns.params=N", "columns.tokens=D", "columns.flops=C", "bootstrap=0"]
    return forecast_config([f"runs={table}", *given, "params=1e7", "tokens=[1e7,2e7]", f"out={table.parent}/f.json"])


@pytest.fixture(scope="module")
def content(config):
    return of_table(config)


def test_a_table_s_forecast_has_each_law_s_loss_and_wider_intervals(table, content):
    cells = content["cells"]
    whole = fit(pd.read_csv(table), loss="log_mse", params="N", tokens="D", flops="C")
    first = cells[0]
    assert (first["law"], first["params"], first["tokens"]) == ("chinchilla", 1e7, 1e7)
    assert first["loss"] == pytest.approx(float(whole.predict(1e7, 1e7)))
    # C is 7 N D, and the most of the table that of its largest shape and budget
    most = 7.0 * pd.read_csv(table)["N"].max() * pd.read_csv(table)["D"].max()
    assert first["beyond"] == pytest.approx(7e14 / most) and first["beyond"] > 1
    by_e = growth(whole.rows, whole.columns, "chinchilla", "log_mse", 1e-3).by_e
    low, high = (float(end) for end in whole.predict_interval(1e7, 1e7, 0.95))
    half = np.hypot(np.log(high / first["loss"]), 1.959964 * by_e * np.log(first["beyond"]))
    assert first["intervals"]["0.95"][1] == pytest.approx(first["loss"] * np.exp(half))
    ends = [first["intervals"][level][0] for level in ("0.95", "0.9", "0.5")]
    assert ends == sorted(ends) and ends[0] < low and ends[2] < first["loss"]
    assert {"chinchilla", "chinchilla_tied"} <= {cell["law"] for cell in cells}
    assert {cell["tokens"] for cell in cells} == {1e7, 2e7}
    assert content["fit_sha256"] is None and content["table_sha256"] is not None


def test_what_is_printed_has_a_row_a_law_and_says_how_far_it_is(content):
    printed = lines(content)
    assert printed[0].startswith("1e+07 params, 1e+07 tokens: ")
    assert printed[0].endswith("the most compute of the table")
    assert printed[1].split() == ["loss", "50", "%", "90", "%", "95", "%"]
    first = content["cells"][0]
    assert printed[2].split()[:2] == ["chinchilla", f"{first['loss']:.3f}"]
    far = [cell | {"beyond": 2e3} for cell in content["cells"]]
    (said,) = {line for line in lines(content | {"cells": far[:1]}) if "1000 times" in line}
    low, high = first["intervals"]["0.95"]
    assert said.endswith(f"a guess, said with its 95 % interval of {low:.3f} to {high:.3f}")


def test_a_file_is_named_by_its_time_and_content_and_refused_once_changed(tmp_path, content):
    path = write(content | {"created": "2026-05-04T03:02:01+00:00"}, None, tmp_path / "forecasts")
    assert path.name == f"20260504T030201Z-{digest(path.read_bytes())}.json" and len(digest(b"")) == 16
    assert [found for found, _ in read_all(tmp_path)] == [path]
    assert read(path)["cells"] == json.loads(json.dumps(content["cells"]))
    path.write_text(path.read_text().replace('"loss": ', '"loss":  ', 1))
    with pytest.raises(UserError, match=f"^{path} is not what was forecast: its content has the hash "):
        read_all(tmp_path)


def test_the_script_writes_what_it_says(table, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "check_environment", types.ModuleType("check_environment"))
    main = runpy.run_path(str(ROOT / "scripts" / "forecast.py"))["main"]
    out = tmp_path / "f.json"
    given = [f"runs={table}", "columns.params=N", "columns.tokens=D", "columns.flops=C", "bootstrap=0"]
    assert main([*given, "params=1e9", "tokens=2e10", f"out={out}"]) == 0
    written = json.loads(out.read_text())
    assert written["cells"][0]["params"] == 1e9 and written["schema"] == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == f"written to {out}" and any("a guess, said with its" in line for line in printed)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["tokens=1e6"], "shape and params are both missing: a sweep takes shape=w256-d4"),
        (["shape=w8-d1", "params=1e6", "tokens=1e6"], "shape and params are both given: "),
        (["shape=w8", "tokens=1e6"], "shape=w8 is not a shape: write w64-d4"),
        (["params=1e6"], "tokens has no value: give a number"),
        (["params=[1e6,x]", "tokens=1e6"], "params=x is not a number above 0"),
        (["params=1e6", "tokens=[]"], "tokens=\\[\\] names nothing to forecast"),
        (["params=1e6", "tokens=1e6", "train=true"], "train=true needs shape="),
    ],
)
def test_a_command_that_names_no_cell_is_refused(table, given, said):
    with pytest.raises(UserError, match=f"^{said}"):
        forecast_config([f"runs={table}", *given])


def test_keys_of_a_sweep_and_of_a_table_are_told_apart(table, sweep):
    with pytest.raises(UserError, match="is no folder of a sweep, which shape= needs"):
        forecast_config([f"runs={table}", "shape=w8-d1", "tokens=1e6"]).of_sweep()
    with pytest.raises(UserError, match="is a sweep, whose params follow from its shape"):
        forecast_config([f"runs={sweep}", "params=1e6", "tokens=1e6"]).of_sweep()
    with pytest.raises(UserError, match="^bootstrap is a key of another table"):
        forecast_config([f"runs={sweep}", "shape=w8-d1", "tokens=1e6", "bootstrap=0"]).of_sweep()
    with pytest.raises(UserError, match="^out has no value"):
        check_place(forecast_config([f"runs={table}", "params=1e6", "tokens=1e6"]), own=False)


def test_a_sweep_without_a_fit_or_with_a_stale_one_is_refused(sweep):
    with pytest.raises(UserError, match="has no fit.json: fit it first, by `python scripts/fit.py runs="):
        read_fitted(sweep)
    choices = {"law": "chinchilla", "loss": "log_mse", "delta": 1e-3, "bootstrap": 0, "seed": 0}
    study = {"source": {"sha256": "0", "columns": {}, "filter": ""}, "choices": choices, "ranking": []}
    (sweep / "fit.json").write_text(json.dumps(study))
    with pytest.raises(UserError, match="fit.json is none that this version reads"):
        read_fitted(sweep)
    (sweep / "fit.json").write_text(json.dumps(study | {"fit": {"estimates": {}}}))
    with pytest.raises(UserError, match="runs.csv has changed since fit.json was made: fit it first"):
        read_fitted(sweep)
