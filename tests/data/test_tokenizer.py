import hashlib
import time

import numpy as np
import pytest
import tiktoken
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from harness.data.synthetic import synthetic_texts
from harness.data.tokenizer import (
    TokenizerConfig,
    bounded_words,
    bpe_encoding,
    bytes_tokenizer,
    from_encoding,
    read_ranks,
    tiktoken_tokenizer,
    token_dtype,
    train_bpe,
    write_ranks,
)
from harness.errors import UserError

TEXTS = ["The state of the Union is strong.\n\n  I'll say so: 1,234 times — naïve café 日本語 🙂", "then the theme"]


def test_bytes_are_their_own_ids():
    tokenizer = bytes_tokenizer()
    assert tokenizer.encode("aé").tolist() == [97, 195, 169]
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (257, 256)
    assert tokenizer.decode([97, 195, 169, 256]) == "aé"
    assert tokenizer.encode("").tolist() == []


def test_bpe_merges_the_most_frequent_pair_first():
    """The words of "ab ab ab" are "ab", " ab", " ab": a+b occurs 3 times and becomes id 256, then " "+ab twice, 257.
    Bytes are numbered as GPT-2 numbers them, "!" is 0."""
    tokenizer = from_encoding(train_bpe(["ab ab ab"], 259))
    assert tokenizer.encode("ab ab").tolist() == [256, 257]
    assert tokenizer.encode("ba!").tolist() == [ord("b") - 33, ord("a") - 33, 0]
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (259, 258)
    assert tokenizer.decode([256, 257]) == "ab ab"


@pytest.fixture(scope="module")
def pair():
    """Our export and the `tokenizers` model of the same training."""
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = byte_level
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=299, special_tokens=[], initial_alphabet=byte_level.alphabet(), show_progress=False
    )
    theirs.train_from_iterator(TEXTS * 20, trainer)
    return from_encoding(train_bpe(TEXTS * 20, 300)), theirs


@given(text=st.text() | st.text(alphabet="the stan'l \n\t19é—日🙂", max_size=200))
def test_exported_ids_are_those_of_the_training_library(pair, text):
    ours, theirs = pair
    assert ours.encode(text).tolist() == theirs.encode(text).ids
    assert ours.decode(ours.encode(text)) == text


def test_a_text_too_small_for_the_vocabulary_is_refused():
    with pytest.raises(UserError, match=r"tokenizer.vocab_size=1024 is more than the 259 ids"):
        train_bpe(["ab ab ab"], 1024)


def test_ranks_survive_their_file():
    ranks = train_bpe(["ab ab ab"], 259)._mergeable_ranks
    content = write_ranks(ranks)
    assert content.splitlines()[0] == b"IQ== 0"  # base64 of "!"
    assert content.splitlines()[-1] == b"IGFi 257"  # base64 of " ab"
    assert read_ranks(content) == ranks
    assert from_encoding(bpe_encoding(ranks)).hash == from_encoding(train_bpe(["ab ab ab"], 259)).hash
    assert from_encoding(train_bpe(["ab ab ab"], 258)).hash != from_encoding(bpe_encoding(ranks)).hash
    for damaged in (b"IQ=", b"IQ== x", b"I!== 0"):
        with pytest.raises(ValueError):
            read_ranks(damaged)


def test_gpt2_is_the_real_one(gpt2_files):
    tokenizer = tiktoken_tokenizer("gpt2")
    assert tokenizer.encode("Hello world").tolist() == [15496, 995]
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (50257, 50256)
    assert 50256 not in tokenizer.encode("<|endoftext|>").tolist()
    assert token_dtype(tokenizer.vocab_size) == np.uint16


def test_an_encoding_that_cannot_be_downloaded_names_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nobody listens there
    tiktoken.registry.ENCODINGS.pop("r50k_base", None)
    with pytest.raises(
        UserError, match=r"encoding=r50k_base .* TIKTOKEN_CACHE_DIR at .* tokenizer=bpe or tokenizer=bytes"
    ):
        tiktoken_tokenizer("r50k_base")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "words"}, "tokenizer.kind=words is unknown"),
        ({"vocab_size": 256}, "tokenizer.vocab_size=256 is below 257"),
        ({"vocab_size": 2**32 + 1}, "tokenizer.vocab_size=4294967297 is above what uint32 holds"),
        ({"training_bytes": 0}, "tokenizer.training_bytes=0 must be"),
        ({"kind": "tiktoken", "encoding": "gpt5"}, "tokenizer.encoding=gpt5 is not an encoding.*gpt2"),
    ],
)
def test_configurations_that_cannot_be(keys, message):
    with pytest.raises(UserError, match=message):
        TokenizerConfig(**keys).check()


def test_the_smallest_integer_type_that_holds_the_vocabulary():
    assert token_dtype(65536) == np.dtype("<u2")
    assert token_dtype(65537) == np.dtype("<u4")
    assert token_dtype(2**32) == np.dtype("<u4")


def test_only_what_decides_the_ids_is_in_the_recipe():
    assert TokenizerConfig(kind="bytes", vocab_size=512).recipe() == TokenizerConfig(kind="bytes").recipe()
    assert TokenizerConfig(vocab_size=512).recipe() != TokenizerConfig().recipe()
    assert TokenizerConfig(kind="tiktoken").recipe() == {"kind": "tiktoken", "encoding": "gpt2"}
    assert bytes_tokenizer().hash == hashlib.sha256(b"bytes").hexdigest()


# ---- words that no language has


def test_long_words_are_learned_from_in_parts():
    cut = lambda text: [len(part) for part in bounded_words([text])]  # noqa: E731
    assert cut("a" * 10_000) == [4096, 4096, 1808]
    for alike in ("é", " ", "1", "-", "_", "\x1c", "\u3000"):
        assert cut(alike * 5000) == [4096, 904], repr(alike)
    assert cut("x " + "y" * 5000 + " z") == [2 + 4096, 904 + 2]
    for text in ("ab " * 4000, "a1" * 9000, "a" * 4095 + " " + "b" * 4095, "", "a-b_" * 3000):
        assert list(bounded_words([text])) == [text]


def test_the_time_of_training_grows_with_the_text_not_with_its_words():
    """A million letters in one word, for which the trainer alone needs minutes."""
    began = time.monotonic()
    encoding = train_bpe(["a" * 400_000 + "b" * 600_000, *synthetic_texts(100, 400, seed=0)], 300)
    assert time.monotonic() - began < 20
    # of 2, 4, ... 1024 letters each
    assert {b"a" * 2**n for n in range(1, 11)} | {b"b" * 2**n for n in range(1, 11)} <= set(encoding._mergeable_ranks)
