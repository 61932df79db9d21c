"""Text that a model of ours writes in the place of a part of what trains: its samples, at temperature 1."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.documents import DataConfig, Piece
from harness.data.language import uniform
from harness.data.tokenizer import Tokenizer
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.model.gpt import GPT

# Raise it when texts change: stores of before are then other ones.
REVISION = 1
# Documents are written so many at a time, or as many as take so much memory.
BLOCK, MOST_BYTES = 512, 2**29
STREAM = 5  # beside those of language.py and facts.py


def recipe(data: DataConfig) -> dict[str, Any]:
    """What decides the generated documents and where they stand. Raises UserError where there are no weights."""
    weights = hashlib.sha256(kept_weights(data).read_bytes()).hexdigest()
    return {"share": float(data.generated or 0), "weights": weights, "seed": data.seed, "revision": REVISION}


def kept_weights(data: DataConfig) -> Path:
    """The file of data.generator, the folder of a cell or of a sweep of one; raises UserError."""
    folder = Path(str(data.generator)).expanduser()
    own = folder / "model.pt"
    found = [own] if own.is_file() else sorted(folder.glob("runs/*/model.pt"))
    if not found:
        raise UserError(
            f"data.generator={data.generator} has no weights that were kept: train it first, as in `python "
            f"scripts/train.py name={folder.name} shape=w48-d2 tokens=2e6 save_model=true`"
        )
    if len(found) > 1:
        raise UserError(
            f"data.generator={data.generator} has the weights of {len(found)} cells: name the folder of one, as in "
            f"data.generator={found[0].parent}"
        )
    return found[0]


class Mixture:
    """Documents of a corpus and of a model side by side, so that these have `share` of the tokens.

    documents, tokens   how many the model has written of what was given out so far, ends of text included
    ahead               tokens that it has written beyond these
    """

    def __init__(self, data: DataConfig, encoder: Tokenizer, manifest: dict[str, Any]) -> None:
        self.share, self.seed, self.encoder = float(data.generated or 0), data.seed, encoder
        self.documents, self.tokens = manifest.get("generated", (0, 0))
        self.ahead = 0
        self.of_corpus = manifest["train"]["tokens"] - self.tokens
        self.model = _model(data, encoder)

    def mixed(
        self, encoded: Generator[tuple[Piece, np.ndarray], None, None], read: Piece
    ) -> Generator[tuple[Piece, np.ndarray], None, None]:
        """Each document with its ids, without an end where none of the corpus is asked for; read: the last before."""
        written = self._written()
        with contextlib.closing(encoded):
            while True:
                if self.tokens * (1 - self.share) <= self.share * self.of_corpus:
                    ids = next(written)
                    self.documents, self.tokens = self.documents + 1, self.tokens + len(ids) + 1
                    yield read._replace(text=self.encoder.decode(ids.tolist()), digests=[]), ids
                else:
                    read, ids = next(encoded)
                    self.of_corpus += len(ids) + 1
                    yield read, ids
                    if read.last:
                        return

    def _written(self) -> Iterator[np.ndarray]:
        """The model's documents from that of number `documents` on."""
        block, skipped = divmod(self.documents, block_documents(self.model))
        for number in itertools.count(block):
            documents = write_block(self.model, self.encoder, self.seed, number)[skipped:]
            self.ahead, skipped = sum(len(ids) + 1 for ids in documents), 0
            for ids in documents:
                self.ahead -= len(ids) + 1
                yield ids


def block_documents(model: GPT) -> int:
    """How many documents are a block, by their keys and values in float32 and three rows of logits in float64."""
    config = model.config
    return max(1, min(BLOCK, MOST_BYTES // (8 * config.depth * config.width * config.seq_len + 24 * model.vocab_size)))


def write_block(model: GPT, encoder: Tokenizer, seed: int, block: int) -> list[np.ndarray]:
    """The ids of a block of documents, without ends of text: a function of the model, the seed and the block's number.

    In float32 on one thread, so that sums round alike; another processor may round otherwise.
    """
    import torch

    from harness.model.sampling import write_documents

    many = block_documents(model)
    bits = np.random.Philox(key=np.array([seed, STREAM], np.uint64), counter=block << 128)
    uniforms = (uniform(bits, many) for _ in itertools.count())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return write_documents(model, encoder.end_of_text, encoder.vocab_size, many, uniforms)
    finally:
        torch.set_num_threads(threads)


def _model(data: DataConfig, encoder: Tokenizer) -> GPT:
    """The model that was kept; raises UserError where it does not write ids of this tokenizer."""
    from harness.model.gpt import GPT
    from harness.model.kept import load, load_model

    path = kept_weights(data)
    model = load_model(path)
    if not isinstance(model, GPT):
        raise UserError(
            f"data.generator={data.generator} is of model=custom, which keeps no keys and values: take another family"
        )
    if (load(path) or {}).get("tokenizer") != encoder.hash:
        raise UserError(
            f"data.generator={data.generator} was not trained on ids of this tokenizer: train it again, with the same "
            "tokenizer and corpus of its BPE"
        )
    return model
