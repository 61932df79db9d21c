import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from harness.data import corpus, token_file
from harness.data.batches import window_order
from harness.data.corpus import DataConfig
from harness.data.synthetic import synthetic_texts, write_corpus
from harness.data.token_file import Extent, TokenWriter, open_tokens
from harness.data.tokenizer import TokenizerConfig
from harness.data.tokens import prepare, stored_tokens
from harness.errors import UserError

BYTES = TokenizerConfig(kind="bytes")
WINDOW = 2**20


def folder_of(data: DataConfig) -> Path:
    (manifest,) = Path(data.store_directory).glob("*/manifest.json")
    return manifest.parent


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def documents(tokens: np.ndarray) -> list[str]:
    """The texts of a bytes store."""
    ends = np.flatnonzero(tokens == 256)
    return [bytes(part[part < 256].astype(np.uint8)).decode() for part in np.split(tokens, ends + 1)[:-1]]


@pytest.fixture
def large(tmp_path) -> DataConfig:
    """5000 documents of 400 letters, 2 005 000 tokens with the ends; 500 documents validate."""
    write_corpus(tmp_path / "corpus.jsonl", documents=5000, letters=400, seed=0)
    return DataConfig(
        source="files",
        path=str(tmp_path / "corpus.jsonl"),
        validation_tokens=500 * 401,
        store_directory=str(tmp_path / "stores"),
    )


def test_the_default_corpus(sotu_store):
    """Measured once: 249 speeches are 6225 passages, all accounted for; 523 stand beside the 300 that validate."""
    manifest = sotu_store.manifest
    train, validation = Extent(**manifest["train"]), Extent(**manifest["validation"])
    assert (train.documents, validation.documents, manifest["beside"]) == (5402, 300, 523)
    assert (train.bytes, validation.bytes) == (10_570_715, 583_930)
    assert (train.tokens, validation.tokens) == (3_619_733, 200_258)
    assert manifest["duplicates"] == 0 and sotu_store.exhausted
    assert (sotu_store.vocab_size, sotu_store.end_of_text) == (1024, 1023)
    assert (len(sotu_store.train), len(sotu_store.validation)) == (train.tokens, validation.tokens)
    assert validation.tokens >= 200_000
    assert sotu_store.train.dtype == np.uint16 and sotu_store.train.max() == 1023
    assert np.count_nonzero(sotu_store.train == 1023) == train.documents
    assert sotu_store.bytes_per_token == validation.bytes / validation.tokens == pytest.approx(2.92, abs=0.01)
    assert sotu_store.unique_tokens(128) == (train.tokens - 1) // 128 * 128
    assert manifest["source"] == "package sotu 0.1.2"


def test_pieces_beside_those_that_validate_do_not_train(corpus_of):
    # Two texts of 40 pieces of 9 letters and a space, a number each; a store of bytes has 11 tokens of a piece.
    texts = ["".join(f"{number:09} " for number in range(start, start + 40)) for start in (100, 200)]
    data = corpus_of(texts, validation_tokens=10 * 11, document_characters=10)
    store = prepare(data, BYTES, 300)
    store = prepare(data, BYTES, 10_000)
    validating, training = ({int(text) for text in documents(split)} for split in (store.validation, store.train))
    everything = {*range(100, 140), *range(200, 240)}
    beside = {number + step for number in validating for step in (-1, 1)} & everything - validating
    assert len(validating) == 10 and len(beside) > 10 and store.manifest["beside"] == len(beside)
    assert training == everything - validating - beside and store.exhausted
    whole = prepare(replace(data, document_characters=None, validation_tokens=1), BYTES, 300)
    assert "beside" not in whole.manifest and whole.recipe_hash != store.recipe_hash


