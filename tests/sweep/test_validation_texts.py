"""Sweeps that are evaluated on further texts, from their first run on or later."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.data.synthetic import write_corpus
from harness.errors import UserError
from harness.laws import fit
from harness.laws.settings import FitConfig
from harness.laws.study import study, write_study
from harness.laws.table.rows import Columns
from harness.laws.table.table import read_runs
from harness.records import COLUMNS, SweepFolder, read_record, read_sweep, write_record, write_table
from harness.report.figures import cell_points, warning
from harness.report.inputs import read
from harness.report.tables import tables
from harness.stop import Stopped
from harness.sweep.compose import compose_sweep
from harness.sweep.run import train
from harness.training.evaluation import evaluate

ROOT = Path(__file__).parents[2]
GRID = ("tokens=[1e3,2e3,4e3]", "shape=w8-d1,w16-d1,w24-d1", "optimizer.warmup_tokens.value=256")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another corpus than `corpus`."""
    path = tmp_path_factory.mktemp("other") / "code.jsonl"
    write_corpus(path, documents=40, letters=100, seed=1)
    return path


def same_as(corpus) -> str:
    path = corpus[1].partition("=")[2]
    return f"{{source: files, path: '{path}', validation_tokens: 4000}}"


def texts(corpus, other) -> str:
    return f"validation={{same: {same_as(corpus)}, code: {{source: files, path: '{other}', validation_tokens: 1500}}}}"


def arguments(corpus, folder, *more):
    where = ["hydra/launcher=basic", "name=v", f"output_directory={folder}"]
    return ["-m", *corpus, "tracking=none", *where, *GRID, *more]


@pytest.fixture(scope="module")
def plain(corpus, tmp_path_factory):
    """A sweep with no further text, whose weights are kept."""
    folder = tmp_path_factory.mktemp("plain")
    assert train(arguments(corpus, folder, "save_model=true")) == 0
    return folder


@pytest.fixture(scope="module")
def evaluated(corpus, other, tmp_path_factory):
    """The same sweep with two further texts from its first run on, one of them the corpus that trains."""
    folder = tmp_path_factory.mktemp("evaluated")
    assert train(arguments(corpus, folder, texts(corpus, other))) == 0
    return folder


def rows(folder):
    with open(folder / "v" / "runs.csv", newline="") as file:
        return list(csv.DictReader(file))


