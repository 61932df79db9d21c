"""The way into every fit: a table as it was read, its rows chosen and its columns mapped, or refused in a sentence."""

from dataclasses import asdict, dataclass

from harness.errors import UserError
from harness.laws.forms import FORMS, check_law
from harness.laws.table.names import mapped
from harness.laws.table.repeats import best_of
from harness.laws.table.rows import VARIABLES, Columns, Rows, check_levels, read_rows
from harness.laws.table.table import Table, check_comparable, filtered
from harness.laws.table.units import Units, check_units, in_counts, in_nats

# Counts of params that a table may hold beside each other, in the same unit.
PARAMS = ("params_with_head", "params_total", "params_non_embedding")
# What a study reads where it can: of the harness' own cells, and what others call so.
SPARE = ("epochs", "vocab_size", "width", "flops_6nd", *PARAMS)


@dataclass(frozen=True)
class Prepared:
    """A table that a law can be fitted to: its columns, its numbers, and notes on what was chosen."""

    table: Table
    columns: Columns
    rows: Rows
    notes: list[str]


def admitted(table: Table, columns: Columns, law: str, expression: str = "") -> tuple[Table, Columns]:
    """The rows that filter= keeps, and the columns of the law among theirs: those that no one named by usual names.

    Raises UserError where that is not clear, or where more than shape, tokens and seed varies.
    """
    check_law(law)
    table, columns = mapped(filtered(table, expression), columns, law)
    check_comparable(table, {name for name in asdict(columns).values() if name is not None})
    return table, columns


def prepared(
    table: Table,
    columns: Columns,
    law: str,
    expression: str,
    best: str | None,
    units: Units,
    target_unit: str | None,
    bytes_per_token: float | None,
) -> Prepared:
    """`admitted`, in plain counts and nats, with the best of the settings that `best` names; raises UserError."""
    table, columns = admitted(table, columns, law, expression)
    table = _in_units(table, columns, units, target_unit, bytes_per_token)
    rows = read_rows(table, columns, law)
    notes: list[str] = []
    if best is not None:
        table, notes = best_of(table, rows, best)
        rows = read_rows(table, columns, law)
    check_levels(rows, columns, FORMS[law], table.source)
    check_units(table, rows, columns, units, target_unit)
    return Prepared(table, columns, rows, notes)


def converted(
    table: Table, columns: Columns, law: str, units: Units, target_unit: str | None, bytes_per_token: float | None
) -> tuple[Table, Rows]:
    """The table in plain counts and nats a token, and its numbers; raises UserError where they cannot be those."""
    table = _in_units(table, columns, units, target_unit, bytes_per_token)
    rows = read_rows(table, columns, law)
    check_units(table, rows, columns, units, target_unit)
    return table, rows


def _in_units(table: Table, columns: Columns, units: Units, target: str | None, bytes_per_token: float | None) -> Table:
    table = in_counts(table, columns, units, {"params": PARAMS, "flops": ("flops_6nd",)})
    return in_nats(table, columns, target, bytes_per_token)


def unread(table: Table, columns: Columns, rows: Rows) -> list[str]:
    """Notes on columns that this fit can do without, and did, since some of their values are no numbers."""
    uses = [use for use in VARIABLES if use in rows.unknown or use in rows.derived]
    named = [*(getattr(columns, use) for use in uses), *SPARE]
    notes = []
    for name in (name for name in dict.fromkeys(named) if name in table.frame.columns and name != columns.target):
        try:
            table.numbers(name)
        except UserError as error:
            why = str(error).removeprefix(f"{table.source}, ").split(": correct it")[0]
            notes.append(f"Column {name} is not used, nor what depends on it: {why}.")
    return notes
