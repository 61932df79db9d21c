"""The token store: a corpus as memory-mapped ids, built once and grown by appending.

    <store_directory>/<recipe hash>/   validation.bin  train.bin  digests.bin  tokenizer.tiktoken  manifest.json

digests.bin has the digests of the documents that validate, of those beside them in a text that was cut, then of all
that were read for training. The manifest is written last and atomically, and counts what is valid of the other files.
"""

import contextlib
import errno
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from harness.data import building, corpus, corruption, generated, tasks
from harness.data.documents import DataConfig
from harness.data.encoding import cores
from harness.data.token_file import Extent, damaged, open_tokens
from harness.data.tokenizer import TokenizerConfig, token_dtype
from harness.errors import UserError
from harness.files import check_locks

SCHEMA = 1
# Epoch 0 is shuffled inside windows of so many tokens, so a store grows by whole windows.
WINDOW_TOKENS = 2**20
LONGEST_SEQUENCE = 2**14


@dataclass(frozen=True)
class TokenStore:
    """
    train, validation   ids of whole documents, each followed by the end of text
    bytes_per_token     bytes of UTF-8 text per validation token, ends of text counted as tokens
    exhausted           the whole corpus is in
    weights             what the loss at each validation token counts; None where all count alike
    """

    train: np.ndarray
    validation: np.ndarray
    vocab_size: int
    end_of_text: int
    bytes_per_token: float
    recipe_hash: str
    exhausted: bool
    manifest: dict[str, Any]
    weights: np.ndarray | None = None

    def unique_tokens(self, seq_len: int) -> int:
        """Training tokens in whole rows of `seq_len`: what an epoch has."""
        return max(0, len(self.train) - 1) // seq_len * seq_len

    def evaluated(self, seq_len: int) -> np.ndarray:
        """The tokens that every loss is taken on, and one target more."""
        return whole_rows(self.validation, self.manifest["recipe"]["validation_tokens"], seq_len)


