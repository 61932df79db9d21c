"""Building and growing a token store.

Documents are encoded by several processes and appended in their own order. Every few seconds what is appended is
committed: first the files, then the manifest, which counts what is valid of them. A store whose process is killed is
that of the last commit, and goes on from there to the same bytes.
"""

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness.data import corpus, tokenizer
from harness.data.corruption import corrupted
from harness.data.digests import DigestSet
from harness.data.documents import START, Changed, Corpus, DataConfig, Document, Piece, Place, data_config, named
from harness.data.encoding import encode_all
from harness.data.generated import Mixture
from harness.data.meter import Meter, told_once_slow
from harness.data.tasks import with_tasks
from harness.data.token_file import Extent, TokenWriter, damaged, open_tokens
from harness.data.tokenizer import Tokenizer, TokenizerConfig, token_dtype
from harness.errors import UserError
from harness.files import write_atomically

COMMIT_SECONDS = 10.0
DIGEST = np.dtype("<u8")

log = logging.getLogger(__name__)


def grow(
    data: DataConfig,
    tokenizer_config: TokenizerConfig,
    manifest: dict[str, Any],
    folder: Path,
    wanted: int,
    processes: int,
) -> dict[str, Any]:
    """Appends documents to the store until it has `wanted` training tokens or the corpus ends; its new manifest.

    `manifest` is the store's, or for a new one what names it: schema, recipe and recipe_hash. A store of an earlier
    version, which did not keep what it had read, is built again. Raises UserError.
    """
    with removed_without_manifest(folder):
        documents = corpus.open_corpus(data, manifest.get("revision"), folder.parent / "datasets")
        if "digests" not in manifest:
            manifest = _begin(data, tokenizer_config, manifest, documents, folder, processes)
        encoder = stored_tokenizer(tokenizer_config, folder, manifest)
        try:
            mixture = Mixture(data, encoder, manifest) if manifest["recipe"].get("generated") else None
            manifest = _append(documents, encoder, mixture, manifest, folder, wanted, processes)
        except Changed as error:
            raise UserError(
                f"the corpus behind token store {folder} has changed since it was built: set data.revision, or delete "
                "that folder to build it again"
            ) from error
    log.info("%s holds %d training tokens of %s", folder, manifest["train"]["tokens"], manifest["source"])
    return manifest


