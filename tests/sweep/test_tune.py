"""Tuning a sweep: the grid of its settings, what lies at an end, the rules that come of it, and their use."""

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from harness.errors import UserError
from harness.grid import make_trunks
from harness.records import SweepFolder, is_final, read_record, read_sweep, write_table
from harness.sweep.compose import compose_sweep
from harness.sweep.plan import of_rules
from harness.sweep.target import command
from harness.sweep.tune import arguments, asked, beyond, fitted, tune_sweep
from harness.sweep.tuned_grid import first_points, grids, more_points, places_of, point, steps_of
from harness.sweep.tuned_grid import value as value_of

WARMUP = "optimizer.warmup_tokens.value=256"
KEYS = ("value", "params_exponent", "reference_params", "tokens_exponent", "reference_tokens")


def trunks_of(*line, vocab_size=1024):
    jobs = compose_sweep(["-m", *line]).jobs
    return [trunk for job in jobs for trunk in make_trunks(job, vocab_size, "0", "float32")]


@pytest.fixture(scope="module")
def grid():
    return trunks_of("+sweep=cpu")


@pytest.fixture(scope="module")
def cpu(grid):
    return places_of(grid)


@pytest.fixture(scope="module")
def tried(cpu):
    return {place: first_points(place, place in (cpu[0], cpu[-1])) for place in cpu}


def test_the_cpu_grid_is_tuned_at_both_ends_and_two_shapes_between(cpu, tried):
    # equal steps in log N between 104,752 and 924,592 are 216 k and 447 k: w80-d2 has 235,984, w96-d3 430,848
    assert [place.shape for place in cpu] == ["w48-d2", "w80-d2", "w96-d3", "w176-d2"]
    # 5 rates x 3 decays, 2 batches and 2 warmups at 2 rates each, and at the ends a decay of 0 at 3 rates
    assert [len(points) for points in tried.values()] == [26, 23, 23, 26]
    # a batch of 7 sequences of 128 tokens: half of it is taken to be 4
    every = "shape=w48-d2,w80-d2,w96-d3,w176-d2"
    where = ["seed=0", "tokens=[1000000.0,3600000.0]"]
    rate, five = "optimizer.learning_rate.value", "0.0015,0.003,0.006,0.012,0.024"
    assert sorted(grids(tried)) == sorted([
        [every, *where, f"{rate}={five}"],
        [every, *where, f"{rate}={five}", "optimizer.weight_decay.value=0.000625,0.01"],
        ["shape=w48-d2,w176-d2", *where, f"{rate}=0.003,0.006,0.012", "optimizer.weight_decay.value=0.0"],
        [every, *where, f"{rate}=0.003,0.006", "optimizer.batch_tokens.value=512.0"],
        [every, *where, f"{rate}=0.006,0.012", "optimizer.batch_tokens.value=1792.0"],
        [every, *where, f"{rate}=0.003,0.006", "optimizer.warmup_tokens.value=50000.0"],
        [every, *where, f"{rate}=0.006,0.012", "optimizer.warmup_tokens.value=200000.0"],
    ])  # fmt: skip


def test_it_costs_as_many_flops_as_thirteen_cpu_grids(grid, tried):
    found = trunks_of(*arguments(["+sweep=cpu"], "cpu-tune", grids(tried))[1:])
    assert len(found) == len({trunk.name for trunk in found}) == 98
    assert {len(trunk.cells) for trunk in found} == {2}
    whole = sum(trunk.flops_to_train for trunk in grid)
    assert sum(trunk.flops_to_train for trunk in found) / whole == pytest.approx(12.98, abs=0.01)
    assert {trunk.job.grids for trunk in found} == {None}  # no part of what a cell says of itself
    assert found[0].job.optimizer.name == "adamw"


def test_what_lies_at_an_end_is_tried_farther(cpu, tried):
    last = cpu[-1]
    assert more_points(last, tried[last], "learning_rate", True) == {
        point({"learning_rate": 3, "weight_decay": decay}) for decay in (-1, 0, 1)
    }
    assert more_points(last, tried[last], "batch_tokens", True) == {
        point({"learning_rate": rate, "batch_tokens": 2}) for rate in (1, 2)
    }
    assert more_points(last, tried[last], "weight_decay", False) == {
        point({"learning_rate": rate, "weight_decay": -2}) for rate in (-1, 0, 1)
    }
    # 400 k tokens of 1 M are half of what a warmup may take and less; 800 k are not
    further = tried[last] | more_points(last, tried[last], "warmup_tokens", True)
    assert more_points(last, further, "warmup_tokens", True) == set()


