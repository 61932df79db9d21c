"""Local texts as a file of Arrow's that `datasets` maps into memory, so that any document is at hand."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import pyarrow as pa

from harness.data.cutting import Cut, cut
from harness.data.documents import DataConfig, quiet_datasets
from harness.data.meter import Meter
from harness.data.reading import texts_of
from harness.files import folder_unless_refused, remove_temporary, write_atomically

# Texts are written together up to so many characters or rows.
BATCH_CHARACTERS = 2**24
BATCH_TEXTS = 1000
SCHEMA = pa.schema({"text": pa.large_string(), "continues": pa.bool_()})


def load_texts(data: DataConfig, files: list[Path], cache: Path) -> Any:
    """A dataset of Cut, a row a document; read once and kept in `cache`.

    Raises UserError for what cannot be read, OSError where the disk is full.
    """
    import datasets

    stats = [(str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    options = [data.text_field, data.sample_by, data.separator, data.document_characters]
    name = hashlib.sha256(json.dumps([SCHEMA.to_string(), options, stats]).encode()).hexdigest()[:16]
    path = cache / name / "texts.arrow"
    cache.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(cache / f"{name}.lock"), folder_unless_refused(path.parent):
        if not path.exists():
            remove_temporary(path.parent)
            write_atomically(path, lambda temporary: _write(temporary, data, files))
    with quiet_datasets():
        return datasets.Dataset.from_file(str(path))


def _write(path: Path, data: DataConfig, files: list[Path]) -> None:
    whole = sum(file.stat().st_size for file in files)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer, Meter(doing="reading") as meter:
        read = 0
        for file in files:
            rows = 0
            for batch in _batches(cut(texts_of([file], data), data.between, data.document_characters)):
                writer.write_batch(_record(batch))
                rows += len(batch)
            if rows == 0:  # counts as a document without text
                writer.write_batch(_record([Cut(None)]))
            read += file.stat().st_size
            meter.update(read / whole, None, read)


def _record(documents: list[Cut]) -> pa.RecordBatch:
    texts, continues = zip(*documents, strict=True)
    return pa.record_batch([pa.array(texts, pa.large_string()), pa.array(continues, pa.bool_())], schema=SCHEMA)


def _batches(documents: Iterator[Cut]) -> Iterator[list[Cut]]:
    batch: list[Cut] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text or "")
        if size >= BATCH_CHARACTERS or len(batch) >= BATCH_TEXTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
