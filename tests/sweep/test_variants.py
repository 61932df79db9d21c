"""Variants: axes beside shape, seed and budget, and names for lists of overrides."""

import csv
import io
import shutil
from dataclasses import replace

import pytest
from rich.console import Console

from harness.errors import UserError
from harness.grid import make_trunks
from harness.laws import fit
from harness.records import COLUMNS, SweepFolder, read_sweep, variant_of
from harness.sweep.compose import compose_sweep
from harness.sweep.pace import Pace
from harness.sweep.plan import Plan
from harness.sweep.progress import render
from harness.sweep.run import train
from harness.sweep.snapshot import snapshot
from harness.sweep.variants import pairing

NAMED = 'variants={gpt: [], llama: ["model=llama","model.head_size=8"], muon: ["optimizer=muon"]}'
GRID = ("tokens=[1e3,2e3]", "shape=w8-d1", "optimizer.warmup_tokens.value=256")


def arguments(corpus, folder, *more):
    where = ["hydra/launcher=basic", "name=v", f"output_directory={folder}"]
    return ["-m", *corpus, "tracking=none", *where, *GRID, *more]


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("variants")
    assert train(arguments(corpus, folder, NAMED)) == 0
    return folder


def rows(folder):
    with open(folder / "v" / "runs.csv", newline="") as file:
        return list(csv.DictReader(file))


def labels(*line):
    sweep = compose_sweep(["-m", "tokens=1e6", *line])
    return [dict(label) for label in sweep.labels]


def test_an_axis_tells_jobs_apart_by_its_key():
    assert labels("optimizer=adamw,muon") == [{"optimizer": "adamw"}, {"optimizer": "muon"}]
    assert labels("shape=w32-d1,w64-d1", "model=gpt,llama")[1:3] == [{"model": "llama"}, {"model": "gpt"}]
    assert labels("optimizer.beta2=.95,.99") == [{"optimizer.beta2": 0.95}, {"optimizer.beta2": 0.99}]
    assert labels("model.seq_len=64,128", "seed=1,2")[0] == {"seq_len": 64}  # its own column
    assert labels("shape=w32-d1,w64-d1", "seed=1,2", "tokens=1e6,2e6") == [{}] * 4
    assert [variant_of(label, list(label)) for label in labels("schedule=wsd,cosine", "optimizer.beta2=.9,.95")] == [
        "wsd beta2=0.9", "wsd beta2=0.95", "cosine beta2=0.9", "cosine beta2=0.95"
    ]  # fmt: skip


def test_names_stand_for_their_overrides():
    sweep = compose_sweep(["-m", "tokens=1e6", "shape=w32-d1,w64-d1", NAMED])
    assert [(label["variant"], job.model.width, job.model.family, job.optimizer.name)
            for label, job in zip(sweep.labels, sweep.jobs, strict=True)] == [
        ("gpt", 32, "gpt", "adamw"), ("gpt", 64, "gpt", "adamw"), ("llama", 32, "llama", "adamw"),
        ("llama", 64, "llama", "adamw"), ("muon", 32, "gpt", "muon"), ("muon", 64, "gpt", "muon"),
    ]  # fmt: skip


def test_a_name_is_no_part_of_an_identity(compose):
    plain = make_trunks(compose("tokens=1e6"), 1024, "0", "float32")
    for names in (NAMED, NAMED.replace("gpt:", "baseline:")):
        job = compose_sweep(["-m", "tokens=1e6", names]).jobs[0]
        assert [trunk.name for trunk in make_trunks(job, 1024, "0", "float32")] == [trunk.name for trunk in plain]
    assert plain[0].name == "w64-d2-s0-a768df05"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{}", "variants is empty: write variants: {adamw: [], muon: [optimizer=muon]}, or leave it out"),
        ("[a]", "variants=['a'] is no mapping of names to lists of overrides: write "),
        ("{a: x}", "variants.a: x is no list of overrides: write "),
        ("{a-b: []}", "variants.a-b is no identifier: name it by letters, digits and _, with no digit first"),
        ("{2nd: []}", "variants.2nd is no identifier: "),
        ("{nan: []}", "variants.nan is what tables write for a number or for nothing: take another name"),
        ("{a: [], A: [optimizer.beta2=.9]}", "variants.a and variants.A differ in case alone: "),
        ("{a: [shape=w32-d2]}", "variants.a: shape=w32-d2 sets shape, in which the cells of one variant differ: "),
        ("{a: [seed=1]}", "variants.a: seed=1 sets seed, in which the cells"),
        ("{a: [model.depth=1]}", "variants.a: model.depth=1 sets model.depth, in which the cells"),
        ("{a: [tokens=2e6]}", "variants.a: tokens=2e6 sets tokens, in which the cells"),
        ("{a: [flops=2e13]}", "variants.a: flops=2e13 sets flops, in which the cells"),
        ("{a: [name=x]}", "variants.a: name=x sets name, which has one value in a sweep: leave it out"),
        ("{a: [optimizer.eps=1]}", "variants.a: optimizer.eps=1 sets optimizer.eps, which is an axis of this sweep: "),
        ("{a: [optimizer=nosuch]}", "variants.a: optimizer=nosuch is not there: choose adamw, custom, muon"),
        ("{a: [optimizer.beta2=x]}", "variants.a: optimizer.beta2: Value 'x' of type 'str' could not be converted to"),
        ("{a: [model.head_size=0]}", "variants.a: model.head_size=0 is below 1; "),
        ("{a: ['seq_len=1']}", "variants.a: seq_len=1: there is no key seq_len; "),
        ("{a: [optimizer]}", "variants.a: optimizer is not an override: write key=value"),
        ("{a: ['optimizer.beta2=.9,.8']}", "variants.a: optimizer.beta2=.9,.8 gives optimizer.beta2 several values: "),
        ("{a: [optimizer.beta2=.95], b: []}", "variants.a and variants.b resolve to the same configuration: drop one"),
        ("{a: [threads=2], b: []}", "variants.a and variants.b resolve to the same configuration: drop one"),
    ],
)
def test_what_is_no_variant_is_one_sentence(given, said):
    quoted = given.replace("[", '["').replace("]", '"]').replace('[""]', "[]").replace("\"'", '"').replace("'\"", '"')
    axis = ["optimizer.eps=1e-8,1e-7"] if "eps" in given else []
    with pytest.raises(UserError) as refused:
        compose_sweep(["-m", "tokens=1e6", f"variants={quoted}", *axis])
    assert str(refused.value).startswith(said)


