"""Forecasts as runs, with the real client."""

import json

from sweep_files import write_cell, write_plan

from harness import tracking
from harness.tracking.forecasts import numbers
from harness.tracking.sync import sync

CELL = {
    "params": 3e6, "tokens": 3.6e6, "law": "chinchilla", "loss": 2.5, "certified": True, "growth": {"by_e": 0.01},
    "intervals": {"0.5": [2.48, 2.52], "0.95": [2.4, 2.6]},
}  # fmt: skip
CONTENT = {
    "schema": 1, "cells": [CELL, CELL | {"law": "kaplan_joint", "loss": 2.6}], "fit_sha256": "f1", "table_sha256": "7a",
    "code_version": "c0", "created": "2026-05-04T03:02:01+00:00",
}  # fmt: skip


def test_a_cell_is_flat():
    assert numbers(CELL) == {
        "params": 3e6, "tokens": 3.6e6, "law": "chinchilla", "loss": 2.5, "certified": True, "low_0.5": 2.48,
        "high_0.5": 2.52, "low_0.95": 2.4, "high_0.95": 2.6,
    }  # fmt: skip


def test_a_forecast_is_a_run_with_a_table_and_sync_knows_of_it(tmp_path, server):
    sweep_dir = tmp_path / "v"
    write_cell(sweep_dir, "a", range(3), "finished")
    write_plan(sweep_dir, ["a"])
    assert tracking.log_forecast(sweep_dir) == []  # there is none
    (sweep_dir / "forecasts").mkdir()
    (sweep_dir / "forecasts" / "20260504T030201Z-00ff.json").write_text(json.dumps(CONTENT))
    message, _ = tracking.log_forecast(sweep_dir)
    ((name, run),) = server.runs.items()
    assert message == f"W&B: the forecast at {server.url}/me/scaling/runs/{name}"
    assert (run.display_name, run.group) == ("v forecast 20260504T030201Z-00ff", "v")
    assert (run.job_type, run.state, run.settings["fit_sha256"]) == ("forecast", "finished", "f1")
    table = json.loads(server.artifacts[f"run-{name}-forecasts"].files["forecasts.table.json"])
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [(row["law"], row["loss"], row["low_0.95"]) for row in rows] == [
        ("chinchilla", 2.5, 2.4), ("kaplan_joint", 2.6, 2.4),
    ]  # fmt: skip
    assert sync(sweep_dir)[1]
    assert sorted(str(each.job_type) for each in server.runs.values()) == ["cell", "forecast", "plan"]