def files(folder, *patterns):
    """What the files of a sweep hold, and when they were written."""
    found = [path for pattern in patterns for path in (folder / "v").glob(pattern)]
    assert found
    return {path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


TIMED = ("wall_seconds", "tokens_per_second", "flops_utilization")
NEW = [f"{column}_{name}" for name in ("same", "code") for column in ("loss", "loss_se", "loss_parts", "bits_per_byte")]


def untimed(row, without=()):
    return {key: value for key, value in row.items() if key not in (*TIMED, *without)}


def test_the_same_text_under_a_name_gives_the_same_loss(evaluated):
    table = rows(evaluated)
    assert list(table[0]) == [*COLUMNS, *NEW] and len(table) == 9
    for row in table:
        for column in ("loss", "loss_se", "loss_parts", "bits_per_byte"):
            assert row[f"{column}_same"] == row[column] != row[f"{column}_code"] != ""
        assert len(row["loss_parts_code"].split()) == 10


def test_no_hash_and_no_loss_hangs_on_a_text(plain, evaluated):
    assert [untimed(row, NEW) for row in rows(evaluated)] == [untimed(row) for row in rows(plain)]
    record = json.loads(next((plain / "v").glob("runs/*/run.json")).read_text())
    assert list(record) == ["schema", *COLUMNS]
    assert "validation" not in read_sweep(SweepFolder(plain / "v"))


def test_a_text_that_is_added_trains_nothing(corpus, other, plain, evaluated, tmp_path, capsys):
    shutil.copytree(plain, tmp_path, dirs_exist_ok=True)
    kept = ("runs/*/model.pt", "runs/*/curve.jsonl", "runs/*/config.yaml", "trunks/*/step-*.pt", "trunks/*/curve.jsonl")
    before, table = files(tmp_path, *kept), rows(tmp_path)
    assert train(arguments(corpus, tmp_path, "save_model=true", texts(corpus, other))) == 0
    said = capsys.readouterr().out
    assert "9 of them done" in said
    assert "9 cells that had finished: evaluated on same, code from their kept weights" in said
    assert files(tmp_path, *kept) == before
    assert [untimed(row) for row in rows(tmp_path)] == [untimed(row) for row in rows(evaluated)]
    assert [untimed(row, NEW) for row in rows(tmp_path)] == [untimed(row) for row in table]
    again = files(tmp_path, "runs/*/run.json", "runs.csv")
    assert train(arguments(corpus, tmp_path, "save_model=true", texts(corpus, other))) == 0
    assert "had finished" not in capsys.readouterr().out
    assert {path: content for path, (content, _) in files(tmp_path, "runs/*/run.json", "runs.csv").items()} == {
        path: content for path, (content, _) in again.items()
    }


def test_a_text_that_is_left_out_leaves_the_table(corpus, plain, evaluated, tmp_path):
    shutil.copytree(evaluated, tmp_path, dirs_exist_ok=True)
    assert train(arguments(corpus, tmp_path)) == 0
    assert [untimed(row) for row in rows(tmp_path)] == [untimed(row) for row in rows(plain)]


def test_another_text_under_a_name_is_not_taken_for_it(corpus, other, evaluated, tmp_path, capsys):
    """Weights were not kept, so the losses on another text of that name are not known."""
    shutil.copytree(evaluated, tmp_path, dirs_exist_ok=True)
    shorter = texts(corpus, other).replace("1500", "1000")
    assert train(arguments(corpus, tmp_path, shorter)) == 0
    table = rows(tmp_path)
    assert {row["loss_code"] for row in table} == {row["bits_per_byte_code"] for row in table} == {""}
    assert [row["loss_same"] for row in table] == [row["loss"] for row in table]
    names = [row["cell"] for row in table]
    assert (
        f"no loss on every text of validation= for {', '.join(names[:4])} and 5 more: finished before, without "
        "save_model=true\n"
    ) in capsys.readouterr().out
    assert train(arguments(corpus, tmp_path, texts(corpus, other))) == 0
    assert [untimed(row) for row in rows(tmp_path)] == [untimed(row) for row in rows(evaluated)]


def test_a_fit_names_the_cells_without_a_loss(plain, evaluated, tmp_path):
    shutil.copytree(evaluated, tmp_path, dirs_exist_ok=True)
    folder = SweepFolder(tmp_path / "v")
    first, second = (row["cell"] for row in rows(tmp_path)[:2])
    for cell in (first, second):
        record = read_record(folder.run(cell))
        del record["validation"]["code"]
        write_record(folder.run(cell), record)
    write_table(folder)
    with pytest.raises(UserError) as refused:
        fit(str(folder.path), target="loss_code")
    assert str(refused.value) == (
        f"{folder.table} has no loss_code for {first}, {second}: issue the sweep again with validation=, that "
        "evaluates those whose weights it kept, or leave them out with filter=loss_code!=nan"
    )
    assert len(fit(str(folder.path), target="loss_code", filter="loss_code!=nan", loss="log_mse").rows) == 7


@pytest.fixture(scope="module")
def fitted(evaluated):
    return write_study(FitConfig(runs=str(evaluated / "v"), bootstrap=200))


def test_a_study_has_the_exponents_on_each_text(evaluated, fitted):
    assert [each["target"] for each in fitted["by_text"]] == ["loss", "loss_same", "loss_code"]
    head, same, code = fitted["by_text"]
    assert head == fitted["fit"]
    for key in ("estimates", "intervals", "objective"):
        assert same[key] == head[key] != code[key]
    config = FitConfig(runs="v", bootstrap=200, columns=Columns(target="loss_code"))
    of_code = study(read_runs(evaluated / "v"), config)
    assert of_code["fit"] == code and of_code["choices"]["target"] == "loss_code"


def test_a_report_has_them_as_a_table(evaluated, fitted):
    (table,) = (table for table in tables(read(evaluated / "v")) if table.key == "by-text")
    assert [row[0].text for row in table.rows] == ["loss", "loss_same", "loss_code"]
    place = table.header.index("E")
    assert [row[place].text for row in table.rows] == [f"{fit['estimates']['E']:.2f}" for fit in fitted["by_text"]]


def test_figures_of_a_law_show_the_losses_that_it_predicts(evaluated, fitted, tmp_path):
    shutil.copytree(evaluated, tmp_path, dirs_exist_ok=True)
    found = fitted | {"choices": fitted["choices"] | {"target": "loss_code"}}
    (tmp_path / "v" / "fit.json").write_text(json.dumps(found))
    sweep = read(tmp_path / "v")
    assert [str(loss) for loss in cell_points(sweep).loss] == [row["loss_code"] for row in rows(tmp_path)]
    assert [str(loss) for loss in cell_points(sweep, sweep.finished).loss] == [row["loss"] for row in rows(tmp_path)]
    assert warning(sweep).startswith(" The loss is the column loss_code.")


def test_a_stop_between_two_texts_ends_in_the_same_bits(corpus, other, evaluated, tmp_path, monkeypatch):
    """Of the first cell one text is evaluated and the other is not, so it has no record yet."""
    calls = []

    def stopped(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return evaluate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("harness.training.texts.evaluate", stopped)
        with pytest.raises(Stopped):
            train(arguments(corpus, tmp_path, texts(corpus, other)))
    assert len(calls) == 2 and not list((tmp_path / "v").glob("runs/*/run.json"))
    assert train(arguments(corpus, tmp_path, texts(corpus, other))) == 0
    assert [untimed(row) for row in rows(tmp_path)] == [untimed(row) for row in rows(evaluated)]


def test_a_kill_ends_in_the_same_bits(corpus, other, evaluated, tmp_path):
    """The process is killed as soon as the first cell has a record."""
    command = [sys.executable, "scripts/train.py", *arguments(corpus, tmp_path, texts(corpus, other))]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "v").glob("runs/*/run.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert train(arguments(corpus, tmp_path, texts(corpus, other))) == 0
    assert [untimed(row) for row in rows(tmp_path)] == [untimed(row) for row in rows(evaluated)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{a b: tinystories}", "validation.a b is no identifier: take letters, digits and _, with no digit first"),
        ("{a: tiny}", "validation.a=tiny is no entry of conf/data: choose c4, disk, facts, files, fineweb_edu, "),
        ("{a: files}", "validation.a.path is not set, and validation.a.source=files needs it: set validation.a.path="),
        ("[tinystories]", "validation=['tinystories'] is no mapping of names to texts: write validation: {"),
        ("tinystories", "validation=tinystories is no mapping of names to texts: write validation: {"),
        ("{}", "validation is empty: write validation: {"),
        ("{se: sotu}", "validation.se would give the column loss_se, which the run table has: take another name"),
        ("{parts: sotu}", "validation.parts would give the column loss_parts, which the run table has: "),
        ("{x: sotu, se_x: sotu}", "validation.se_x would give the column loss_se_x, which validation.x has: take "),
        ("{a: sotu},{b: sotu}", "validation is the same for all cells of a sweep, and has several values: give it one"),
    ],
)
def test_bad_input_is_one_sentence(given, said):
    with pytest.raises(UserError) as refused:
        compose_sweep(["-m", "tokens=1e6", f"validation={given}"])
    assert str(refused.value).startswith(said)


def test_a_text_that_is_too_short_is_refused_before_any_work(corpus, other, tmp_path):
    short = f"validation={{code: {{source: files, path: '{other}', validation_tokens: 16}}}}"
    (tmp_path / "tiny.jsonl").write_text('{"text": "ab"}\n{"text": "cd"}\n')
    tiny = f"validation={{code: {{source: files, path: '{tmp_path}/tiny.jsonl', validation_tokens: 3}}}}"
    with pytest.raises(UserError) as refused:
        train(arguments(corpus, tmp_path, tiny))
    assert str(refused.value) == (
        "validation.code has 3 tokens, too few for one sequence of model.seq_len=32 and its last target: raise "
        "validation.code.validation_tokens to 33 or more"
    )
    assert not (tmp_path / "v").exists()
    assert train([*arguments(corpus, tmp_path, short), "shape=w8-d1", "tokens=1e3"]) == 0  # whole documents, of 101


def test_a_text_that_is_not_there_is_refused_before_a_store_is_built(corpus, tmp_path):
    missing = f"validation={{code: {{source: files, path: '{tmp_path}/data.txt'}}}}"
    with pytest.raises(UserError, match=f"^validation.code.path={tmp_path}/data.txt matches no .txt, "):
        train(arguments(corpus, tmp_path, missing, f"data.store_directory={tmp_path}/stores"))
    assert list(tmp_path.iterdir()) == []


def test_an_entry_is_written_out_for_every_process(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TEXTS", "some/where")
    path = "{source: files, path: '~/it''s'}".replace("''", "\\'")
    given = f"validation={{stories: tinystories, mine: {path}, env: {{source: files, path: '${{oc.env:TEXTS}}'}}}}"
    sweep = compose_sweep(["-m", "tokens=1e6", given])
    (job,) = sweep.jobs
    assert job.validation["stories"]["name"] == "roneneldan/TinyStories" and job.validation["stories"]["config"] is None
    assert job.validation["mine"] == {"source": "files", "path": f"{tmp_path}/it's"}
    assert job.validation["env"]["path"] == "some/where"
    assert any(line.startswith("validation={stories:{source:'hub'") for line in sweep.job_overrides[0])
