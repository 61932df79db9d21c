"""Worse text to train on, and the same text to validate on."""

from dataclasses import replace

import numpy as np
import pytest

from harness.data.corruption import corrupted
from harness.data.tokenizer import TokenizerConfig
from harness.data.tokens import prepare
from harness.errors import UserError
from harness.sweep.run import store_line

TEXT = "  one two\n\nthree four  five six\tseven eight nine ten "


def test_spaces_stay_and_words_are_of_the_document():
    found = corrupted(TEXT, 0.5, 7)
    assert found != TEXT
    assert set(found.split()) <= set(TEXT.split())
    assert [len(part) for part in found.split()] != [] and len(found.split()) == 10
    assert found.startswith("  ") and "\n\n" in found and "\t" in found and found.endswith(" ")


def test_the_same_key_gives_the_same_text_for_ever():
    """Word by word from the raw bits of a generator: the first ten are chances, the others places."""
    words, found = TEXT.split(), corrupted(TEXT, 0.5, 7).split()
    assert found == corrupted(TEXT, 0.5, 7).split()
    assert found != corrupted(TEXT, 0.5, 8).split()
    raw = np.random.PCG64(7).random_raw(20)
    expected = [words[int(raw[10 + i] >> np.uint64(11)) % 10] if raw[i] / 2**64 < 0.5 else words[i] for i in range(10)]
    assert found == expected


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_the_share_of_words_that_change(share):
    """Of 20,000 distinct words; a word takes its own place once in 20,000 times."""
    text = " ".join(map(str, range(20_000)))
    changed = np.mean([a != b for a, b in zip(corrupted(text, share, 1).split(), text.split(), strict=True)])
    assert changed == pytest.approx(share, abs=3 * (share * (1 - share) / 20_000) ** 0.5)


def test_nothing_and_a_word_alone_stay():
    assert [corrupted(text, 1.0, 1) for text in ("", " \n", "word")] == ["", " \n", "word"]
    assert corrupted(TEXT, 0.0, 7) == TEXT


def test_only_what_trains_is_corrupted(corpus_of):
    texts = [f"the {number} words of document {number} are not many" for number in range(200)]
    data = corpus_of(texts, validation_tokens=200)
    bytes_of = TokenizerConfig(kind="bytes")
    clean, worse = prepare(data, bytes_of, 1000), prepare(replace(data, corrupted=0.5), bytes_of, 1000)
    np.testing.assert_array_equal(clean.validation, worse.validation)
    assert clean.recipe_hash == prepare(replace(data, corrupted=0.0), bytes_of, 1000).recipe_hash
    assert worse.recipe_hash != clean.recipe_hash
    first = [bytes(np.asarray(store.train[store.train < 256], np.uint8)).decode() for store in (clean, worse)]
    assert first[0] != first[1]
    assert " to train on (50% of the words changed) and 200 to validate" in store_line(worse)
    assert " to train on and 200 to validate" in store_line(clean)


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_a_store_has_the_share_from_its_begin_to_its_end(corpus_of, share):
    """Of the 40,000 words of 400 documents, 100 of each; a word takes its own place once in 100 times."""
    texts = [" ".join(f"{document}.{word}" for word in range(100)) for document in range(400)]
    data, bytes_of = corpus_of(texts), TokenizerConfig(kind="bytes")
    stores = (prepare(each, bytes_of, 10**6) for each in (data, replace(data, corrupted=share)))
    clean, worse = (np.asarray(store.train).tolist() for store in stores)
    end = max(clean)  # between documents
    words = [bytes(32 if token == end else token for token in tokens).decode().split() for tokens in (clean, worse)]
    changed = np.array([a != b for a, b in zip(*words, strict=True)])
    assert len(changed) > 30_000
    for part in np.array_split(changed, 4):
        assert part.mean() == pytest.approx(0.99 * share, abs=4 * (share * (1 - share) / len(part)) ** 0.5)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_what_is_no_share_is_refused(corpus_of, share):
    with pytest.raises(UserError, match="^data.corrupted=.* is no share of the words: give 0 to 1$"):
        prepare(replace(corpus_of(["a b"]), corrupted=share), TokenizerConfig(kind="bytes"), 1)
