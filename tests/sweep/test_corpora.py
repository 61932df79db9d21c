"""Two corpora as an axis: one tokenizer, one text whose losses are compared."""

import csv
import json
import shutil

import numpy as np
import pytest

from harness.data.corpus import DataConfig
from harness.data.synthetic import write_corpus
from harness.data.tokenizer import TokenizerConfig
from harness.data.tokens import prepare, recipe_of
from harness.errors import UserError
from harness.laws import compare, fit
from harness.records import COLUMNS, SweepFolder, read_record, read_sweep, write_record, write_table
from harness.report.inputs import read
from harness.sweep.compose import compose_sweep, open_stores, trunks_by_job
from harness.sweep.progress import render
from harness.sweep.run import train
from harness.sweep.snapshot import snapshot

GRID = ("tokens=[1e3,2e3,4e3]", "shape=w8-d1,w16-d1,w24-d1", "optimizer.warmup_tokens.value=256")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three corpora; the first two train."""
    folder = tmp_path_factory.mktemp("corpora")
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        write_corpus(folder / f"{name}.jsonl", documents=400, letters=100 if name == "a" else 60, seed=seed)
    return folder


def variants(files) -> str:
    """Both corpora by names, as a sweep's file has them; data=a,b needs entries of conf/."""
    return "variants={" + ",".join(f"{name}: [\"data.path='{files}/{name}.jsonl'\"]" for name in "ab") + "}"


def text(files) -> str:
    return f"validation={{c: {{source: files, path: '{files}/c.jsonl', validation_tokens: 1500}}}}"


def arguments(corpus, folder, *more):
    rest = [argument for argument in corpus if not argument.startswith("data.path")]
    return ["-m", *rest, "tracking=none", "hydra/launcher=basic", "name=v", f"output_directory={folder}", *GRID, *more]


@pytest.fixture(scope="module")
def trained(corpus, files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    assert train(arguments(corpus, folder, variants(files), text(files))) == 0
    return folder / "v"


def rows(folder):
    with open(folder / "runs.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_loss_of_all_is_that_of_the_first_text(trained):
    table = rows(trained)
    assert list(table[0]) == [*COLUMNS, "loss_c", "loss_se_c", "loss_parts_c", "bits_per_byte_c", "variant"]
    assert [row["variant"] for row in table] == ["a"] * 9 + ["b"] * 9
    for row in table:
        record = json.loads((trained / "runs" / row["cell"] / "run.json").read_text())
        for column in ("loss", "loss_se", "loss_parts", "bits_per_byte"):
            assert row[column] == row[f"{column}_c"] == str(record["validation"]["c"][column])
        assert row["loss"] != str(record["loss"])
    assert read_sweep(SweepFolder(trained))["compared_on"] == "c"
    assert [f"{cell.loss}" for cell in snapshot(trained).cells] == [row["loss"] for row in table]


def test_another_text_to_compare_on_needs_kept_weights(corpus, files, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "v")
    before = (tmp_path / "v" / "sweep.yaml").read_bytes()
    with pytest.raises(UserError) as refused:
        train(arguments(corpus, tmp_path, variants(files), text(files).replace("1500", "1000")))
    first = rows(trained)[0]["cell"]
    assert str(refused.value) == (
        f"validation.c is the text that the corpora of {tmp_path}/v are compared on, and 18 of its finished cells, "
        f"{first} first, have neither a loss on it nor weights that were kept: name the text that they were compared "
        "on first, or give this grid a name of its own, as in name=v-2"
    )
    assert (tmp_path / "v" / "sweep.yaml").read_bytes() == before
    record = read_record(tmp_path / "v" / "runs" / first)
    record["validation"]["c"]["recipe"] = "another"
    write_record(tmp_path / "v" / "runs" / first, record)
    now = snapshot(tmp_path / "v")
    assert now.cells[0].status == "finished" and now.cells[0].loss is None
    assert render(now)
    write_table(SweepFolder(tmp_path / "v"))
    with pytest.raises(UserError, match=f"runs.csv has no loss for {first}: issue the sweep again with validation="):
        fit(str(tmp_path / "v"), filter="variant==a")
    assert len(read(tmp_path / "v").finished) == 17


def test_a_corpus_has_the_cells_that_it_has_alone(corpus, files, trained, tmp_path):
    assert train(arguments(corpus, tmp_path, f"data.path={files}/a.jsonl", text(files))) == 0
    alone, both = rows(tmp_path / "v"), rows(trained)[:9]
    assert [(row["cell"], row["loss_c"]) for row in alone] == [(row["cell"], row["loss"]) for row in both]
    assert [row["loss"] for row in alone] != [row["loss_c"] for row in alone]


def test_the_corpora_are_compared(trained):
    found = compare(str(trained), bootstrap=0)
    assert (found.column, found.baseline, list(found.worth)) == ("variant", "a", ["b"])
    table = rows(trained)
    first, second = (np.array([float(row["loss"]) for row in table[part]]) for part in (slice(9), slice(9, 18)))
    mean, *_ = found.differences["b"].mean()
    assert mean == pytest.approx(np.log(second / first).mean(), rel=1e-9)


def test_an_entry_is_the_column_data(corpus, files):
    """Entries of conf/ by name: the column says which, and all read the tokenizer's corpus."""
    line = ["-m", "data=sotu,wikitext103", "tokenizer=bpe", "tokenizer.data=sotu", "tokens=1e6", "shape=w32-d1,w64-d1"]
    sweep = compose_sweep([*line, "validation={a: sotu, b: tinystories}"])
    assert sorted({label["data"] for label in sweep.labels}) == ["sotu", "wikitext103"] and sweep.axes == ["data"]
    sotu = {"source": "package", "name": "sotu", "path": "data/speeches/*.txt"}
    for job in sweep.jobs:
        assert {key: job.tokenizer.data[key] for key in sotu} == sotu
        assert list(job.validation) == ["a", "b"]


def test_one_bpe_encodes_all(corpus, files, tmp_path):
    bpe = ("tokenizer=bpe", "tokenizer.vocab_size=300")
    own = f"tokenizer.data={{source: files, path: '{files}/a.jsonl'}}"
    sweep = compose_sweep(arguments(corpus, tmp_path, *bpe, variants(files), text(files), own))
    stores = open_stores(sweep.jobs)
    first, second = stores.by_corpus.values()
    assert first.manifest["tokenizer_hash"] == second.manifest["tokenizer_hash"]
    data = DataConfig(source="files", path=f"{files}/a.jsonl", validation_tokens=4000)
    config = TokenizerConfig(vocab_size=300)
    assert first.recipe_hash == recipe_of(data, config)[1]  # of its own corpus, as if nothing were said of it
    alone = prepare(sweep.jobs[-1].data, config, 1000)
    assert alone.manifest["tokenizer_hash"] != second.manifest["tokenizer_hash"]
    assert alone.recipe_hash != second.recipe_hash
    assert second.manifest["recipe"]["tokenizer"]["data"] == first.manifest["recipe"]["data"]
    assert len({trunk.name for of_job in trunks_by_job(sweep.jobs, stores) for trunk in of_job}) == 6


def refusal(corpus, files, tmp_path, *more):
    stores = tmp_path / "stores"  # its own: others make theirs in that of all tests meanwhile
    with pytest.raises(UserError) as refused:
        train(arguments(corpus, tmp_path, f"data.store_directory={stores}", *more))
    assert not stores.exists() and not (tmp_path / "v").exists()
    return str(refused.value)


def test_what_cannot_be_compared_is_one_sentence(corpus, files, tmp_path, trained):
    assert refusal(corpus, files, tmp_path, variants(files)) == (
        "data differs within the grid, and losses on different texts cannot be compared: name the text that all are "
        "evaluated on, as in 'validation={stories: tinystories}'; its first is the column loss"
    )
    assert refusal(corpus, files, tmp_path, variants(files), text(files), "tokenizer=bpe") == (
        "data differs within the grid, and each corpus would train a BPE of its own: name the corpus of one for all, "
        "as in tokenizer.data=tinystories, or take tokenizer=bytes"
    )
    said = refusal(corpus, files, tmp_path, f"data.path={files}/a.jsonl", "tokenizer=bytes,bpe", text(files))
    assert said.startswith("tokenizer differs within the grid (bytes, bpe; an entry of conf/data may bring its own), ")
    assert said.endswith("columns.target=bits_per_byte`")
    said = refusal(corpus, files, tmp_path, variants(files), text(files), "tokenizer.data=sotu")
    assert said == (
        "tokenizer.data names what a BPE is trained on, and tokenizer.kind=bytes trains none: leave it out, or take "
        "tokenizer=bpe"
    )
    said = refusal(corpus, files, tmp_path, "tokenizer=bpe", "tokenizer.data=nothing", f"data.path={files}/a.jsonl")
    assert said.startswith("tokenizer.data=nothing is no entry of conf/data: choose c4, disk, ")
    own = f"tokenizer.data={{source: files, path: '{tmp_path}/none.txt'}}"
    said = refusal(corpus, files, tmp_path, "tokenizer=bpe", own, f"data.path={files}/a.jsonl")
    assert said.startswith(f"tokenizer.data.path={tmp_path}/none.txt ")


def test_recipes_are_what_they_were(files):
    """Of every store that there is: no key is added where tokenizer.data is not given."""
    data = DataConfig(source="package", name="sotu", path="data/speeches/*.txt")
    recipe, digest = recipe_of(data, TokenizerConfig())
    assert recipe["tokenizer"] == {"kind": "bpe", "vocab_size": 1024, "training_bytes": 10_000_000}
    assert digest == "3f0398917020bce3"
    own = {"source": "package", "name": "sotu", "path": "data/speeches/*.txt"}
    assert recipe_of(data, TokenizerConfig(data=own)) == (recipe, digest)
