"""The fitted E beside the loss of the best predictor."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from harness.errors import UserError
from harness.laws import fit
from harness.laws.checks.floor import by_floor, sentence
from harness.laws.settings import FitConfig
from harness.laws.study import study
from harness.laws.summary import show, show_briefly
from harness.laws.table.pool import read_sources
from harness.laws.table.table import as_table, read_runs

# Of the table that is simulated, with an E of 2.1.
KNOWN = {"nats": 2.1, "expected": 2.09}


def of_sweep(path, frame, floor=KNOWN):
    path.mkdir()
    frame = frame.assign(cell=[f"c{number}" for number in range(len(frame))])
    frame.to_csv(path / "runs.csv", index=False)
    content = {"schema": 1, "sweep": path.name, "cells": [{"cell": cell} for cell in frame["cell"]]}
    (path / "sweep.yaml").write_text(json.dumps(content | ({} if floor is None else {"floor": floor})))
    return path


def test_the_truth_is_inside_and_a_floor_below_is_not(simulated):
    frame = simulated(noise=0.001)
    fitted, table = fit(frame, loss="log_mse", bootstrap=0), as_table(frame)
    found = by_floor(fitted, replace(table, floor=KNOWN))
    low, high = fitted.intervals["E"]
    assert low < 2.1 < high
    assert found == {
        "known": 2.1, "expected": 2.09, "estimate": fitted.estimates["E"], "low": low, "high": high, "inside": True,
        "certified": True,
    }  # fmt: skip
    assert by_floor(fitted, replace(table, floor=KNOWN | {"nats": low - 1e-6}))["inside"] is False
    assert by_floor(fitted, table) is None


def test_bits_and_other_texts_have_another_floor(simulated):
    frame = simulated(noise=0.001)
    frame = frame.assign(loss_code=frame["loss"] + 0.5)
    fitted = fit(frame, loss="log_mse", bootstrap=0, target="loss_code")
    assert by_floor(fitted, replace(as_table(frame), floor=KNOWN)) is None


def test_its_line_says_how_it_ended():
    found = {"known": 1.21341, "estimate": 1.22, "low": 1.19, "high": 1.25, "inside": True, "certified": True}
    assert sentence(found) == "known floor: 1.2134 nats; E 1.2200 (1.1900 to 1.2500): inside"
    assert sentence(found | {"inside": False}) == "known floor: 1.2134 nats; E 1.2200 (1.1900 to 1.2500): OUTSIDE"
    none = found | {"low": None, "high": None, "inside": None}
    assert sentence(none) == "known floor: 1.2134 nats; E 1.2200 (no interval)"
    assert sentence(found | {"certified": False}) == "known floor: 1.2134 nats; E 1.2200 (that fit is not certified)"
    assert sentence(None) == ""


def test_a_sweep_states_it_and_its_study_prints_it(simulated, tmp_path):
    frame = simulated(noise=0.001)
    path = of_sweep(tmp_path / "mine", frame)
    found = study(read_runs(path), FitConfig(runs=str(path), bootstrap=0))
    assert found["floor"]["known"] == 2.1 and found["floor"]["inside"] is True
    for shown in (show, lambda content, console: show_briefly(content, console, "mine")):
        console = Console(file=io.StringIO(), width=100)
        shown(found, console)
        assert "\nknown floor: 2.1000 nats; E 2." in console.file.getvalue()
    assert read_runs(of_sweep(tmp_path / "other", frame, None)).floor is None


def test_pooled_sweeps_keep_a_floor_that_is_one(simulated, tmp_path):
    frame = simulated(noise=0.001)
    for name, floor in (("a", KNOWN), ("b", KNOWN), ("c", KNOWN | {"nats": 2.2})):
        of_sweep(tmp_path / name, frame, floor)
    assert read_sources(f"{tmp_path}/a,{tmp_path}/b").floor == KNOWN
    assert read_sources(f"{tmp_path}/a,{tmp_path}/c").floor is None


def test_a_floor_that_is_none_is_refused(simulated, tmp_path):
    path = of_sweep(tmp_path / "mine", simulated(), {"nats": "low", "expected": 2.0})
    with pytest.raises(UserError, match=r"sweep.yaml states the floor .* which is none: issue the sweep again"):
        read_runs(path)
