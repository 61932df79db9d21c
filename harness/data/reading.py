"""The texts of local corpus files, in the order of the files; None where a row has none."""

import bz2
import codecs
import contextlib
import gzip
import io
import json
import lzma
import re
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet

from harness.data.documents import DataConfig
from harness.data.local_files import choose, extension_of, is_hidden, kind_of
from harness.errors import UserError

BLOCK_BYTES = 2**24
BATCH_ROWS = 256
# What a reader of damaged or foreign content raises, whatever compresses it.
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, pa.ArrowException)
MISSING = object()
SPACE = re.compile(r"\s*")


class Part(NamedTuple):
    """A file, or a member of an archive: its name for messages, its kind, its bytes."""

    name: str
    kind: str
    content: IO[bytes]


def texts_of(files: Iterable[Path], data: DataConfig) -> Iterator[str | None]:
    """Raises UserError for what cannot be read, with file and line."""
    for file in files:
        with contextlib.ExitStack() as stack:
            try:
                for part in _parts(file, stack):
                    yield from _READERS[part.kind](part, data)
            except DAMAGE as error:
                what = " ".join(str(error).split()) or type(error).__name__
                raise UserError(f"data.path: {file} is damaged ({what[:200]}): replace it") from error


def value_of(row: Any, field: str) -> Any:
    """What `row` has in `field`, or, where it has no such key, in a.b the b of its a; MISSING where nothing."""
    if not isinstance(row, dict):
        return MISSING
    if field in row:
        return row[field]
    first, dot, rest = field.partition(".")
    return value_of(row.get(first), rest) if dot else MISSING


def _parts(file: Path, stack: contextlib.ExitStack) -> Iterator[Part]:
    kind, name = kind_of(file), str(file)
    assert kind is not None
    if kind != "archive":
        yield Part(name, kind, _opened(file, stack))
    elif extension_of(file)[0] == ".zip":
        with zipfile.ZipFile(file) as archive:
            if any(member.flag_bits & 1 for member in archive.infolist()):
                raise UserError(f"data.path: {file} is encrypted: unpack it")
            sizes = {member.filename: member.file_size for member in archive.infolist() if not member.is_dir()}
            for member in _members(file, sizes):
                with archive.open(member) as packed:
                    yield Part(f"{file}/{member}", str(kind_of(Path(member))), _unpacked(Path(member), packed, stack))
    else:
        with tarfile.open(fileobj=_opened(file, stack), mode="r|") as names:
            chosen = set(_members(file, {member.name: member.size for member in names if member.isfile()}))
        with tarfile.open(fileobj=_opened(file, stack), mode="r|") as members:
            for entry in members:
                if entry.name in chosen and (content := members.extractfile(entry)) is not None:
                    inner = Path(entry.name)
                    yield Part(f"{file}/{inner}", str(kind_of(inner)), _unpacked(inner, content, stack))


def _members(archive: Path, sizes: dict[str, int]) -> list[str]:
    """Those of its members that are documents."""
    names = [name for name, size in sizes.items() if size and not any(map(is_hidden, Path(name).parts))]
    kind, chosen = choose([Path(name) for name in names], str(archive), Counter())
    if kind == "archive":
        raise UserError(f"data.path: {archive} holds archives: unpack it")
    kept = set(chosen)
    return [name for name in names if Path(name) in kept]


def _opened(file: Path, stack: contextlib.ExitStack) -> IO[bytes]:
    raw = stack.enter_context(open(file, "rb"))  # noqa: SIM115
    return _unpacked(file, raw, stack)


def _unpacked(name: Path, raw: IO[bytes], stack: contextlib.ExitStack) -> IO[bytes]:
    extension, compression = extension_of(name)
    compression = ".gz" if extension == ".tgz" else compression
    if compression == ".gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if compression == ".bz2":
        return bz2.BZ2File(raw)
    if compression == ".xz":
        return lzma.LZMAFile(raw)
    if compression:
        stream = stack.enter_context(pa.CompressedInputStream(raw, {".zst": "zstd", ".lz4": "lz4"}[compression]))
        return cast(IO[bytes], io.BufferedReader(stream))
    return raw


def _text(part: Part, data: DataConfig) -> Iterator[str | None]:
    separator = data.between or {"paragraph": "\n\n", "line": "\n"}.get(data.sample_by)
    if separator is None:
        yield "".join(_blocks(part))
        return
    rest = ""
    for block in _blocks(part):
        *whole, rest = (rest + block).split(separator)
        yield from filter(str.strip, whole)
    if rest.strip():
        yield rest


def _blocks(part: Part) -> Iterator[str]:
    """The file's text, each end of a line as \\n."""
    utf8 = codecs.getincrementaldecoder("utf-8")()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    read = begun = 0  # the decoder is given what follows `begun`, the bytes it has kept back included
    while True:
        block = part.content.read(BLOCK_BYTES)
        try:
            text = utf8.decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise _not_utf8(part, begun + error.start, block if read == 0 else b"") from error
        read += len(block)
        begun = read - len(utf8.getstate()[0])
        yield newlines.decode(text, final=not block)
        if not block:
            return


