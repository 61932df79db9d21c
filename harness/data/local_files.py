"""Local corpus files: which they are, what they contain, and what is wrong with them."""

import codecs
import glob
import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from harness.errors import UserError

# The `datasets` builder that reads each extension.
BUILDERS = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
}
# Hashing a gigabyte takes about a second; of a larger corpus the sizes and the ends of its files are hashed.
FULL_HASH_BYTES = 2**30
END_BYTES = 2**20


def find_files(path: str) -> list[Path]:
    """The files behind `path`: a file, a glob, or a folder with everything readable below it, sorted.

    Raises UserError where there is none, one is empty, or their kinds differ.
    """
    root = Path(path).expanduser()
    if root.is_dir():
        files = [file for file in root.rglob("*") if file.suffix.lower() in BUILDERS and file.is_file()]
    elif root.is_file():
        files = [root]
    else:
        files = [Path(name) for name in glob.glob(str(root), recursive=True) if Path(name).is_file()]
    if not files:
        raise UserError(f"data.path={path} matches no {', '.join(BUILDERS)} file: give a file, a glob or a folder")
    for file in files:
        if file.suffix.lower() not in BUILDERS:
            raise UserError(f"data.path: {file} is of no known kind: rename it to one of {', '.join(BUILDERS)}")
        if file.stat().st_size == 0:
            raise UserError(f"data.path: {file} is empty: remove it or choose other files")
    kinds = sorted({builder_of(file) for file in files})
    if len(kinds) > 1:
        raise UserError(f"data.path={path} mixes {' and '.join(kinds)} files: give files of one kind")
    return sorted(files)


def builder_of(file: Path) -> str:
    return BUILDERS[file.suffix.lower()]


def fingerprint(files: list[Path]) -> str:
    """A hash of the files' contents, whatever their names and folder."""
    whole = sum(file.stat().st_size for file in files) <= FULL_HASH_BYTES
    return hashlib.sha256(b"".join(sorted(_file_hash(file, whole) for file in files))).hexdigest()


def _file_hash(file: Path, whole: bool) -> bytes:
    size = file.stat().st_size
    digest = hashlib.sha256(b"%d" % size)
    try:
        with open(file, "rb") as content:
            if whole or size <= 2 * END_BYTES:
                while block := content.read(END_BYTES):
                    digest.update(block)
            else:
                digest.update(content.read(END_BYTES))
                content.seek(size - END_BYTES)
                digest.update(content.read(END_BYTES))
    except OSError as error:
        raise UserError(f"data.path: {file} cannot be read ({error.strerror})") from error
    return digest.digest()


def check_parquet(files: list[Path], field: str) -> None:
    """Reads the footers only: UserError for a file that is truncated, has no rows or lacks a text column `field`."""
    for file in files:
        try:
            schema = pyarrow.parquet.read_schema(file)
            rows = pyarrow.parquet.read_metadata(file).num_rows
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"data.path: {file} is truncated or no Parquet file: replace it") from error
        if rows == 0:
            raise UserError(f"data.path: {file} has no rows: remove it or choose other files")
        if field not in schema.names:
            raise UserError(
                f"data.text_field={field} is not a column of {file}: choose one of {', '.join(schema.names)}"
            )
        kind = schema.field(field).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise UserError(f"data.text_field={field} holds {kind} in {file}: choose a column of text")


def first_fault(files: list[Path], field: str) -> UserError | None:
    """What a reader of the files stumbled over, found by reading them again; None where nothing is wrong."""
    for file in files:
        kind = builder_of(file)
        fault = _parquet_fault(file, field) if kind == "parquet" else _text_fault(file)
        if fault is None and kind == "json":
            fault = _json_fault(file, field)
        if fault:
            return fault
    return None


def _parquet_fault(file: Path, field: str) -> UserError | None:
    try:
        for _ in pyarrow.parquet.ParquetFile(file).iter_batches(columns=[field]):
            pass
    except (pa.ArrowException, OSError) as error:
        return UserError(f"data.path: {file} is damaged ({str(error).splitlines()[0]}): replace it")
    return None


def _text_fault(file: Path) -> UserError | None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    start = 0  # of what the decoder is given, the bytes it has kept back included
    with open(file, "rb") as content:
        while True:
            block = content.read(END_BYTES)
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                return UserError(f"data.path: {file} is not UTF-8 at byte {start + error.start}: convert it to UTF-8")
            if not block:
                return None
            start = content.tell() - len(decoder.getstate()[0])


def _json_fault(file: Path, field: str) -> UserError | None:
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                return UserError(f"data.path: {file} line {number} is not JSON ({error}): repair that line")
            if not isinstance(row, dict) or not isinstance(row.get(field), str):
                return UserError(
                    f"data.path: {file} line {number} has no text in data.text_field={field}: "
                    "repair that line or name another field"
                )
            try:
                row[field].encode()
            except UnicodeEncodeError:
                return UserError(f"data.path: {file} line {number} holds half a surrogate pair: repair that line")
    return None
