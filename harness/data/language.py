"""A language of known entropy: sentences of two symbols, a word by Zipf's law and an answer of that word's own.

After each sentence a document ends by chance. So the symbol before tells all that can be known of the next, wherever a
window begins, and the loss of the best predictor is the mean -log p of the language itself, exactly. A word that is
n times rarer is learned n times later, so the tail of words makes the loss a power law of tokens (Hutter 2021; Cabannes
et al. 2023), and of the width, which is what a model has for telling words apart.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from harness.data.documents import NOTHING_READ, START, Changed, Document, Place, digest_of
from harness.data.tokenizer import FIRST_LETTER

# Raise it when texts change: stores of before are then other ones.
REVISION = 1
ANSWERS = 256
# Of a word's own order of the answers, that in place j has a probability proportional to this.
ANSWER_WEIGHTS = np.arange(1, ANSWERS + 1) ** -1.5
# How many sentences a document has in the mean.
SENTENCES = 512
# Documents are made so many at a time.
BLOCK = 64
ORDERS, TRAINING, ASIDE = range(3)
# Probabilities are whole multiples of this, so that what is drawn is exactly what is reckoned with.
GRAIN = 2.0**-53


@dataclass(frozen=True)
class Language:
    """
    symbols  ids in all: ANSWERS answers, then the words from the commonest on, the end of text last
    tail     exponent of Zipf's law: the word of rank r has a probability proportional to r^-tail
    seed     which answers follow which word, and the texts
    """

    symbols: int
    tail: float
    seed: int

    @property
    def words(self) -> int:
        return self.symbols - ANSWERS - 1

    @property
    def end_of_text(self) -> int:
        return self.symbols - 1

    @cached_property
    def word_limits(self) -> np.ndarray:
        """A word is the first whose limit is above a uniform multiple of GRAIN."""
        return limits(np.arange(1, self.words + 1) ** -self.tail)

    @cached_property
    def answer_limits(self) -> np.ndarray:
        return limits(ANSWER_WEIGHTS)

    @cached_property
    def orders(self) -> np.ndarray:
        """(words, ANSWERS) the answers of each word, the likeliest first."""
        draws = self._bits(ORDERS, 0).random_raw(self.words * ANSWERS)
        return np.argsort(draws.reshape(self.words, ANSWERS), axis=1, kind="stable")

    @cached_property
    def places(self) -> np.ndarray:
        """(words, ANSWERS) where each answer stands in the order of a word."""
        return np.argsort(self.orders, axis=1)

    @property
    def probabilities(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the words, and of the places in a word's order."""
        return np.diff(self.word_limits, prepend=0), np.diff(self.answer_limits, prepend=0)

    def sentences(self, stream: int, block: int) -> tuple[np.ndarray, np.ndarray]:
        """The ids of a block of documents, (sentences, 2), and how many of the sentences each document has."""
        bits = self._bits(stream, block)
        counts = 1 + np.floor(np.log1p(-uniform(bits, BLOCK)) / math.log1p(-1 / SENTENCES)).astype(np.int64)
        total = int(counts.sum())
        words = np.searchsorted(self.word_limits, uniform(bits, total), side="right")
        places = np.searchsorted(self.answer_limits, uniform(bits, total), side="right")
        return np.stack([ANSWERS + words, self.orders[words, places]], axis=1), counts

    @property
    def block_documents(self) -> int:
        return BLOCK

    def documents(self, stream: int, block: int) -> list[np.ndarray]:
        sentences, counts = self.sentences(stream, block)
        return np.split(sentences, np.cumsum(counts)[:-1])

    def nats(self, before: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """-log of the probability of each id behind the one before it; infinite where that cannot be."""
        words, answers = np.log(self.probabilities[0]), np.log(self.probabilities[1])
        before, ids = before.astype(np.int64), ids.astype(np.int64)
        answered, ended = ids < ANSWERS, ids == self.end_of_text
        after_word = (before >= ANSWERS) & (before < self.end_of_text)
        logs = np.full(len(ids), -np.inf)
        of = after_word & answered
        logs[of] = answers[self.places[before[of] - ANSWERS, ids[of]]]
        of = ~after_word & ~answered & ~ended
        logs[of] = words[ids[of] - ANSWERS] + np.where(before[of] < ANSWERS, math.log1p(-1 / SENTENCES), 0.0)
        logs[(before < ANSWERS) & ended] = -math.log(SENTENCES)
        return -logs

    def loss(self, tokens: np.ndarray) -> float:
        """That of the best predictor, in nats a token, of all tokens but the first.

        What stands before the one before tells nothing more, so it does not matter where windows begin.
        """
        return float(self.nats(tokens[:-1], tokens[1:]).mean())

    def entropy(self) -> float:
        """Nats a token of endless text, ends of text counted as tokens."""
        words, answers = self.probabilities
        ends = np.array([1 / SENTENCES, 1 - 1 / SENTENCES])
        sentence = sum(float(-(p * np.log(p)).sum()) for p in (words, answers, ends))
        return sentence / (2 + 1 / SENTENCES)

    def _bits(self, stream: int, block: int) -> np.random.Philox:
        """Its raw bits are the same in every version of numpy, where what is drawn from them may change."""
        return np.random.Philox(key=np.array([self.seed, stream], np.uint64), counter=block << 128)


def limits(weights: np.ndarray) -> np.ndarray:
    sums = np.cumsum(weights)
    return np.floor(sums / sums[-1] / GRAIN) * GRAIN


def uniform(bits: np.random.Philox, count: int) -> np.ndarray:
    return (bits.random_raw(count) >> np.uint64(11)) * GRAIN


class Generated(Protocol):
    """What makes documents, a block of `block_documents` of them at a time, from either stream."""

    @property
    def block_documents(self) -> int: ...

    def documents(self, stream: int, block: int) -> Sequence[np.ndarray] | np.ndarray:
        """The ids of each document of a block, without the end of text, in any shape."""


class GeneratedCorpus:
    """The documents of a language, without end; those that validate are drawn apart from those that train.

    `identity` names the language: with a document's number it is what a digest is of, so that no two are copies.
    """

    aside_share = "all"
    duplicates, skipped, note = 0, "", ""

    def __init__(self, language: Generated, identity: Any) -> None:
        self.language, self.identity = language, identity
        self.revision: str | None = None
        self.documents: int | None = None

    def aside(self) -> Iterator[Document]:
        return self._documents(ASIDE, 0)

    def beside(self, validating: np.ndarray) -> np.ndarray:
        return NOTHING_READ

    def training(self, read: np.ndarray = NOTHING_READ, place: Place = START) -> Iterator[Document]:
        last = len(read) - 1
        if last >= 0 and int(read[last]) != self._digest(TRAINING, last):
            raise Changed
        return self._documents(TRAINING, len(read))

    def _documents(self, stream: int, start: int) -> Iterator[Document]:
        block, skipped = divmod(start, self.language.block_documents)
        while True:
            parts = self.language.documents(stream, block)
            for number, part in enumerate(parts[skipped:], start=block * self.language.block_documents + skipped):
                text = (part + FIRST_LETTER).astype("<u4").tobytes().decode("utf-32-le")
                yield Document(text, self._digest(stream, number), stream == ASIDE)
            block, skipped = block + 1, 0

    def _digest(self, stream: int, number: int) -> int:
        return digest_of(f"{self.identity} {stream} {number}")