def test_a_batch_of_whole_sequences_alone_is_tried():
    (low, _) = places_of(trunks_of("tokens=1e6", "shape=w32-d1,w64-d1", "optimizer.batch_tokens.value=128"))
    assert steps_of(low, "batch_tokens") == (0, 1, 2)  # half a sequence of 128 is none
    (low, _) = places_of(trunks_of("tokens=1e6", "shape=w32-d1,w64-d1", "optimizer.batch_tokens.value=384"))
    assert steps_of(low, "batch_tokens") == (-1, 0, 1)
    # 3 sequences, 2 for half of them, 1 for a quarter, and none for an eighth that the quarter is not
    assert [value_of(low.trunk.job, "batch_tokens", step) for step in (-3, -2, -1, 0, 1)] == [0, 128, 256, 384, 768]
    assert not more_points(low, {point({"batch_tokens": -2})}, "batch_tokens", up=False)
    settings = replace(low.trunk.job.optimizer.weight_decay, value=0.0)
    low.trunk.job.optimizer.weight_decay = settings
    assert not any("weight_decay" in dict(each) for each in first_points(low, True))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["shape=w8-d1"], "the sweep has one shape, w8-d1, and a rule in params lies between two or more"),
        (["optimizer=adamw,muon"], "the sweep compares optimizer, and settings are tuned for one of them"),
        (["grids=[['shape=w8-d1']]", "variants={a: []}"], "grids and variants are both given: keep one"),
        (["grids=x"], "grids=x is no list of lists of overrides: write grids: "),
        (["grids=[['name=a']]"], "grids: name has one value in a sweep: give it beside them"),
        (["grids=[['optimizer.bta=1']]"], "there is no key optimizer.bta; did you mean optimizer.beta"),
    ],
)
def test_what_cannot_be_tuned_is_refused(corpus, tmp_path, line, said):
    with pytest.raises(UserError, match=said.replace("(", "\\(")) as caught:
        tune_sweep(asked(["-m", *corpus, f"output_directory={tmp_path}", "tracking=none", "tokens=2e3", WARMUP, *line]))
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("*"))


def test_the_command_line_says_whether_a_sweep_is_trained():
    assert asked(["runs=x.csv", "settings=lr"]) is None and asked(["settings=lr"]) is None
    assert asked(["-m", "+sweep=cpu", "plan=true", "rounds=5"]) == asked(["+sweep=cpu", "rounds=5", "plan=true"])
    for line, said in (
        (["-m", "+sweep=cpu", "rounds=0"], "rounds=0 is no number of rounds"),
        (["-m", "+sweep=cpu", "plan=maybe"], "plan=maybe is neither true nor false"),
        (["runs=x.csv", "plan=true"], "plan=true is of a sweep that is trained, and runs= names a table"),
    ):
        with pytest.raises(UserError, match=said):
            asked(line)


def test_make_tunes_an_entry_or_what_was_trained(tmp_path):
    line = command("tune", {"SWEEP": "smoke", "HARNESS_ARGS": "plan=true"})
    assert line == ["-m", "+sweep=smoke", "hydra/launcher=local", "plan=true"]
    (tmp_path / "mine").mkdir()
    said = {"schema": 1, "sweep": "mine", "overrides": ["+sweep=cpu", "name=mine", "hydra/launcher=basic"]}
    (tmp_path / "mine" / "sweep.yaml").write_text(yaml.dump(said | {"cells": []}))
    line = command("tune", {"SWEEP": "mine", "HARNESS_ARGS": f"output_directory={tmp_path}"})
    assert line == ["-m", "+sweep=cpu", "name=mine", "hydra/launcher=local", f"output_directory={tmp_path}"]
    with pytest.raises(UserError, match="holds no sweep.yaml"):
        command("tune", {"SWEEP": "nosuch", "HARNESS_ARGS": f"output_directory={tmp_path}"})


