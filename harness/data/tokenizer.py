"""Text to token ids: any tiktoken encoding, bytes, or a small byte-level BPE of our own training."""

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tiktoken
from tiktoken_ext.openai_public import r50k_pat_str

from harness.errors import UserError

KINDS = ("bpe", "tiktoken", "bytes", "identity")
END_OF_TEXT = "<|endoftext|>"
# Of tokenizer=identity the letter that is id 0; the others are the letters behind it.
FIRST_LETTER, MOST_LETTERS = 0x4E00, 20_000
# The trainer's time grows with the square of a word's length. No word of a language is as long as this.
LONGEST_WORD = 4096
# What a word of the splitting pattern is made of, in the classes that `re` knows.
HALF, WHOLE = (
    re.compile(r"(?:[^\W\d_]{N}|\d{N}|(?:[^\w\s]|[_\x1c-\x1f]){N}|\s{N})".replace("N", str(length)))
    for length in (LONGEST_WORD // 2, LONGEST_WORD)
)


@dataclass
class TokenizerConfig:
    """Which ids a text becomes."""

    # bpe (trained on the corpus) | tiktoken (an encoding of that library) | bytes | identity (of data=synthetic)
    kind: str = "bpe"
    vocab_size: int = 1024  # bpe, identity: ids in all, the end of text included
    training_bytes: int = 10_000_000  # bpe: bytes of UTF-8 at the start of the training split that it is trained on
    encoding: str = "gpt2"  # tiktoken: the encoding's name
    # bpe: what it is trained on instead of the corpus itself, an entry of conf/data or the keys of one; of several
    # corpora in one sweep, data=a,b, the one that all share
    data: Any = None

    def check(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"tokenizer.kind={self.kind} is unknown: choose one of {', '.join(KINDS)}")
        if self.kind == "bpe":
            if self.vocab_size < 257:
                raise UserError(
                    f"tokenizer.vocab_size={self.vocab_size} is below 257, the 256 bytes and the end of text: "
                    "raise it, or take tokenizer=bytes"
                )
            token_dtype(self.vocab_size)
            if self.training_bytes < 1:
                raise UserError(f"tokenizer.training_bytes={self.training_bytes} must be at least 1")
        if self.kind == "identity" and not 2 <= self.vocab_size <= MOST_LETTERS:
            raise UserError(f"tokenizer.vocab_size={self.vocab_size} must be 2 to {MOST_LETTERS}: correct it")
        if self.kind != "bpe" and self.data is not None:
            raise UserError(
                f"tokenizer.data names what a BPE is trained on, and tokenizer.kind={self.kind} trains none: leave it "
                "out, or take tokenizer=bpe"
            )
        if self.kind == "tiktoken" and self.encoding not in tiktoken.list_encoding_names():
            raise UserError(
                f"tokenizer.encoding={self.encoding} is not an encoding of tiktoken: choose one of "
                + ", ".join(tiktoken.list_encoding_names())
            )

    def recipe(self) -> dict[str, object]:
        """What decides the ids."""
        if self.kind == "bpe":
            return {"kind": "bpe", "vocab_size": self.vocab_size, "training_bytes": self.training_bytes}
        if self.kind == "tiktoken":
            return {"kind": "tiktoken", "encoding": self.encoding}
        return {"kind": "bytes"} if self.kind == "bytes" else {"kind": "identity", "vocab_size": self.vocab_size}


@dataclass(frozen=True)
class Tokenizer:
    """`encode` gives uint32 ids without the end of text; `hash` covers everything that decides them.

    `encoding` is None where ids need no more than the bytes.
    """

    vocab_size: int
    end_of_text: int
    hash: str
    encode: Callable[[str], np.ndarray]
    decode: Callable[[Iterable[int]], str]
    encoding: tiktoken.Encoding | None = None


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest little-endian integer type that holds every id; UserError where none of ours does."""
    if vocab_size <= 2**16:
        return np.dtype("<u2")
    if vocab_size <= 2**32:
        return np.dtype("<u4")
    raise UserError(f"tokenizer.vocab_size={vocab_size} is above what uint32 holds: stay at or below 2^32")


def bytes_tokenizer() -> Tokenizer:
    """Ids 0-255 are the bytes of UTF-8, 256 is the end of text."""
    return Tokenizer(
        vocab_size=257,
        end_of_text=256,
        hash=hashlib.sha256(b"bytes").hexdigest(),
        encode=lambda text: np.frombuffer(text.encode(), np.uint8).astype(np.uint32),
        decode=lambda ids: bytes(i for i in ids if i < 256).decode(errors="replace"),
    )


def identity_tokenizer(vocab_size: int) -> Tokenizer:
    """Id i is the letter of that number behind FIRST_LETTER, the last id the end of text."""

    def encode(text: str) -> np.ndarray:
        ids = np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.uint32) - np.uint32(FIRST_LETTER)
        if len(ids) and ids.max() >= vocab_size - 1:
            raise ValueError(f"a letter of it is none of tokenizer.vocab_size={vocab_size}")
        return ids

    return Tokenizer(
        vocab_size=vocab_size,
        end_of_text=vocab_size - 1,
        hash=hashlib.sha256(b"identity %d" % vocab_size).hexdigest(),
        encode=encode,
        decode=lambda ids: "".join(chr(FIRST_LETTER + i) for i in ids if i < vocab_size - 1),
    )


def tiktoken_tokenizer(name: str) -> Tokenizer:
    """One of tiktoken's own encodings. Raises UserError where its file is neither cached nor reachable."""
    try:
        return from_encoding(tiktoken.get_encoding(name))
    except (OSError, ValueError) as error:  # requests' exceptions are OSErrors, a bad checksum a ValueError
        cache = os.environ.get("TIKTOKEN_CACHE_DIR", "unset")
        raise UserError(
            f"tokenizer.encoding={name} must be downloaded once and could not be "
            f"({type(error).__name__}; TIKTOKEN_CACHE_DIR is {cache}): point TIKTOKEN_CACHE_DIR at a folder that "
            "holds it, or take an offline tokenizer, tokenizer=bpe or tokenizer=bytes"
        ) from error


def from_encoding(encoding: tiktoken.Encoding) -> Tokenizer:
    """The text of special tokens is encoded as ordinary text."""
    digest = hashlib.sha256(encoding._pat_str.encode())
    digest.update(write_ranks(encoding._mergeable_ranks))
    digest.update(repr(sorted(encoding._special_tokens.items())).encode())
    return Tokenizer(
        vocab_size=encoding.n_vocab,
        end_of_text=encoding.eot_token,
        hash=digest.hexdigest(),
        encode=lambda text: encoding.encode_to_numpy(text, disallowed_special=()),
        decode=lambda ids: encoding.decode(list(ids)),
        encoding=encoding,
    )


def train_bpe(texts: Iterable[str], vocab_size: int) -> tiktoken.Encoding:
    """A byte-level BPE of `vocab_size` ids, the last of them the end of text, with GPT-2's splitting pattern.

    Words longer than LONGEST_WORD are learned from in parts. Raises UserError where the texts are too small to give
    that many ids.
    """
    # Its thread pool would warn on the terminal at every later fork of this process.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import tokenizers

    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = byte_level
    bpe.train_from_iterator(
        bounded_words(texts),
        tokenizers.trainers.BpeTrainer(
            vocab_size=vocab_size - 1,
            special_tokens=[],
            initial_alphabet=byte_level.alphabet(),
            show_progress=False,
        ),
    )
    to_byte = {character: byte for byte, character in _printable_bytes().items()}
    ranks = {bytes(to_byte[c] for c in token): rank for token, rank in bpe.get_vocab().items()}
    if len(ranks) < vocab_size - 1:
        raise UserError(
            f"tokenizer.vocab_size={vocab_size} is more than the {len(ranks) + 1} ids that the training text "
            "gives: lower it, raise tokenizer.training_bytes, or take a larger corpus"
        )
    return bpe_encoding(ranks)


def bounded_words(texts: Iterable[str]) -> Iterator[str]:
    """The texts, cut inside runs of more than LONGEST_WORD letters, digits, signs or spaces, in time linear in them."""
    for text in texts:
        start = 0
        # A run as long as that covers one of these stretches.
        if any(HALF.match(text, at) for at in range(0, len(text), LONGEST_WORD // 2)):
            for run in WHOLE.finditer(text):
                yield text[start : run.end()]
                start = run.end()
        yield text[start:]


def bpe_encoding(ranks: dict[bytes, int]) -> tiktoken.Encoding:
    return tiktoken.Encoding(
        name="trained_bpe",
        pat_str=r50k_pat_str,
        mergeable_ranks=ranks,
        special_tokens={END_OF_TEXT: len(ranks)},
        explicit_n_vocab=len(ranks) + 1,
    )


def write_ranks(ranks: dict[bytes, int]) -> bytes:
    """tiktoken's file format: a line of base64 token and rank, in the order of ranks."""
    return b"".join(
        base64.b64encode(token) + b" %d\n" % rank for token, rank in sorted(ranks.items(), key=lambda item: item[1])
    )


def read_ranks(content: bytes) -> dict[bytes, int]:
    """The inverse of `write_ranks`; ValueError on anything else."""
    try:
        pairs = [line.split() for line in content.splitlines()]
        return {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def _printable_bytes() -> dict[int, str]:
    """GPT-2's table (Radford et al. 2019, encoder.py): printable bytes are themselves, the others U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + position) for position, byte in enumerate(others)}
