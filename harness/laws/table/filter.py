"""The grammar of filter=: comparisons joined by `and`, and bare boolean columns. No eval."""

import operator
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.errors import UserError
from harness.laws.forms import Array

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
COMPARISON = re.compile(r"(?P<column>[^<>=!]+?)\s*(?P<operator>==|!=|>=|<=|>|<)\s*(?P<value>[^<>=!]+)")
# What stands where there is no value.
NOTHING = frozenset({"", "nan", "na", "n/a", "#n/a", "null", "none", "<na>", "nat", "-"})
TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def as_numbers(column: pd.Series) -> Array:
    """A column as float64, nan where a value is no real number."""
    if column.dtype.kind in "cmM":
        return np.full(len(column), np.nan)
    try:
        numbers = pd.to_numeric(column, errors="coerce")
    except OverflowError:  # of integers that float64 cannot say
        numbers = pd.to_numeric(column.map(str), errors="coerce")
    return numbers.to_numpy(dtype=float, na_value=np.nan)


def select(frame: pd.DataFrame, expression: str, source: str) -> NDArray[np.bool_]:
    """Which rows satisfy an expression such as `width>=48 and schedule==wsd and kept`.

    Raises UserError for an unknown column, a term that is not in the grammar, or a value that cannot be compared.
    """
    keep_R = np.ones(len(frame), bool)
    if not expression.strip():
        return keep_R
    for term in re.split(r"\s+and\s+", expression.strip()):
        keep_R &= _term(frame, term.strip(), source)
    return keep_R


def _term(frame: pd.DataFrame, term: str, source: str) -> NDArray[np.bool_]:
    match = COMPARISON.fullmatch(term)
    column = match["column"].strip() if match else term
    if column not in frame.columns:
        if match is None and re.search(r"[<>=!()]", term):
            raise UserError(
                f"filter: {term!r} is not a comparison: write COLUMN OPERATOR VALUE with one of "
                f"{' '.join(OPERATORS)}, joined by `and`"
            )
        raise UserError(f"filter: {source} has no column {column!r}: choose from {', '.join(map(str, frame.columns))}")
    if match is None:
        return _booleans(frame[column], column, source)
    return _compare(frame[column], column, match["operator"], match["value"].strip().strip("'\""), source)


def _booleans(column: pd.Series, name: str, source: str) -> NDArray[np.bool_]:
    values = [TRUTH.get(str(value).strip().lower()) for value in column]
    if None in values:
        odd = column.iloc[values.index(None)]
        raise UserError(
            f"filter: column {name} of {source} holds {str(odd)!r}, which is neither true nor false: compare it, "
            f"as in {name}=={odd}"
        )
    return np.array(values, bool)


def _compare(column: pd.Series, name: str, sign: str, value: str, source: str) -> NDArray[np.bool_]:
    compare = OPERATORS[sign]
    numbers = as_numbers(column)
    try:
        wanted = float(value)
    except ValueError:
        if sign not in ("==", "!="):
            raise UserError(f"filter: {name}{sign}{value} needs a number on the right") from None
        texts = column.map(str).str.strip()
        return np.asarray(compare(texts.str.lower(), value.lower()), bool)
    if np.isnan(wanted):
        return _missing(column, numbers, name, sign)
    if not np.isfinite(numbers).any():
        raise UserError(
            f"filter: column {name} of {source} holds no numbers, so {name}{sign}{value} says nothing: compare it "
            "with a text"
        )
    return np.asarray(compare(numbers, wanted), bool)


def _missing(column: pd.Series, numbers: Array, name: str, sign: str) -> NDArray[np.bool_]:
    """`==nan` and `!=nan`: whether a row has no number, or in a column of texts no text."""
    if sign not in ("==", "!="):
        raise UserError(f"filter: {name}{sign}nan says nothing: write {name}!=nan for the rows that have a number")
    nothing_R = np.isnan(numbers)
    if nothing_R.all():
        nothing_R = column.map(str).str.strip().str.lower().isin(NOTHING).to_numpy(bool)
    return nothing_R if sign == "==" else ~nothing_R
