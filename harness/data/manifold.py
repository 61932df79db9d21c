"""A task of known intrinsic dimension: points of a cube, each with an answer drawn by a smooth field of its place.

Piecewise linear functions of N pieces miss such a field by a squared error that falls as N^-4/d in d dimensions, so
that losses would fall as params^-4/d where nothing else binds (Sharma & Kaplan 2020; Bahri et al. 2021).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.data.language import ASIDE, TRAINING, uniform

# Raise it when texts change: stores of before are then other ones.
REVISION = 1
LEVELS, ANSWERS = 16, 16
# An answer is the field in steps of a third of its standard deviation, and noise of half of one.
STEPS, NOISE = 3.0, 0.5
# The field is a sum of so many cosines. Along the diagonal of the cube, whose length is sqrt(d), the phase of one that
# runs that way has this standard deviation, so that waves are as long a part of it in every dimension.
COSINES, PHASE = 64, 3.0
# Documents are made so many at a time.
BLOCK = 4096
FIELD = 5  # a stream, beside those of language.py and facts.py


@dataclass(frozen=True)
class Manifold:
    """
    symbols    ids in all: ANSWERS answers, LEVELS for each coordinate, some that are never used, the end of text last
    dimension  d, how many coordinates a point has
    seed       the field, and the texts

    A document is one point: its coordinates in turn, each by ids of its own, its answer and the end of text. A point
    that validates stands there with each answer, so that the loss of a model is exact on it.
    """

    symbols: int
    dimension: int
    seed: int

    @property
    def document_tokens(self) -> int:
        return self.dimension + 2

    @property
    def point_tokens(self) -> int:
        """Of a point that validates: a document an answer."""
        return ANSWERS * self.document_tokens

    @cached_property
    def cosines(self) -> tuple[np.ndarray, np.ndarray]:
        """Wave numbers (COSINES, dimension), even about 0 in each coordinate, and phases (COSINES,)."""
        draws = uniform(self._bits(FIELD, 0), COSINES * (self.dimension + 1)).reshape(COSINES, -1)
        # along a side of the cube a place has a standard deviation of 1 / sqrt(12), and 2 u - 1 has one of 1 / sqrt(3)
        side = PHASE / self.dimension * math.sqrt(12)
        numbers = (2 * draws[:, 1:] - 1) * math.sqrt(3) * side
        return numbers, 2 * math.pi * draws[:, 0]

    @cached_property
    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of the sum of cosines over all points, exactly.

        Levels lie evenly about the middle, so that the mean of a cosine is that of its phase times a product over the
        coordinates; a product of two cosines is half of two others.
        """
        numbers, phases = self.cosines

        def mean(numbers: np.ndarray, phases: np.ndarray) -> np.ndarray:
            factors = np.cos(numbers[..., None] * (_middle(np.arange(LEVELS)) - 0.5)).mean(-1)
            return np.cos(phases) * factors.prod(-1)

        first = float(mean(numbers, phases).sum())
        pairs = sum(mean(numbers[:, None] + sign * numbers, phases[:, None] + sign * phases) / 2 for sign in (-1, 1))
        return first, math.sqrt(float(np.sum(pairs)) - first**2)

    def field(self, places: np.ndarray) -> np.ndarray:
        """(n,) at places (n, dimension) in [0, 1); over all points its mean is 0 and its standard deviation 1."""
        numbers, phases = self.cosines
        mean, sd = self.moments
        return (np.cos((places - 0.5) @ numbers.T + phases).sum(1) - mean) / sd

    def probabilities(self, points: np.ndarray) -> np.ndarray:
        """(n, ANSWERS) of the answers at points (n, dimension) by their levels."""
        middle = (ANSWERS - 1) / 2
        off = np.arange(ANSWERS) - middle - STEPS * self.field(_middle(points))[:, None]
        weights = np.exp(-((off / (STEPS * NOISE)) ** 2) / 2)
        return weights / weights.sum(1, keepdims=True)

    @property
    def block_documents(self) -> int:
        return BLOCK

    def documents(self, stream: int, block: int) -> np.ndarray:
        """(BLOCK, dimension + 1) ids: to train on with an answer as it is drawn, to validate on with all in turn."""
        bits = self._bits(stream, block)
        if stream == TRAINING:
            points = self._drawn(bits, BLOCK)
            limits = np.cumsum(self.probabilities(points), axis=1)[:, :-1]
            answers = (uniform(bits, BLOCK)[:, None] >= limits).sum(1)
        else:
            points = np.repeat(self._drawn(bits, BLOCK // ANSWERS), ANSWERS, axis=0)
            answers = np.tile(np.arange(ANSWERS), BLOCK // ANSWERS)
        return np.column_stack([ANSWERS + LEVELS * np.arange(self.dimension) + points, answers])

    def _drawn(self, bits: np.random.Philox, count: int) -> np.ndarray:
        """(count, dimension) levels, evenly drawn: the four highest bits of each."""
        draws = bits.random_raw(count * self.dimension) >> np.uint64(60)
        return draws.astype(np.int64).reshape(count, self.dimension)

    def points_aside(self, tokens: int) -> np.ndarray:
        """(n, dimension) levels of the points of which all documents are among the first so many tokens."""
        count, each = tokens // self.point_tokens, BLOCK // ANSWERS
        blocks = [self._drawn(self._bits(ASIDE, block), each) for block in range(-(-count // each))]
        return np.concatenate(blocks)[:count]

    def weights(self, tokens: int) -> np.ndarray:
        """(tokens,) what the loss at each token that validates counts: of an answer its probability, else 0.

        Of points that have each answer among the first so many tokens.
        """
        points = self.points_aside(tokens)
        weights = np.zeros((len(points) * ANSWERS, self.document_tokens))
        weights[:, self.dimension] = self.probabilities(points).ravel()
        return np.append(weights, np.zeros(tokens - weights.size))

    def entropy(self, points: np.ndarray) -> float:
        """Nats an answer, the mean over points (n, dimension): what the best predictor loses."""
        p = self.probabilities(points)
        return float(-(p * np.log(p)).sum(1).mean())

    @cached_property
    def expected_entropy(self) -> float:
        """That of all points, by 16 blocks of those that train."""
        blocks = [self._drawn(self._bits(TRAINING, block), BLOCK) for block in range(16)]
        return self.entropy(np.concatenate(blocks))

    @property
    def exponent(self) -> float:
        """Of the params, by which the squared error of a piecewise linear function falls."""
        return 4 / self.dimension

    def _bits(self, stream: int, block: int) -> np.random.Philox:
        return np.random.Philox(key=np.array([self.seed, stream], np.uint64), counter=block << 128)


def _middle(levels: np.ndarray) -> np.ndarray:
    return (levels + 0.5) / LEVELS
