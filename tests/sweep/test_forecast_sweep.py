"""A sweep's forecasts: the cells that are refused, and a shape that is forecast, trained and set beside what came."""

import json
import shutil

import pytest

from harness.errors import UserError
from harness.laws.forecast import ForecastConfig
from harness.laws.prediction.forecast import read_all
from harness.laws.settings import FitConfig
from harness.laws.study import write_study
from harness.records import SweepFolder, is_final, read_record, read_sweep
from harness.report.forecasts import forecasts
from harness.report.inputs import read
from harness.sweep.forecast import command_of, forecast_sweep
from harness.sweep.run import train_sweep
from harness.sweep.target import command


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """A tiny sweep with its fit."""
    outputs = tmp_path_factory.mktemp("outputs")
    line = [
        "-m", *corpus, "tracking=none", "hydra/launcher=basic", "name=tiny", f"output_directory={outputs}",
        "tokens=[2048,4096,8192]", "shape=w8-d1,w16-d1,w24-d1", "optimizer.learning_rate.value=0.01",
    ]  # fmt: skip
    assert train_sweep(line) == (0, outputs / "tiny")
    write_study(FitConfig(runs=str(outputs / "tiny"), bootstrap=0))
    return outputs / "tiny"


@pytest.fixture
def copied(trained, tmp_path):
    """Of its own for a test that adds to the folder."""
    shutil.copytree(trained, tmp_path / "tiny")
    return tmp_path / "tiny"


def config(folder, shape="w32-d1", tokens=8192, **more):
    found = ForecastConfig(runs=str(folder), shape=shape, tokens=tokens, **more)
    found.check()
    assert found.of_sweep()
    return found


@pytest.mark.parametrize(
    ("shape", "tokens", "said"),
    [
        ("w16-d1", 4096, r"^w16-d1-t4\.096k-s0-\w+ cannot be forecast any more, for .*/tiny/runs/\S* holds its loss"),
        ("w16-d1", 4100, "cannot be forecast any more"),  # as many steps
        ("w16-d1-s7", 4096, r"^w16-d1-t4\.096k-s7-\w+ cannot be forecast any more"),  # of another seed
        ("w32-d1", [8192, 1e9], "unique ones of the training split"),
        ("w32-d1", 100, "is below one batch of 256 tokens"),
        ("w20-d1", 8192, "head_size"),
    ],
)
def test_what_is_known_or_cannot_be_trained_is_refused(trained, shape, tokens, said):
    with pytest.raises(UserError, match=said):
        forecast_sweep(config(trained, shape, tokens))
    assert not (trained / "forecasts").exists()


def test_a_cell_that_another_sweep_trained_is_refused(trained, copied):
    moved = copied.parent / "elsewhere" / "runs"
    moved.mkdir(parents=True)
    (run,) = (copied / "runs").glob("w16-d1-t4.096k-*")
    run.rename(moved / run.name)
    with pytest.raises(UserError, match="for .*/elsewhere/runs/w16-d1"):
        forecast_sweep(config(copied, "w16-d1", 4096))


def test_a_sweep_of_other_settings_is_refused(copied):
    sweep = copied / "sweep.yaml"
    sweep.write_text(sweep.read_text().replace("learning_rate.value=0.01", "learning_rate.value=0.02"))
    with pytest.raises(UserError, match="was trained with other settings or other code than these: its w8-d1-s0-"):
        forecast_sweep(config(copied))


def test_a_sweep_that_compares_variants_is_refused(copied):
    sweep = copied / "sweep.yaml"
    sweep.write_text("axes: [optimizer]\n" + sweep.read_text())
    with pytest.raises(UserError, match="compares optimizer, and a law holds for one of them"):
        forecast_sweep(config(copied))


def test_a_fit_that_the_rows_do_not_give_is_refused(copied):
    study = json.loads((copied / "fit.json").read_text())
    study["fit"]["estimates"]["alpha"] *= 1.01
    (copied / "fit.json").write_text(json.dumps(study))
    with pytest.raises(UserError, match="fitted again, gives other estimates than its fit.json"):
        forecast_sweep(config(copied))
    assert not (copied / "forecasts").exists()


def test_a_shape_is_forecast_trained_and_set_beside_what_came(copied, capsys):
    assert forecast_sweep(config(copied)) == 0
    ((path, content),) = read_all(copied)
    cell = content["cells"][0]
    assert (cell["law"], cell["width"], cell["depth"], cell["tokens"]) == ("chinchilla", 32, 1, 8192)
    assert cell["cell"].startswith("w32-d1-t8.192k-s0-") and cell["beyond"] > 1
    assert f"written to {path}" in capsys.readouterr().out
    assert forecasts(read(copied)).rows[0][5].text == "not trained yet"

    assert forecast_sweep(config(copied, train=True)) == 0  # as it stands
    assert [found for found, _ in read_all(copied)] == [path]
    own = SweepFolder(copied.parent / "tiny-forecast-w32-d1-t8.192k")
    (trained,) = read_sweep(own)["cells"]
    assert trained["cell"] == cell["cell"] and is_final(own.run(cell["cell"]))
    loss = read_record(own.run(cell["cell"]))["loss"]
    row = forecasts(read(copied)).rows[0]
    assert row[5].text == f"{loss:.3f}" and row[8].text != "–"
    assert f"{path} has forecast these cells before they were trained" in capsys.readouterr().out
    with pytest.raises(UserError, match="cannot be forecast any more, for .*/tiny-forecast-w32-d1-t8.192k/runs/"):
        forecast_sweep(config(copied))


def test_the_command_that_trains_it_keeps_the_settings_alone(tmp_path):
    overrides = ["+sweep=cpu", "hydra/launcher=local", "output_directory=x", "name=y", "shape=w8-d1", "flops=1e9"]
    assert command_of(tmp_path / "cpu", overrides, "w256-d4", [3.6e6]) == [
        "-m", "+sweep=cpu", "hydra/launcher=local", "shape=w8-d1", "flops=1e9", "name=cpu-forecast-w256-d4-t3.6M",
        "claim=null",
        "grids=[['shape=w256-d4','tokens=[3600000.0]','tokens_per_param=null','flops=null','seed=0']]",
        f"output_directory={tmp_path}",
    ]  # fmt: skip


def test_make_hands_over_the_folder_and_the_script_s_own_keys():
    given = {"SWEEP": "smoke", "HARNESS_ARGS": "name=mine shape=w64-d4 tokens=[1e6,2e6] train=true"}
    assert command("forecast", given) == ["runs=outputs/mine", "shape=w64-d4", "tokens=[1e6,2e6]", "train=true"]