def _not_utf8(part: Part, at: int, start: bytes) -> UserError:
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return UserError(f"data.path: {part.name} is UTF-16: convert it, as by iconv -f UTF-16 -t UTF-8")
    return UserError(f"data.path: {part.name} is not UTF-8 at byte {at}: convert it to UTF-8")


def _json(part: Part, data: DataConfig) -> Iterator[str | None]:
    """Of lines of objects; of a file that is no such lines, of one array of objects or of objects one after another."""
    found, other, read = False, dict[str, None](), 0
    for number, line in enumerate(part.content, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _not_utf8(part, read + error.start, line if number == 1 else b"") from error
        read += len(line)
        if not text.strip():
            continue
        try:
            rows = list(_values(text))
        except (ValueError, RecursionError) as error:
            if found or other:
                raise _no_json(part, number, error) from error
            rows = _whole(part, number, text, error)
        for row in rows:
            value = value_of(row, data.text_field)
            if value is MISSING and isinstance(row, dict):
                other |= dict.fromkeys(row)
                yield None
                continue
            found = True
            yield _checked(part, number, value, data.text_field)
    if other and not found:
        raise UserError(
            f"data.text_field={data.text_field} is no field of {part.name}: choose one of {', '.join(other)}"
        )


def _values(text: str) -> Iterator[Any]:
    """The JSON values one after another in `text`; of an array its own."""
    decoder, at = json.JSONDecoder(), 0
    while match := SPACE.match(text, at):
        at = match.end()
        if at == len(text):
            return
        value, at = decoder.raw_decode(text, at)
        yield from value if isinstance(value, list) else [value]


def _whole(part: Part, number: int, line: str, error: Exception) -> list[Any]:
    """The values of a file whose first line with anything is not JSON by itself."""
    rest = part.content.read()
    try:
        return list(_values(line + rest.decode()))
    except (ValueError, RecursionError):
        raise _no_json(part, number, error) from error


def _no_json(part: Part, number: int, error: Exception) -> UserError:
    return UserError(f"data.path: {part.name} line {number} is not JSON ({error}): repair that line")


def _checked(part: Part, number: int, value: Any, field: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise UserError(
            f"data.path: {part.name} line {number} has no text in data.text_field={field}: "
            "repair that line or name another field"
        )
    try:
        (value or "").encode()
    except UnicodeEncodeError as error:
        said = f"data.path: {part.name} line {number} holds half a surrogate pair: repair that line"
        raise UserError(said) from error
    return value


def _parquet(part: Part, data: DataConfig) -> Iterator[str | None]:
    """Reads nothing of the other columns."""
    field, row = data.text_field, 0
    source = part.content if part.content.seekable() else io.BytesIO(part.content.read())
    try:
        file = pyarrow.parquet.ParquetFile(source)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"data.path: {part.name} is truncated or no Parquet file: replace it") from error
    kind = type_of(file.schema_arrow, field)
    if kind is None:
        names = ", ".join(file.schema_arrow.names)
        raise UserError(f"data.text_field={field} is not a column of {part.name}: choose one of {names}")
    if not is_text(kind):
        raise UserError(f"data.text_field={field} holds {kind} in {part.name}: choose a column of text")
    for batch in file.iter_batches(BATCH_ROWS, columns=[field]):
        try:
            for text in column_of(batch, field):
                row += 1
                yield text
        except UnicodeDecodeError as error:
            raise UserError(
                f"data.text_field={field} is not UTF-8 near row {row + 1} of {part.name}: repair that row"
            ) from error


def type_of(schema: Any, field: str) -> pa.DataType | None:
    """That of a column, or of a.b, a field of a struct."""
    at = schema.get_field_index(field)
    if at >= 0:
        return schema.field(at).type
    first, dot, rest = field.partition(".")
    inner = type_of(schema, first) if dot else None
    return type_of(inner, rest) if inner is not None and pa.types.is_struct(inner) else None


def is_text(kind: pa.DataType) -> bool:
    """Any of Arrow's strings, bytes that may be UTF-8, nothing at all, or a dictionary of these."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return str(kind).replace("large_", "").replace("_view", "") in ("string", "binary", "null")


def column_of(batch: pa.RecordBatch, field: str) -> Iterator[str | None]:
    """Raises UnicodeDecodeError."""
    at = batch.schema.get_field_index(field)
    name, rest = (field, "") if at >= 0 else (field.partition(".")[0], field.partition(".")[2])
    column = batch.column(name)
    for value in (column.dictionary_decode() if pa.types.is_dictionary(column.type) else column).to_pylist():
        text = value_of(value, rest) if rest else value
        yield text.decode() if isinstance(text, bytes) else None if text is MISSING else text


_READERS = {"text": _text, "json": _json, "parquet": _parquet}
