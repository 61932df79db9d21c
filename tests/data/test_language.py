import itertools
import math

import numpy as np
import pytest
from counting import excess, left

from harness.data.documents import DataConfig
from harness.data.language import ANSWERS, Language
from harness.data.tokenizer import TokenizerConfig
from harness.data.tokens import prepare, recipe_of
from harness.errors import UserError


def synthetic(tmp_path, **changes):
    given = {"source": "synthetic", "symbols": 512, "validation_tokens": 20_000, "store_directory": str(tmp_path)}
    return DataConfig(**given | changes), TokenizerConfig(kind="identity", vocab_size=512)


def test_words_follow_zipf_and_every_answer_its_weight():
    language = Language(symbols=ANSWERS + 3 + 1, tail=2.0, seed=0)
    words, answers = language.probabilities
    # 1, 1/4, 1/9 over their sum, 49/36
    np.testing.assert_allclose(words, [36 / 49, 9 / 49, 4 / 49], rtol=1e-12)
    # zeta(3/2) = 2.6123753487 less the sum from 257 on, which is 2 / sqrt(256.5) to a part in 10^5
    np.testing.assert_allclose(answers[0], 1 / (2.6123753487 - 2 / math.sqrt(256.5)), rtol=1e-5)
    np.testing.assert_allclose(answers[15] / answers[0], 1 / 64, rtol=1e-9)
    assert np.array_equal(np.sort(language.orders), np.tile(np.arange(ANSWERS), (3, 1)))


def test_nothing_but_sentences_can_be():
    language = Language(symbols=ANSWERS + 4, tail=1.0, seed=1)  # three words: 256, 257, 258; the end of text is 259
    answer = int(language.orders[1, 2])  # the third choice of the second word
    nats = language.nats(np.array([259, 257, answer, answer]), np.array([257, answer, 259, 256]))
    third = 3**-1.5 / sum(place**-1.5 for place in range(1, 257))
    # a document begins with a word: 1/2 over 1 + 1/2 + 1/3, that is 3/11; one of 512 sentences is a last one
    expected = [-math.log(3 / 11), -math.log(third), math.log(512), -math.log(511 / 512 * 6 / 11)]
    np.testing.assert_allclose(nats, expected, rtol=1e-9)
    impossible = [(259, 259), (259, 0), (257, 258), (257, 259), (3, 4)]
    assert all(np.isinf(language.nats(np.array([before]), np.array([after])))[0] for before, after in impossible)


def test_probabilities_of_all_that_may_follow_sum_to_one():
    language = Language(symbols=340, tail=1.5, seed=2)
    for before in (0, 255, 256, 338, 339):
        sums = np.exp(-language.nats(np.full(340, before), np.arange(340))).sum()
        assert sums == pytest.approx(1.0, abs=1e-12)


def chances(language: Language) -> tuple[np.ndarray, np.ndarray]:
    """What follows each symbol, (symbols, symbols), and how often each stands in endless text."""
    ids = np.arange(language.symbols)
    step = np.exp(-np.array([language.nats(np.full(len(ids), before), ids) for before in ids]))
    balance = np.vstack([step.T - np.eye(len(ids)), np.ones(len(ids))])
    return step, np.linalg.lstsq(balance, np.append(np.zeros(len(ids)), 1.0))[0]


def brute_force_loss(language: Language, windows: list[list[int]]) -> float:
    """Mean -log p of the targets of windows by Bayes over every text that could stand there.

    A window shows its own tokens alone, so all histories of two tokens before it are summed over, each weighed by how
    often it is met in endless text.
    """
    step, share = chances(language)

    def weight(shown: list[int]) -> float:
        histories = itertools.product(range(language.symbols), repeat=2)
        texts = ([*history, *shown] for history in histories)
        return sum(share[text[0]] * math.prod(step[a, b] for a, b in itertools.pairwise(text)) for text in texts)

    nats = [-math.log(weight(w[: end + 1]) / weight(w[:end])) for w in windows for end in range(1, len(w))]
    return sum(nats) / len(nats)


def test_floor_is_that_of_all_texts_enumerated(monkeypatch):
    monkeypatch.setattr("harness.data.language.ANSWERS", 3)
    monkeypatch.setattr("harness.data.language.ANSWER_WEIGHTS", np.array([1.0, 1 / 4, 1 / 9]))
    monkeypatch.setattr("harness.data.language.SENTENCES", 4)
    language = Language(symbols=3 + 4 + 1, tail=1.5, seed=5)
    sentences, counts = language.sentences(1, 0)
    parts = np.split(sentences, np.cumsum(counts)[:-1])
    text = np.concatenate([np.append(part.ravel(), language.end_of_text) for part in parts])[:41]
    windows = [text[start : start + 6].tolist() for start in range(0, 40, 5)]  # five targets each
    assert language.loss(text) == pytest.approx(brute_force_loss(language, windows), abs=1e-6)


