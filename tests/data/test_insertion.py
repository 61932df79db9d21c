"""Symbols inserted into text: how many, where, what entropy they add, and that every reading of a corpus has them."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from harness.config import TrainConfig
from harness.data.insertion import SYMBOLS, inserted_nats, with_symbols
from harness.data.tokenizer import TokenizerConfig
from harness.data.tokens import prepare, recipe_of
from harness.errors import UserError
from harness.records import INSERTED
from harness.sweep.compose import compose_sweep
from harness.sweep.corpora import several
from harness.sweep.floor import inserted_by_corpus
from harness.sweep.run import store_line

TEXT = "".join(np.random.default_rng(0).choice(list("abcd"), 200_000))
BYTES = TokenizerConfig(kind="bytes")
FILE = {"source": "files", "path": "a.txt"}


def without(text):
    return "".join(letter for letter in text if letter not in SYMBOLS)


def test_symbols_are_a_byte_each_and_no_space_of_a_text():
    assert len(SYMBOLS) == 16 == len(SYMBOLS.encode()) and not set(SYMBOLS) & set("\t\n\v\f\r ")


def test_the_draws_are_those_of_a_raw_generator():
    """Before each letter and the end n symbols where a uniform number lies in (.5^(n+1), .5^n]; then their kinds."""
    text = "ab\ncé"
    raw = np.random.PCG64(7).random_raw(100).tolist()
    before = [math.floor(-math.log2(((draw >> 11) + 1) / 2**53)) for draw in raw[: len(text) + 1]]
    assert sum(before) == 3
    kinds, expected = iter(raw[len(text) + 1 :]), ""
    for letter, many in zip([*text, ""], before, strict=True):
        expected += "".join(SYMBOLS[next(kinds) % 16] for _ in range(many)) + letter
    assert with_symbols(text, 0.5, 7) == expected != with_symbols(text, 0.5, 8)


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_what_is_inserted_is_known_to_nobody_but_its_frequency(share):
    """Of letters that come alike, the best predictor pays ln 16/share or ln 4/(1 - share), h + share ln 16 in all."""
    found = with_symbols(TEXT, share, 1)
    assert without(found) == TEXT
    symbols = [letter for letter in found if letter in SYMBOLS]
    error = (share * (1 - share) / len(found)) ** 0.5
    assert len(symbols) / len(found) == pytest.approx(share, abs=4 * error)
    counts = np.array([*Counter(symbols).values()])
    assert len(counts) == 16 and ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 37.7  # 15 degrees, p = .001
    after = [second in SYMBOLS for first, second in zip(found, found[1:], strict=False) if first in SYMBOLS]
    assert np.mean(after) == pytest.approx(share, abs=4 * (share * (1 - share) / len(after)) ** 0.5)
    paid = np.where([letter in SYMBOLS for letter in found], math.log(16 / share), math.log(4 / (1 - share)))
    slope = math.log(16 / share) - math.log(4 / (1 - share))
    assert paid.mean() == pytest.approx(inserted_nats(share) + (1 - share) * math.log(4), abs=4 * error * slope)


def test_what_symbols_add():
    """h(1/4) = .25 ln 4 + .75 ln(4/3) = .562335, and a quarter of ln 16 = .693147."""
    assert inserted_nats(0.25) == pytest.approx(0.562335 + 0.693147, abs=1e-6)
    assert inserted_nats(0.0) == 0.0


def test_a_documents_own_symbols_are_left_out():
    assert with_symbols("a\x0eb\x1dc", 0.5, 3) == with_symbols("abc", 0.5, 3)
    assert without(with_symbols("", 0.9, 3)) == "" and with_symbols("", 0.9, 3)


def test_what_trains_and_what_validates_has_them_in_the_same_documents(corpus_of):
    texts = [f"the {number} words of document {number} are not many" for number in range(400)]
    data = corpus_of(texts, validation_tokens=3000)
    plain, changed = prepare(data, BYTES, 10**6), prepare(replace(data, inserted=0.25), BYTES, 10**6)
    for part in ("train", "validation"):
        tokens = [np.asarray(getattr(store, part)).tolist() for store in (plain, changed)]
        inside = [token for token in tokens[1] if not 0x0E <= token <= 0x1D]
        if part == "train":  # other documents validate where the same tokens hold fewer
            inside = inside[: len(tokens[0])]
        assert inside[:2000] == tokens[0][:2000] and len(set(tokens[1])) > len(set(tokens[0]))
        assert np.mean([0x0E <= token <= 0x1D for token in tokens[1]]) == pytest.approx(0.25, abs=0.03)
    assert recipe_of(replace(data, inserted=0.0), BYTES) == recipe_of(data, BYTES)
    assert changed.recipe_hash != plain.recipe_hash
    assert changed.manifest["recipe"]["data"] == plain.manifest["recipe"]["data"] | {"inserted": 0.25, "insertion": 1}
    assert " to train on (25% symbols drawn at random) and 3,000 to validate" in store_line(changed)
    grown = prepare(replace(data, inserted=0.25), BYTES, 10**6)
    assert np.array_equal(grown.train, changed.train)


@pytest.fixture(scope="module")
def sweep():
    return compose_sweep(["-m", "+sweep=insertion"])


def test_shares_are_texts_apart_each_with_its_own_validation(sweep):
    """No text in common is asked for, and sweep.yaml says what the symbols add."""
    assert not several(sweep.jobs)
    plain, changed = sweep.jobs[0], sweep.jobs[-1]
    names = [recipe_of(job.data, job.tokenizer)[1] for job in (plain, changed)]
    found = inserted_by_corpus(sweep.jobs)
    assert list(found) == names
    assert found[names[0]] == {"share": 0.0, "nats": 0.0}
    assert found[names[1]] == {"share": 0.25, "nats": pytest.approx(1.255482, abs=1e-6)}
    assert inserted_by_corpus([plain]) == {} and INSERTED == "inserted"


@pytest.mark.parametrize(
    ("data", "other", "said"),
    [
        ({"inserted": 1.0}, {}, "data.inserted=1 is no share that leaves some text: give 0 to below 1"),
        ({"inserted": -0.1}, {}, "data.inserted=-0.1 is no share that leaves some text: give 0 to below 1"),
        ({"inserted": 0.2, "tasks": 0.3}, {}, "data.inserted=0.2 and data.tasks both add to the text: keep one"),
        ({"inserted": 0.2}, {"tokenizer": TokenizerConfig()},
         "data.inserted=0.2 is of symbols that tokenizer.kind=bpe would join with others, or has no ids for: set "
         "tokenizer=bytes"),
        ({}, {"validation": {"a": FILE | {"inserted": 0.2}}, "tokenizer": TokenizerConfig()},
         "validation.a.inserted=0.2 is of symbols that tokenizer.kind=bpe would join with others, or has no ids for: "
         "set tokenizer=bytes"),
        ({}, {"validation": {"a": {"source": "tasks", "task": "copying", "inserted": 0.2}}},
         "validation.a.inserted=0.2 would break the lines of validation.a.source=tasks: leave it out"),
        ({}, {"validation": {"a": FILE | {"inserted": "much"}}},
         "validation.a.inserted=much is no number: correct it"),
    ],
)  # fmt: skip
def test_what_is_refused(sweep, data, other, said):
    job: TrainConfig = sweep.jobs[0]
    given = {"data": replace(job.data, **data)} | other
    with pytest.raises(UserError) as refused:
        replace(job, **given).check()
    assert str(refused.value) == said
