"""Reading any run table and checking it before a fit: every mistake is one sentence with file, row and column."""

import codecs
import csv
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from harness.errors import UserError
from harness.laws.forms import Array
from harness.laws.table.filter import as_numbers, select
from harness.records import SCHEMA, parse_sweep

# Columns that must not vary within a fit, beside shape, tokens and seed.
ALIKE = [
    "schedule",
    "data",
    "dataset",
    "train_set",
    "tokenizer",
    "vocab_size",
    "seq_len",
    "family",
    "parametrization",
    "precision",
    "optimizer",
]
# Columns that may follow from the shape, but must not vary within one.
BY_SHAPE = ("learning_rate", "batch_tokens", "heads")
SMALLEST, LARGEST = 1e-12, 1e30
# 3,14 is 3.14 in one country and 314 in another; which one a table means is not guessed.
GROUPED = re.compile(r"[-+]?\d+(,\d+)+(\.\d*)?([eE][-+]?\d+)?")
MOST_NAMES = 20


@dataclass(frozen=True)
class Table:
    """Rows of text or numbers with where they came from; `lines` are the file's line numbers, one a row.

    `parts` are the sources of a pooled table: path, sha256 and rows. `law` is the one that a sweep states.
    """

    source: str
    frame: pd.DataFrame
    lines: Sequence[int | str]
    sha256: str | None = None
    filter: str = ""
    rows_read: int = 0
    excluded: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    parts: list[dict[str, Any]] = field(default_factory=list)
    law: str | None = None

    def sources(self) -> list[dict[str, Any]]:
        """Every path that the rows come from, with its digest."""
        return self.parts or [{"path": self.source, "sha256": self.sha256, "rows": self.rows_read}]

    def row(self, index: int) -> str:
        """The name of a row in a message."""
        return f"row {self.lines[index]}"

    def name(self, index: int) -> str:
        """The cell's name where the table has one, else the row's."""
        return str(self.frame["cell"].iloc[index]) if "cell" in self.frame.columns else self.row(index)

    def origin(self, index: int) -> dict[str, str]:
        """The source of a row of a pooled table."""
        return {"source": str(self.frame["source"].iloc[index])} if self.parts else {}

    def keep(self, keep_R: NDArray[np.bool_]) -> "Table":
        """The table with fewer rows, nothing written down."""
        lines = [line for line, keep in zip(self.lines, keep_R, strict=True) if keep]
        return replace(self, frame=self.frame[keep_R].reset_index(drop=True), lines=lines)

    def drop(self, drop_R: NDArray[np.bool_], why: list[str]) -> "Table":
        """The table without some rows, which are listed in `excluded`."""
        if not drop_R.any():
            return self
        excluded = [
            {"cell" if "cell" in self.frame.columns else "row": self.name(index), "why": why[index]}
            | self.origin(index)
            for index in np.flatnonzero(drop_R).tolist()
        ]
        return replace(self.keep(~drop_R), excluded=self.excluded + excluded)

    def numbers(self, column: str, positive: bool = True) -> Array:
        """A column as float64; raises UserError for the first value that is no finite (positive) number."""
        if column not in self.frame.columns:
            raise UserError(
                f"{self.source} has no column {column!r}: name the right one, as in columns.params=NAME, out of "
                f"{_listed(self.frame.columns)}"
            )
        raw = self.frame[column]
        value_R = as_numbers(raw)
        if pd.api.types.is_bool_dtype(raw) or any(isinstance(value, bool) for value in raw):
            raise UserError(f"{self.source}, column {column} holds true and false: name a column of numbers")
        wrong_R = ~np.isfinite(value_R)
        if positive:
            wrong_R |= ~((value_R >= SMALLEST) & (value_R <= LARGEST))
        if wrong_R.any():
            index = int(np.argmax(wrong_R))
            where = f"{self.source}, {self.row(index)}, column {column}: {_shown(raw.iloc[index])}"
            if GROUPED.fullmatch(str(raw.iloc[index]).strip()):
                raise UserError(f"{where} has a comma: write decimals with a point, and thousands without any mark")
            raise UserError(
                f"{where} is not "
                f"{'a positive number between 1e-12 and 1e30' if positive else 'a finite number'}: correct it, "
                "or leave the row out with filter="
            )
        return value_R


def _shown(value: Any) -> str:
    text = str(value)
    return "an empty field" if not text.strip() else repr(text[:60])


def _listed(names: Iterable[Any]) -> str:
    """Names or values of a table in one line."""
    texts = [" ".join(str(name).split())[:60] for name in names]
    return ", ".join(texts[:MOST_NAMES]) + (f" and {len(texts) - MOST_NAMES} more" if len(texts) > MOST_NAMES else "")


def as_table(table: Any) -> Table:
    """A Table out of a path, a data frame, a mapping of columns, or a Table; raises UserError."""
    if isinstance(table, Table):
        return table
    if isinstance(table, str | Path):
        return read_runs(table)
    if not isinstance(table, pd.DataFrame):
        if not isinstance(table, Mapping):
            raise UserError(f"a table is a path, a data frame or a mapping of columns, not {type(table).__name__}")
        try:
            table = pd.DataFrame(dict(table))
        except ValueError as error:
            raise UserError(f"the columns of the table do not form rows: {error}") from error
    doubled = table.columns[table.columns.duplicated()]
    if len(doubled):
        raise UserError(f"the table has two columns {doubled[0]!r}: rename one")
    frame = table.rename(columns=str).reset_index(drop=True)
    return finished(Table("the table", frame, list(range(1, len(frame) + 1)), rows_read=len(frame)))


