"""A file's bytes as columns: CSV, TSV and semicolons, JSON and JSON lines, Parquet, and compressed forms of them."""

import bz2
import codecs
import csv
import gzip
import hashlib
import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from harness.errors import UserError
from harness.laws.table.typed import typed

# How a file begins that is compressed, and what opens it; the forms that `datasets` reads.
COMPRESSED: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "gzip": (b"\x1f\x8b", gzip.decompress),
    "bzip2": (b"BZh", bz2.decompress),
    "xz": (b"\xfd7zXZ\x00", lzma.decompress),
    "zstd": (b"\x28\xb5\x2f\xfd", lambda content: _by_arrow(content, "zstd")),
    "lz4": (b"\x04\x22\x4d\x18", lambda content: _by_arrow(content, "lz4")),
    "zip": (b"PK\x03\x04", lambda content: _of_zip(content)),
}
BROKEN = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError)
NESTED = 3  # compressed files within compressed files
MARKS = {",": "commas", ";": "semicolons", "\t": "tabs"}
SAMPLED_LINES = 20
CHART_ENDS = ("__MIN", "__MAX")


@dataclass(frozen=True)
class Content:
    """Typed columns with the texts that they were written as; `lines` are line numbers, one a row.

    `unusable` says of columns that cannot be told or read why, and `account` what was read and done.
    """

    frame: pd.DataFrame
    lines: list[int]
    sha256: str
    account: list[str]
    written: pd.DataFrame | None = None
    unusable: dict[str, str] = field(default_factory=dict)


def read(path: Path) -> Content:
    """The content of a file; raises UserError where it is missing, empty or no table."""
    content = _read_bytes(path)
    digest = hashlib.sha256(content).hexdigest()
    content, forms = _opened(content, path)
    if content.startswith(b"PAR1") or (path.suffix in (".parquet", ".pq") and not forms):
        found = _parquet(content, path, digest)
        kind = "Parquet"
    else:
        text = _decoded(content, path)
        records = _json(text, path)
        if records is not None:
            found, kind = _of_records(*records, path, digest), "JSON"
        else:
            found, kind = _csv(text, path, digest)
    shown = ", ".join([kind, *(f"in {form}" for form in forms)])
    rows, columns = len(found.frame), len(found.frame.columns)
    found.account.insert(0, f"read: {path} ({shown}), {rows} rows of {columns} columns")
    return found


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
    if not content.strip():
        raise UserError(f"{path} is empty: give a table with a header and one row a run")
    return content


def _opened(content: bytes, path: Path) -> tuple[bytes, list[str]]:
    """The content and the compressions that were taken off it."""
    forms: list[str] = []
    while form := next((form for form, (start, _) in COMPRESSED.items() if content.startswith(start)), None):
        if len(forms) == NESTED:
            raise UserError(f"{path} is compressed {NESTED} times and more: give the table itself")
        try:
            content = COMPRESSED[form][1](content)
        except UserError as error:
            raise UserError(f"{path} {error}") from None
        except BROKEN as error:
            said = " ".join(str(error).split())
            raise UserError(f"{path} is a damaged {form} file ({said}): write or copy it again") from error
        if not content.strip():
            raise UserError(f"{path} is empty within its {form}: give a table with a header and one row a run")
        forms.append(form)
    return content, forms


def _by_arrow(content: bytes, form: str) -> bytes:
    import pyarrow as pa  # slow, and few tables need it

    with pa.input_stream(pa.BufferReader(content), compression=form) as stream:
        return bytes(stream.read())


