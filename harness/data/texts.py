"""Further texts to validate on, by name: documents that are aside in other corpora, in the ids of a sweep's tokenizer.

    <store_directory>/<recipe hash>/   validation.bin  digests.bin  manifest.json

As a token store, with nothing to train on; its recipe names the tokenizer by what decides its ids, not by what it was
trained on.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.data import building, corpus
from harness.data.documents import DataConfig, data_config, named
from harness.data.encoding import cores
from harness.data.tasks import TASKS, Task
from harness.data.token_file import Extent, open_tokens
from harness.data.tokenizer import Tokenizer, TokenizerConfig
from harness.data.tokens import SCHEMA, TokenStore, disk_errors, hash_of, locked, read_manifest, whole_rows
from harness.errors import UserError
from harness.files import write_atomically

Corpora = Sequence[tuple[DataConfig, TokenStore]]
EXAMPLE = "write validation: {code: {source: files, path: code.jsonl}, stories: tinystories}"


@dataclass(frozen=True)
class Text:
    """
    validation        ids of whole documents, each followed by the end of text
    bytes_per_token   bytes of UTF-8 text per token of them, ends of text counted as tokens
    task              that whose lines they are, of which the answers alone count
    """

    folder: Path
    validation: np.memmap
    bytes_per_token: float
    recipe_hash: str
    manifest: dict[str, Any]
    task: Task | None = None

    def evaluated(self, seq_len: int) -> np.ndarray:
        """The tokens that every loss is taken on, and one target more."""
        return whole_rows(self.validation, self.manifest["recipe"]["validation_tokens"], seq_len)

    def trained(self, data: DataConfig, store: TokenStore) -> int:
        """How many of its documents the store of `data` has, as they are, to train on."""
        digests = _digests(self.folder, self.manifest)[: self.manifest["validation"]["documents"]]
        of_store = _digests(Path(data.store_directory) / store.recipe_hash, store.manifest)
        apart, read = np.split(of_store, [building.apart_of(store.manifest)])
        return int((np.isin(digests, read) & ~np.isin(digests, apart)).sum())


def _digests(folder: Path, manifest: dict[str, Any]) -> np.memmap:
    return open_tokens(folder / "digests.bin", building.DIGEST, Extent(**manifest["digests"]))


def texts_of(validation: Any, data: DataConfig) -> dict[str, DataConfig]:
    """The corpora of validation=, by name; data: the corpus that trains, whose store_directory is theirs.

    Raises UserError.
    """
    if validation is None:
        return {}
    if not isinstance(validation, Mapping):
        raise UserError(f"validation={validation} is no mapping of names to texts: {EXAMPLE}")
    if not validation:
        raise UserError(f"validation is empty: {EXAMPLE}, or leave it out")
    for name in map(str, validation):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UserError(f"validation.{name} is no identifier: take letters, digits and _, with no digit first")
    found = {str(name): data_config(f"validation.{name}", given, data) for name, given in validation.items()}
    for name, text in found.items():
        if text.source == "facts":
            raise UserError(f"validation.{name} is of facts, whose losses count by weights: train on them, data=facts")
        if text.source == "manifold":
            raise UserError(f"validation.{name} is of points, whose losses count by weights: train on data=manifold")
    return found


def check_sources(validation: Any, data: DataConfig) -> None:
    """Raises UserError for a local text that cannot be read, before anything is built."""
    for name, text in texts_of(validation, data).items():
        with named(f"validation.{name}"):
            corpus.identity(text)


def open_texts(
    validation: Any, corpora: Corpora, tokenizer: TokenizerConfig, processes: int | None = None
) -> dict[str, Text]:
    """The texts of validation=, by name, each built where it is not there yet.

    corpora: those that train, and their stores, whose tokenizer is one. Raises UserError for a text that cannot be
    read, is too short or is trained on.
    """
    found = {}
    for name, config in texts_of(validation, corpora[0][0]).items():
        with named(f"validation.{name}"):
            found[name] = _open(config, corpora, tokenizer, processes or cores())
    return found


def _open(text: DataConfig, corpora: Corpora, tokenizer: TokenizerConfig, processes: int) -> Text:
    identity, hashes = corpus.identity(text), {store.manifest["tokenizer_hash"] for _, store in corpora}
    recipe = {
        "schema": SCHEMA,
        "data": identity,
        "validation_tokens": text.validation_tokens,
        "tokenizer": dict(zip(["hash"], hashes, strict=True)),
    }
    same = [(data, store) for data, store in corpora if store.manifest["recipe"]["data"] == identity]
    for data, _ in same:
        if text.validation_tokens > data.validation_tokens:
            raise UserError(
                f"data.validation_tokens={text.validation_tokens} is more than the {data.validation_tokens} that are "
                "kept from training in the same corpus: lower it to that or less"
            )
    folder = Path(text.store_directory) / hash_of(recipe)
    manifest = read_manifest(folder)
    if manifest is None:
        with disk_errors(text), locked(folder):
            revision = same[0][1].manifest["revision"] if same else None
            encoder = encoder_of(corpora[0], tokenizer)
            manifest = read_manifest(folder) or _build(text, encoder, recipe, revision, folder, processes)
    for _, store in same:
        if store.manifest["revision"] != manifest["revision"]:
            raise UserError(
                f"data.name={text.name} was read at {manifest['revision']}, and is trained on at "
                f"{store.manifest['revision']}: delete {folder}, and it is read again"
            )
    extent = Extent(**manifest["validation"])
    return Text(
        folder=folder,
        validation=open_tokens(folder / "validation.bin", np.dtype(manifest["dtype"]), extent),
        bytes_per_token=manifest["bytes_per_token"],
        recipe_hash=manifest["recipe_hash"],
        manifest=manifest,
        task=TASKS[str(text.task)] if text.source == "tasks" else None,
    )


def encoder_of(of_sweep: tuple[DataConfig, TokenStore], tokenizer: TokenizerConfig) -> Tokenizer:
    """The tokenizer of a store."""
    data, store = of_sweep
    return building.stored_tokenizer(tokenizer, Path(data.store_directory) / store.recipe_hash, store.manifest)


def _build(
    text: DataConfig, encoder: Tokenizer, recipe: dict[str, Any], revision: str | None, folder: Path, processes: int
) -> dict[str, Any]:
    with building.removed_without_manifest(folder):
        documents = corpus.open_corpus(text, revision, folder.parent / "datasets")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        identity = {"schema": SCHEMA, "recipe": recipe, "recipe_hash": folder.name}
        manifest = building.set_aside(text, encoder, identity, documents, folder, processes)
        write_atomically(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    return manifest
