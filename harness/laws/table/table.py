"""Reading any run table and checking it before a fit: every mistake is one sentence with file, row and column."""

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from harness.errors import UserError
from harness.laws.forms import Array
from harness.laws.table.filter import NOTHING, as_numbers, select
from harness.laws.table.reading import Content, read
from harness.laws.table.states import finished_rows, unfinished_notes
from harness.records import FLOOR, SCHEMA, parse_sweep

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
# Of a sweep's own table, its axes, by their keys, and the names of its variants; they say more than what they set.
AXES = re.compile(r"variant|model|gpus|(model|optimizer|schedule|data|tokenizer)(\.\w+)+")
# Columns that may follow from the shape, but must not vary within one.
BY_SHAPE = ("learning_rate", "batch_tokens", "heads")
SMALLEST, LARGEST = 1e-12, 1e30
# 3,14 is 3.14 in one country and 314 in another; which one a table means is not guessed.
GROUPED = re.compile(r"[-+]?\d+(,\d+)+(\.\d*)?([eE][-+]?\d+)?")
MOST_NAMES = 20


@dataclass(frozen=True)
class Table:
    """Rows of text or numbers with where they came from; `lines` are the file's line numbers, one a row.

    `parts` are the sources of a pooled table: path, sha256 and rows. `law` is the one that a sweep states, `floor` the
    loss of the best predictor that it knows. `account` says what was read, mapped, converted and left out; `written`
    are the texts behind the rows, where they differ; `unusable` says of columns why they are no part of a fit.
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
    floor: dict[str, float] | None = None
    account: list[str] = field(default_factory=list)
    written: pd.DataFrame | None = field(default=None, repr=False)
    unusable: dict[str, str] = field(default_factory=dict)

    @property
    def own(self) -> bool:
        """Whether these are cells of the harness, whose columns and units are known."""
        return "config_hash" in self.frame.columns

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
        written = None if self.written is None else self.written[keep_R].reset_index(drop=True)
        return replace(self, frame=self.frame[keep_R].reset_index(drop=True), lines=lines, written=written)

    def column(self, name: str, values: Array) -> "Table":
        """The table with other numbers in a column."""
        return replace(self, frame=self.frame.assign(**{name: values}))

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
        if column in self.unusable:
            raise UserError(self.unusable[column])
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
            if self.own and column.startswith(("loss", "bits_per_byte")) and (empty := self._empty(column)):
                raise UserError(
                    f"{self.source} has no {column} for {_listed(empty)}: issue the sweep again with validation=, that "
                    f"evaluates those whose weights it kept, or leave them out with filter={column}!=nan"
                )
            index = int(np.argmax(wrong_R))
            texts = raw if self.written is None or column not in self.written.columns else self.written[column]
            where = f"{self.source}, {self.row(index)}, column {column}: {_shown(texts.iloc[index])}"
            if GROUPED.fullmatch(str(raw.iloc[index]).strip()):
                raise UserError(f"{where} has a comma: write decimals with a point, and thousands without any mark")
            raise UserError(
                f"{where} is not "
                f"{'a positive number between 1e-12 and 1e30' if positive else 'a finite number'}: correct it, "
                f"or leave the row out with filter={f'{column}!=nan' if _says_nothing(texts.iloc[index]) else ''}"
            )
        return value_R

    def _empty(self, column: str) -> list[str]:
        """The rows by name that have nothing in a column."""
        return [self.name(index) for index, value in enumerate(self.frame[column]) if _says_nothing(value)]

    def spare(self, column: str) -> Array | None:
        """A column of positive numbers that a fit can do without; None where it is absent or holds something else."""
        if column not in self.frame.columns:
            return None
        try:
            return self.numbers(column)
        except UserError:
            return None


def _says_nothing(value: Any) -> bool:
    return str(value).strip().lower() in NOTHING


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
    """The run table of a sweep directory, or a file that harness.laws.table.reading reads; only finished rows stay.

    Raises UserError where it is missing, empty, of another schema, or not a table.
    """
    text = str(path)
    if text.startswith("wandb://"):
        raise UserError(f"{text} is no file: harness.tracking.table.fetch makes a folder of it, as scripts/fit.py does")
    path = Path(path)
    if not path.exists():
        raise UserError(f"runs={text} does not exist: give a sweep directory, or a table as CSV, JSON lines or Parquet")
    if path.is_dir():
        return finished(_of_sweep(path))
    return finished(_as_read(path, read(path)))


def _as_read(path: Path, content: Content) -> Table:
    return Table(
        str(path), content.frame, content.lines, content.sha256, rows_read=len(content.frame),
        account=content.account, written=content.written, unusable=content.unusable,
    )  # fmt: skip


def _of_sweep(path: Path) -> Table:
    """runs.csv of a sweep, restricted to the cells that sweep.yaml names."""
    runs, sweep_yaml = path / "runs.csv", path / "sweep.yaml"
    if not runs.exists():
        raise UserError(f"{path} has no runs.csv: train the sweep first, or give the table itself")
    # A sweep's own table needs no account.
    table = replace(_as_read(runs, read(runs)), account=[])
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
    table = replace(table, law=law, floor=_floor(sweep_yaml, content.get(FLOOR)))
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


def _floor(sweep_yaml: Path, given: Any) -> dict[str, float] | None:
    keys = ("nats", "expected")
    if given is None or isinstance(given, dict) and all(isinstance(given.get(key), int | float) for key in keys):
        return given
    raise UserError(f"{sweep_yaml} states the floor {given!r}, which is none: issue the sweep again to rewrite it")


def finished(table: Table) -> Table:
    """Without the rows whose status says that they have no result."""
    if "status" not in table.frame.columns:
        return table
    keep_R, why, notes = finished_rows(table.frame["status"], table.own)
    kept = table.drop(~keep_R, why)
    return replace(kept, notes=[*kept.notes, *notes])


def filtered(table: Table, expression: str) -> Table:
    """With the rows that filter= keeps; the others are listed in `excluded`. Raises UserError."""
    keep_R = select(table.frame, expression, table.source)
    if len(keep_R) and not keep_R.any():
        raise UserError(f"filter={expression} keeps none of the {len(keep_R)} rows of {table.source}: loosen it")
    kept = table.drop(~keep_R, [f"filter {expression}"] * len(keep_R))
    states = [] if table.own else unfinished_notes(kept.frame, table.source, expression)
    return replace(kept, filter=expression, notes=[*kept.notes, *states])


def settings_of(table: Table) -> list[str]:
    """The columns that must not vary within a fit, the axes of a sweep first."""
    axes = [name for name in map(str, table.frame.columns) if table.own and AXES.fullmatch(name)]
    return [*axes, *(name for name in ALIKE if name in table.frame.columns)]


def _way_out(table: Table, column: str, value: str) -> str:
    if not (table.own and Path(table.source).with_name("sweep.yaml").exists()):
        return f"choose it, as in filter={column}=={value}"
    runs = shlex.quote(str(Path(table.source).parent))
    return (
        f"`python scripts/fit.py runs={runs} filter={column}=={value}` fits one, "
        f"`python scripts/compare.py runs={runs} column={column}` sets them side by side"
    )


def check_comparable(table: Table, mapped: Collection[str] = ()) -> None:
    """Refuses a table in which more than shape, tokens and seed varies; `mapped` columns are no settings.

    Raises UserError.
    """
    for column in settings_of(table):
        if column not in mapped:
            values = sorted(set(table.frame[column].map(str)))
            if len(values) > 1:
                raise UserError(
                    f"{table.source}, column {column} varies ({_listed(values[:4])}), and a law holds for one of "
                    f"them: {_way_out(table, column, values[0])}"
                )
    for column in BY_SHAPE:
        if column in mapped or column not in table.frame.columns or not {"width", "depth"} <= set(table.frame.columns):
            continue
        for shape, rows in table.frame.groupby(["width", "depth"], sort=False):
            values = sorted(set(rows[column].map(str)))
            if len(values) > 1:
                raise UserError(
                    f"{table.source}, column {column} varies within width {shape[0]} and depth {shape[1]} "
                    f"({_listed(values[:4])}): choose one with filter="
                )