def test_the_names_of_a_file_are_left_out_by_null_and_by_nothing_else():
    line = ["-m", "+sweep=variants"]
    assert len({label["variant"] for label in compose_sweep(line).labels}) == 3
    assert compose_sweep([*line, "variants=null"]).axes == []
    with pytest.raises(UserError, match="^variants={} leaves those of the file as they are: write variants=null for "):
        compose_sweep([*line, "variants={}"])


def test_names_want_a_sweep():
    with pytest.raises(UserError, match="^variants names gpt, llama, muon: add -m to train them all$"):
        compose_sweep(["tokens=1e6", NAMED])


def test_the_run_table_has_the_variant_and_the_others_none(corpus, trained):
    table = rows(trained)
    assert list(table[0]) == [*COLUMNS, "variant"]
    assert [row["variant"] for row in table] == ["gpt"] * 2 + ["llama"] * 2 + ["muon"] * 2
    assert [(row["family"], row["optimizer"]) for row in table[::2]] == [
        ("gpt", "adamw"), ("llama", "adamw"), ("gpt", "muon")
    ]  # fmt: skip
    assert "variant" not in (trained / "v" / "runs" / table[0]["cell"] / "run.json").read_text()
    content = read_sweep(SweepFolder(trained / "v"))
    assert content["axes"] == ["variant"] and content["cells"][2]["variant"] == "llama"


def test_a_variant_that_is_renamed_is_not_trained_again(corpus, trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "v" / "runs.csv").read_text()
    assert train(arguments(corpus, tmp_path, NAMED.replace("llama:", "touvron:"))) == 0
    assert "6 of them done" in capsys.readouterr().out
    assert (tmp_path / "v" / "runs.csv").read_text() == before.replace(",llama\n", ",touvron\n")


