"""A corpus as a sequence of documents in a fixed order, whatever it comes from."""

import importlib.metadata
import importlib.util
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness.data import facts, insertion, language, local_files, manifold, tasks
from harness.data.cutting import in_shell, marker_of, way_to_cut
from harness.data.documents import (
    NOTHING_READ,
    START,
    Changed,
    Corpus,
    DataConfig,
    Document,
    Place,
    digest_of,
    quiet_datasets,
)
from harness.data.hub import StreamedCorpus, resolve_revision
from harness.data.loading import load_texts
from harness.data.reading import is_text, type_of
from harness.errors import UserError

# Of so many documents it is asked whether they hold a marker that should have cut them.
EXAMINED_TEXTS = 1000


def identity(data: DataConfig) -> dict[str, Any]:
    """What decides the documents and their order. Raises UserError where a local source cannot be read."""
    changes = {"inserted": float(data.inserted), "insertion": insertion.REVISION} if data.inserted else {}
    return _source(data) | changes


def _source(data: DataConfig) -> dict[str, Any]:
    if data.source == "hub":
        keys = ("source", "name", "config", "split", "revision", "text_field")
        return {key: getattr(data, key) for key in keys}
    if data.source == "synthetic":
        of_language = {"symbols": data.symbols, "tail": float(data.tail), "seed": data.seed}
        return {"source": "synthetic", **of_language, "language": language.REVISION}
    if data.source == "facts":
        of_facts = {"symbols": data.symbols, "tail": float(data.tail), "ranks": data.ranks, "seed": data.seed}
        return {"source": "facts", **of_facts, "language": facts.REVISION}
    if data.source == "tasks":
        return {"source": "tasks", "task": data.task, "seed": data.seed, "lines": tasks.REVISION}
    if data.source == "manifold":
        of_points = {"symbols": data.symbols, "dimension": data.dimension, "seed": data.seed}
        return {"source": "manifold", **of_points, "language": manifold.REVISION}
    if data.source == "disk":
        files = _disk_files(data)
        return {"source": "disk", "text_field": data.text_field, "content": local_files.fingerprint(files)}
    files, kind, _ = _found(data)
    shape = {"sample_by": data.sample_by} if kind in ("text", "archive") else {}
    shape |= {"text_field": data.text_field} if kind != "text" else {}
    shape |= {key: getattr(data, key) for key in ("separator", "document_characters") if getattr(data, key)}
    if data.document_characters:
        shape["beside_validation"] = "apart"
    return {"source": "files", "builder": kind, **shape, "content": local_files.fingerprint(files)}


def describe(data: DataConfig) -> str:
    """The source in words, for the manifest."""
    if data.source == "package":
        return f"package {data.name} {importlib.metadata.version(str(data.name))}"
    if data.source == "hub":
        return f"hub {data.name} {data.config or ''} {data.split}".replace("  ", " ")
    if data.source == "synthetic":
        return f"synthetic text of {data.symbols} symbols, tail {data.tail:g}, seed {data.seed}"
    if data.source == "facts":
        return f"facts of {data.ranks} ranks, tail {data.tail:g}, seed {data.seed}"
    if data.source == "tasks":
        return f"lines of {data.task}, seed {data.seed}"
    if data.source == "manifold":
        return f"points in {data.dimension} dimensions, seed {data.seed}"
    return f"{data.source} {data.path}"


def open_corpus(data: DataConfig, revision: str | None, cache: Path) -> Corpus:
    """The corpus, its documents not yet read; `revision` pins the hub's, `cache` is a folder for `datasets`.

    Raises UserError where the corpus is missing, unreachable, unreadable or empty.
    """
    found = _open(data, revision, cache)
    return insertion.WithSymbols(found, data.inserted) if data.inserted else found


def _open(data: DataConfig, revision: str | None, cache: Path) -> Corpus:
    if data.source == "hub":
        return StreamedCorpus(data, resolve_revision(data, revision), cache)
    if data.source == "synthetic":
        return language.GeneratedCorpus(language_of(data), identity(data))
    if data.source == "facts":
        return language.GeneratedCorpus(facts_of(data), identity(data))
    if data.source == "tasks":
        return tasks.TaskCorpus(tasks.TASKS[str(data.task)], data.seed)
    if data.source == "manifold":
        return language.GeneratedCorpus(manifold_of(data), identity(data))
    if data.source == "disk":
        return FiniteCorpus(_load_from_disk(data), data)
    found = _found(data)
    return FiniteCorpus(load_texts(data, found.files, cache), data, found)


def language_of(data: DataConfig) -> language.Language:
    """That of a synthetic corpus."""
    return language.Language(data.symbols, data.tail, data.seed)


def facts_of(data: DataConfig) -> facts.Facts:
    """Those of a corpus of facts."""
    return facts.Facts(data.symbols, data.tail, data.ranks, data.seed)


def manifold_of(data: DataConfig) -> manifold.Manifold:
    """That of a corpus of points."""
    return manifold.Manifold(data.symbols, data.dimension, data.seed)


def weights_of(data: DataConfig, tokens: int) -> np.ndarray | None:
    """What the loss at each of the `tokens` that validate counts, (tokens,); None where all count alike."""
    if data.source == "manifold":
        return manifold_of(data).weights(tokens)
    return facts_of(data).weights(tokens) if data.source == "facts" else None


