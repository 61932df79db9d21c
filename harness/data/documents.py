"""What a corpus is: documents in a fixed order, and the configuration that names them."""

import contextlib
import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol

import numpy as np

from harness.errors import UserError

SOURCES = ("package", "hub", "files", "disk", "synthetic", "facts", "manifold", "tasks")
EXAMPLE = "{source: files, path: texts/*.txt}"
TASK_NAMES = ("copying", "addition", "brackets")  # of harness/data/tasks.py
SAMPLE_BY = ("document", "paragraph", "line")


@dataclass
class DataConfig:
    """Where documents come from, and how many of their tokens validate."""

    # package (text files in an installed Python package) | hub (streamed) | files | disk (made by save_to_disk)
    # | synthetic (a language of known entropy, without end) | facts (one of a known data exponent)
    # | manifold (points of a known dimension with answers) | tasks (what validates of one exact task)
    source: str = "package"
    name: str | None = None  # package: its name; hub: the dataset's
    path: str | None = None  # package: a glob inside it; files: a file, a glob or a folder; disk: the directory
    config: str | None = None  # hub: the dataset's configuration
    split: str = "train"  # hub, disk: the split to read
    revision: str | None = None  # hub: a commit; null takes the newest, which the store's manifest then records
    text_field: str = "text"  # the column that holds the text; a.b for field b of column a
    sample_by: str = "document"  # text files: what a document is, the whole document, a paragraph or a line
    separator: str | None = None  # files: what stands between the documents of a text; \n and \t are what they mean
    document_characters: int | None = None  # files: longer documents are cut into pieces of so many, at spaces
    symbols: int = 1024  # synthetic, facts, manifold: how many the language has, the end of text included
    tail: float = 2.5  # synthetic, facts: the exponent of Zipf's law, by which words, or facts, are rarer and rarer
    ranks: int = 32_768  # facts: how many that law tells apart
    dimension: int = 4  # manifold: how many coordinates a point has
    # synthetic, facts, manifold: which language of that kind, and its texts; tasks: which of those held out; generated:
    # which of the model's texts
    seed: int = 0
    task: str | None = None  # tasks: copying, addition or brackets
    validation_tokens: int = 200_000  # at least so many tokens validate
    repeat: bool = False  # whether training may see a token more than once
    inserted: float | None = None  # of the tokens, the share that are symbols drawn at random, wherever it is read
    corrupted: float | None = None  # of the words that train, the share in whose place stand others
    tasks: float | None = None  # of the bytes that train, the share that are lines of exact tasks, behind each document
    generated: float | None = None  # of the tokens that train, the share that a model of ours has written
    generator: str | None = None  # generated: that model, the folder of a cell or of a sweep of one, save_model=true
    unique_tokens: int | None = None  # train on the first so many tokens alone, with repeat=true again and again
    store_directory: str = ".cache/tokens"  # where token stores are kept

    def check(self) -> None:
        if self.source not in SOURCES:
            raise UserError(f"data.source={self.source} is unknown: choose one of {', '.join(SOURCES)}")
        needed = {"package": ("name", "path"), "hub": ("name",), "files": ("path",), "disk": ("path",)}
        needed |= {"tasks": ("task",)}
        for key in needed.get(self.source, ()):
            if not getattr(self, key):
                raise UserError(f"data.{key} is not set, and data.source={self.source} needs it: set data.{key}=...")
        if self.source in ("synthetic", "facts", "manifold"):
            self._check_language()
        if self.sample_by not in SAMPLE_BY:
            raise UserError(f"data.sample_by={self.sample_by} is unknown: choose one of {', '.join(SAMPLE_BY)}")
        for key in ("separator", "document_characters"):
            if getattr(self, key) is not None and self.source not in ("files", "package"):
                raise UserError(f"data.{key} cuts local files only, not data.source={self.source}: set it to null")
        if self.separator == "":
            raise UserError("data.separator is empty: name what stands between documents, or set it to null")
        if self.separator and self.sample_by != "document":
            raise UserError(f"data.separator and data.sample_by={self.sample_by} both say where to cut: keep one")
        if self.document_characters is not None and self.document_characters < 1:
            raise UserError(f"data.document_characters={self.document_characters} must be at least 1")
        if not self.store_directory:
            raise UserError("data.store_directory is empty: name a folder for token stores, such as .cache/tokens")
        if self.inserted is not None:
            self._check_inserted(self.inserted)
        if self.corrupted is not None and not 0 <= self.corrupted <= 1:
            raise UserError(f"data.corrupted={self.corrupted:g} is no share of the words: give 0 to 1")
        if self.generated is not None:
            self._check_generated(self.generated)
        if self.tasks is not None and not 0 <= self.tasks < 1:
            raise UserError(f"data.tasks={self.tasks:g} is no share that leaves some text: give 0 to below 1")
        if self.task is not None and self.task not in TASK_NAMES:
            raise UserError(f"data.task={self.task} is unknown: choose one of {', '.join(TASK_NAMES)}")
        for key in ("validation_tokens", "unique_tokens"):
            if getattr(self, key) is not None and getattr(self, key) < 1:
                raise UserError(f"data.{key}={getattr(self, key)} must be at least 1")

    def _check_generated(self, share: float) -> None:
        if not 0 <= share <= 1:
            raise UserError(f"data.generated={share:g} is no share of the tokens: give 0 to 1")
        if share and self.source in ("facts", "manifold"):
            raise UserError(f"data.generated={share:g} would break the rows of data.source={self.source}: leave it out")
        if share and not self.generator:
            raise UserError(
                f"data.generated={share:g} wants a model that writes: give data.generator=outputs/NAME, the folder of "
                "one that was trained with save_model=true"
            )

    def _check_inserted(self, share: float) -> None:
        if not 0 <= share < 1:
            raise UserError(f"data.inserted={share:g} is no share that leaves some text: give 0 to below 1")
        if share and self.source == "tasks":
            raise UserError(f"data.inserted={share:g} would break the lines of data.source=tasks: leave it out")
        for key in ("tasks", "generated"):
            if share and getattr(self, key):
                raise UserError(f"data.inserted={share:g} and data.{key} both add to the text: keep one")

    def _check_language(self) -> None:
        least = {"synthetic": 512, "facts": 32, "manifold": 33}[self.source]
        if not least <= self.symbols <= 20_000:
            raise UserError(f"data.symbols={self.symbols} must be {least} to 20000: correct it")
        if self.source == "facts" and not 1.1 <= self.tail <= 3:
            raise UserError(f"data.tail={self.tail:g} must be 1.1 to 3, for facts to be learnt at all: correct it")
        if not 1 <= self.tail <= 3:
            raise UserError(f"data.tail={self.tail:g} must be 1 to 3: correct it")
        if self.source == "facts" and not 1000 <= self.ranks <= 10_000_000:
            raise UserError(f"data.ranks={self.ranks} must be 1000 to 10000000: correct it")
        if self.source == "manifold" and not 1 <= self.dimension <= (self.symbols - 17) // 16:
            raise UserError(
                f"data.dimension={self.dimension} must be 1 to {(self.symbols - 17) // 16}, for which data.symbols="
                f"{self.symbols} has 16 levels each: correct it, or raise data.symbols"
            )
        if self.seed < 0:
            raise UserError(f"data.seed={self.seed} must be 0 or more: correct it")

    @property
    def between(self) -> str | None:
        """The separator as it stands in a text."""
        return self.separator and self.separator.replace("\\n", "\n").replace("\\t", "\t")