def read_runs(path: str | Path) -> Table:
    """The run table of a sweep directory, or a CSV or Parquet file; only finished rows stay.

    Raises UserError where it is missing, empty, of another schema, or not a table.
    """
    text = str(path)
    if text.startswith("wandb://"):
        raise UserError(f"{text} is no file: harness.tracking.table.fetch makes a folder of it, as scripts/fit.py does")
    path = Path(path)
    if not path.exists():
        raise UserError(f"runs={text} does not exist: give a sweep directory, or a CSV or Parquet file")
    if path.is_dir():
        return finished(_of_sweep(path))
    return finished(_read_parquet(path) if path.suffix in (".parquet", ".pq") else _read_csv(path))


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
    if not content.strip():
        raise UserError(f"{path} is empty: give a table with a header and one row a run")
    return content


def _read_csv(path: Path) -> Table:
    content = _read_bytes(path)
    text = _decoded(content, path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
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
            if len(record) != len(header):
                raise UserError(
                    f"{path}, row {reader.line_num}: {len(record)} fields where the header names {len(header)}: "
                    "the file is truncated or a value needs quotes"
                )
            rows.append(record)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise UserError(f"{path}, row {reader.line_num}: not a CSV ({error}): save it as a plain CSV") from error
    for name in header:
        if header.count(name) > 1:
            raise UserError(f"{path} names the column {name!r} twice: rename one")
    if not rows:
        raise UserError(f"{path} has a header but no rows: give one row a run")
    frame = pd.DataFrame(rows, columns=header, dtype=str)
    return Table(str(path), frame, lines, hashlib.sha256(content).hexdigest(), rows_read=len(frame))


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


def _delimiter(text: str) -> str:
    """A semicolon or tab where the header has some and no comma."""
    found = re.match(r"\s*([^\r\n]*)", text)
    header = found[1] if found else ""
    return next((mark for mark in (";", "\t") if mark in header and "," not in header), ",")


def _read_parquet(path: Path) -> Table:
    content = _read_bytes(path)
    try:
        frame = pd.read_parquet(io.BytesIO(content))
    except Exception as error:
        raise UserError(f"{path} is not a Parquet file ({type(error).__name__}): write it again") from error
    table = as_table(frame)
    return replace(table, source=str(path), sha256=hashlib.sha256(content).hexdigest())


def _of_sweep(path: Path) -> Table:
    """runs.csv of a sweep, restricted to the cells that sweep.yaml names."""
    runs, sweep_yaml = path / "runs.csv", path / "sweep.yaml"
    if not runs.exists():
        raise UserError(f"{path} has no runs.csv: train the sweep first, or give the table itself")
    table = _read_csv(runs)
    if not sweep_yaml.exists():
        return table
    try:
        content = parse_sweep(sweep_yaml.read_text())
        schema, cells = content["schema"], [str(cell["cell"]) for cell in content["cells"]]
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise UserError(f"{sweep_yaml} is not the plan of a sweep: issue the sweep again to rewrite it") from error
    if schema != SCHEMA:
        raise UserError(f"{sweep_yaml} has schema {schema}, this version reads {SCHEMA}: train into another name=")
    if "cell" not in table.frame.columns:
        raise UserError(f"{runs} has no column 'cell': issue the sweep again to rewrite it")
    law = content.get("law")
    if law is not None and not isinstance(law, str):
        raise UserError(f"{sweep_yaml} states the law {law!r}, which is no name: issue the sweep again to rewrite it")
    table = replace(table, law=law)
    names = table.frame["cell"].map(str)
    doubled = names[names.duplicated()]
    if len(doubled):
        raise UserError(f"{runs} lists the cell {doubled.iloc[0]} twice: issue the sweep again to rewrite it")
    other_R = ~names.isin(cells).to_numpy()
    table = table.drop(other_R, ["not in sweep.yaml"] * len(names))
    present = set(names)
    missing = [cell for cell in cells if cell not in present]
    if missing:
        shown = ", ".join(missing[:4]) + (" and more" if len(missing) > 4 else "")
        table = replace(table, notes=[f"{len(missing)} of {len(cells)} cells have no result: {shown}."])
    return table


def finished(table: Table) -> Table:
    """Without the rows whose status says that they did not finish."""
    if "status" not in table.frame.columns:
        return table
    status = table.frame["status"].map(str).str.strip()
    return table.drop((status != "finished").to_numpy(), [f"status is {value}" for value in status])


def filtered(table: Table, expression: str) -> Table:
    """With the rows that filter= keeps; the others are listed in `excluded`. Raises UserError."""
    keep_R = select(table.frame, expression, table.source)
    if len(keep_R) and not keep_R.any():
        raise UserError(f"filter={expression} keeps none of the {len(keep_R)} rows of {table.source}: loosen it")
    kept = table.drop(~keep_R, [f"filter {expression}"] * len(keep_R))
    return replace(kept, filter=expression)


def check_comparable(table: Table) -> None:
    """Refuses a table in which more than shape, tokens and seed varies; raises UserError."""
    for column in ALIKE:
        if column in table.frame.columns:
            values = sorted(set(table.frame[column].map(str)))
            if len(values) > 1:
                raise UserError(
                    f"{table.source}, column {column} varies ({_listed(values[:4])}), and a law holds for one of "
                    f"them: choose it, as in filter={column}=={values[0]}"
                )
    for column in BY_SHAPE:
        if column not in table.frame.columns or not {"width", "depth"} <= set(table.frame.columns):
            continue
        for shape, rows in table.frame.groupby(["width", "depth"], sort=False):
            values = sorted(set(rows[column].map(str)))
            if len(values) > 1:
                raise UserError(
                    f"{table.source}, column {column} varies within width {shape[0]} and depth {shape[1]} "
                    f"({_listed(values[:4])}): choose one with filter="
                )