def test_losses_are_taken_on_as_many_tokens_as_were_asked_for(corpus_of):
    # Two documents of 39 letters and an end of text hold 50 tokens; so do 7 rows of 8, and 1 of 50.
    store = prepare(corpus_of([letter * 39 for letter in "abcdefghij"], validation_tokens=50), BYTES, 1)
    assert len(store.validation) == 80
    assert [len(store.evaluated(seq_len)) for seq_len in (8, 50, 100)] == [57, 51, 80]
    assert store.evaluated(8).tolist() == store.validation[:57].tolist()


def test_splits_hold_every_document_once(corpus_of):
    texts = synthetic_texts(50, 9, seed=0) + ["twice"] * 3 + ["café", "\nlines\n", "<|endoftext|>"]
    store = prepare(corpus_of(texts, validation_tokens=30), BYTES, 1)
    train, validation = documents(store.train), documents(store.validation)
    assert sorted(train + validation) == sorted(set(texts))
    assert 30 <= len(store.validation) < 30 + 15
    assert store.exhausted and store.manifest["duplicates"] == len(texts) - len(set(texts))
    assert store.bytes_per_token == pytest.approx(1 - len(validation) / len(store.validation))


def test_whole_windows_are_stored():
    """A window of 2^20 tokens, less 2^14 that a row length may waste of it, and one target more."""
    assert stored_tokens(0) == stored_tokens(1) == stored_tokens(WINDOW - 2**14) == WINDOW + 1
    assert stored_tokens(WINDOW - 2**14 + 1) == 2 * WINDOW + 1
    for tokens in (10**6, 10**7, 10**9):
        for seq_len in (127, 128, 1000, 1023, 16_384):
            rows = WINDOW // seq_len
            windows = math.ceil(tokens / (rows * seq_len))
            assert windows * rows * seq_len + 1 <= stored_tokens(tokens)