def _of_zip(content: bytes) -> bytes:
    """The one file of an archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
        if "[Content_Types].xml" in names:
            raise UserError("is a spreadsheet: export the sheet as CSV and give that")
        names = [name for name in names if not re.search(r"(^|/)(\.|__MACOSX/)", name)]
        if len(names) != 1:
            raise UserError(f"is an archive of {len(names)} files: give one table, or several as runs=a,b")
        try:
            return archive.read(names[0])
        except RuntimeError as error:  # what zipfile makes of a password
            raise UserError(f"cannot be opened ({error}): give the table itself") from error


def _decoded(content: bytes, path: Path) -> str:
    """Text in UTF-8, or in UTF-16 where its mark says so."""
    encoding = "UTF-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "UTF-8"
    try:
        text = content.decode("utf-16" if encoding == "UTF-16" else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not {encoding} at byte {error.start}: save it as a UTF-8 CSV") from error
    if "\0" in text:
        raise UserError(f"{path} holds a zero byte after {text.index(chr(0))} characters: save it as a UTF-8 CSV")
    return text


def _csv(text: str, path: Path, digest: str) -> tuple[Content, str]:
    mark, skipped = _delimiter(text)
    reader = csv.reader(io.StringIO(text[skipped:], newline=""), delimiter=mark, strict=True)
    before = text[:skipped].count("\n")
    header: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for record in reader:
            if not any(value.strip() for value in record):
                continue
            if not header:
                header = [name.strip() for name in record]
                continue
            while len(record) > len(header) and not record[-1].strip():
                record.pop()
            if len(record) != len(header):
                raise UserError(
                    f"{path}, row {reader.line_num + before}: {len(record)} fields where the header names "
                    f"{len(header)}: the file is truncated or a value needs quotes"
                )
            rows.append(record)
            lines.append(reader.line_num + before)
    except csv.Error as error:
        raise UserError(
            f"{path}, row {reader.line_num + before}: not a CSV ({error}): save it as a plain CSV"
        ) from error
    _refuse_chart(header, path)
    if not rows:
        raise UserError(f"{path} has a header but no rows: give one row a run")
    names, unusable, account = _named(header, rows, path)
    texts = pd.DataFrame({name: [row[place] for row in rows] for name, place in names.items()}, dtype=object)
    texts.index = pd.RangeIndex(len(rows))
    frame, said, unclear = typed(texts)
    unusable |= {name: f"{path}, column {name}: {why}" for name, why in unclear.items()}
    return Content(frame, lines, digest, account + said, texts, unusable), f"CSV with {MARKS[mark]}"


def _delimiter(text: str) -> tuple[str, int]:
    """The mark between fields, and how many characters a spreadsheet's first line `sep=;` takes.

    Where the header has several marks, the one that cuts the first rows into equally many fields, and most of them.
    """
    told = re.match(r'"?sep=(.)"?\r?\n', text)
    if told and told[1] in MARKS:
        return told[1], told.end()
    found = re.match(r"\s*([^\r\n]*)", text)
    present = [mark for mark in (";", "\t", ",") if mark in (found[1] if found else "")]
    if len(present) < 2:
        return (present[0] if present else ","), 0
    counts = {}
    for mark in present:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
        try:
            records = [record for record, _ in zip(reader, range(SAMPLED_LINES), strict=False) if any(record)]
        except csv.Error:
            continue
        if len(records) > 1 and len({len(record) for record in records}) == 1:
            counts[mark] = len(records[0])
    return max(counts, key=lambda mark: counts[mark]) if counts else ",", 0


def _refuse_chart(header: list[str], path: Path) -> None:
    """Refuses the export of a W&B chart: an axis, then curves with their ends, and nothing of the runs."""
    curves = {name for name in header if name.endswith(CHART_ENDS)}
    if curves and all(name.removesuffix(end) in header for name in curves for end in CHART_ENDS if name.endswith(end)):
        others = [name for name in header if name not in curves and f"{name}{CHART_ENDS[0]}" not in curves]
        if len(others) <= 1:
            raise UserError(
                f"{path} is the export of a W&B chart, which holds curves but no params and tokens of their runs: "
                "export the table of runs instead (the project's table, its download button, CSV), with a column each "
                "for params, tokens and the final loss"
            )


def _named(header: list[str], rows: list[list[str]], path: Path) -> tuple[dict[str, int], dict[str, str], list[str]]:
    """The place of each column by its name, why some cannot be used, and what was left out."""
    names: dict[str, int] = {}
    unusable: dict[str, str] = {}
    nothing = 0
    for place, name in enumerate(header):
        if not name and not any(row[place].strip() for row in rows):
            nothing += 1
        elif header.count(name) > 1 and name:
            unusable[name] = f"{path} names the column {name!r} twice: rename one"
        else:
            names[name or f"column {place + 1}"] = place
    account = []
    if nothing:
        account.append(f"left out: {nothing} column{'s' if nothing > 1 else ''} without a name and a value")
    if unusable:
        account.append(f"left out: {', '.join(unusable)}, named twice")
    return names, unusable, account


def _json(text: str, path: Path) -> tuple[list[Any], list[int]] | None:
    """The records of JSON lines, of a list or of columns, and their lines; None for a text that is no JSON."""
    start = text.lstrip()[:1]
    named = re.search(r"\.(jsonl?|ndjson)(\.|$)", path.name) is not None
    if start not in ("{", "[") and not named:
        return None
    numbered = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if start == "{":
        try:
            first = json.loads(numbered[0][1])
        except (ValueError, RecursionError):
            first = None
        if isinstance(first, dict) and (len(numbered) > 1 or not _of_columns(first)):
            return [_line(line, number, path) for number, line in numbered], [number for number, _ in numbered]
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        if not named:
            return None
        raise UserError(f"{path} is not JSON ({' '.join(str(error).split())}): write one object a line") from error
    if isinstance(whole, dict):
        try:
            whole = pd.DataFrame(whole).to_dict("records")
        except (ValueError, TypeError, AttributeError):
            whole = None
    if not isinstance(whole, list):
        raise UserError(f"{path} is JSON but no table: write one object a line, with the same keys")
    return whole, list(range(1, len(whole) + 1))


def _of_columns(value: dict[str, Any]) -> bool:
    """Whether an object holds columns, as lists or by the numbers of the rows, rather than one row."""
    return bool(value) and all(
        isinstance(part, list) or (isinstance(part, dict) and "0" in part) for part in value.values()
    )


def _line(line: str, number: int, path: Path) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"{path}, row {number}: not JSON ({said}): write one object a line") from error


def _of_records(records: list[Any], lines: list[int], path: Path, digest: str) -> Content:
    flat = []
    for record, line in zip(records, lines, strict=True):
        if not isinstance(record, dict):
            raise UserError(f"{path}, row {line}: {str(record)[:40]!r} is no JSON object: write one object a line")
        flat.append(_flat(record))
    names = list(dict.fromkeys(name for record in flat for name in record))
    if not names:
        raise UserError(f"{path} has no columns: write one object a line, with a key for each column")
    _refuse_chart(names, path)
    values = {name: [record.get(name) for record in flat] for name in names}
    texts = pd.DataFrame({name: list(map(_text, column)) for name, column in values.items()}, dtype=object)
    frame, said, unclear = typed(texts)
    unusable = {name: f"{path}, column {name}: {why}" for name, why in unclear.items()}
    return Content(frame, lines, digest, said, texts, unusable)


def _flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as columns outer.inner."""
    found: dict[str, Any] = {}
    for key, value in record.items():
        name = f"{prefix}{key}".strip()
        found |= _flat(value, f"{name}.") if isinstance(value, dict) and len(prefix) < 200 else {name: value}
    return found


