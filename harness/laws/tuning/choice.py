"""Which settings of a table have a minimum together, and the bowl around it."""

from collections.abc import Sequence
from itertools import combinations

from harness.errors import UserError
from harness.laws.table.rows import Columns, Rows
from harness.laws.table.table import Table
from harness.laws.tuning.basin import Basin
from harness.laws.tuning.runs import Runs, read_design
from harness.laws.tuning.shape import cubic
from harness.laws.tuning.window import settle

# A cubic is fitted where p is below.
SIGNIFICANT = 0.01


def chosen(table: Table, rows: Rows, columns: Columns, wanted: Sequence[str], within: float) -> tuple[Runs, Basin]:
    """The design and the basin of the settings that are wanted.

    Where none is named, those that show a minimum together: all, or as many as there are, which describe the rows best.
    What the others do to the loss counts as noise then, and a note says so. Raises UserError where there is no minimum.
    """
    runs = read_design(table, rows, columns, wanted)
    try:
        return runs, settled(runs, within)
    except UserError:
        if wanted:
            raise
        for count in range(1, len(runs.names)):
            found = []
            for left in combinations(runs.names, count):
                names = [name for name in runs.names if name not in left]
                try:
                    some = read_design(table, rows, columns, names, left)
                    found.append((some, settled(some, within)))
                except UserError:
                    continue
            if found:
                return min(found, key=lambda each: each[1].residual_sd)
        raise


def settled(runs: Runs, within: float) -> Basin:
    """The basin of the runs, with a cubic along the settings that show one; raises UserError where there is none."""
    basin = settle(runs.design, within)
    if basin is None:
        # Where one has none beside the others, what it has alone says which it is.
        alone = [settle(runs.only(number), within) for number in range(len(runs.names))]
        without = [name for name, own in zip(runs.names, alone, strict=True) if own is None] or list(runs.names)
        raise UserError(
            f"{runs.table.source}: the losses have no minimum along {' and '.join(without)}: try more values on "
            "both sides, or name fewer settings"
        )
    cubed = tuple(k for k, p in enumerate(cubic(basin)) if p is not None and p < SIGNIFICANT)
    return (settle(runs.design, within, cubed) or basin) if cubed else basin
