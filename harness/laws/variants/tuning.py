"""Settings that were tried within variants, such as learning rates: each variant is compared at its best."""

import re
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from harness.laws.forms import Array
from harness.laws.noise.noise import Labels
from harness.laws.solving.losses import Loss
from harness.laws.table.filter import as_numbers
from harness.laws.table.levels import SAME_PARAMS, budget_labels, grouped
from harness.laws.table.rows import Columns
from harness.laws.table.table import Table
from harness.laws.variants.arms import LEAST_ROWS, column_of, read_arms
from harness.laws.variants.joint import Arms, fit_joint, shareable
from harness.records import TUNED, axis_name

# Of somebody's table.
SETTING = re.compile(
    r"(^|_)(lr|learning_rate|rate|batch|bs|warmup|decay|wd|momentum|betas?|beta[12]|eps|dropout|clip|init)(_|$)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Best:
    """The value of a setting at which a variant is best, and all that were tried with it, ascending."""

    value: float
    tried: list[float]

    @property
    def at_end(self) -> str | None:
        """Whether the best is the least or the most that was tried, so that better may lie beyond: low, high."""
        return {self.tried[0]: "low", self.tried[-1]: "high"}.get(self.value)


@dataclass(frozen=True)
class Tuning:
    """The best settings by variant and column; none where none varies within a variant."""

    best: dict[str, dict[str, Best]] = field(default_factory=dict)

    def clauses(self, name: str, baseline: str) -> list[str]:
        """What a line on a variant adds where its best, or the baseline's, lies at an end of what was tried."""
        said = []
        for variant, whose in ((name, "its"), (baseline, f"{baseline}'s")):
            for column, best in self.best.get(variant, {}).items():
                if best.at_end is not None:
                    most = "largest" if best.at_end == "high" else "smallest"
                    said.append(f"{whose} best {axis_name(column)} is the {most} tried")
        return said

    def notes(self) -> list[str]:
        """How the settings were chosen."""
        columns = list(dict.fromkeys(column for best in self.best.values() for column in best))
        return [
            f"Each variant is compared at its best {axis_name(column)} ("
            + ", ".join(f"{name} {found[column].value:g} of {len(found[column].tried)}" for name, found in
                        self.best.items() if column in found)
            + "), that of the lowest mean residual over all its cells from one law for all that was tried. The best of "
            "several flatters a variant, the more the more were tried, and no interval counts that."
            for column in columns
        ]  # fmt: skip

    def to_dict(self) -> dict[str, dict[str, dict[str, object]]]:
        """`settings` of compare.json."""
        return {
            name: {
                column: {"best": best.value, "at_end": best.at_end, "tried": best.tried}
                for column, best in found.items()
            }
            for name, found in self.best.items()
        }


def read_tuned(
    table: Table, columns: Columns, law: str, column: str | None, baseline: str | None, loss: Loss
) -> tuple[Table, str, Arms, Tuning]:
    """`read_arms` with each variant at its best settings; raises UserError."""
    named = column_of(table, column, columns)
    tried = settings_in(table, named, columns)
    table, named, arms = read_arms(table, columns, law, named, baseline, tried)
    if not tried:
        return table, named, arms, Tuning()
    fit = fit_joint(arms, law, frozenset(shareable(law)), loss, table.source)
    residual_R = np.log(fit.problem.target[0]) - fit.form.log_prediction(fit.theta_P[None], fit.problem.at)[0]
    value_RS = np.column_stack([as_numbers(table.frame[name]) for name in tried])
    keep_R = np.zeros(len(residual_R), bool)
    best: dict[str, dict[str, Best]] = {}
    for variant, name in enumerate(arms.names):
        rows_R = np.flatnonzero(arms.variant_R == variant)
        chosen_S = _best(value_RS[rows_R], residual_R[rows_R])
        keep_R[rows_R] = (value_RS[rows_R] == chosen_S).all(1)
        values = [sorted(set(value_RS[rows_R, index].tolist())) for index in range(len(tried))]
        best[name] = {
            setting: Best(value, all_tried)
            for setting, value, all_tried in zip(tried, chosen_S.tolist(), values, strict=True)
            if len(all_tried) > 1
        }
    shown = ", ".join(map(axis_name, tried))
    table = table.drop(~keep_R, [f"not at the best {shown} of its variant"] * len(keep_R))
    return *read_arms(table, columns, law, named, arms.names[0]), Tuning(best)


def _best(value_RS: Array, residual_R: Array) -> Array:
    """The values of the lowest mean residual, (S,), among those that have all cells."""
    values_US, which_R = np.unique(value_RS, axis=0, return_inverse=True)
    count_U = np.bincount(which_R.ravel())
    mean_U = np.bincount(which_R.ravel(), weights=residual_R) / count_U
    mean_U[(count_U < count_U.max()) | (count_U < LEAST_ROWS)] = np.inf
    return values_US[int(np.argmin(mean_U))]


def settings_in(table: Table, column: str, columns: Columns) -> list[str]:
    """The columns of numbers that differ within a variant and were set.

    Of a sweep's own table its axes; of another one those whose names say so, where every cell has all values.
    """
    used = {name for name in vars(columns).values() if name is not None} | {column}
    found = []
    for name in (str(name) for name in table.frame.columns if name not in used):
        known = TUNED.fullmatch(name) if table.own else SETTING.search(re.sub(r"[^a-zA-Z0-9]+", "_", name))
        if known is None or not np.isfinite(as_numbers(table.frame[name])).all():
            continue
        values = table.frame[name].map(str)
        within = values.groupby(table.frame[column].map(str)).nunique()
        if within.max() > 1 and (table.own or _crossed(table, column, columns, values)):
            found.append(name)
    return found


def _crossed(table: Table, column: str, columns: Columns, values: pd.Series) -> bool:
    """Whether every cell of a variant has been trained with each value that the variant has."""
    numbers = [table.spare(name) for name in (columns.params, columns.tokens)]
    if numbers[0] is None or numbers[1] is None:
        return False
    cell_R: list[Labels] = [grouped(numbers[0], SAME_PARAMS), budget_labels(numbers[1])]
    frame = pd.DataFrame({"variant": table.frame[column].map(str), "n": cell_R[0], "d": cell_R[1], "value": values})
    of_variant = frame.groupby("variant")["value"].nunique()
    of_cell = frame.groupby(["variant", "n", "d"])["value"].nunique()
    return bool((of_cell == of_variant.loc[of_cell.index.get_level_values("variant")].to_numpy()).all())
