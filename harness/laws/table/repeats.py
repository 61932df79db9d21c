"""Rows of one params and tokens: repeats by seed, or runs of other settings, of which the best may be kept."""

import re

import numpy as np
import pandas as pd
from scipy import integrate, special

from harness.errors import UserError
from harness.laws.noise.noise import Labels
from harness.laws.table.levels import grouped
from harness.laws.table.rows import SAME_LEVEL, Columns, Rows
from harness.laws.table.table import Table

SEED = re.compile(r"seed|replica|repeat|rerun|trial|(^|_)rep(_|$)", re.IGNORECASE)
# What names or describes a run, and what it ended with: none of it was set before it.
NAMES = re.compile(
    r"(^|_)(cell|trunk|cluster|name|id|uid|uuid|group|job|tags?|notes?|user|url|path|dir|created|updated|time|stamp|"
    r"timestamp|date|host|hostname|device|gpus?|nodes?|hash|git|commit|version|state|status|source|error|reason|index|"
    r"comment|label|outlier|kept|column_\d+)(_|$)",
    re.IGNORECASE,
)
OUTCOMES = re.compile(
    r"(^|_)(loss(es)?|nll|ppl|perplexity|bpb|bits|acc|accuracy|scores?|entropy|time|seconds?|secs?|runtime|duration|"
    r"hours?|throughput|per_sec|mfu|hfu|utili[sz]ation|mem|memory|grad|gradient|norm|metrics?|eval|val|test|se|std|cost)"
    r"(_|$)",
    re.IGNORECASE,
)
SETTINGS = re.compile(
    r"(^|_)(lr|learning|rate|batch|bs|warmup|decay|wd|momentum|betas?|beta[12]|eps|dropout|clip|init|optimi[sz]er|"
    r"schedule|scheduler|width|depth|layers?|heads?|d_model|ffn|ffnh|numh|aspect|ratio|seq|context|vocab|precision|dtype|"
    r"epochs|experts?|mup?)(_|$)",
    re.IGNORECASE,
)
MOST_VALUES = 0.5
MOST_NAMES = 4


def settings(table: Table, rows: Rows, columns: Columns) -> list[str]:
    """Columns in which rows of one params and tokens (and of a law's other variables) differ, and that were set.

    Names and outcomes of runs are none, and neither are seeds; of other columns those whose values recur.
    """
    if table.own or len(rows) < 2:
        return []
    cell_R = _cells(rows)
    if len(np.unique(cell_R)) == len(rows):
        return []
    mapped = {value for value in vars(columns).values() if value is not None}
    found = []
    for name in (name for name in table.frame.columns if name not in mapped):
        plain = re.sub(r"[^a-zA-Z0-9]+", "_", str(name))
        values = table.frame[name].map(str)
        told = SETTINGS.search(plain) is not None
        if SEED.search(plain) or (not told and (NAMES.search(plain) or OUTCOMES.search(plain))):
            continue
        if (told or values.nunique() <= MOST_VALUES * len(rows)) and values.groupby(cell_R).nunique().max() > 1:
            found.append(str(name))
    return found


def repeated(table: Table, shape_R: Labels, varied: list[str]) -> Labels:
    """Labels of shapes that tell the settings apart too, so that only seeds, or nothing, differ within one."""
    if not varied:
        return shape_R
    keys = [pd.Series(shape_R), *(table.frame[name].map(str) for name in varied)]
    return np.asarray(pd.DataFrame(dict(enumerate(keys))).groupby(list(range(len(keys)))).ngroup(), np.intp)


def sentence(table: Table, varied: list[str]) -> list[str]:
    """What the spread of such rows is, and how to keep the best of them."""
    if not varied:
        return []
    shown = ", ".join(f"{name} ({table.frame[name].map(str).nunique()} values)" for name in varied[:MOST_NAMES])
    return [
        f"Rows of one params and tokens differ in {shown}: they are no repeats, so no noise is taken from their "
        f"spread, and all of them are fitted; `best_of={','.join(varied)}` keeps the best of each."
    ]


def best_of(table: Table, rows: Rows, names: str) -> tuple[Table, list[str]]:
    """The rows whose settings give the lowest mean loss at their params and tokens, and a note on what that costs.

    `names`: columns, as a,b. Raises UserError where the table has no such column, or they choose nothing.
    """
    wanted = [name.strip().strip("'\"") for name in names.strip().strip("[]").split(",")]
    for name in wanted:
        if name not in table.frame.columns:
            raise UserError(
                f"best_of={names}: {table.source} has no column {name!r}: name the settings of which the best is kept"
            )
    cell_R = _cells(rows)
    setting_R = table.frame[wanted].astype(str).agg("\n".join, axis=1).to_numpy()
    mean = pd.Series(rows.loss).groupby([cell_R, setting_R]).mean()
    best = dict(mean.groupby(level=0).idxmin().tolist())
    keep_R = np.array([best[cell] == setting for cell, setting in zip(cell_R.tolist(), setting_R, strict=True)])
    counts = mean.groupby(level=0).size()
    if keep_R.all():
        raise UserError(f"best_of={names}: no two rows of one params and tokens differ in it: leave it out")
    kept = table.drop(~keep_R, [f"not the best of {', '.join(wanted)}"] * len(keep_R))
    most = int(counts.max())
    edges = ", ".join(wanted)
    return kept, [
        f"best_of={names} keeps {int(keep_R.sum())} of {len(rows)} rows, the lowest loss of up to {most} at each "
        f"params and tokens. The least of {most} noisy losses lies {expected_least(most):.2f} standard deviations of "
        f"the noise below what {edges} would give again (winner's curse), which no interval here counts: train the "
        "best ones anew, with other seeds, before E or a loss is quoted."
    ]


def expected_least(count: int) -> float:
    """How far the least of so many standard normal numbers lies below 0 on average."""

    def weighted(x: float) -> float:  # scipy.stats has both, but is slow to import
        density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
        return count * x * density * special.ndtr(-x) ** (count - 1)

    return -float(integrate.quad(weighted, -12, 12)[0])


def _cells(rows: Rows) -> Labels:
    """One label for rows of the same params, tokens (or flops alone) and other variables of the law."""
    uses = [use for use in ("params", "tokens") if rows.knows(use)] or ["flops"]
    parts = [*(grouped(rows.of(use), SAME_LEVEL) for use in uses)]
    parts += [grouped(values, SAME_LEVEL) for values in rows.others.values()]
    return np.asarray(pd.DataFrame(dict(enumerate(parts))).groupby(list(range(len(parts)))).ngroup(), np.intp)