def write_rules(path: Path, **measured) -> None:
    """A tune.yaml whose rate is .003 (N/3e5)^-.25 and whose decay .02."""
    rules = {"learning_rate": (0.003, -0.25, 3e5, 0.0, 1e6), "batch_tokens": (512.0, 0.0, 3e5, 0.0, 1e6),
             "warmup_tokens": (1e5, 0.0, 3e5, 0.0, 1e6), "weight_decay": (0.02, 0.0, 3e5, 0.0, 1e6)}  # fmt: skip
    about = {"optimizer.name": "adamw", "optimizer.target": None, "schedule.name": "wsd", "model.base_depth": 2,
             "model.parametrization": "mup", "model.base_width": 32}  # fmt: skip
    about |= {"params": [1e5, 9e5], "tokens": [1e6, 36e5]}
    plain = {"name": about["optimizer.name"], "target": None, "args": {}, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8}
    plain |= {"gradient_clip": 1.0, "name": measured.get("optimizer.name", "adamw")}
    own = plain | {name: dict(zip(KEYS, rule, strict=True)) for name, rule in rules.items()}
    path.write_text(yaml.dump({"schema": 1, "measured": about | measured, "certified": True, "optimizer": own}))


@pytest.fixture
def rules(tmp_path):
    write_rules(tmp_path / "tune.yaml")
    return f"optimizer.rules={tmp_path}/tune.yaml"


def test_rules_of_a_file_are_numbers_of_a_trunk(rules, tmp_path):
    (trunk,) = trunks_of("optimizer=tuned", rules, "shape=w48-d2", "tokens=1e6")
    # .003 (104752 / 3e5)^-.25 = .003 * 1.30088
    assert trunk.learning_rate == pytest.approx(0.00390263, rel=1e-5) and trunk.weight_decay == 0.02
    (same,) = trunks_of(
        "shape=w48-d2", "tokens=1e6", "optimizer.learning_rate.value=0.003", "optimizer.weight_decay.value=0.02",
        "optimizer.learning_rate.params_exponent=-0.25", "optimizer.learning_rate.reference_params=3e5",
    )  # fmt: skip
    assert trunk.name == same.name  # the identity is that of the numbers
    (other,) = trunks_of("optimizer=tuned", rules, "shape=w48-d2", "tokens=1e6", "optimizer.weight_decay.value=0.1")
    assert (other.weight_decay, other.learning_rate) == (0.1, trunk.learning_rate)  # what is given counts
    assert of_rules([trunk]) == [f"rules: {tmp_path}/tune.yaml, measured at 100k to 900k params and 1M to 3.6M tokens"]
    (large,) = trunks_of("optimizer=tuned", rules, "shape=w256-d2", "tokens=1e6")
    assert of_rules([large])[1:] == ["warning: params of this grid lie beyond that, where rules are extrapolated"]


def test_the_settings_of_a_sweep_yield_to_rules(rules):
    (trunk,) = trunks_of("+sweep=cpu", "optimizer=tuned", rules, "shape=w48-d2", "optimizer.batch_tokens.value=1024")
    assert trunk.learning_rate == pytest.approx(0.00390263, rel=1e-5)  # and not .006 times a power of params
    assert (trunk.weight_decay, trunk.batch_tokens) == (0.02, 1024)
    assert of_rules([trunk])[0].endswith("1M to 3.6M tokens, but for batch_tokens, which is given")
    (own,) = trunks_of("+sweep=cpu", "shape=w48-d2")
    assert (own.learning_rate, own.batch_tokens, own.weight_decay) == (0.006, 896, 0.0025)


@pytest.mark.parametrize("path", sorted(Path("conf").glob("s[wi][ez]e*/*.yaml")), ids=lambda path: path.stem)
def test_each_file_of_a_sweep_lets_its_settings_yield(path):
    given = yaml.safe_load(path.read_text()).get("optimizer", {})
    assert set(given) <= {"learning_rate", "batch_tokens", "warmup_tokens", "weight_decay", "beta2"}
    for name, rule in given.items():
        if name == "beta2":  # for which there are no rules
            continue
        assert list(rule) == ["value"] and str(rule["value"]).endswith(f",{name}}}")
        assert str(rule["value"]).startswith("${unless_tuned:")


