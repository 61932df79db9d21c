"""Worse text: some of the words of a document in the place of others."""

import re

import numpy as np

# Raise it when corrupted texts change: stores of before are then other ones. 2: the share is the one asked for.
REVISION = 2
WORDS = re.compile(r"(\S+)")


def corrupted(text: str, share: float, key: int) -> str:
    """A document in which each word is, by the chance `share`, one drawn of the same document; spaces stay.

    The draws are a function of `key`, 64 bits, and of the number of the word. numpy keeps the raw bits of a generator
    of its own name for ever.
    """
    parts = WORDS.split(text)  # what is between words at even places
    many = len(parts) // 2
    if not many:
        return text
    chance_W, place_W = np.random.PCG64(key).random_raw(2 * many).reshape(2, many) >> np.uint64(11)
    changed_W = np.flatnonzero(chance_W < share * 2**53)
    words = parts[1::2]
    for word in changed_W.tolist():
        parts[2 * word + 1] = words[int(place_W[word]) % many]
    return "".join(parts)