# Keys of what trains, which a corpus has no use for that is only read.
OF_TRAINING = ("repeat", "corrupted", "tasks", "generated", "generator", "unique_tokens")
KEYS = [field.name for field in fields(DataConfig) if field.name not in OF_TRAINING]
WHOLE = ("validation_tokens", "document_characters", "symbols", "ranks", "dimension", "seed")
# The group in a message, and no file of that name.
OF_DATA = re.compile(rf"(?<![\w/.=-])data(?==|\.(?:{'|'.join(KEYS)})\b)")


def data_config(label: str, given: Any, data: DataConfig) -> DataConfig:
    """A corpus by the keys that were `given` under the key `label`; its stores lie with those of `data`.

    Raises UserError.
    """
    if not isinstance(given, Mapping):
        raise UserError(f"{label}={given} is no corpus: name an entry of conf/data, or write {label}={EXAMPLE}")
    for key, value in given.items():
        if key not in KEYS:
            raise UserError(f"{label}.{key} is no key of a corpus that is only read: choose of {', '.join(KEYS)}")
        kind = int | float if key in ("tail", "inserted") else int if key in WHOLE else str
        free = value is None and getattr(DataConfig, key) is None
        if not free and (isinstance(value, bool) or not isinstance(value, kind)):
            raise UserError(f"{label}.{key}={value} is no {'text' if kind is str else 'number'}: correct it")
    found = DataConfig(**{"store_directory": data.store_directory} | dict(given))
    with named(label):
        found.check()
    return found


