"""The numbers of a fit out of a table: which columns mean what, the rows, and the cells that they are."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.laws.forms import FORMS, Array, Form, check_law
from harness.laws.noise.noise import Labels
from harness.laws.table.levels import grouped
from harness.laws.table.table import Table

# Values of a variable that differ by less, in log, do not count as two levels.
SAME_LEVEL = 1e-3
# C is 6 N D where a table has none of its own, and likewise the other way round.
VARIABLES = ("params", "tokens", "flops")


@dataclass
class Columns:
    """Which columns of a table mean what."""

    params: str = "params_with_head"  # N
    tokens: str = "tokens"  # D
    target: str = "loss"  # L, which the law predicts
    flops: str = "flops"  # C; 6 N D where the table has none
    unique_tokens: str = "unique_tokens"  # of laws of repeated data
    width: str = "width"  # of laws of width and depth
    depth: str = "depth"  # likewise
    weight: str | None = None  # relative precisions of the rows; null: all alike
    cluster: str | None = None  # the run that a row belongs to; null: trunk, then cluster, where the table has one


@dataclass(frozen=True)
class Rows:
    """The numbers of a fit, (R,) each; `flops_exact` is False where flops are 6 N D.

    `others` are the variables that only some laws use: unique_tokens, width, depth. `unknown` are those of params,
    tokens and flops that the table says nothing of, which are nan; `derived` says which follow from others, and how.
    """

    params: Array
    tokens: Array
    flops: Array
    loss: Array
    weight: Array
    cluster: Labels | None
    flops_exact: bool
    others: dict[str, Array] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    derived: dict[str, str] = field(default_factory=dict)

    def knows(self, *uses: str) -> bool:
        """Whether the table has these variables, or what they follow from."""
        return not self.unknown & set(uses)

    def at(self, form: Form) -> dict[str, Array]:
        """Each row's own values of a law's variables, by name."""
        return {use: self.of(use) for use in form.uses}

    def of(self, use: str) -> Array:
        """A law's variable by name."""
        return self.others[use] if use in self.others else getattr(self, use)

    def __len__(self) -> int:
        return len(self.loss)

    def keep(self, keep_R: NDArray[np.bool_]) -> "Rows":
        cluster = None if self.cluster is None else self.cluster[keep_R]
        parts = {name: getattr(self, name)[keep_R] for name in ("params", "tokens", "flops", "loss", "weight")}
        others = {name: values_R[keep_R] for name, values_R in self.others.items()}
        return replace(self, cluster=cluster, others=others, **parts)

    @property
    def flops_per_product(self) -> float:
        """kappa in C = kappa N D, the geometric mean over the rows; nan where the rows lack one of them."""
        return float(np.exp(np.log(self.flops / self.params / self.tokens).mean()))


@dataclass(frozen=True)
class Cells:
    """The cells of a table: its rows, each with its numbers and the labels of its shape and its budget."""

    table: Table
    rows: Rows
    shape_R: Labels
    budget_R: Labels

    def number(self, column: str, index: int) -> float | None:
        """A number of the table, such as the width, for display; None where the table has none."""
        if column not in self.table.frame.columns:
            return None
        try:
            return float(self.table.frame[column].iloc[index])
        except ValueError:
            return None


def read_rows(table: Table, columns: Columns, law: str) -> Rows:
    """The numbers that a law needs out of a table; raises UserError naming row, column and value."""
    check_law(law)
    form = FORMS[law]
    if not len(table.frame):
        raise UserError(f"{table.source} has no finished rows: train the sweep first")
    loss = table.numbers(columns.target)
    have = set(table.frame.columns)
    values, derived = _variables(table, columns, form)
    nothing = np.full(len(loss), np.nan)
    params, tokens, flops = (values.get(use, nothing) for use in VARIABLES)
    weight = table.numbers(columns.weight) if columns.weight else np.ones(len(loss))
    name = cluster_column(table, columns)
    if name is not None and name not in have:
        raise UserError(f"{table.source} has no column {name!r}: name the runs' column with columns.cluster=NAME")
    labels = None if name is None else np.unique(table.frame[name].map(str), return_inverse=True)[1]
    others = {
        use: table.numbers(getattr(columns, use)) for use in form.uses if use in ("unique_tokens", "width", "depth")
    }
    exact = "flops" in values and "flops" not in derived
    unknown = frozenset(VARIABLES) - set(values)
    return Rows(params, tokens, flops, loss, weight / weight.mean(), labels, exact, others, unknown, derived)


def _variables(table: Table, columns: Columns, form: Form) -> tuple[dict[str, Array], dict[str, str]]:
    """Params, tokens and flops as far as the table has them, and how those follow that it has not.

    Raises UserError where the law needs one that cannot be had.
    """
    values: dict[str, Array] = {}
    for use in VARIABLES:
        column = getattr(columns, use)
        needed = use in form.uses and (column in table.frame.columns or column in table.unusable)
        found = table.numbers(column) if needed else table.spare(column)
        if found is not None:
            values[use] = found
    derived: dict[str, str] = {}
    missing = [use for use in VARIABLES if use not in values]
    # A column that somebody named and that is not there is a slip, and nothing takes its place.
    named = [use for use in ("params", "tokens") if getattr(columns, use) != getattr(Columns(), use)]
    if len(missing) == 1 and missing[0] not in named and (missing[0] in form.uses or missing[0] == "flops"):
        use = missing[0]
        first, second = (values[other] for other in VARIABLES if other != use)
        values[use] = 6 * first * second if use == "flops" else second / (6 * first)
        derived[use] = {"params": "C / (6 D)", "tokens": "C / (6 N)", "flops": "6 N D"}[use]
    for use in (use for use in VARIABLES if use in form.uses and use not in values):
        table.numbers(getattr(columns, use))  # says which column is missing
    return values, derived


def cluster_column(table: Table, columns: Columns) -> str | None:
    """The column that names the run of a row; None where the table has none."""
    return columns.cluster or next((name for name in ("trunk", "cluster") if name in table.frame.columns), None)


def check_levels(rows: Rows, columns: Columns, form: Form, source: str) -> None:
    """Raises UserError where the rows are too few, or vary too little, for the form."""
    least = len(form.internal) + 1
    if len(rows) < least:
        count = f"{len(rows)} usable row{'' if len(rows) == 1 else 's'}"
        raise UserError(f"{source} has {count}, and {form.name} needs at least {least}: add runs")
    if rows.loss.min() == rows.loss.max():
        raise UserError(
            f"{source}, column {columns.target} is {rows.loss[0]:g} in every row, and no law follows from that: name "
            "the column of the losses with columns.target=NAME"
        )
    # A floor and a power take three levels to tell apart, and a law of one variable a level for each parameter;
    # unique tokens may be the same in all rows.
    levels = len(form.internal) if len(form.uses) == 1 else 3
    for use in (use for use in form.uses if use != "unique_tokens"):
        values = rows.of(use)
        distinct = int(grouped(values, SAME_LEVEL).max()) + 1
        if distinct < levels:
            raise UserError(
                f"{source}, column {getattr(columns, use)} has {distinct} distinct "
                f"{'level' if distinct == 1 else 'levels'}, and {form.name} needs at least {levels}: add runs"
            )