@pytest.mark.parametrize("tail", [1.5, 2.0, 3.0])
def test_entropy_is_that_of_what_follows_each_symbol(tail):
    language = Language(symbols=400, tail=tail, seed=3)
    step, share = chances(language)
    logs = np.log(np.where(step > 0, step, 1.0))
    assert language.entropy() == pytest.approx(-(share[:, None] * step * logs).sum(), abs=1e-9)


def test_mean_loss_of_much_text_is_the_entropy():
    language = Language(symbols=1024, tail=2.0, seed=7)
    total, squares, count = 0.0, 0.0, 0
    for block in range(120):
        sentences, counts = language.sentences(1, block)
        ids = np.insert(sentences.ravel(), 2 * np.cumsum(counts), language.end_of_text)
        nats = language.nats(np.insert(ids, 0, language.end_of_text)[:-1], ids)
        total, squares, count = total + nats.sum(), squares + (nats**2).sum(), count + len(ids)
    error = math.sqrt((squares / count - (total / count) ** 2) / count)
    assert count > 7_000_000 and error < 1e-3
    assert total / count == pytest.approx(language.entropy(), abs=3 * error)


def test_a_learner_that_counts_has_the_exponent_of_the_tail_left():
    """Twice the text leaves 2^-(1 - 1/2.5) = .66 of it; of no text at all what even guesses have above the entropy."""
    found = left(Language(1024, 2.5, 0), (500_000, 1_000_000, 2_000_000, 4_000_000))
    ratios = np.divide(found[1:], found[:-1])
    assert ratios == pytest.approx([2**-0.6] * 3, abs=0.02)
    assert 0.0012 < found[-1] < 0.0022
    nothing = excess(Language(1024, 2.5, 0), np.zeros((767, ANSWERS)))
    words, answers = Language(1024, 2.5, 0).probabilities
    known = sum(float(-(p * np.log(p)).sum()) for p in (words, answers))
    assert nothing == pytest.approx((np.log(256) + np.log(767) - known) / (2 + 1 / 512), rel=1e-9)


def test_store_is_the_language_and_grows_by_appending(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.data.tokens.WINDOW_TOKENS", 2**15)
    monkeypatch.setattr("harness.data.tokens.LONGEST_SEQUENCE", 2**10)
    data, tokenizer = synthetic(tmp_path)
    small = prepare(data, tokenizer, 10_000)
    first, held_out = np.array(small.train), np.array(small.validation)
    grown = prepare(data, tokenizer, 200_000)
    assert len(first) < 200_000 <= len(grown.train) and not grown.exhausted
    assert np.array_equal(grown.train[: len(first)], first) and np.array_equal(grown.validation, held_out)
    other = synthetic(tmp_path / "at_once")[0]
    assert np.array_equal(prepare(other, tokenizer, 200_000).train, grown.train)

    language = Language(symbols=512, tail=2.5, seed=0)
    assert (grown.vocab_size, grown.end_of_text) == (512, 511)
    assert grown.train.dtype == np.uint16
    assert np.isfinite(language.loss(np.array(grown.train)))  # all of it can be said
    sentences, counts = language.sentences(1, 0)
    assert grown.train[: 2 * counts[0] + 1].tolist() == [*sentences[: counts[0]].ravel().tolist(), 511]
    assert not np.array_equal(grown.validation[:1000], grown.train[:1000])
    # three bytes a symbol, none an end of text
    ends = int((grown.validation == 511).sum())
    assert grown.bytes_per_token == 3 * (len(grown.validation) - ends) / len(grown.validation)


def test_another_language_is_another_store(tmp_path):
    data, tokenizer = synthetic(tmp_path)
    assert recipe_of(data, tokenizer)[0]["data"] == {
        "source": "synthetic", "symbols": 512, "tail": 2.5, "seed": 0, "language": 1,
    }  # fmt: skip
    others = [synthetic(tmp_path, **change)[0] for change in ({"seed": 1}, {"tail": 2.25}, {"symbols": 600})]
    assert len({recipe_of(each, tokenizer)[1] for each in [data, *others]}) == 4
    whole, point = (synthetic(tmp_path, tail=tail)[0] for tail in (2, 2.0))
    assert recipe_of(whole, tokenizer)[1] == recipe_of(point, tokenizer)[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"symbols": 500}, "data.symbols=500 must be 512 to 20000: correct it"),
        ({"tail": 0.5}, "data.tail=0.5 must be 1 to 3: correct it"),
        ({"seed": -1}, "data.seed=-1 must be 0 or more: correct it"),
    ],
)
def test_a_language_that_is_none_is_refused(tmp_path, change, message):
    data, tokenizer = synthetic(tmp_path, **change)
    with pytest.raises(UserError) as error:
        prepare(data, tokenizer, 1000)
    assert str(error.value) == message


def test_text_of_other_letters_has_no_identity(tmp_path):
    data, tokenizer = synthetic(tmp_path, symbols=600)
    with pytest.raises(UserError, match="a letter of it is none of tokenizer.vocab_size=512"):
        prepare(data, tokenizer, 1000)
