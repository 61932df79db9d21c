"""An append-only file of token ids with a checksum a chunk."""

import contextlib
import hashlib
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from harness.errors import UserError

CHUNK_BYTES = 2**26
READ_BYTES = 2**20


@dataclass
class Extent:
    """How much of a file is valid: documents, tokens, bytes of their UTF-8 text, and SHA-256 sums a chunk."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    chunks: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class TokenWriter:
    """Appends documents after `extent`; whatever lies behind it, from a writer that was killed, is cut off."""

    def __init__(self, path: Path, dtype: np.dtype, extent: Extent) -> None:
        self.path = path
        self.dtype = dtype
        self.extent = Extent(extent.documents, extent.tokens, extent.bytes, list(extent.chunks))
        self.file = open(path, "r+b" if path.exists() else "w+b")  # noqa: SIM115
        size = extent.tokens * dtype.itemsize
        self.file.truncate(size)
        self.filled = size % CHUNK_BYTES
        self.file.seek(size - self.filled)
        self.sum = hashlib.sha256(self.file.read(self.filled))
        if self.filled:
            self.extent.chunks.pop()
        self.committed = size

    def append(self, ids: np.ndarray, end: bytes, text_bytes: int, documents: int = 1) -> None:
        """`end` follows the ids: the end of text, in the file's own type."""
        content = memoryview(ids.astype(self.dtype, copy=False).tobytes() + end)
        self.file.write(content)
        self.extent.documents += documents
        self.extent.tokens += len(content) // self.dtype.itemsize
        self.extent.bytes += text_bytes
        while content:
            part, content = content[: CHUNK_BYTES - self.filled], content[CHUNK_BYTES - self.filled :]
            self.sum.update(part)
            self.filled += len(part)
            if self.filled == CHUNK_BYTES:
                self._end_chunk()

    def commit(self) -> Extent:
        """What is appended so far is on the disk when this returns."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.committed = self.extent.tokens * self.dtype.itemsize
        last = [self.sum.hexdigest()] if self.filled else []
        return replace(self.extent, chunks=self.extent.chunks + last)

    def close(self) -> None:
        """Cuts off what was appended since the last commit."""
        if self.file.closed:
            return
        with contextlib.suppress(OSError):  # the buffer's rest does not fit on a full disk either
            self.file.close()
        with contextlib.suppress(OSError):
            os.truncate(self.path, self.committed)

    def _end_chunk(self) -> None:
        self.extent.chunks.append(self.sum.hexdigest())
        self.sum = hashlib.sha256()
        self.filled = 0


def open_tokens(path: Path, dtype: np.dtype, extent: Extent) -> np.memmap:
    """The valid part of the file. Raises UserError where it is missing, too short or damaged.

    At most 16 chunks, one gigabyte, are read, spread evenly from the first to the last: a cut or overwritten store
    of the default corpus never passes, and opening one of hundreds of gigabytes stays a matter of a second.
    """
    size = extent.tokens * dtype.itemsize
    if not path.is_file() or path.stat().st_size < size:
        raise damaged(path.parent, f"{path.name} is missing or too short")
    count = len(extent.chunks)
    assert count == -(-size // CHUNK_BYTES)
    with open(path, "rb") as file:
        for chunk in np.unique(np.linspace(0, count - 1, min(count, 16)).astype(int)):
            file.seek(int(chunk) * CHUNK_BYTES)
            if _sum_of(file, min(CHUNK_BYTES, size - int(chunk) * CHUNK_BYTES)) != extent.chunks[chunk]:
                raise damaged(path.parent, f"the checksum of {path.name} fails")
    # Read-only: the kernel refuses a private mapping that could be written to and is larger than the memory.
    return np.memmap(path, dtype, "r", shape=(extent.tokens,))


def _sum_of(file: BinaryIO, size: int) -> str:
    digest = hashlib.sha256()
    while size > 0 and (block := file.read(min(size, READ_BYTES))):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest()


def damaged(folder: Path, why: str) -> UserError:
    return UserError(f"token store {folder} is damaged ({why}): delete that folder, and it is built again")