def test_rules_compose_as_an_axis_and_as_a_variant(rules):
    jobs = compose_sweep(["-m", "tokens=1e6", "optimizer=adamw,tuned", rules]).jobs
    assert [job.optimizer.learning_rate.value for job in jobs] == [0.004, 0.003]
    named = f'variants={{plain: [], tuned: ["optimizer=tuned","{rules}"]}}'
    sweep = compose_sweep(["-m", "tokens=1e6", named])
    assert [label["variant"] for label in sweep.labels] == ["plain", "tuned"]
    assert [job.optimizer.learning_rate.value for job in sweep.jobs] == [0.004, 0.003]


@pytest.mark.parametrize(
    ("measured", "line", "said"),
    [
        ({"optimizer.name": "muon"}, ["optimizer.name=adamw"], "with optimizer.name=muon, and this is adamw: train"),
        ({}, ["schedule=cosine"], "was measured with schedule.name=wsd, and this is cosine"),
        ({}, ["model.parametrization=sp"], "was measured with model.parametrization=mup, and this is sp"),
        ({}, ["model.base_width=64"], "was measured with model.base_width=32, and this is 64"),
        ({}, ["optimizer=muon"], "is read by optimizer=tuned alone: add that, or leave it out"),
    ],
)
def test_rules_of_something_else_are_refused(tmp_path, measured, line, said):
    write_rules(tmp_path / "tune.yaml", **measured)
    ours = [] if line == ["optimizer=muon"] else ["optimizer=tuned"]
    with pytest.raises(UserError, match=said) as caught:
        compose_sweep([*ours, f"optimizer.rules={tmp_path}/tune.yaml", "tokens=1e6", *line])
    assert "\n" not in str(caught.value)