class FiniteCorpus:
    """Documents of a local corpus in the order of their hashes, without exact duplicates.

    The first half by that order is aside. Training starts with the other half, so that the tokenizer's text is
    the start of the training split, and ends with what validation left of the first.
    """

    aside_share = "half"

    def __init__(self, dataset: Any, data: DataConfig, found: local_files.Found | None = None) -> None:
        self.revision: str | None = None
        self.dataset, self.data = dataset, data
        self.field = "text" if found else data.text_field
        kind, skipped = (found.kind, found.skipped) if found else ("", Counter[str]())
        self.note = ""
        texts = array("Q"), array("q")
        first_texts: list[str] = []
        for row, text in enumerate(self._rows()):
            if text is None or not text.strip():
                skipped["document without text"] += 1
                continue
            texts[0].append(digest_of(text))
            texts[1].append(row)
            if len(first_texts) < EXAMINED_TEXTS:
                first_texts.append(text)
        digests, rows = np.array(texts[0]), np.array(texts[1])
        self.in_order = digests, rows
        self.digests, first = np.unique(digests, return_index=True)
        self.rows = rows[first]
        self.duplicates = len(digests) - len(first)
        self.skipped = local_files.in_words(skipped)
        self.documents: int | None = len(first)
        self.half = max(1, len(first) // 2)
        where = f"data.path={data.path or data.name}"
        if len(first) == 0:
            raise UserError(f"{where} holds no text: choose a corpus with documents")
        if len(first) == 1:
            way = way_to_cut(first_texts[0], kind) if kind else None
            raise UserError(
                f"{where} holds one document only, and validation needs one of its own: give more"
                + (f", or cut it by {way}" if way else "")
            )
        if marker := marker_of(first_texts):
            self.note = _marker_note(data, *marker, len(first_texts))

    def _rows(self) -> Iterator[str | None]:
        row = 0
        try:
            for batch in self.dataset.select_columns([self.field]).iter(batch_size=256):
                for text in batch[self.field]:
                    row += 1
                    yield text
        except UnicodeDecodeError as error:
            raise UserError(f"data.text_field={self.field} is not UTF-8 near row {row + 1}: repair that row") from error

    def aside(self) -> Iterator[Document]:
        return self._documents(range(self.half))

    def beside(self, validating: np.ndarray) -> np.ndarray:
        if self.data.source == "disk" or not self.data.document_characters:
            return NOTHING_READ
        digests, rows = self.in_order
        continues = np.array(self.dataset["continues"])[rows[1:]] & (np.diff(rows) == 1)
        apart = np.isin(digests, validating)
        near = np.zeros_like(apart)
        near[1:] |= continues & apart[:-1]
        near[:-1] |= continues & apart[1:]
        return np.unique(digests[near & ~apart])

    def training(self, read: np.ndarray = NOTHING_READ, place: Place = START) -> Iterator[Document]:
        begun = np.roll(self.digests, -self.half)[: len(read)]
        if not np.array_equal(begun, read):
            raise Changed
        rest = len(self.rows) - self.half
        yield from self._documents(range(self.half + min(rest, len(read)), len(self.rows)))
        yield from self._documents(range(max(0, len(read) - rest), self.half))

    def _documents(self, numbers: range) -> Iterator[Document]:
        for start in range(numbers.start, numbers.stop, 256):
            block = range(start, min(start + 256, numbers.stop))
            texts = self.dataset[self.rows[block.start : block.stop]][self.field]
            for number, text in zip(block, texts, strict=True):
                yield Document(text, int(self.digests[number]), number < self.half)


def _marker_note(data: DataConfig, marker: str, held: int, of: int) -> str:
    way = f"{in_shell('separator', marker)} cuts there" if data.source != "disk" else "take it out of the texts"
    way += f", instead of data.sample_by={data.sample_by}" if data.sample_by != "document" else ""
    return f"{marker} stands in {held} of {'the first ' if of == EXAMINED_TEXTS else ''}{of} documents as text: {way}"


def _found(data: DataConfig) -> local_files.Found:
    if data.source == "files":
        return local_files.find_files(str(data.path))
    try:
        found = importlib.util.find_spec(str(data.name))
    except (ImportError, ValueError):
        found = None
    if found is None or not found.submodule_search_locations:
        raise UserError(f"data.name={data.name} is no installed package: pip install {data.name}")
    return local_files.find_files(str(Path(list(found.submodule_search_locations)[0]) / str(data.path)))


def _disk_files(data: DataConfig) -> list[Path]:
    folder = Path(str(data.path)).expanduser()
    files = [folder / data.split, folder]
    for root in files:
        arrow = sorted(root.glob("*.arrow"))
        if arrow:
            return arrow
    raise UserError(
        f"data.path={data.path} holds no split {data.split} made by save_to_disk: check data.path and data.split"
    )


def _load_from_disk(data: DataConfig) -> Any:
    import datasets

    folder = _disk_files(data)[0].parent
    with quiet_datasets():
        try:
            dataset = datasets.load_from_disk(str(folder))
        except (OSError, ValueError, KeyError) as error:  # pyarrow's ArrowInvalid is a ValueError
            raise UserError(f"data.path={folder} is truncated or was not made by save_to_disk: replace it") from error
    kind = type_of(dataset.data.schema, data.text_field)
    if kind is None:
        raise UserError(
            f"data.text_field={data.text_field} is no column of {folder}: choose one of "
            + ", ".join(dataset.column_names)
        )
    if not is_text(kind):
        raise UserError(f"data.text_field={data.text_field} holds {kind} in {folder}: choose a column of text")
    return dataset if data.text_field in dataset.column_names else dataset.flatten()
