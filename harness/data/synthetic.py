"""A corpus whose entropy is known: letters that follow one another by a rule with noise."""

import json
from pathlib import Path

import numpy as np

LETTERS = "abcdefghijklmnop"
# The letter after number x is number 5x + step mod 16; the steps' probabilities.
STEPS = (1 / 2, 1 / 4, 1 / 8, 1 / 8)
# 1/2 * 1 + 1/4 * 2 + 1/8 * 3 + 1/8 * 3
BITS_PER_LETTER = 1.75


def synthetic_texts(documents: int, letters: int, seed: int) -> list[str]:
    """Texts of `letters` letters, the first uniform; no predictor beats BITS_PER_LETTER on the others."""
    generator = np.random.default_rng(seed)
    steps = generator.choice(len(STEPS), size=(letters, documents), p=STEPS)
    numbers = np.empty((letters, documents), np.uint8)
    numbers[0] = generator.integers(len(LETTERS), size=documents)
    for position in range(1, letters):
        numbers[position] = (5 * numbers[position - 1] + steps[position]) % len(LETTERS)
    return [text.decode() for text in (numbers + ord(LETTERS[0])).T.copy().view(f"S{letters}").ravel()]


def write_corpus(path: Path, documents: int, letters: int, seed: int) -> None:
    """The texts as JSON lines, a document each in the field `text`, for `data=files data.path=...`."""
    lines = (json.dumps({"text": text}) + "\n" for text in synthetic_texts(documents, letters, seed))
    path.write_text("".join(lines))
