"""Further texts to validate on: what may name one, what it is made of, and what it must not share with training."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from harness.data.texts import open_texts, texts_of
from harness.data.tokenizer import TokenizerConfig
from harness.data.tokens import TokenStore, prepare
from harness.errors import UserError

BYTES = TokenizerConfig(kind="bytes")


def letters(first: int, documents: int) -> list[str]:
    return [f"document number {number} of all of them" for number in range(first, first + documents)]


def opened(name, text, data, tokenizer=BYTES):
    keys = {"source": text.source, "path": text.path, "validation_tokens": text.validation_tokens}
    store = prepare(data, tokenizer, 1000, processes=1)
    return store, open_texts({name: keys}, [(data, store)], tokenizer, processes=1)[name]


def test_the_same_corpus_gives_the_same_tokens(corpus_of):
    data = corpus_of(letters(0, 100), validation_tokens=500)
    store, text = opened("same", data, data)
    assert np.array_equal(text.validation, store.validation)
    assert text.bytes_per_token == store.bytes_per_token
    assert text.trained(data, store) == 0
    # 500 tokens are held by 63 rows of 8, and the last has a target more.
    assert np.array_equal(text.evaluated(8), store.evaluated(8)) and len(text.evaluated(8)) == 63 * 8 + 1


def test_a_text_is_in_the_ids_of_the_tokenizer_of_the_sweep(corpus_of):
    """A BPE trained on what the text is made of would have one token for its word."""
    data = corpus_of([f"{word} " * 60 for word in ("alpha", "beta", "gamma", "delta")] * 3, validation_tokens=10)
    bpe = TokenizerConfig(vocab_size=262, training_bytes=1000)
    store, text = opened("other", corpus_of(["zzzz yyyy", "wwww xxxx"], validation_tokens=2), data, bpe)
    assert text.manifest["tokenizer_hash"] == store.manifest["tokenizer_hash"]
    assert text.validation.dtype == store.validation.dtype
    # No pair of its letters stands in the corpus, so each of nine bytes is a token, and then the end of text.
    assert len(text.validation) == 10 and text.bytes_per_token == 0.9


def test_a_text_that_is_there_needs_no_source_but_for_its_name(corpus_of, monkeypatch):
    data, other = corpus_of(letters(0, 100), validation_tokens=500), corpus_of(letters(100, 40), validation_tokens=90)
    _, first = opened("other", other, data)
    before = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    monkeypatch.setattr("harness.data.corpus.open_corpus", None)
    store, again = opened("renamed", other, data)
    assert again.folder == first.folder != Path(data.store_directory) / store.recipe_hash
    assert {path.name: path.read_bytes() for path in first.folder.iterdir()} == before
    assert sorted(before) == ["digests.bin", "manifest.json", "validation.bin"]


def test_a_build_that_was_killed_is_begun_again(corpus_of):
    data, other = corpus_of(letters(0, 100), validation_tokens=500), corpus_of(letters(100, 40), validation_tokens=90)
    _, whole = opened("other", other, data)
    content = (whole.folder / "validation.bin").read_bytes()
    (whole.folder / "manifest.json").unlink()
    (whole.folder / "validation.bin").write_bytes(content[:20])
    _, again = opened("other", other, data)
    assert (again.folder / "validation.bin").read_bytes() == content


def test_documents_that_train_too_are_counted(corpus_of):
    """Of a corpus the half with the larger hashes trains first; a file of two of those is validated on one of them."""
    data = corpus_of(letters(0, 100), validation_tokens=500)
    store = prepare(data, BYTES, 1000, processes=1)
    ends = np.flatnonzero(store.train[:200] == 256)
    trained = [bytes(part).decode() for part in np.split(store.train[: ends[1]].astype(np.uint8), [ends[0] + 1])]
    texts = [trained[0].rstrip("\0"), trained[1]]
    assert all(text in letters(0, 100) for text in texts)
    _, text = opened("leaked", corpus_of(texts, validation_tokens=10), data)
    assert text.manifest["validation"]["documents"] == 1
    assert text.trained(data, store) == 1
    _, text = opened("clean", corpus_of(letters(100, 4), validation_tokens=10), data)
    assert text.trained(data, store) == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("x", "validation=x is no mapping of names to texts: write validation: {"),
        ({}, "validation is empty: write validation: {"),
        ({"a b": {}}, "validation.a b is no identifier: take letters, digits and _, with no digit first"),
        ({"2nd": {}}, "validation.2nd is no identifier: "),
        ({"code": 3}, "validation.code=3 is no corpus: name an entry of conf/data, or write validation.code={source"),
        ({"code": {"file": "x"}}, "validation.code.file is no key of a corpus that is only read: choose of source, "),
        ({"code": {"repeat": True}}, "validation.code.repeat is no key of a corpus that is only read: "),
        ({"code": {"source": "files", "path": 3}}, "validation.code.path=3 is no text"),
        ({"code": {"validation_tokens": "x"}}, "validation.code.validation_tokens=x is no number"),
        ({"code": {"validation_tokens": True}}, "validation.code.validation_tokens=True is no number"),
        ({"code": {"validation_tokens": 0}}, "validation.code.name is not set, and validation.code.source=package "),
        ({"code": {"source": "web"}}, "validation.code.source=web is unknown: choose one of package, hub, files, disk"),
        ({"code": {"source": "files"}}, "validation.code.path is not set, and validation.code.source=files needs it: "),
    ],
)
def test_what_is_no_text_is_one_sentence(corpus_of, given, said):
    with pytest.raises(UserError) as refused:
        texts_of(given, corpus_of(letters(0, 4)))
    assert str(refused.value).startswith(said)


def refusal(text: dict, data) -> str:
    store = prepare(data, BYTES, 1000, processes=1)
    with pytest.raises(UserError) as refused:
        open_texts({"code": text}, [(data, store)], BYTES, processes=1)
    folders = [path for path in Path(data.store_directory).iterdir() if path.is_dir() and path.name != "datasets"]
    assert [path.name for path in folders] == [store.recipe_hash]
    return str(refused.value)


def test_a_text_that_cannot_be_had_is_one_sentence(corpus_of, tmp_path):
    data = corpus_of(letters(0, 100), validation_tokens=500)
    source = {"source": "files", "path": str(tmp_path / "data.missing.txt")}
    assert refusal(source, data).startswith(f"validation.code.path={tmp_path}/data.missing.txt ")
    (tmp_path / "one.txt").write_text("one document")
    said = refusal({"source": "files", "path": str(tmp_path / "one.txt")}, data)
    assert said.startswith(f"validation.code.path={tmp_path}/one.txt holds one document only, and validation needs ")
    (tmp_path / "short.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in ("ab", "cd")))
    said = refusal({"source": "files", "path": str(tmp_path / "short.jsonl")}, data)
    assert said == (
        "validation.code.validation_tokens=200000 is more than half of the documents hold (3 of 6 tokens in all): "
        "lower it to 3 or less, or take a larger corpus"
    )


def test_no_more_of_the_corpus_that_trains_than_it_keeps_from_training(corpus_of):
    data = corpus_of(letters(0, 100), validation_tokens=500)
    assert refusal({"source": "files", "path": data.path, "validation_tokens": 501}, data) == (
        "validation.code.validation_tokens=501 is more than the 500 that are kept from training in the same corpus: "
        "lower it to that or less"
    )
    store = prepare(data, BYTES, 1000, processes=1)
    text = {"source": "files", "path": data.path, "validation_tokens": 99}
    fewer = open_texts({"a": text}, [(data, store)], BYTES, processes=1)["a"]
    assert np.array_equal(fewer.validation, store.validation[: len(fewer.validation)])


def test_a_damaged_text_is_told(corpus_of):
    data, other = corpus_of(letters(0, 100), validation_tokens=500), corpus_of(letters(100, 40), validation_tokens=90)
    _, text = opened("other", other, data)
    shutil.copy(text.folder / "digests.bin", text.folder / "validation.bin")
    with pytest.raises(UserError, match="is damaged"):
        opened("other", other, data)


def test_a_token_store_has_the_bytes_that_it_had(store: TokenStore):
    """The manifest's keys in their order, which stores that are there already have."""
    assert list(store.manifest) == [
        "schema", "recipe", "recipe_hash", "source", "revision", "tokenizer_hash", "vocab_size", "end_of_text", "dtype",
        "validation", "train", "digests", "bytes_per_token", "duplicates", "documents_read", "place", "exhausted",
    ]  # fmt: skip