def _text(value: Any) -> str:
    if value is None or isinstance(value, float) and value != value:
        return ""
    return value if isinstance(value, str) else str(value) if isinstance(value, bool | int | float) else repr(value)


def _parquet(content: bytes, path: Path, digest: str) -> Content:
    try:
        frame = pd.read_parquet(io.BytesIO(content))
    except Exception as error:
        raise UserError(f"{path} is not a Parquet file ({type(error).__name__}): write it again") from error
    frame = (frame.reset_index() if any(frame.index.names) else frame.reset_index(drop=True)).rename(columns=str)
    doubled = {name for name in frame.columns[frame.columns.duplicated()]}
    unusable = {name: f"{path} names the column {name!r} twice: rename one" for name in doubled}
    frame = frame.loc[:, [name not in doubled for name in frame.columns]]
    if not len(frame):
        raise UserError(f"{path} has no rows: give one row a run")
    words = [name for name in frame.columns if pd.api.types.infer_dtype(frame[name], skipna=True) == "string"]
    said: list[str] = []
    if words:
        texts = pd.DataFrame({name: [_text(v) for v in frame[name].astype(object)] for name in words}, dtype=object)
        columns, said, unclear = typed(texts)
        frame = frame.assign(**{name: columns[name] for name in words})
        unusable |= {name: f"{path}, column {name}: {why}" for name, why in unclear.items()}
    return Content(frame, list(range(1, len(frame) + 1)), digest, said, None, unusable)
