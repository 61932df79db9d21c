"""A sweep's name belongs to its grid: which commands go on in its folder."""

import json
import shutil

import pytest
import yaml

from harness.errors import UserError
from harness.records import SweepFolder, read_sweep
from harness.sweep.run import train

GRID = ("tokens=[1e3,2e3]", "shape=w8-d1", "optimizer.learning_rate.value=.01,.02")


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("namesake")
    assert train(arguments(corpus, folder)) == 0
    return folder


@pytest.fixture
def copy(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


def arguments(corpus, folder, *more):
    return ["-m", *corpus, "tracking=none", "hydra/launcher=basic", "optimizer.warmup_tokens.value=256", "name=grid",
            f"output_directory={folder}", *GRID, *more]  # fmt: skip


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("schedule=wsd,cosine", "whose schedule.name was wsd and is wsd, cosine"),  # another axis
        ("schedule.cooldown_fraction=.3", "whose schedule.cooldown_fraction was 0.2 and is 0.3"),
        ("model.ff_ratio=2", "whose model.ff_ratio was 4.0 and is 2.0"),
        ("optimizer.weight_decay.value=.02", "whose optimizer.weight_decay.value was 0.01 and is 0.02"),
        ("precision=bf16", "whose precision was float32 and is bf16"),
        ("data.validation_tokens=4001", "with another corpus or tokenizer"),
        ("tokenizer=bpe", "with another corpus or tokenizer"),
    ],
)
def test_other_settings_are_said_before_any_work(corpus, trained, argument, said):
    before = files(trained)
    with pytest.raises(UserError) as refused:
        train(arguments(corpus, trained, argument))
    assert str(refused.value) == (
        f"{trained}/grid holds 4 finished cells of another grid, {said}: give this grid a name of its own, as in "
        "name=grid-2, or move that folder away"
    )
    assert files(trained) == before


@pytest.mark.parametrize(
    "more",
    [["shape=w24-d1"], ["tokens=[3e3]"], ["optimizer.learning_rate.value=.04"], ["seed=5"], ["tokens=[1e3,3e3]"]],
)
def test_a_grid_that_loses_cells_while_it_gains_some_is_refused(corpus, trained, more):
    with pytest.raises(UserError, match="grid holds 4 finished cells, of which this grid lacks .* while it adds "):
        train(arguments(corpus, trained, *more))


def test_a_grid_that_grows_and_a_part_of_it_go_on(corpus, copy, capsys):
    grown = ("tokens=[1e3,1.5e3,2e3]", "shape=w8-d1,w8-d1-s1", "optimizer.learning_rate.value=.005,.01,.02")
    records = {path: path.read_bytes() for path in copy.glob("grid/runs/*/run.json")}
    for more, cells in ((["optimizer.learning_rate.value=.01"], 2), (grown, 18)):
        assert train(arguments(corpus, copy, *more)) == 0
        assert f"{cells} of {cells} cells finished" in capsys.readouterr().out
    assert len(records) == 4 and {path: path.read_bytes() for path in records} == records


def test_what_changes_no_loss_is_free(corpus, copy):
    more = [f"data.store_directory={copy}/stores", "threads=2", "optimizer.micro_batch_tokens=512", "price_per_hour=1"]
    assert train(arguments(corpus, copy, *more)) == 0
    assert len(list(copy.glob("grid/runs/*"))) == 4


def test_a_key_that_an_older_version_lacked_counts_as_its_default(corpus, copy):
    for path in copy.glob("grid/runs/*/config.yaml"):
        config = yaml.safe_load(path.read_text())
        del config["job"]["schedule"]["peak_factor"]
        path.write_text(yaml.safe_dump(config))
    assert train(arguments(corpus, copy)) == 0
    with pytest.raises(UserError, match="whose schedule.peak_factor was 1.0 and is 2.0"):
        train(arguments(corpus, copy, "schedule.peak_factor=2"))


def test_what_has_not_ended_belongs_to_nothing(corpus, copy):
    for path in copy.glob("grid/runs/*/run.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "failed"}))
    assert train(arguments(corpus, copy, "model.ff_ratio=2", "shape=w8-d1")) == 0


def test_one_job_without_a_name_may_follow_another(corpus, tmp_path):
    common = [*corpus, "tracking=none", f"output_directory={tmp_path}", "optimizer.warmup_tokens.value=256"]
    assert train([*common, "tokens=2e3"]) == 0
    assert train([*common, "tokens=2e3", "model.ff_ratio=2"]) == 0
    with pytest.raises(UserError, match="single holds 1 finished cell, of which this grid lacks 1 "):
        train(["-m", *common, "tokens=2e3", "seed=1,2"])


def test_a_sweep_yaml_that_is_cut_off_anywhere_heals(corpus, copy):
    folder = SweepFolder(copy / "grid")
    whole, content = folder.sweep_yaml.read_bytes(), read_sweep(folder)
    for cut in range(0, len(whole), 7):  # whatever is left is a sweep, with cells of it, or is said to be none
        folder.sweep_yaml.write_bytes(whole[:cut])
        try:
            assert all(cell in content["cells"] for cell in read_sweep(folder)["cells"])
        except UserError as error:
            assert "train the sweep again to write it anew" in str(error)
    for cut in (0, 8, len(whole) // 2):
        folder.sweep_yaml.write_bytes(whole[:cut])
        assert train(arguments(corpus, copy)) == 0
        assert read_sweep(folder)["cells"] == content["cells"]


def test_a_sweep_with_an_axis_that_was_killed_goes_on(corpus, copy):
    for path in copy.glob("grid/runs/*"):
        if json.loads((path / "run.json").read_text())["learning_rate"] == 0.02:
            shutil.rmtree(path)
    assert train(arguments(corpus, copy)) == 0
    assert len(list(copy.glob("grid/runs/*/run.json"))) == 4
