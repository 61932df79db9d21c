"""The comparison of a sweep's variants as a run, with the real client."""

import json

from sweep_files import KEY, write_cell, write_plan
from wandb_files import read_run
from wandb_server import WandbServer

from harness import tracking
from harness.tracking.comparisons import numbers
from harness.tracking.sync import sync


def ends(estimate, low, high):
    return {"estimate": estimate, "low": low, "high": high}


ENTRY = {
    "multiplier": {"equal_tokens": ends(1.3, 1.2, 1.4), "equal_flops": ends(1.2, 1.1, 1.3), "equal_time": None},
    "params": ends(1.0, 0.9, 1.1),
    "tokens": ends(1.3, 1.25, 1.35),
    "per_decade": None,
    "exponents_shared": {"p": 0.4},
    "neutral": {"p": None},
}
COMPARISON = {
    "law": "chinchilla",
    "baseline": "adamw",
    "column": "optimizer",
    "shared": ["E", "alpha", "beta"],
    "certificate": {"certified": True},
    "variants": {"muon": ENTRY, "lion": ENTRY | {"per_decade": ends(1.0, 0.8, 1.2)}},
    "choices": {"bootstrap": 200},
    "source": {"sha256": "1f"},
    "versions": {"scipy": "1"},
}


def write_comparison(sweep_dir):
    write_cell(sweep_dir, "a", range(3), "finished")
    (sweep_dir / "compare.json").write_text(json.dumps(COMPARISON))


def test_the_numbers_of_a_variant_are_flat():
    assert numbers(ENTRY) == {
        "equal_tokens": 1.3, "equal_tokens_low": 1.2, "equal_tokens_high": 1.4, "equal_flops": 1.2,
        "equal_flops_low": 1.1, "equal_flops_high": 1.3, "params": 1.0, "params_low": 0.9, "params_high": 1.1,
        "tokens": 1.3, "tokens_low": 1.25, "tokens_high": 1.35, "exponents_shared_p": 0.4, "neutral_p": None,
    }  # fmt: skip


def test_the_comparison_is_a_run_with_a_table(tmp_path, server):
    sweep_dir = tmp_path / "v"
    write_comparison(sweep_dir)
    assert tracking.log_fit(sweep_dir) == []  # there is none
    message, _ = tracking.log_comparison(sweep_dir)
    ((name, run),) = server.runs.items()
    assert message == f"W&B: the comparison at {server.url}/me/scaling/runs/{name}"
    assert (run.display_name, run.group, run.job_type, run.state) == ("v compare", "v", "compare", "finished")
    assert (run.summary["muon/equal_flops"], run.summary["muon/equal_flops_low"]) == (1.2, 1.1)
    assert run.summary["lion/per_decade_high"] == 1.2 and run.summary["certified"] is True
    assert run.settings["source"] == {"sha256": "1f"} and run.settings["baseline"] == "adamw"
    table = json.loads(server.artifacts[f"run-{name}-multipliers"].files["multipliers.table.json"])
    assert table["columns"][:4] == ["variant", "baseline", "equal_tokens", "equal_tokens_low"]
    assert [row[:4] for row in table["data"]] == [["muon", "adamw", 1.3, 1.2], ["lion", "adamw", 1.3, 1.2]]
    place = table["columns"].index("per_decade")
    assert [row[place] for row in table["data"]] == [None, 1.0]


def test_a_comparison_that_is_kept_offline_is_sent_by_sync(tmp_path, monkeypatch):
    sweep_dir = tmp_path / "v"
    write_comparison(sweep_dir)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        server.fault = 403
        assert tracking.log_comparison(sweep_dir) == [
            f"W&B: the comparison not uploaded (the API key was refused); `python scripts/sync.py runs={sweep_dir}` "
            "uploads what is kept"
        ]
    (kept,) = (sweep_dir / "wandb").glob("offline-run-*")
    assert read_run(next(kept.glob("*.wandb"))).summary["muon/tokens"] == 1.3
    write_plan(sweep_dir, ["a"])
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        assert sync(sweep_dir)[1]
        assert sorted(str(run.job_type) for run in server.runs.values()) == ["cell", "compare", "plan"]