def whole_rows(validation: np.ndarray, tokens: int, seq_len: int) -> np.ndarray:
    """The fewest rows of `seq_len` that hold `tokens`, and one target more, where a split has so many.

    Its last document may be longer than all the others together.
    """
    return validation[: -(-tokens // seq_len) * seq_len + 1]


def prepare(
    data: DataConfig, tokenizer_config: TokenizerConfig, train_tokens: int, processes: int | None = None
) -> TokenStore:
    """Opens the store of a corpus and tokenizer; builds or grows it where it has too few training tokens.

    It then holds every row that the first `train_tokens` tokens of epoch 0 need, or the whole corpus. `processes`
    encode, one a core where it is None; the store does not depend on it. Raises UserError for a corpus that cannot be
    read, is too small to validate on or has changed since, for a damaged store and for a disk that is full or cannot
    be written to.
    """
    data.check()
    tokenizer_config.check()
    wanted = stored_tokens(min(train_tokens, data.unique_tokens or train_tokens))
    recipe, recipe_hash = recipe_of(data, tokenizer_config)
    folder = Path(data.store_directory) / recipe_hash
    manifest = read_manifest(folder)
    if manifest is None or not _suffices(manifest, wanted):
        with disk_errors(data), locked(folder):
            # Another job may have done it meanwhile.
            manifest = read_manifest(folder) or {"schema": SCHEMA, "recipe": recipe, "recipe_hash": recipe_hash}
            if not _suffices(manifest, wanted):
                manifest = building.grow(data, tokenizer_config, manifest, folder, wanted, processes or cores())
    weights = corpus.weights_of(data, manifest["validation"]["tokens"])
    return _open(folder, manifest, data.unique_tokens, weights)


def recipe_of(data: DataConfig, tokenizer_config: TokenizerConfig) -> tuple[dict[str, Any], str]:
    """All that decides the ids of a store, and its hash, which names it. Raises UserError."""
    recipe: dict[str, Any] = {
        "schema": SCHEMA,
        "data": corpus.identity(data),
        "validation_tokens": data.validation_tokens,
        "tokenizer": tokenizer_config.recipe(),
    }
    if data.corrupted:
        recipe |= {"corrupted": data.corrupted, "corruption": corruption.REVISION}
    if data.generated:
        recipe["generated"] = generated.recipe(data)
    if data.tasks:
        recipe |= {"tasks": data.tasks, "lines": tasks.REVISION}
    if data.unique_tokens is not None:
        recipe["unique_tokens"] = data.unique_tokens
    if (other := building.corpus_of_tokenizer(data, tokenizer_config)) is not None:
        recipe["tokenizer"]["data"] = corpus.identity(other)
    return recipe, hash_of(recipe)


def hash_of(recipe: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


def stored_tokens(train_tokens: int) -> int:
    """How many tokens hold every row of epoch 0 that `train_tokens` can touch: whole windows, and one target more.

    Rows of a length that does not divide the window leave up to LONGEST_SEQUENCE of its tokens unused.
    """
    windows = -(-train_tokens // (WINDOW_TOKENS - LONGEST_SEQUENCE))
    return max(1, windows) * WINDOW_TOKENS + 1


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """None where there is no store; UserError where its manifest is damaged."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        if manifest["schema"] != SCHEMA:
            raise damaged(folder, f"schema {manifest['schema']} instead of {SCHEMA}")
        return manifest
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise damaged(folder, "its manifest is not readable") from error


def _suffices(manifest: dict[str, Any], wanted: int) -> bool:
    return "train" in manifest and (manifest["exhausted"] or manifest["train"]["tokens"] >= wanted)


def _open(
    folder: Path, manifest: dict[str, Any], unique_tokens: int | None, weights: np.ndarray | None
) -> TokenStore:
    """unique_tokens: those that train, where not all do; a store has whole windows of them, and documents, at least."""
    dtype = np.dtype(manifest["dtype"])
    if dtype != token_dtype(manifest["vocab_size"]):
        raise damaged(folder, f"{dtype} does not hold its vocabulary of {manifest['vocab_size']}")
    train = open_tokens(folder / "train.bin", dtype, Extent(**manifest["train"]))
    least = len(train) if unique_tokens is None else unique_tokens + 1  # one target more
    return TokenStore(
        train=train[:least],
        validation=open_tokens(folder / "validation.bin", dtype, Extent(**manifest["validation"])),
        vocab_size=manifest["vocab_size"],
        end_of_text=manifest["end_of_text"],
        bytes_per_token=manifest["bytes_per_token"],
        recipe_hash=manifest["recipe_hash"],
        exhausted=manifest["exhausted"] or len(train) > least,
        manifest=manifest,
        weights=weights,
    )


def locked(folder: Path) -> filelock.BaseFileLock:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # what /proc and its like say to a new folder
        raise PermissionError(errno.EACCES, error.strerror) from error
    check_locks(folder.parent, "data.store_directory")
    return filelock.FileLock(folder.parent / f"{folder.name}.lock")


@contextlib.contextmanager
def disk_errors(data: DataConfig) -> Iterator[None]:
    """Says in the user's words that the disk is full or closed, also where a library has wrapped that."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OSError) and cause.errno in _DISK:
                raise UserError(
                    f"data.store_directory={data.store_directory} {_DISK[cause.errno]}: choose another directory"
                ) from error
            cause = cause.__cause__
        raise


_DISK = {
    errno.ENOSPC: "has no space left (free some)",
    errno.EDQUOT: "has no space left in its quota (free some)",
    errno.EFBIG: "has no space left for files of this size",
    errno.EACCES: "is not writable",
    errno.EPERM: "is not writable",
    errno.EROFS: "is on a read-only disk",
    errno.ENOTDIR: "lies below a file",
    errno.EEXIST: "is a file",
}
