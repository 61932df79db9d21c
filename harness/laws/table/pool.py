"""Several run tables as one: every row with its source, a cell once, and no two sources' trunks taken for one."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.errors import UserError
from harness.laws.table.table import BY_SHAPE, Table, read_runs, settings_of

SOURCE = "source"
# A setting that a source does not name is a value of its own, so that check_comparable sees it.
UNNAMED = "not named"
# Two rows of one cell are the same where these agree, and two trunks of one name are.
OF_CELL = ("params_with_head", "params_total", "params_non_embedding", "tokens", "unique_tokens", "flops", "loss")
OF_TRUNK = ("width", "depth", "seed", "learning_rate", "batch_tokens", "config", "schedule", "data")


def sources(runs: str) -> list[str]:
    """The paths in the value of runs=: one path, or several as in a,b or [a,b]; a path may itself hold a comma."""
    if Path(runs).exists() or "," not in runs and not re.fullmatch(r"\[.*\]", runs):
        return [runs]
    inner = runs[1:-1] if re.fullmatch(r"\[.*\]", runs, re.DOTALL) else runs
    paths = [part.strip().strip("'\"") for part in inner.split(",")]
    if not all(paths):
        raise UserError(f"runs={runs} has an empty entry: name one path between two commas")
    if inner == runs and not any(Path(path).exists() for path in paths):
        return [runs]
    places = [Path(path).resolve() for path in paths]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise UserError(f"runs={runs} names {path} twice: name it once")
    return paths


def read_sources(runs: str, target: str = "loss", cluster: str | None = None, once: bool = True) -> Table:
    """The table that runs= names, several pooled; `cluster` is a column that names runs beside trunk and cluster.

    once: a cell that stands in several counts once.

    Raises UserError where one cannot be read, or where two sources give one cell different numbers.
    """
    paths = sources(runs)
    if len(paths) == 1:
        return read_runs(paths[0])
    joined = _joined([read_runs(path) for path in paths], paths, cluster)
    return _once(joined, target) if once else joined


def _joined(tables: list[Table], paths: list[str], cluster: str | None) -> Table:
    for table in tables:
        if SOURCE in table.frame.columns:
            raise UserError(f"{table.source} has a column {SOURCE!r}, which pooling fills: rename it")
    have = [set(table.frame.columns) for table in tables]
    every = dict.fromkeys(name for table in tables for name in table.frame.columns)
    shared = [name for name in every if all(name in columns for columns in have)]
    known = [name for table in tables for name in settings_of(table)]
    settings = [name for name in dict.fromkeys((*known, *BY_SHAPE)) if name in every and name not in shared]
    dropped = [name for name in every if name not in shared and name not in settings]
    names = [name for name in dict.fromkeys(["trunk", "cluster", cluster]) if name in shared]
    frames = []
    for table in tables:
        named = table.frame.reindex(columns=[*shared, *settings], fill_value=UNNAMED)
        frames.append(named.astype(dict.fromkeys(names, object)).assign(**{SOURCE: table.source}))
    frame = pd.concat(frames, ignore_index=True)
    for name in names:
        frame[name] = _labels(frame, str(name), [table.source for table, path in zip(tables, paths, strict=True)
                                                 if Path(path).is_dir()])  # fmt: skip
    notes = [f"{table.source}: {note}" for table in tables for note in table.notes]
    notes.append(f"The rows come from {len(tables)} tables, named under source.sources.")
    if dropped:
        notes.append(f"Columns that not all of them have are left out: {', '.join(map(str, dropped))}.")
    laws = sorted({table.law or "none" for table in tables})
    if len(laws) > 1:
        shown = ", ".join(laws)
        notes.append(f"They state different laws ({shown}), so the headline is Chinchilla's unless law= is given.")
    return Table(
        source=" and ".join(table.source for table in tables),
        frame=frame,
        lines=[f"{line} of {table.source}" for table in tables for line in table.lines],
        rows_read=sum(table.rows_read for table in tables),
        excluded=[entry | {SOURCE: table.source} for table in tables for entry in table.excluded],
        notes=notes,
        parts=[part for table in tables for part in table.sources()],
        law=tables[0].law if len(laws) == 1 else None,
        floor=tables[0].floor if all(table.floor == tables[0].floor for table in tables) else None,
        account=[line for table in tables for line in table.account],
        unusable={name: why for table in tables for name, why in table.unusable.items()},
    )


def _labels(frame: pd.DataFrame, name: str, sweeps: list[str]) -> "pd.Series[Any]":
    """Names of runs that differ between sources, but for trunks of two sweeps that agree in name and settings.

    A sweep's trunk is named by a hash of all its settings, so there the same name is the same run.
    """
    settings = [column for column in OF_TRUNK if column in frame.columns]
    label = frame[name].astype(str)
    shared_R = frame[SOURCE].isin(sweeps)
    kinds = frame[settings].astype(str).agg(" ".join, axis=1) if settings else label
    varied_R = kinds.groupby(label).transform("nunique") > 1
    own = label + " of " + frame[SOURCE]
    return label.where(shared_R & ~varied_R & (name == "trunk"), own)


def _once(table: Table, target: str) -> Table:
    """Without the further rows of cells that stand in several sources; raises UserError where their numbers differ."""
    if "cell" not in table.frame.columns:
        return table
    frame = table.frame
    again_R = frame["cell"].astype(str).duplicated().to_numpy()
    first = frame.drop_duplicates("cell").set_index(frame["cell"].astype(str)[~again_R])
    columns = [name for name in dict.fromkeys((*OF_CELL, target)) if name in frame.columns]
    why = [""] * len(frame)
    for index in np.flatnonzero(again_R).tolist():
        row = frame.iloc[index]
        known = first.loc[str(row["cell"])]
        for column in columns:
            if not _same(row[column], known[column]):
                raise UserError(
                    f"the cell {row['cell']} has {column} {known[column]} in {known[SOURCE]} and {row[column]} in "
                    f"{row[SOURCE]}: it can count once only, so leave one of the two out of runs="
                )
        why[index] = f"the same cell as in {known[SOURCE]}"
    kept = table.drop(again_R, why)
    return replace(kept, notes=kept.notes + _repeats(int(again_R.sum())))


def _repeats(many: int) -> list[str]:
    return [f"{many} rows are cells that stand in two sources, and count once."] if many else []


def _same(left: Any, right: Any) -> bool:
    try:
        first, second = float(left), float(right)
    except (ValueError, TypeError):
        return str(left) == str(right)
    return first == second or (first != first and second != second)