def test_variants_that_are_added_or_left_out_go_on_in_their_folder(corpus, trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    whole = rows(tmp_path)
    assert train(arguments(corpus, tmp_path, NAMED, "~variants.muon", "~variants.llama")) == 0
    assert rows(tmp_path) == whole[:2]
    for row in whole[2:]:
        shutil.rmtree(tmp_path / "v" / "runs" / row["cell"])
    assert train(arguments(corpus, tmp_path, NAMED)) == 0
    assert [(row["cell"], row["loss"]) for row in rows(tmp_path)] == [(row["cell"], row["loss"]) for row in whole]
    with pytest.raises(UserError, match="holds 6 finished cells of another grid, whose optimizer.eps was 1e-08 and is"):
        train(arguments(corpus, tmp_path, NAMED, "optimizer.eps=1e-7"))


def test_a_fit_says_how_to_choose_or_to_compare(trained):
    runs = trained / "v"
    with pytest.raises(UserError) as refused:
        fit(str(runs))
    assert str(refused.value) == (
        f"{runs}/runs.csv, column variant varies (gpt, llama, muon), and a law holds for one of them: `python "
        f"scripts/fit.py runs={runs} filter=variant==gpt` fits one, `python scripts/compare.py runs={runs} "
        "column=variant` sets them side by side"
    )
    with pytest.raises(UserError, match="runs.csv has 2 usable rows, and chinchilla needs at least 6: add runs"):
        fit(str(runs), filter="variant==gpt")


def test_an_axis_without_a_column_of_its_own_is_one_too(corpus, tmp_path):
    """Betas were told apart by nothing in the table, and one law was fitted to all of them."""
    assert train(arguments(corpus, tmp_path, "optimizer.beta2=.95,.99")) == 0
    assert [row["optimizer.beta2"] for row in rows(tmp_path)] == ["0.95", "0.95", "0.99", "0.99"]
    with pytest.raises(UserError, match=r"column optimizer.beta2 varies \(0.95, 0.99\)"):
        fit(str(tmp_path / "v"))


def test_a_table_without_axes_is_as_before(corpus, tmp_path):
    assert train(arguments(corpus, tmp_path)) == 0
    assert (tmp_path / "v" / "runs.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    content = read_sweep(SweepFolder(tmp_path / "v"))
    assert not {"axes", "variant"} & {*content, *content["cells"][0]}


def test_status_names_the_variant(trained):
    now = snapshot(trained / "v")
    assert [cell.row for cell in now.cells][::2] == ["w8-d1-s0 gpt", "w8-d1-s0 llama", "w8-d1-s0 muon"]
    assert now.cells[2].label == "w8-d1-t1k-s0 llama"
    assert render(now).renderables[4].columns[0]._cells[-1] == "w8-d1-s0 muon"


def plan_of(*line):
    sweep = compose_sweep(["-m", *line])
    jobs = tuple(tuple(make_trunks(job, 1024, "0", "float32")) for job in sweep.jobs)
    memory = {trunk.name: 2**20 for of_job in jobs for trunk in of_job}
    return Plan("v", jobs, 2, "cpu", 0, frozenset(), {}, {}, labels=sweep.labels, memory=memory)


def test_a_plan_says_what_each_variant_costs():
    plan = plan_of("tokens=[1e6,2e6]", "shape=w32-d1,w64-d1", "optimizer.warmup_tokens.value=5e4", NAMED)
    assert [str(cell) for cell in plan.table().columns[0].cells][2:4] == ["w32-d1-s0 llama", "w64-d1-s0 llama"]
    flops = sum(trunk.flops_to_train for trunk in plan.jobs[2] + plan.jobs[3])
    assert f"\n  llama: 4 cells, {flops:.2e} FLOPs, processes of up to 1.0 MB\n" in plan.summary()
    assert pairing(plan.variants) == plan.notes == []
    timed = replace(plan, pace={trunk.name: Pace(0.06, 0.0, 0.0) for trunk in plan.trunks}, memory={})
    # two trunks of 1953 and 3906 steps: 3125 to the last branch, cooldowns of 391 and 781, .06 s each
    assert f"\n  llama: 4 cells, {flops:.2e} FLOPs, 9 min of processes\n" in timed.summary()


def test_many_variants_leave_a_plan_its_numbers():
    """The words give way to them, and costs are those of the dearest: 244 steps of 512 tokens, not 122 of 1024."""
    rates = ",".join(f"{n / 1000}" for n in range(1, 10))
    axes = (f"optimizer.learning_rate.value={rates}", "optimizer.batch_tokens.value=512,1024")
    plan = plan_of("tokens=125e3", *axes)
    plan = replace(plan, pace={trunk.name: Pace(0.06, 0.0, 0.0) for trunk in plan.trunks})
    console = Console(width=60, file=io.StringIO())
    console.print(plan.table())
    first = console.file.getvalue().splitlines()[2]
    assert first.startswith("w64-d2-s0 ") and "…" in first
    assert first.split("…")[1].split() == ["164k", "125k", "244", "512", "0.001", "1.5e+11", "15", "s"]
    (line,) = [line for line in plan.summary().splitlines() if "variants" in line]
    assert line.startswith("  the dearest of 18 variants, learning_rate=0.001 batch_tokens=512.0: 1 cell, ")


def test_budgets_that_batches_round_otherwise_are_said():
    """1e6 / 512 = 1953.1 steps: 999936 tokens; 1e6 / 768 = 1302.1: 999936; 2e5 / 768 = 260.4: 199680, and 391 steps of
    512: 200192, .26 % more."""
    three = 'variants={a: [], b: ["optimizer.batch_tokens.value=768"]}'
    line = ("optimizer.warmup_tokens.value=5e4", three)
    assert pairing(plan_of("tokens=1e6", *line).variants) == []
    assert pairing(plan_of("tokens=2e5", *line).variants) == [
        "note: tokens of one budget differ between variants by up to 0.26% (batches of 512 to 768 tokens); such cells "
        "still count as pairs, each with its own tokens"
    ]
    assert pairing(plan_of("tokens=1e6", "model.seq_len=64,128").variants) == [
        "note: sequences of 64 to 128 tokens: pairs see other batches"
    ]
    half = 'variants={a: [], b: ["model.ff_ratio=2"]}'
    (said,) = pairing(plan_of("tokens_per_param=20", line[0], half).variants)
    assert said.startswith("warning: tokens of one budget differ between variants by up to ") and said.endswith(
        "and such cells are no pairs: give budgets as tokens=, or larger ones"
    )
