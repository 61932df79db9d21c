"""The state of a run, as its table names it: which words mean that it finished, and which that it did not."""

import re

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.errors import UserError
from harness.laws.table.filter import NOTHING

COLUMNS = ("status", "state", "run_state", "run_status", "job_state")
FINISHED = frozenset({
    "finished", "done", "complete", "completed", "success", "succeeded", "successful", "ok", "true",
})  # fmt: skip
# Without a final loss in the harness' own words, so that no fit takes them.
NO_RESULT = frozenset({"failed", "diverged"})
UNFINISHED = NO_RESULT | {
    "crashed", "running", "killed", "failure", "error", "errored", "aborted", "cancelled", "canceled", "preempted",
    "preempting", "timeout", "timed out", "timed_out", "oom", "out_of_memory", "node_fail", "pending", "queued",
    "stopped", "interrupted", "incomplete", "unfinished", "false",
}  # fmt: skip


def _named(column: pd.Series) -> pd.Series:
    return column.map(lambda value: " ".join(str(value).split()))


def finished_rows(status: pd.Series, own: bool) -> tuple[NDArray[np.bool_], list[str], list[str]]:
    """Which rows of a column `status` stay, why the others do not, and a note on how many those are.

    Of the harness' own cells the finished ones stay, of other tables all but the failed and diverged ones.
    """
    named = _named(status)
    words = named.str.lower()
    keep_R = (named == "finished").to_numpy() if own else ~words.isin(NO_RESULT).to_numpy()
    notes = []
    if not own and not keep_R.all():
        notes.append(f"Column status is {_counted(named[~keep_R])}: these rows have no result and are left out.")
    return keep_R, [f"status is {value}" for value in named], notes


def unfinished_notes(frame: pd.DataFrame, source: str, expression: str) -> list[str]:
    """Notes on rows whose runs did not finish, with the filter that drops them; none for what the filter chose.

    Raises UserError for words of which nobody can say whether they mean finished.
    """
    notes = []
    for column in (name for name in frame.columns if str(name).strip().lower() in COLUMNS):
        named = _named(frame[column])
        words = named.str.lower()
        known_R = words.isin(FINISHED | UNFINISHED).to_numpy()
        chosen = re.search(rf"(^|\s){re.escape(column)}\s*[=!]", expression)
        if chosen or not len(frame) or (column != "status" and not known_R.any()):
            continue
        if not known_R.all():
            first = named[~known_R].iloc[0]
            choice = "!=nan" if first.lower() in NOTHING else f"=={first}"
            raise UserError(
                f"{source}, column {column} is {_counted(named)}, and not all of these say whether a run finished: "
                f"choose the rows, as in filter={column}{choice}"
            )
        lost_R = words.isin(UNFINISHED).to_numpy()
        if lost_R.any():
            drop = " and ".join(f"{column}!={value}" for value in dict.fromkeys(named[lost_R]))
            notes.append(
                f"Column {column} is {_counted(named[lost_R])} of {len(frame)} rows, and they are fitted like the "
                f"others: `filter={drop}` leaves them out (a run that W&B calls crashed may be whole)."
            )
    return notes


def _counted(named: pd.Series) -> str:
    """Values with how many rows have each."""
    counts = named.value_counts()
    shown = [f"{str(value)[:40] or 'empty'} in {count}" for value, count in counts.items()]
    return ", ".join(shown[:6]) + (f" and {len(shown) - 6} more values" if len(shown) > 6 else "")
