"""The fit of a sweep as a run, with the real client."""

import json

from sweep_files import FIT, KEY, write_fit
from wandb_files import read_run
from wandb_server import WandbServer

from harness import tracking
from harness.tracking.fits import exponents, summary_of


def test_the_summary_of_a_fit_is_flat():
    assert summary_of(FIT) == {
        "law": "chinchilla", "rows": 2, "certified": True, "E": 1.8, "alpha": 0.4, "beta": 0.5, "a": 0.556,
        "alpha_low": 0.35, "alpha_high": 0.45, "largest_shape/mean_relative_error": 0.003,
        "largest_shape/competitor_mean_relative_error": 0.02,
    }  # fmt: skip


def test_the_exponents_under_every_count_are_one_table():
    assert exponents(FIT) == {
        "params": ["params_with_head", "params_total"], "loss": ["log_mse"] * 2, "law": ["chinchilla"] * 2,
        "certified": [True, False], "alpha": [0.4, 0.5], "alpha_low": [0.35, None], "alpha_high": [0.45, None],
    }  # fmt: skip
    assert exponents({"fit": FIT["fit"]}) == {}


def test_the_exponents_on_every_text_are_in_it():
    of_texts = [FIT["by_params"][0] | {"target": name} for name in ("loss", "loss_code")]
    of_all = FIT | {"by_params": [FIT["by_params"][0] | {"target": "loss"}], "by_text": of_texts}
    found = exponents(of_all)
    assert [*found][:5] == ["params", "loss", "law", "target", "certified"]
    assert (found["target"], found["alpha"]) == (["loss", "loss", "loss_code"], [0.4] * 3)


def test_the_fit_is_a_run_with_figures_table_and_artifact(tmp_path, server):
    sweep_dir = tmp_path / "cpu"
    write_fit(sweep_dir)
    message, _ = tracking.log_fit(sweep_dir)
    ((name, run),) = server.runs.items()
    assert message == f"W&B: the fit at {server.url}/me/scaling/runs/{name}"
    assert (run.display_name, run.group, run.job_type, run.state) == ("cpu fit", "cpu", "fit", "finished")
    assert (run.summary["alpha"], run.summary["alpha_low"], run.summary["certified"]) == (0.4, 0.35, True)
    assert [path for path in run.uploads if path.startswith("media/images/figures/frontier")]
    assert server.artifacts["cpu-runs"].type == "run-table"
    assert server.artifacts["cpu-runs"].state == "COMMITTED"
    assert server.artifacts["cpu-runs"].files["runs.csv"] == (sweep_dir / "runs.csv").read_bytes()
    table = json.loads(server.artifacts[f"run-{name}-runs"].files["runs.table.json"])
    assert table["columns"] == ["cell", "width", "loss"]
    assert table["data"] == [["a", 64, 4.5], ["b", 96, None]]
    table = json.loads(server.artifacts[f"run-{name}-exponents"].files["exponents.table.json"])
    assert table["data"][0] == ["params_with_head", "log_mse", "chinchilla", True, 0.4, 0.35, 0.45]


def test_the_fit_is_kept_offline_where_the_server_refuses(tmp_path, monkeypatch):
    sweep_dir = tmp_path / "cpu"
    write_fit(sweep_dir)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        server.fault = 403
        assert tracking.log_fit(sweep_dir) == [
            f"W&B: the fit not uploaded (the API key was refused); `python scripts/sync.py runs={sweep_dir}` "
            "uploads what is kept"
        ]
    (kept,) = (sweep_dir / "wandb").glob("offline-run-*")
    assert read_run(next(kept.glob("*.wandb"))).summary["beta"] == 0.5
