"""The saved view and the report of a sweep, by wandb-workspaces and the real client."""

import json

import pytest
from sweep_files import FIT, write_cell, write_fit, write_plan

from harness import tracking
from harness.errors import UserError
from harness.tracking.sync import make_view
from harness.tracking.view import exponents_table, law_table


@pytest.fixture
def sweep_dir(tmp_path):
    folder = tmp_path / "cpu"
    write_fit(folder)
    write_plan(folder, ["a"])
    return folder


def leaves(filters):
    return [(leaf["key"]["section"], leaf["key"]["name"], leaf["op"], leaf["value"]) for leaf in filters["filters"]]


def check_panels(panels):
    """Loss against tokens and FLOPs, the last loss against params by budget, and the settings beside the loss."""
    lines, final, beside = panels[:2], panels[2]["config"], panels[3]["config"]
    assert [(panel["config"]["xAxis"], panel["config"]["metrics"]) for panel in lines] == [
        ("tokens", ["train_loss"]), ("flops", ["train_loss"]),
    ]  # fmt: skip
    assert all(panel["config"]["xLogScale"] and panel["config"]["yLogScale"] for panel in lines)
    assert (final["xAxis"], final["yAxis"], final["zAxis"]) == (
        "config:params_with_head.value", "summary:loss", "config:tokens.value",
    )  # fmt: skip
    names = ["width", "depth", "tokens", "seed", "learning_rate"]
    assert [column["accessor"] for column in beside["columns"]] == [
        *(f"config:{name}.value" for name in names), "summary:loss",
    ]  # fmt: skip


def test_a_fitted_sweep_gets_its_view_and_its_report(sweep_dir, server):
    fit, sentence = tracking.log_fit(sweep_dir)
    run = next(name for name, run in server.runs.items() if run.job_type == "fit")
    view, report = server.views.values()
    assert (view.type, view.title, report.type, report.title) == (
        "project-view", "cpu losses", "runs", "cpu scaling law",
    )  # fmt: skip
    assert sentence == (
        f"W&B: its view at {server.url}/me/scaling?nw={view.name[3:-2]} and its report at "
        f"{server.url}/me/scaling/reports/cpu-scaling-law--{report.id}"
    )
    section = view.spec["section"]
    assert leaves(section["runSets"][0]["filters"]) == [
        ("run", "group", "=", "cpu"), ("run", "jobType", "=", "cell"),
    ]  # fmt: skip
    check_panels(section["panelBankConfig"]["sections"][0]["panels"])
    _, law, losses, figures, exponents, _ = report.spec["blocks"]
    assert law["content"] == law_table(FIT) and exponents["content"] == exponents_table(FIT)
    check_panels(losses["metadata"]["panelBankSectionConfig"]["panels"])
    assert leaves(figures["metadata"]["runSets"][0]["filters"]) == [("run", "name", "=", run)]
    (shown,) = figures["metadata"]["panelBankSectionConfig"]["panels"]
    assert shown["config"]["mediaKeys"] == ["figures/frontier"]


def test_both_are_made_anew_in_place_and_again_where_they_are_gone(sweep_dir, server):
    server.run("x").project, server.run("y").project = "scaling", "other"
    assert make_view(sweep_dir)[1]
    first = dict(server.views)
    changed = json.loads(json.dumps(FIT))
    changed["fit"]["estimates"]["alpha"] = 0.7
    (sweep_dir / "fit.json").write_text(json.dumps(changed))
    assert make_view(sweep_dir)[1]
    assert list(server.views) == list(first)
    assert "| alpha | 0.7 |" in list(server.views.values())[1].spec["blocks"][1]["content"]
    server.views.clear()
    assert make_view(sweep_dir)[1]
    assert len(server.views) == 2
    # elsewhere they are others
    assert make_view(sweep_dir, project="other")[1]
    assert len(server.views) == 4


def test_a_sweep_that_is_not_fitted_gets_its_view_alone(tmp_path, server):
    write_cell(tmp_path / "cpu", "a", range(3), "finished")
    write_plan(tmp_path / "cpu", ["a"])
    sentence, saved = make_view(tmp_path / "cpu")
    assert saved and "report" not in sentence
    assert [view.type for view in server.views.values()] == ["project-view"]


def test_without_the_package_one_line_says_how_to_get_it(sweep_dir, server, tmp_path, monkeypatch):
    (tmp_path / "hidden" / "wandb_workspaces").mkdir(parents=True)
    (tmp_path / "hidden" / "wandb_workspaces" / "__init__.py").write_text("raise ImportError('hidden')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hidden"))
    fit, sentence = tracking.log_fit(sweep_dir)
    assert fit.startswith("W&B: the fit at ")
    assert sentence == ("W&B: no view (wandb-workspaces is not installed: pip install 'scaling-harness[view]')")
    assert server.views == {}


def test_a_server_that_refuses_leaves_a_sentence(sweep_dir, server, monkeypatch):
    server.fault = 403
    sentence, saved = make_view(sweep_dir)
    assert (sentence, saved) == ("W&B: no view (the API key was refused)", False)
    server.fault = None
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(UserError, match="needs a W&B API key"):
        make_view(sweep_dir)


def test_numbers_of_a_fit_that_is_not_certified_are_said_not_to_be_quoted():
    fitted = {"fit": FIT["fit"] | {"certificate": {"certified": False}, "estimates": {"a": 0.55612, "E": None}}}
    assert law_table(fitted) == (
        "**chinchilla**, 2 rows, NOT certified: do not quote these numbers\n\n"
        "|  | estimate | 95 % interval |\n| --- | --- | --- |\n| a | 0.5561 |  |\n| E |  |  |"
    )
    assert exponents_table(FIT).splitlines()[2:] == [
        "| params_with_head | log_mse | chinchilla | True | 0.4 | 0.35 | 0.45 |",
        "| params_total | log_mse | chinchilla | False | 0.5 |  |  |",
    ]