def test_a_file_that_holds_no_rules_is_named(tmp_path):
    (tmp_path / "none.yaml").write_text("schema: 1\noptimizer: {}\n")
    for line, said in (
        ([], "optimizer=tuned has no rules: give optimizer.rules=outputs/cpu-tune/tune.yaml"),
        ([f"optimizer.rules={tmp_path}/no.yaml"], "no.yaml cannot be read \\(No such file"),
        ([f"optimizer.rules={tmp_path}/none.yaml"], "none.yaml holds no rules: give the tune.yaml that"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            compose_sweep(["optimizer=tuned", "tokens=1e6", *line])
        assert "while resolving" not in str(caught.value)


PRESENT = {"optimizer.learning_rate.value": 0.012, "optimizer.batch_tokens.value": 64.0}


def value(place, each):
    return 0.012 * 2.0 ** dict(each).get("learning_rate", 0)


def farther(found, folder, points):
    return {place.shape: more for place, more in beyond(found, folder.path, points).items()}


BEST = {"rate": (0.012, -0.3), "batch": (90.0, 0.1)}  # at 1,000 params, and their powers


def known_loss(record: dict, cell: dict, number: int) -> float:
    """A bowl about BEST, with a scatter of .01 %."""
    scale = math.log(record["params_with_head"] / 1e3)
    v, w = (
        math.log(cell[f"optimizer.{key}.value"] / BEST[name][0]) - BEST[name][1] * scale
        for key, name in (("learning_rate", "rate"), ("batch_tokens", "batch"))
    )
    scatter = 1e-4 * ((number * 7919) % 11 - 5) / 3
    return 2 * math.exp(0.03 * v**2 - 0.01 * v * w + 0.02 * w**2 + scatter) * record["tokens"] ** -0.05


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """The command line of a tiny sweep whose rates and batches were tried, in one process, and its folder."""
    folder = tmp_path_factory.mktemp("tuned")
    line = [
        "-m", *corpus, "tracking=none", "hydra/launcher=basic", "name=tiny", f"output_directory={folder}",
        "tokens=[1024,2048]", "shape=w8-d1,w16-d1", "optimizer.learning_rate.value=0.012", "rounds=1",
        "optimizer.batch_tokens.value=64", "optimizer.warmup_tokens.value=0", "optimizer.weight_decay.value=0",
    ]  # fmt: skip
    with suppress(UserError):  # so few steps may show no minimum
        tune_sweep(asked(line))
    return line, SweepFolder(folder / "tiny-tune")


def test_a_killed_tuning_goes_on_to_the_same_bits(trained, tmp_path):
    line, whole = trained
    line, killed = [*line, f"output_directory={tmp_path}"], SweepFolder(tmp_path / "tiny-tune")
    cells = [cell["cell"] for cell in read_sweep(whole)["cells"]]
    # 5 rates, and 2 batches at 2 rates, at two shapes and two budgets; a decay and a warmup of 0 have no factor
    assert len(cells) == 2 * 2 * (5 + 2 * 2) and all(is_final(whole.run(name)) for name in cells)
    process = subprocess.Popen([sys.executable, "scripts/tune.py", *line], stdout=subprocess.DEVNULL)
    while not (done := [name for name in cells if is_final(killed.run(name))]):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL and len(done) < len(cells)
    times = {name: (killed.run(name) / "run.json").stat().st_mtime_ns for name in done}
    with suppress(UserError):
        tune_sweep(asked(line))
    for name in cells:
        assert read_record(killed.run(name))["loss"] == read_record(whole.run(name))["loss"]
    assert {name: (killed.run(name) / "run.json").stat().st_mtime_ns for name in done} == times


@pytest.fixture
def bowl(trained, tmp_path):
    """A copy whose cells have the losses of a known bowl."""
    line, whole = trained
    folder = SweepFolder(tmp_path / "bowl")
    shutil.copytree(whole.path, folder.path, ignore=shutil.ignore_patterns("trunks"))
    for number, cell in enumerate(read_sweep(folder)["cells"]):
        record = read_record(folder.run(cell["cell"]))
        loss = known_loss(record, cell, number)
        (folder.run(cell["cell"]) / "run.json").write_text(json.dumps(record | {"loss": loss}))
    write_table(folder)
    return line, folder


def test_its_rules_are_found_written_and_used(bowl):
    line, folder = bowl
    found, said = fitted(folder.path, PRESENT)
    assert said[0].startswith(f"rules: {folder.path}/tune.yaml, for optimizer=tuned optimizer.rules=")
    rules = yaml.safe_load((folder.path / "tune.yaml").read_text())["optimizer"]
    for key, (value, power) in (("learning_rate", BEST["rate"]), ("batch_tokens", BEST["batch"])):
        rule = rules[key]
        assert rule["params_exponent"] == pytest.approx(power, abs=0.02)
        assert rule["value"] == pytest.approx(value * (rule["reference_params"] / 1e3) ** power, rel=0.02)
    assert rules["weight_decay"]["value"] == 0 and rules["name"] == "adamw"
    more = [key for key in line if key.startswith(("data", "tokenizer", "model", "device"))]
    job = compose_sweep([*more, "optimizer=tuned", f"optimizer.rules={folder.path}/tune.yaml", "tokens=2e3"]).jobs[0]
    assert job.optimizer.learning_rate.value == rules["learning_rate"]["value"]


def test_a_minimum_at_an_end_is_followed(bowl):
    """Of the bowl, as if less had been tried."""
    line, folder = bowl
    of_sweep = [word for word in line[1:] if word != "rounds=1"]
    places = places_of(trunks_of(*of_sweep, vocab_size=257))  # bytes, and an end
    points = {place: first_points(place, True) for place in places}
    found, _ = fitted(folder.path, PRESENT)
    assert farther(found, folder, points) == {}
    # Without a fit the run of lowest loss decides: that of w8-d1 has the largest batch, for its rate's sake.
    batch = {point({"learning_rate": rate, "batch_tokens": 2}) for rate in (1, 2)}
    assert farther(None, folder, points) == {"w8-d1": batch}
    # Its rate, .012, was the largest tried: both are followed. That of w16-d1 is .006.
    frame = pd.read_csv(folder.table)
    frame[frame["optimizer.learning_rate.value"] <= 0.012].to_csv(folder.table, index=False)
    upto = {place: {each for each in own if dict(each).get("learning_rate", 0) <= 0} for place, own in points.items()}
    assert farther(None, folder, upto) == {"w8-d1": batch | {point({"learning_rate": 1})}}
    # A value that was tried and has no finished cell diverged: nothing beyond it is tried.
    assert "learning_rate" not in {name for own in farther(None, folder, points).values() for each in own
                                   for name, step in each if step == 3}  # fmt: skip
