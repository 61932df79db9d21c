"""A language whose data exponent is known: facts of frequencies by Zipf's law, with answers that nobody can guess.

A fact is a key, a few symbols that tell nothing of its rank, and the answer that always follows it. Who knows what was
seen and guesses evenly else has a loss of answers that falls as n^-(1 - 1/tail) in the facts seen (Hutter 2021).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.data.language import ASIDE, TRAINING, limits, uniform

# Raise it when texts change: stores of before are then other ones.
REVISION = 1
ANSWERS = 16
# Facts are made so many at a time.
BLOCK = 4096
KEYS, FACTS = 3, 4  # streams, beside those of language.py
# Of the facts of a budget n, n^(1/tail) times this ranks at least are told apart.
RANKS_OF_BUDGET = 10


@dataclass(frozen=True)
class Facts:
    """
    symbols  ids in all: ANSWERS answers, then what keys are written in, the end of text last
    tail     exponent of Zipf's law: the fact of rank r has a probability proportional to r^-tail
    ranks    how many facts are told apart by it; as many again share, evenly, what the law has beyond the last rank
    seed     the keys and answers of the ranks, and the texts

    A document is one fact: its key, its answer and the end of text.
    """

    symbols: int
    tail: float
    ranks: int
    seed: int

    @property
    def facts(self) -> int:
        return 2 * self.ranks

    @property
    def letters(self) -> int:
        """What keys are written in."""
        return self.symbols - ANSWERS - 1

    @property
    def key_symbols(self) -> int:
        """The fewest that tell all facts apart."""
        length = 1
        while self.letters**length < self.facts:
            length += 1
        return length

    @property
    def document_tokens(self) -> int:
        return self.key_symbols + 2

    @cached_property
    def limits(self) -> np.ndarray:
        """A fact is the first whose limit is above a uniform multiple of GRAIN."""
        return limits(np.append(self._weights(), np.full(self.ranks, self._beyond() / self.ranks)))

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(facts,) by rank, exactly as they are drawn."""
        return np.diff(self.limits, prepend=0)

    def _weights(self) -> np.ndarray:
        return np.arange(1, self.ranks + 1) ** -float(self.tail)

    def _beyond(self) -> float:
        """The sum of r^-tail over all r above `ranks`, to twelve digits (Euler and Maclaurin)."""
        r, s = float(self.ranks), float(self.tail)
        return r ** (1 - s) / (s - 1) - r**-s / 2 + s * r ** (-s - 1) / 12

    @cached_property
    def texts(self) -> np.ndarray:
        """(facts, key_symbols + 1) ids of the key and the answer, by rank."""
        numbers = np.argsort(self._rank_of_number)
        keys = ANSWERS + numbers[:, None] // self._places % self.letters
        answers = self._bits(FACTS, 0).random_raw(self.facts) >> np.uint64(60)
        return np.column_stack([keys, answers.astype(np.int64)])

    @cached_property
    def order(self) -> np.ndarray:
        """The ranks, from 0 on, in the order in which they validate, each once."""
        return np.argsort(self._bits(ASIDE, 0).random_raw(self.facts), kind="stable")

    @property
    def block_documents(self) -> int:
        return BLOCK

    def documents(self, stream: int, block: int) -> np.ndarray:
        """(BLOCK, key_symbols + 1) ids of facts: to train on as they are drawn, to validate on all in turn."""
        if stream == TRAINING:
            drawn = np.searchsorted(self.limits, uniform(self._bits(stream, block), BLOCK), side="right")
        else:
            drawn = self.order[np.arange(block * BLOCK, (block + 1) * BLOCK) % self.facts]
        return self.texts[drawn]

    def ranks_of(self, tokens: np.ndarray) -> np.ndarray:
        """The rank, from 0 on, of each fact of whole documents (documents * document_tokens,)."""
        keys = tokens.reshape(-1, self.document_tokens)[:, : self.key_symbols].astype(np.int64)
        return self._rank_of_number[(keys - ANSWERS) @ self._places]

    @cached_property
    def _rank_of_number(self) -> np.ndarray:
        return np.argsort(self._bits(KEYS, 0).random_raw(self.facts), kind="stable")

    @property
    def _places(self) -> np.ndarray:
        """What a symbol counts in each place of a key."""
        return self.letters ** np.arange(self.key_symbols)[::-1]

    def weights(self, tokens: int) -> np.ndarray:
        """(tokens,) what the loss at each token that validates counts: of an answer its fact's probability, else 0.

        The first so many tokens of the documents that validate; they sum to 1 where each fact is among them.
        """
        weights = np.zeros((self.facts, self.document_tokens))
        weights[:, self.key_symbols] = self.probabilities[self.order]
        return np.append(weights, np.zeros(max(0, tokens - weights.size)))[:tokens]

    def ideal_loss(self, seen: np.ndarray) -> float:
        """Nats an answer of who knows the facts whose ranks, from 0 on, were seen, and guesses evenly else."""
        unseen = self.probabilities.copy()
        unseen[seen] = 0
        return math.log(ANSWERS) * float(unseen.sum())

    def expected_ideal_loss(self, facts: int) -> float:
        """That in the mean over texts of so many facts."""
        return math.log(ANSWERS) * float((self.probabilities * np.exp(facts * np.log1p(-self.probabilities))).sum())

    @property
    def exponent(self) -> float:
        """Of the facts seen, by which an ideal learner's loss falls."""
        return 1 - 1 / self.tail

    def _bits(self, stream: int, block: int) -> np.random.Philox:
        return np.random.Philox(key=np.array([self.seed, stream], np.uint64), counter=block << 128)
