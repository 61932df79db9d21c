"""Text into which symbols of no meaning are inserted, so that its entropy rises by a known amount.

Before each character, and before the end of a document, symbols follow one another with the chance `share` each, drawn
alike from SYMBOLS. Whoever knows the text so far knows which of its tokens are symbols, so of text of E nats a token
the best predictor has h(share) + share ln(len(SYMBOLS)) + (1 - share) E, where h is the entropy of a coin.
"""

import math
from collections.abc import Iterator

import numpy as np

from harness.data.documents import NOTHING_READ, START, Corpus, Document, Place

# Raise it when what is inserted changes: stores of before are then other ones.
REVISION = 1
# Control characters without a use in text, a byte of UTF-8 each.
SYMBOLS = "".join(map(chr, range(0x0E, 0x1E)))
NO_SYMBOLS = dict.fromkeys(map(ord, SYMBOLS))
CODES = np.frombuffer(SYMBOLS.encode("utf-32-le"), "<u4")


def inserted_nats(share: float) -> float:
    """What symbols add to (1 - share) of the text's entropy, in nats a token: h(share) + share ln(len(SYMBOLS))."""
    if not share:
        return 0.0
    coin = -share * math.log(share) - (1 - share) * math.log1p(-share)
    return coin + share * math.log(len(SYMBOLS))


def with_symbols(text: str, share: float, key: int) -> str:
    """A document with symbols, `share` of its characters, the end of text counted as one, in the mean.

    The draws are a function of `key`, 64 bits. numpy keeps the raw bits of a generator of its own name for ever. What a
    text has of these characters itself is left out.
    """
    letters_C = np.frombuffer(text.translate(NO_SYMBOLS).encode("utf-32-le"), "<u4")
    bits = np.random.PCG64(key)
    chance_C = ((bits.random_raw(len(letters_C) + 1) >> np.uint64(11)) + 1) * 2.0**-53  # above 0, at most 1
    before_C = np.floor(np.log(chance_C) / math.log(share)).astype(np.int64)  # n or more with the chance share^n
    symbols = CODES[bits.random_raw(int(before_C.sum())) % np.uint64(len(CODES))]
    places = np.repeat(np.arange(len(letters_C) + 1), before_C)
    return np.insert(letters_C, places, symbols).astype("<u4").tobytes().decode("utf-32-le")


class WithSymbols:
    """A corpus whose documents have symbols, wherever it is read; its digests are of the text without them."""

    def __init__(self, corpus: Corpus, share: float) -> None:
        self.corpus, self.share = corpus, share
        self.revision, self.documents = corpus.revision, corpus.documents
        self.duplicates, self.skipped, self.note = corpus.duplicates, corpus.skipped, corpus.note
        self.aside_share = corpus.aside_share

    def aside(self) -> Iterator[Document]:
        return self._changed(self.corpus.aside())

    def beside(self, validating: np.ndarray) -> np.ndarray:
        return self.corpus.beside(validating)

    def training(self, read: np.ndarray = NOTHING_READ, place: Place = START) -> Iterator[Document]:
        return self._changed(self.corpus.training(read, place))

    def _changed(self, documents: Iterator[Document]) -> Iterator[Document]:
        for document in documents:
            yield document._replace(text=with_symbols(document.text, self.share, document.digest))
