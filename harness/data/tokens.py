"""The token store: a corpus as memory-mapped ids, built once and grown by appending.

    <store_directory>/<recipe hash>/   validation.bin  train.bin  tokenizer.tiktoken  manifest.json

The manifest is written last and atomically, and counts what is valid of the other files: a build or a growth that
is killed leaves either no store or the one before it.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import logging
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from harness.data import corpus, tokenizer
from harness.data.corpus import Corpus, DataConfig, Document
from harness.data.token_file import Extent, TokenWriter, damaged, open_tokens
from harness.data.tokenizer import Tokenizer, TokenizerConfig, token_dtype
from harness.errors import UserError
from harness.files import write_atomically

SCHEMA = 1
# Epoch 0 is shuffled inside windows of so many tokens, so a store grows by whole windows.
WINDOW_TOKENS = 2**20
LONGEST_SEQUENCE = 2**14

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenStore:
    """
    train, validation   ids of whole documents, each followed by the end of text
    bytes_per_token     bytes of UTF-8 text per validation token, ends of text counted as tokens
    exhausted           the whole corpus is in
    """

    train: np.memmap
    validation: np.memmap
    vocab_size: int
    end_of_text: int
    bytes_per_token: float
    recipe_hash: str
    exhausted: bool
    manifest: dict[str, Any]

    def unique_tokens(self, seq_len: int) -> int:
        """Training tokens in whole rows of `seq_len`: what an epoch has."""
        return max(0, len(self.train) - 1) // seq_len * seq_len


def prepare(data: DataConfig, tokenizer_config: TokenizerConfig, train_tokens: int) -> TokenStore:
    """Opens the store of a corpus and tokenizer; builds or grows it where it has too few training tokens.

    It then holds every row that the first `train_tokens` tokens of epoch 0 need, or the whole corpus. Raises
    UserError for a corpus that cannot be read, is too small to validate on or has changed since, for a damaged
    store and for a disk that is full or cannot be written to.
    """
    data.check()
    tokenizer_config.check()
    wanted = stored_tokens(train_tokens)
    recipe = {
        "schema": SCHEMA,
        "data": corpus.identity(data),
        "validation_tokens": data.validation_tokens,
        "tokenizer": tokenizer_config.recipe(),
    }
    recipe_hash = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(data.store_directory) / recipe_hash
    manifest = read_manifest(folder)
    if manifest is None or not _suffices(manifest, wanted):
        with _disk_errors(data), _lock(folder):
            manifest = read_manifest(folder)  # another job may have done it meanwhile
            if manifest is None:
                manifest = _build(data, tokenizer_config, {"recipe": recipe, "recipe_hash": recipe_hash}, folder)
            if not _suffices(manifest, wanted):
                manifest = _grow(data, tokenizer_config, manifest, folder, wanted)
    return _open(folder, manifest)


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
    return manifest["exhausted"] or manifest["train"]["tokens"] >= wanted


def _open(folder: Path, manifest: dict[str, Any]) -> TokenStore:
    dtype = np.dtype(manifest["dtype"])
    if dtype != token_dtype(manifest["vocab_size"]):
        raise damaged(folder, f"{dtype} does not hold its vocabulary of {manifest['vocab_size']}")
    return TokenStore(
        train=open_tokens(folder / "train.bin", dtype, Extent(**manifest["train"])),
        validation=open_tokens(folder / "validation.bin", dtype, Extent(**manifest["validation"])),
        vocab_size=manifest["vocab_size"],
        end_of_text=manifest["end_of_text"],
        bytes_per_token=manifest["bytes_per_token"],
        recipe_hash=manifest["recipe_hash"],
        exhausted=manifest["exhausted"],
        manifest=manifest,
    )


def _build(
    data: DataConfig, tokenizer_config: TokenizerConfig, identity: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """A store whose training split is still empty; its manifest is not written yet."""
    shutil.rmtree(folder, ignore_errors=True)
    documents = _open_corpus(data, None, folder)
    folder.mkdir()
    with _removed_on_failure(folder):
        encoder = _new_tokenizer(tokenizer_config, documents, folder)
        dtype = token_dtype(encoder.vocab_size)
        writer = TokenWriter(folder / "validation.bin", dtype, Extent())
        try:
            for document in _distinct(documents.aside(), set()):
                _write(document, encoder, writer)
                if writer.extent.tokens >= data.validation_tokens:
                    break
            else:
                raise _too_little_to_validate(data, documents, encoder, writer.extent.tokens)
            validation = writer.close()
        finally:
            writer.abandon()
    return {
        "schema": SCHEMA,
        **identity,
        "source": corpus.describe(data),
        "revision": documents.revision,
        "tokenizer_hash": encoder.hash,
        "vocab_size": encoder.vocab_size,
        "end_of_text": encoder.end_of_text,
        "dtype": dtype.str,
        "validation": validation.to_dict(),
        "train": Extent().to_dict(),
        "bytes_per_token": validation.bytes / validation.tokens,
        "duplicates": 0,
        "documents_read": 0,
        "documents_read_sum": hashlib.sha256().hexdigest(),
        "exhausted": False,
    }


def _grow(
    data: DataConfig, tokenizer_config: TokenizerConfig, manifest: dict[str, Any], folder: Path, wanted: int
) -> dict[str, Any]:
    """Appends documents until there are `wanted` tokens or the corpus ends, then writes the manifest."""
    documents = _open_corpus(data, manifest["revision"], folder)
    encoder = _stored_tokenizer(tokenizer_config, folder, manifest)
    first = _distinct(documents.aside(), set())
    validating = {document.digest for document in itertools.islice(first, manifest["validation"]["documents"])}
    writer = TokenWriter(folder / "train.bin", np.dtype(manifest["dtype"]), Extent(**manifest["train"]))
    read, duplicates, exhausted = 0, 0, False
    read_sum, seen = hashlib.sha256(), set[int]()
    stream = documents.training()
    with _removed_on_failure(folder if manifest["documents_read"] == 0 else None):
        try:
            while writer.extent.tokens < wanted:
                if read == manifest["documents_read"] and read_sum.hexdigest() != manifest["documents_read_sum"]:
                    raise _changed(folder)
                document = next(stream, None)
                if document is None:
                    exhausted = True
                    break
                read += 1
                read_sum.update(document.digest.to_bytes(8, "big"))
                new = document.digest not in seen and document.digest not in validating
                duplicates += document.digest in seen
                seen.add(document.digest)
                if new and read > manifest["documents_read"]:
                    _write(document, encoder, writer)
            if read < manifest["documents_read"]:
                raise _changed(folder)
            if writer.extent.documents == 0:
                raise UserError(f"{manifest['source']} has no documents to train on: take a larger corpus")
            train = writer.close()
        finally:
            writer.abandon()
        grown = manifest | {
            "train": train.to_dict(),
            "duplicates": documents.duplicates + duplicates,
            "documents_read": read,
            "documents_read_sum": read_sum.hexdigest(),
            "exhausted": exhausted,
        }
        write_atomically(folder / "manifest.json", json.dumps(grown, indent=1) + "\n")
    log.info("%s holds %d training tokens of %s", folder, train.tokens, manifest["source"])
    return grown


def _write(document: Document, encoder: Tokenizer, writer: TokenWriter) -> None:
    try:
        ids = np.append(encoder.encode(document.text), np.uint32(encoder.end_of_text))
    except ValueError as error:  # a million spaces or newlines in a row overflow the stack of tiktoken's regex
        raise UserError(
            f"the document that begins {document.text[:40]!r} cannot be encoded ({error}): remove it from the corpus"
        ) from error
    writer.append(ids, len(document.text.encode()))


def _distinct(documents: Iterable[Document], seen: set[int]) -> Iterator[Document]:
    for document in documents:
        if document.digest not in seen:
            seen.add(document.digest)
            yield document


def _open_corpus(data: DataConfig, revision: str | None, folder: Path) -> Corpus:
    return corpus.open_corpus(data, revision, folder.parent / "datasets")


def _new_tokenizer(config: TokenizerConfig, documents: Corpus, folder: Path) -> Tokenizer:
    if config.kind == "bytes":
        return tokenizer.bytes_tokenizer()
    if config.kind == "tiktoken":
        return tokenizer.tiktoken_tokenizer(config.encoding)

    def texts() -> Iterator[str]:
        total = 0
        for document in documents.training():
            if total >= config.training_bytes:
                return
            if not document.aside:
                total += len(document.text.encode())
                yield document.text

    encoding = tokenizer.train_bpe(texts(), config.vocab_size)
    write_atomically(folder / "tokenizer.tiktoken", tokenizer.write_ranks(encoding._mergeable_ranks))
    return tokenizer.from_encoding(encoding)


def _stored_tokenizer(config: TokenizerConfig, folder: Path, manifest: dict[str, Any]) -> Tokenizer:
    if config.kind == "bytes":
        encoder = tokenizer.bytes_tokenizer()
    elif config.kind == "tiktoken":
        encoder = tokenizer.tiktoken_tokenizer(config.encoding)
    else:
        try:
            ranks = tokenizer.read_ranks((folder / "tokenizer.tiktoken").read_bytes())
            encoder = tokenizer.from_encoding(tokenizer.bpe_encoding(ranks))
        except (FileNotFoundError, ValueError) as error:
            raise damaged(folder, "its tokenizer is not readable") from error
    if encoder.hash != manifest["tokenizer_hash"]:
        raise damaged(folder, "its tokenizer is another one than it was built with")
    return encoder


def _too_little_to_validate(data: DataConfig, documents: Corpus, encoder: Tokenizer, aside: int) -> UserError:
    if aside == 0:
        return UserError(f"{corpus.describe(data)} has no documents to validate on: take a larger corpus")
    rest = sum(len(encoder.encode(d.text)) + 1 for d in _distinct(documents.training(), set()) if not d.aside)
    return UserError(
        f"data.validation_tokens={data.validation_tokens} is more than {documents.aside_share} of the documents "
        f"hold ({aside} of {aside + rest} tokens in all): lower it to {aside} or less, or take a larger corpus"
    )


def _changed(folder: Path) -> UserError:
    return UserError(
        f"the corpus behind token store {folder} has changed since it was built: set data.revision, or delete that "
        "folder to build it again"
    )


def _lock(folder: Path) -> filelock.BaseFileLock:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # what /proc and its like say to a new folder
        raise PermissionError(errno.EACCES, error.strerror) from error
    return filelock.FileLock(folder.parent / f"{folder.name}.lock")


@contextlib.contextmanager
def _removed_on_failure(folder: Path | None) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise


@contextlib.contextmanager
def _disk_errors(data: DataConfig) -> Iterator[None]:
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
