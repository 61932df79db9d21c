"""What a learner that counts has left to learn of the language of data=synthetic, for what models have left.

    python tests/data/counting.py [tail [seed]]

It knows that a sentence is a word and an answer, reads the text that trains in order, and predicts each by how often it
was there, begun with a tenth of a time (of answers behind each word apart). Of the excess over the known floor it
prints the nats a token, and the part that is left after twice as many tokens.
"""

import sys

import numpy as np

from harness.data.language import ANSWERS, SENTENCES, TRAINING, Language

BEGUN = 0.1
BUDGETS = (250_000, 500_000, 1_000_000, 2_000_000, 4_000_000)


def excess(language: Language, counts_WA: np.ndarray) -> float:
    """Nats a token of endless text by which predictions from counts (words, answers) lie above the language's own."""
    words, answers = language.probabilities
    known_WA = answers[language.places]
    guess_WA = (counts_WA + BEGUN) / (counts_WA + BEGUN).sum(1, keepdims=True)
    of_answers = (known_WA * np.log(known_WA / guess_WA)).sum(1)
    seen = counts_WA.sum(1) + BEGUN
    of_words = np.log(words * seen.sum() / seen)
    return float(words @ (of_answers + of_words)) / (2 + 1 / SENTENCES)


def left(language: Language, budgets: tuple[int, ...] = BUDGETS) -> list[float]:
    """The excess after each of these budgets of tokens."""
    counts_WA = np.zeros((language.words, ANSWERS))
    tokens, block, found = 0, 0, []
    for budget in budgets:
        while tokens < budget:
            sentences, _ = language.sentences(TRAINING, block)
            np.add.at(counts_WA, (sentences[:, 0] - ANSWERS, sentences[:, 1]), 1)
            tokens, block = tokens + 2 * len(sentences) + language.block_documents, block + 1
        found.append(excess(language, counts_WA))
    return found


def main(tail: float = 2.5, seed: int = 0) -> None:
    found = left(Language(1024, tail, seed))
    for budget, nats, before in zip(BUDGETS, found, [None, *found], strict=False):
        print(f"{budget:>9,} tokens {nats:.4f}" + (f"  {nats / before:.2f} of that of half" if before else ""))


if __name__ == "__main__":
    main(*(kind(text) for kind, text in zip((float, int), sys.argv[1:], strict=False)))