def test_growth_appends(large, tmp_path):
    small = prepare(large, BYTES, 1)
    assert len(small.train) == math.ceil((WINDOW + 1) / 401) * 401 and not small.exhausted
    before = small.train.copy()
    grown = prepare(large, BYTES, 10**7)
    assert grown.exhausted and len(grown.train) == 4500 * 401
    assert np.array_equal(grown.train[: len(before)], before)
    assert grown.recipe_hash == small.recipe_hash
    assert np.array_equal(small.train, before)  # an open store is not disturbed
    # A window has 10485 rows of 100 tokens; the small store has one whole one.
    orders = [window_order((len(store.train) - 1) // 100, 10485, 0, 0, 0) for store in (small, grown)]
    assert np.array_equal(*orders)
    at_once = DataConfig(**asdict(large) | {"store_directory": str(tmp_path / "other")})
    prepare(at_once, BYTES, 10**7)
    assert contents(folder_of(at_once)) == contents(folder_of(large))


def test_a_store_that_suffices_needs_no_corpus(corpus_of, tmp_path):
    data = corpus_of(["one", "two", "three"])
    first = prepare(data, BYTES, 10)
    stamp = (folder_of(data) / "manifest.json").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "stores" / "datasets")
    second = prepare(data, BYTES, 10**6)
    assert np.array_equal(first.train, second.train)
    assert (folder_of(data) / "manifest.json").stat().st_mtime_ns == stamp
    assert not (tmp_path / "stores" / "datasets").exists()


def test_the_recipe_names_the_store(corpus_of):
    base = corpus_of(["one", "two", "three"])
    hashes = [
        prepare(data, tokenizer, 1).recipe_hash
        for data, tokenizer in (
            (base, BYTES),
            (corpus_of(["one", "two", "three"], repeat=True), BYTES),
            (corpus_of(["one", "two", "three"], validation_tokens=2), BYTES),
            (corpus_of(["one", "two", "three"]), TokenizerConfig(vocab_size=258)),
            (corpus_of(["one", "two", "four"]), BYTES),
        )
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4


def test_bpe_trained_on_training_documents_only(corpus_of):
    """Every document is made of one word with letters of its own, so no merge holds those of validation."""
    words = [f"{word} " * 40 for word in ("abc", "def", "ghi", "jkl", "mno", "pqr")]
    data = corpus_of(words, validation_tokens=1)
    store = prepare(data, TokenizerConfig(vocab_size=266), 1)
    validating = prepare(data, BYTES, 1)
    assert len(store.validation) == len(validating.validation) == 4 * 40 + 1
    assert len(store.train) < len(validating.train)


def test_a_trained_tokenizer_is_kept_for_growth(large):
    bpe = TokenizerConfig(vocab_size=258, training_bytes=20_000)
    small = prepare(large, bpe, 1)
    ranks = (folder_of(large) / "tokenizer.tiktoken").read_bytes()
    assert len(ranks.splitlines()) == 257
    assert not small.exhausted and prepare(large, bpe, 10**7).exhausted
    assert (folder_of(large) / "tokenizer.tiktoken").read_bytes() == ranks
    (folder_of(large) / "tokenizer.tiktoken").write_bytes(ranks[: len(ranks) // 2])
    (folder_of(large) / "manifest.json").write_text(json.dumps(small.manifest))  # the store before it grew
    with pytest.raises(UserError, match="its tokenizer is"):
        prepare(large, bpe, 10**7)


def test_gpt2_store(corpus_of, gpt2_files):
    store = prepare(corpus_of(["Hello world", " Hello"]), TokenizerConfig(kind="tiktoken", encoding="gpt2"), 1)
    assert sorted([store.train.tolist(), store.validation.tolist()]) == [[15496, 995, 50256], [18435, 50256]]


@pytest.mark.parametrize("texts", [["one", "two"], ["one", "two", "four", "five"]])
def test_a_corpus_that_changes_under_its_store(corpus_of, monkeypatch, texts):
    """As between the ends of files of gigabytes, which are not hashed whole."""
    data = corpus_of(["one", "two", "three"])
    known = corpus.identity(data)
    monkeypatch.setattr(corpus, "identity", lambda _: known)
    manifest = prepare(data, BYTES, 1).manifest
    (folder_of(data) / "manifest.json").write_text(json.dumps(manifest | {"exhausted": False}))
    Path(data.path).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    with pytest.raises(UserError, match="has changed since it was built: set data.revision, or delete"):
        prepare(data, BYTES, 1)


def test_a_store_that_did_not_keep_what_it_had_read(large, tmp_path):
    """As stores were made before digests.bin: one that suffices is opened, one that must grow is built again."""
    small = prepare(large, BYTES, 1)
    folder = folder_of(large)
    (folder / "digests.bin").unlink()
    old = {key: value for key, value in small.manifest.items() if key not in ("digests", "place")}
    (folder / "manifest.json").write_text(json.dumps(old | {"documents_read_sum": "0"}))
    assert np.array_equal(prepare(large, BYTES, 1).train, small.train)
    prepare(large, BYTES, 10**7)
    whole = DataConfig(**asdict(large) | {"store_directory": str(tmp_path / "whole")})
    prepare(whole, BYTES, 10**7)
    assert contents(folder) == contents(folder_of(whole))


# ---- many processes, and killed ones


PROGRAM = """
import json, resource, sys
from harness.data.corpus import DataConfig
from harness.data.tokenizer import TokenizerConfig
from harness.data.tokens import prepare
from harness.errors import UserError
data, tokenizer, tokens, limit = json.loads(sys.argv[1])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    print(len(prepare(DataConfig(**data), TokenizerConfig(**tokenizer), tokens).train))
except UserError as error:
    print(error)
"""


def start(data: DataConfig, tokenizer: TokenizerConfig, tokens: int, limit: int = 0) -> subprocess.Popen:
    arguments = json.dumps([asdict(data), asdict(tokenizer), tokens, limit])
    command = [sys.executable, "-c", PROGRAM, arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_when(process: subprocess.Popen, reached) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_two_jobs_build_one_store(large, tmp_path):
    jobs = [start(large, BYTES, 10**7) for _ in range(2)]
    assert [job.communicate(timeout=60)[0].strip() for job in jobs] == [str(4500 * 401)] * 2
    alone = DataConfig(**asdict(large) | {"store_directory": str(tmp_path / "alone")})
    prepare(alone, BYTES, 10**7)
    assert contents(folder_of(large)) == contents(folder_of(alone))


def test_a_killed_build_and_a_killed_growth_leave_nothing_wrong(large, tmp_path):
    whole = DataConfig(**asdict(large) | {"store_directory": str(tmp_path / "whole")})
    prepare(whole, BYTES, 10**7)
    name = folder_of(whole).name
    folder = Path(large.store_directory) / name

    def written(least: int) -> bool:
        return (folder / "train.bin").exists() and (folder / "train.bin").stat().st_size > least

    kill_when(start(large, BYTES, 1), lambda: written(0))
    assert not (folder / "manifest.json").exists()
    first = prepare(large, BYTES, 1)
    size = (folder / "train.bin").stat().st_size
    kill_when(start(large, BYTES, 10**7), lambda: written(size))
    again = prepare(large, BYTES, 1)
    assert np.array_equal(again.train, first.train) and not again.exhausted
    prepare(large, BYTES, 10**7)
    assert contents(folder) == contents(folder_of(whole))


@pytest.mark.parametrize("limit", [1_000_000, 3_000_000])
def test_no_space_left(large, limit):
    """The first limit stops the copy that `datasets` makes, the second our own file of 3.6 MB."""
    said = start(large, BYTES, 10**7, limit).communicate(timeout=60)[0]
    assert re.fullmatch(r"data.store_directory=\S+ has no space left .*: choose another directory\n", said), said
    left = [path for path in Path(large.store_directory).rglob("*") if path.is_file()]
    assert all(path.suffix == ".lock" or path.name == "texts.arrow" for path in left)
    assert len(prepare(large, BYTES, 10**7).train) == 4500 * 401


def test_no_space_left_to_grow(large):
    before = prepare(large, BYTES, 1)
    said = start(large, BYTES, 10**7, 3_000_000).communicate(timeout=60)[0]
    assert "has no space left" in said
    assert np.array_equal(prepare(large, BYTES, 1).train, before.train)
    assert len(prepare(large, BYTES, 10**7).train) == 4500 * 401


# ---- what a user gets wrong


@pytest.mark.parametrize("below", ["", "deep/er"])
def test_a_store_directory_that_cannot_be_written(corpus_of, tmp_path, below):
    (tmp_path / "file").write_text("")
    data = corpus_of(["one", "two"], store_directory=str(tmp_path / "file" / below))
    with pytest.raises(UserError, match="data.store_directory=.*file.* (is a file|lies below a file): choose another"):
        prepare(data, BYTES, 1)


def test_a_store_directory_where_no_folder_can_be(corpus_of):
    with pytest.raises(UserError, match="data.store_directory=/proc/none is not writable: choose another"):
        prepare(corpus_of(["one", "two"], store_directory="/proc/none"), BYTES, 1)


def test_validation_that_takes_everything(corpus_of):
    """Ten documents of 20 letters have 21 tokens each; half of them are aside."""
    texts = synthetic_texts(10, 20, seed=0)
    with pytest.raises(UserError, match=r"data.validation_tokens=106 is more than half .*\(105 of 210 tokens in all\)"):
        prepare(data := corpus_of(texts, validation_tokens=106), BYTES, 1)
    assert not [path for path in Path(data.store_directory).iterdir() if path.is_dir() and path.name != "datasets"]
    assert len(prepare(corpus_of(texts, validation_tokens=105), BYTES, 1).validation) == 105


def test_a_document_that_overflows_the_encoder(corpus_of):
    texts = ["word " * 50, "another " * 50, "\n" * 2_000_000 + "x", "more words " * 20]
    with pytest.raises(UserError, match=r"the document that begins '\\n.* cannot be encoded"):
        prepare(corpus_of(texts), TokenizerConfig(vocab_size=258, training_bytes=1), 1)


def test_damage_is_found(corpus_of):
    data = corpus_of(["one", "two", "three"])
    prepare(data, BYTES, 1)
    folder = folder_of(data)
    manifest = json.loads((folder / "manifest.json").read_text())

    def refuses(name: str, content: bytes | None, why: str) -> None:
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"token store {folder} is damaged \({why}.*delete that folder"):
            prepare(data, BYTES, 1)
        (folder / name).write_bytes(kept)

    train = (folder / "train.bin").read_bytes()
    refuses("train.bin", b"\1" + train[1:], "the checksum of train.bin fails")
    refuses("train.bin", train[:-1], "train.bin is missing or too short")
    refuses("train.bin", None, "train.bin is missing or too short")
    refuses("validation.bin", None, "validation.bin is missing or too short")
    refuses("manifest.json", b"{", "its manifest is not readable")
    refuses("manifest.json", b"{}", "its manifest is not readable")
    refuses("manifest.json", json.dumps(manifest | {"schema": 0}).encode(), "schema 0 instead of 1")
    large = json.dumps(manifest | {"vocab_size": 70_000}).encode()
    refuses("manifest.json", large, "uint16 does not hold its vocabulary of 70000")
    assert prepare(data, BYTES, 1).exhausted


def test_chunks_of_a_long_file(tmp_path, monkeypatch):
    """Chunks of 8 bytes; 50 documents of 3 uint16 are 300 bytes, 38 chunks, of which 16 are read."""
    monkeypatch.setattr(token_file, "CHUNK_BYTES", 8)
    path, dtype, extent = tmp_path / "t.bin", np.dtype("<u2"), Extent()
    tokens = np.arange(150, dtype=dtype)
    for start_at in (0, 75):  # in two sittings
        writer = TokenWriter(path, dtype, extent)
        for at in range(start_at, start_at + 75, 3):
            writer.append(tokens[at : at + 2], tokens[at + 2].tobytes(), text_bytes=2)
            extent = writer.commit()  # which changes nothing
        writer.append(tokens[:1], b"", text_bytes=1)  # does not count
        writer.close()
    content = tokens.tobytes()
    assert path.read_bytes() == content
    assert extent == Extent(50, 150, 100, [hashlib.sha256(content[i : i + 8]).hexdigest() for i in range(0, 300, 8)])
    assert open_tokens(path, dtype, extent).tolist() == list(range(150))
    for at in (0, 299):
        path.write_bytes(content[:at] + b"\xff" + content[at + 1 :])
        with pytest.raises(UserError, match="the checksum of t.bin fails"):
            open_tokens(path, dtype, extent)


def test_the_first_tokens_alone_may_train(large):
    """The same text in the same order, cut after so many tokens and one target more; the same validation text."""
    whole = prepare(large, BYTES, 1_000_000)
    part = prepare(replace(large, unique_tokens=300_000), BYTES, 5_000_000)
    assert len(part.train) == 300_001
    assert part.unique_tokens(128) == 299_904  # 2,343 rows
    np.testing.assert_array_equal(part.train, whole.train[:300_001])
    np.testing.assert_array_equal(part.validation, whole.validation)
    assert part.exhausted and not whole.exhausted
    assert part.recipe_hash != whole.recipe_hash
    assert part.recipe_hash != prepare(replace(large, unique_tokens=300_001), BYTES, 1).recipe_hash


def test_more_unique_tokens_than_are_there_are_all(large):
    whole = prepare(replace(large, unique_tokens=10**9), BYTES, 10**8)
    assert len(whole.train) == 5000 * 401 - 500 * 401 and whole.exhausted
    with pytest.raises(UserError, match="^data.unique_tokens=0 must be at least 1$"):
        prepare(replace(large, unique_tokens=0), BYTES, 1)
