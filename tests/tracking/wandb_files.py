"""Reads a .wandb file back: a transaction log in LevelDB's log format, whose records are protocol buffers."""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK = 32768
HEADER = struct.Struct("<IHB")  # checksum, length, kind
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class RunFile:
    """What a .wandb file says of its run; `exit_code` is None where the run was not ended."""

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)  # name or pattern: step metric
    exit_code: int | None = None


def read_run(path: Path) -> RunFile:
    """Raises ValueError for a checksum that fails; a torn end is left out."""
    file = RunFile()
    for record in _records(path.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            file.run = record.run
            file.config |= _values(record.run.config.update)
        elif kind == "config":
            file.config |= _values(record.config.update)
        elif kind == "history":
            file.history.append(_values(record.history.item))
        elif kind == "summary":
            file.summary |= _values(record.summary.update)
        elif kind == "metric":
            file.metrics[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "exit":
            file.exit_code = record.exit.exit_code
    return file


def _values(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(content: bytes) -> Iterator[Any]:
    for message in _messages(content):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(message)
        yield record


def _messages(content: bytes) -> Iterator[bytes]:
    """The messages of the log; one that does not fit in its block goes on in the next."""
    assert content[:7] == b":W&B" + struct.pack("<HB", 0xBEE1, 0)
    position, message = 7, b""
    while position + HEADER.size <= len(content):
        left = BLOCK - position % BLOCK
        checksum, length, kind = HEADER.unpack_from(content, position)
        if left < HEADER.size or (kind == 0 and length == 0):
            position += left
            continue
        position += HEADER.size
        part = content[position : position + length]
        if len(part) < length:
            return
        if zlib.crc32(part, zlib.crc32(bytes([kind]))) != checksum:
            raise ValueError(f"checksum of the record before byte {position}")
        position += length
        message = part if kind in (FULL, FIRST) else message + part
        if kind in (FULL, LAST):
            yield message