def _begin(
    data: DataConfig,
    tokenizer_config: TokenizerConfig,
    identity: dict[str, Any],
    documents: Corpus,
    folder: Path,
    processes: int,
) -> dict[str, Any]:
    """A store with its validation split and an empty training split; its manifest is not written yet."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if (other := corpus_of_tokenizer(data, tokenizer_config)) is None:
        encoder = _new_tokenizer(tokenizer_config, documents, folder)
    else:
        with named("tokenizer.data"):
            read = corpus.open_corpus(other, None, folder.parent / "datasets")
            encoder = _new_tokenizer(tokenizer_config, read, folder)
    return set_aside(data, encoder, identity, documents, folder, processes) | {
        "documents_read": 0,
        "place": START,
        "exhausted": False,
    }


def corpus_of_tokenizer(data: DataConfig, tokenizer_config: TokenizerConfig) -> DataConfig | None:
    """What the tokenizer of a corpus is trained on; None where that is the corpus itself. Raises UserError."""
    if tokenizer_config.data is None:
        return None
    other = data_config("tokenizer.data", tokenizer_config.data, data)
    with named("tokenizer.data"):
        if other.source == "tasks":
            raise UserError("data.source=tasks only validates: name a text")
        return None if corpus.identity(other) == corpus.identity(data) else other


def set_aside(
    data: DataConfig, encoder: Tokenizer, identity: dict[str, Any], documents: Corpus, folder: Path, processes: int
) -> dict[str, Any]:
    """Writes the validation split of a corpus into a new folder; the manifest of a store that trains nothing."""
    dtype = token_dtype(encoder.vocab_size)
    writer = TokenWriter(folder / "validation.bin", dtype, Extent())
    digests = TokenWriter(folder / "digests.bin", DIGEST, Extent())
    encoded = encode_all(_distinct(documents.aside()), encoder, processes)
    end = np.array(encoder.end_of_text, dtype).tobytes()
    with contextlib.closing(writer), contextlib.closing(digests), contextlib.closing(encoded), Meter() as meter:
        for document, ids in encoded:
            writer.append(ids, end, len(document.text.encode()))
            meter.update(writer.extent.tokens / data.validation_tokens, writer.extent.tokens, writer.extent.bytes)
            digests.append(np.array([document.digest], DIGEST), b"", 0)
            if writer.extent.tokens >= data.validation_tokens:
                break
        else:
            raise _too_little_to_validate(data, documents, encoder, writer.extent.tokens)
        validation = writer.commit()
        near = documents.beside(np.array(open_tokens(folder / "digests.bin", DIGEST, digests.commit())))
        digests.append(near.astype(DIGEST), b"", 0, documents=len(near))
        kept = digests.commit()
    return {
        "schema": identity["schema"],
        "recipe": identity["recipe"],
        "recipe_hash": identity["recipe_hash"],
        "source": corpus.describe(data),
        "revision": documents.revision,
        "tokenizer_hash": encoder.hash,
        "vocab_size": encoder.vocab_size,
        "end_of_text": encoder.end_of_text,
        "dtype": dtype.str,
        "validation": validation.to_dict(),
        "train": Extent().to_dict(),
        "digests": kept.to_dict(),
        **({"beside": len(near)} if len(near) else {}),
        "bytes_per_token": validation.bytes / validation.tokens,
        "duplicates": documents.duplicates,
        **{key: said for key in ("skipped", "note") if (said := getattr(documents, key))},
    }


def _append(
    documents: Corpus,
    encoder: Tokenizer,
    mixture: Mixture | None,
    manifest: dict[str, Any],
    folder: Path,
    wanted: int,
    processes: int,
) -> dict[str, Any]:
    apart = apart_of(manifest)
    digests = open_tokens(folder / "digests.bin", DIGEST, Extent(**manifest["digests"]))
    place, duplicates = Place(*manifest["place"]), manifest["duplicates"]
    pieces = _pieces(documents, np.array(digests), apart, place, duplicates)
    if worse := manifest["recipe"].get("corrupted"):
        pieces = _changed(pieces, corrupted, worse)
    if share := manifest["recipe"].get("tasks"):
        pieces = _changed(pieces, with_tasks, share)
    writer = TokenWriter(folder / "train.bin", np.dtype(manifest["dtype"]), Extent(**manifest["train"]))
    keeper = TokenWriter(folder / "digests.bin", DIGEST, Extent(**manifest["digests"]))
    encoded = encode_all(pieces, encoder, processes)
    if mixture is not None:
        encoded = mixture.mixed(encoded, Piece("", [], duplicates, place))
    end = np.array(encoder.end_of_text, manifest["dtype"]).tobytes()
    begun, read, committed = manifest["train"], list[int](), time.monotonic()
    meter = Meter(doing="writing" if mixture else "tokenizing")
    with contextlib.closing(writer), contextlib.closing(keeper), contextlib.closing(encoded), meter:
        for piece, ids in encoded:
            read += piece.digests
            if not piece.last:
                writer.append(ids, end, len(piece.text.encode()))
            elif writer.extent.documents == 0:
                raise UserError(f"{manifest['source']} has no documents to train on: take a larger corpus")
            train = writer.extent
            ended = piece.last or train.tokens >= wanted
            within = mixture is not None and mixture.ahead > 0  # a block, most of which would be written again
            if ended or time.monotonic() - committed > COMMIT_SECONDS and not within:
                keeper.append(np.array(read, DIGEST), b"", 0, documents=len(read))
                read = []
                manifest = manifest | {
                    "train": writer.commit().to_dict(),
                    "digests": keeper.commit().to_dict(),
                    "duplicates": piece.duplicates,
                    "documents_read": keeper.extent.documents - apart,
                    "place": piece.place,
                    "exhausted": piece.last,
                    **({"generated": (mixture.documents, mixture.tokens)} if mixture else {}),
                }
                write_atomically(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")
                committed = time.monotonic()
            if ended:
                break
            of_corpus = train.documents / documents.documents if documents.documents and not mixture else 0.0
            there = min(wanted, train.tokens + mixture.ahead) if mixture else train.tokens
            meter.update(max(there / wanted, of_corpus), there - begun["tokens"], train.bytes - begun["bytes"])
    return manifest


def _changed(pieces: Iterator[Piece], change: Callable[[str, float, int], str], share: float) -> Iterator[Piece]:
    for piece in pieces:
        yield piece if piece.last else piece._replace(text=change(piece.text, share, piece.digests[-1]))


def apart_of(manifest: dict[str, Any]) -> int:
    """How many documents validate or stand beside such; their digests come first."""
    return manifest["validation"]["documents"] + manifest.get("beside", 0)


def _pieces(documents: Corpus, digests: np.ndarray, apart_first: int, place: Place, duplicates: int) -> Iterator[Piece]:
    """What the store does not have yet; `digests` are those of what is kept apart and of all it has read."""
    apart, read = set(digests[:apart_first].tolist()), digests[apart_first:]
    seen, passed = DigestSet(read), list[int]()
    for document in documents.training(read, place):
        place = document.place
        passed.append(document.digest)
        new = seen.add(document.digest)
        duplicates += not new
        if new and document.digest not in apart:
            yield Piece(document.text, passed, duplicates, place)
            passed = []
    yield Piece("", passed, duplicates, place, last=True)


def _distinct(documents: Iterable[Document]) -> Iterator[Document]:
    seen = set[int]()
    for document in documents:
        if document.digest not in seen:
            seen.add(document.digest)
            yield document


def _new_tokenizer(config: TokenizerConfig, documents: Corpus, folder: Path) -> Tokenizer:
    if config.kind == "bytes":
        return tokenizer.bytes_tokenizer()
    if config.kind == "tiktoken":
        return tokenizer.tiktoken_tokenizer(config.encoding)
    if config.kind == "identity":
        return tokenizer.identity_tokenizer(config.vocab_size)

    def texts() -> Iterator[str]:
        total = 0
        for document in documents.training():
            if total >= config.training_bytes:
                return
            if not document.aside:
                total += len(document.text.encode())
                yield document.text

    with told_once_slow("training the tokenizer"):
        encoding = tokenizer.train_bpe(texts(), config.vocab_size)
    write_atomically(folder / "tokenizer.tiktoken", tokenizer.write_ranks(encoding._mergeable_ranks))
    return tokenizer.from_encoding(encoding)


def stored_tokenizer(config: TokenizerConfig, folder: Path, manifest: dict[str, Any]) -> Tokenizer:
    if config.kind == "bytes":
        encoder = tokenizer.bytes_tokenizer()
    elif config.kind == "tiktoken":
        encoder = tokenizer.tiktoken_tokenizer(config.encoding)
    elif config.kind == "identity":
        encoder = tokenizer.identity_tokenizer(config.vocab_size)
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
    rest = sum(len(encoder.encode(d.text)) + 1 for d in _distinct(documents.training()) if not d.aside)
    return UserError(
        f"data.validation_tokens={data.validation_tokens} is more than {documents.aside_share} of the documents "
        f"hold ({aside} of {aside + rest} tokens in all): lower it to {aside} or less, or take a larger corpus"
    )


@contextlib.contextmanager
def removed_without_manifest(folder: Path) -> Iterator[None]:
    """Where it fails before the first commit, nothing stays."""
    try:
        yield
    except BaseException:
        if not (folder / "manifest.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise
