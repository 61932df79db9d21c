"""Text that a kept model writes in the place of a part of what trains, and the same text to validate on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data import building, generated
from harness.data.documents import DataConfig
from harness.data.generated import write_block
from harness.data.tokenizer import TokenizerConfig, bytes_tokenizer
from harness.data.tokens import prepare, recipe_of
from harness.errors import UserError
from harness.model import GPT, ModelConfig, initialize
from harness.model.kept import load_model, save_model
from harness.sweep.run import train

BYTES = TokenizerConfig(kind="bytes")
TEXTS = [f"the {number} words of document {number} are not many" for number in range(100)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(generated, "BLOCK", 32)


def keep(folder: Path, seed: int = 0, tokenizer: str | None = bytes_tokenizer().hash) -> Path:
    """A model that writes noise and ends about one document in 14 tokens."""
    config = ModelConfig(family="gpt2", parametrization="sp", width=16, depth=1, head_size=8, seq_len=32)
    model = GPT(config, 257)
    initialize(model, seed)
    with torch.no_grad():
        model.final_norm.bias.fill_(1)
        model.head.weight[256] = 3 / 16
    (folder / "runs" / "cell").mkdir(parents=True)
    save_model(folder / "runs" / "cell" / "model.pt", model, tokenizer)
    return folder


@pytest.fixture
def data(corpus_of, tmp_path) -> DataConfig:
    return corpus_of(TEXTS, validation_tokens=200, generator=str(keep(tmp_path / "generator")))


def grown(data: DataConfig, *wanted: int) -> tuple[list[np.ndarray], dict]:
    """The documents that train of a store that has grown to so many tokens, one by one, and its manifest."""
    recipe, name = recipe_of(data, BYTES)
    folder = Path(data.store_directory) / name
    folder.parent.mkdir(exist_ok=True)
    manifest = {"schema": 1, "recipe": recipe, "recipe_hash": name}
    for tokens in wanted:
        manifest = building.grow(data, BYTES, manifest, folder, tokens, 1)
    train = np.fromfile(folder / "train.bin", "<u2")
    assert train[-1] == 256 and len(train) == manifest["train"]["tokens"]
    return np.split(train, np.flatnonzero(train == 256)[:-1] + 1), manifest


def written(data: DataConfig, blocks: int) -> list[list[int]]:
    model = load_model(Path(data.generator) / "runs" / "cell" / "model.pt")
    documents = (ids for number in range(blocks) for ids in write_block(model, bytes_tokenizer(), 0, number))
    return [[*ids.tolist(), 256] for ids in documents]


def test_a_half_is_the_corpus_in_its_order_and_a_half_the_model_in_its_own(data):
    real, _ = grown(data, 2_000)
    mixed, manifest = grown(replace(data, generated=0.5), 3_000)
    known = {tuple(ids.tolist()) for ids in grown(data, 10**6)[0]}
    own = [ids.tolist() for ids in mixed if tuple(ids.tolist()) in known]
    others = [ids.tolist() for ids in mixed if tuple(ids.tolist()) not in known]
    assert own == [ids.tolist() for ids in real][: len(own)]
    assert others == written(data, 8)[: len(others)] and len(others) > 64
    tokens = sum(map(len, others))
    assert manifest["generated"] == (len(others), tokens)
    assert tokens == pytest.approx(1_500, abs=max(map(len, others + own)))


def test_all_of_it_is_the_model_without_an_end_and_what_validates_is_the_corpus(data):
    whole, manifest = grown(replace(data, generated=1.0), 6_000)
    assert manifest["train"]["tokens"] >= 6_000 > grown(data, 10**6)[1]["train"]["tokens"]
    assert manifest["documents_read"] == 0 and not manifest["exhausted"]
    assert [ids.tolist() for ids in whole] == written(data, 30)[: len(whole)]
    folders = [Path(data.store_directory) / recipe_of(each, BYTES)[1] for each in (data, replace(data, generated=1.0))]
    first, second = ((folder / "validation.bin").read_bytes() for folder in folders)
    assert first == second


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_store_that_grows_has_the_bytes_of_one_that_was_built_at_once(data, share):
    once, manifest = grown(replace(data, generated=share), 2_500)
    Path(data.store_directory).rename(f"{data.store_directory}-once")
    again, grew = grown(replace(data, generated=share), 100, 1_000, 2_500)
    assert [ids.tolist() for ids in once] == [ids.tolist() for ids in again]
    assert grew == {**manifest, "generated": grew["generated"]} and tuple(grew["generated"]) == manifest["generated"]


def test_what_is_committed_is_whole_blocks(data, monkeypatch):
    """So that one that is killed writes no block again but that which it was in."""
    commits, write = [], building.write_atomically
    monkeypatch.setattr(building, "COMMIT_SECONDS", -1.0)
    monkeypatch.setattr(
        building, "write_atomically", lambda path, text: (commits.append(json.loads(text)), write(path, text))
    )
    grown(replace(data, generated=1.0), 2_500)
    assert [manifest["generated"][0] for manifest in commits[:-1]] == [32 * n for n in range(1, len(commits))]
    assert len(commits) > 3


def test_a_corpus_that_ends_ends_its_half(data):
    _, manifest = grown(replace(data, generated=0.5), 10**6)
    assert manifest["exhausted"] and manifest["documents_read"] == 100
    assert manifest["generated"][1] == pytest.approx(manifest["train"]["tokens"] / 2, rel=0.1)


def test_a_cell_that_was_trained_writes(corpus, tmp_path):
    trained = ["tokens=10e3", "save_model=true", "tracking=none", "name=generator", f"output_directory={tmp_path}"]
    assert train([*corpus, *trained]) == 0
    path = dict(argument.split("=") for argument in corpus)["data.path"]
    data = DataConfig(source="files", path=path, validation_tokens=4000, store_directory=str(tmp_path / "stores"))
    documents, manifest = grown(replace(data, generated=0.5, generator=str(tmp_path / "generator")), 3_000)
    written, tokens = manifest["generated"]
    assert written >= 2 and tokens == pytest.approx(1_500, abs=max(map(len, documents)))


def test_the_recipe_is_of_the_weights_the_share_and_the_seed(data, tmp_path):
    def name(**keys) -> str:
        return recipe_of(replace(data, **keys), BYTES)[1]

    other = str(keep(tmp_path / "other", seed=1))
    plain = name(generator=None)
    assert plain == name() == name(generated=0.0) == name(generated=0.0, seed=3)
    names = [plain, name(generated=0.5), name(generated=1.0), name(generated=0.5, seed=1)]
    names.append(name(generated=0.5, generator=other))
    assert len(set(names)) == 5
    assert name(generated=0.5, generator=f"{data.generator}/runs/cell") == names[1]


def test_what_cannot_write_is_refused_and_leaves_no_store(data, tmp_path):
    def said(**keys) -> str:
        with pytest.raises(UserError) as error:
            prepare(replace(data, **{"generated": 0.5, **keys}), BYTES, 1000)
        return str(error.value)

    assert said(generated=1.5) == "data.generated=1.5 is no share of the tokens: give 0 to 1"
    assert said(generator=None) == (
        "data.generated=0.5 wants a model that writes: give data.generator=outputs/NAME, the folder of one that was "
        "trained with save_model=true"
    )
    assert said(generator="outputs/nowhere") == (
        "data.generator=outputs/nowhere has no weights that were kept: train it first, as in `python scripts/train.py "
        "name=nowhere shape=w48-d2 tokens=2e6 save_model=true`"
    )
    (Path(data.generator) / "runs" / "second").mkdir()
    (Path(data.generator) / "runs" / "second" / "model.pt").touch()
    assert said().startswith(f"data.generator={data.generator} has the weights of 2 cells: name the folder of one, as")
    assert said(generator=f"{data.generator}/runs/second").endswith("train the cell again with save_model=true")
    other = str(keep(tmp_path / "other", tokenizer=None))
    assert said(generator=other) == (
        f"data.generator={other} was not trained on ids of this tokenizer: train it again, with the same tokenizer and "
        "corpus of its BPE"
    )
    assert not list(Path(data.store_directory).glob("*/manifest.json"))