@contextlib.contextmanager
def named(label: str) -> Iterator[None]:
    """Within it what is said of the keys of `data` is said of those under `label`."""
    try:
        yield
    except UserError as error:
        raise UserError(OF_DATA.sub(label, str(error))) from error


class Place(NamedTuple):
    """Where reading can begin again: at the start of `shard`, before which `documents` documents were read."""

    shard: int
    documents: int


START = Place(0, 0)
NOTHING_READ = np.empty(0, np.uint64)


class Document(NamedTuple):
    """`aside`: validation is drawn from such documents only, the tokenizer is trained on the others."""

    text: str
    digest: int
    aside: bool
    place: Place = START


class Piece(NamedTuple):
    """A document to train on and what was read up to it; the last piece is the end of the corpus.

    digests     of the documents read since the piece before, its own the last of them
    duplicates  all that were left out so far
    """

    text: str
    digests: list[int]
    duplicates: int
    place: Place
    last: bool = False


class Changed(Exception):
    """The documents of a corpus are no longer those that were read before."""


class Corpus(Protocol):
    """Documents in a fixed order.

    revision     the hub's commit
    duplicates   how many copies are left out beforehand
    skipped      what is no document, counted in words
    note         what the user should know of the documents, a sentence
    documents    how many there are, where that is known
    aside_share  the part of the documents that is aside, in words
    """

    revision: str | None
    duplicates: int
    skipped: str
    note: str
    documents: int | None
    aside_share: str

    def aside(self) -> Iterator[Document]:
        """The documents from which validation is drawn."""
        ...

    def beside(self, validating: np.ndarray) -> np.ndarray:
        """Digests of the pieces that stand beside those in a text that was cut: as good as known to who knows these."""
        ...

    def training(self, read: np.ndarray = NOTHING_READ, place: Place = START) -> Iterator[Document]:
        """Documents in the order of training, those that validate included, after the ones that were read before.

        read   the digests of those, (documents,) uint64
        place  where the last of them was found

        Raises Changed where they are other ones now.
        """
        ...


def digest_of(text: str) -> int:
    """64 bits of the text's hash: they order documents, split them and find duplicates."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@contextlib.contextmanager
def quiet_datasets() -> Iterator[None]:
    """No progress bars and no log lines of `datasets` on the terminal; our errors say what went wrong."""
    import datasets
    import huggingface_hub

    verbosity, bars = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    hub_verbosity = huggingface_hub.logging.get_verbosity()
    datasets.logging.set_verbosity(logging.CRITICAL)
    huggingface_hub.logging.set_verbosity(logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        huggingface_hub.logging.set_verbosity(hub_verbosity)
        if not bars:
            datasets.enable_progress_bars()
