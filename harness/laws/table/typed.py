"""Columns of texts as columns of numbers, of true and false, or of texts; commas and points as their country means."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.laws.table.filter import NOTHING, as_numbers

BOOLEANS = {"true": True, "false": False}
# Names and lists whose texts look like numbers now and then.
TEXTS = frozenset({
    "cell", "trunk", "cluster", "status", "schedule", "data", "device", "config_hash", "code_version", "error",
    "loss_parts", "variant",
})  # fmt: skip
PADDED = re.compile(r"[-+]?0\d+")
GAPS = re.compile(r"[-+]?\d{1,3}([ \u00a0\u202f\u2009'\u2019_]\d{3})+([.,]\d+)?")
# 1,234.5 and 1.234,5; what both conventions can read, 1,234 or 1.234, each takes for another number.
POINT = re.compile(r"[-+]?([1-9]\d{0,2}(,\d{3})+(\.\d*)?|\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
COMMA = re.compile(r"[-+]?([1-9]\d{0,2}(\.\d{3})+(,\d*)?|\d+,?\d*|,\d+)([eE][-+]?\d+)?")
EITHER_POINT = re.compile(r"[-+]?[1-9]\d{0,2}\.\d{3}")


@dataclass(frozen=True)
class Reading:
    """A column by the texts in it: the values under each convention that reads all of them; `marked` has commas or
    points that the two conventions read differently."""

    point: pd.Series | None
    comma: pd.Series | None
    marked: bool


def is_text(name: Any) -> bool:
    """Whether a column of this name holds texts whatever they look like."""
    return name in TEXTS or str(name).startswith("loss_parts_")


def typed(texts: pd.DataFrame) -> tuple[pd.DataFrame, list[str], dict[str, str]]:
    """Columns with types, what was converted in words, and why columns of numbers stay texts.

    A comma is a decimal's or a thousands' mark by what a column's other values allow, else by the file's other columns.
    """
    columns = {name: texts[name] if is_text(name) else _plain(texts[name]) for name in texts.columns}
    open_names = [name for name in texts.columns if not is_text(name) and columns[name] is None]
    readings = {name: _reading(texts[name]) for name in open_names}
    points = any(one.point is not None and one.comma is None and one.marked for one in readings.values())
    commas = any(one.comma is not None and one.point is None and one.marked for one in readings.values())
    numeric = [name for name in texts.columns if columns[name] is not None and not is_text(name)]
    points = points or any(_by_point(texts[name]) for name in numeric)
    said: dict[str, list[str]] = {}
    unclear: dict[str, str] = {}
    for name, one in readings.items():
        both = one.point is not None and one.comma is not None
        if both and one.marked and points == commas:
            columns[name] = texts[name]
            continue
        use_comma = one.comma is not None and (one.point is None or (both and commas and not points))
        values = one.comma if use_comma else one.point
        columns[name] = texts[name] if values is None else values
        if values is not None:
            words = _words(texts[name], use_comma)
            said.setdefault(words, []).append(name)
    if commas and not points:
        for name in (name for name in numeric if _only_thousands(texts[name])):
            columns[name] = texts[name]
            first = next(text for text in texts[name] if EITHER_POINT.fullmatch(str(text).strip()))
            unclear[name] = (
                f"{first.strip()!r} may be a decimal or have a mark of thousands, since commas are decimals in other "
                "columns: write thousands without any mark, and decimals all alike"
            )
    account = [f"converted: {', '.join(map(str, names))}, {words}" for words, names in said.items()]
    return pd.DataFrame(columns, index=texts.index), account, unclear


def _stripped(texts: pd.Series) -> tuple[pd.Series, pd.Series]:
    """The texts without spaces around them, and which of them say nothing."""
    stripped = texts.map(str).str.strip()
    return stripped, stripped.str.lower().isin(NOTHING)


def _plain(texts: pd.Series) -> pd.Series | None:
    """A column that needs no convention; None where some value is no plain number."""
    stripped, blank = _stripped(texts)
    rest = stripped[~blank]
    if not len(rest):
        return texts
    words = rest.str.lower()
    if words.isin(BOOLEANS).all():
        return words.map(BOOLEANS).astype(bool) if not blank.any() else texts
    if rest.str.fullmatch(PADDED.pattern).any():
        return texts
    values = as_numbers(rest)
    if not np.isfinite(values).all():
        return None
    return _numbers(rest, values, texts.index)


def _numbers(rest: pd.Series, values: np.ndarray, index: pd.Index) -> pd.Series:
    """Whole numbers as integers where each row has one, else float64 with nan where there is none."""
    if len(rest) == len(index) and rest.str.fullmatch(r"[-+]?\d{1,15}").all():
        return pd.Series(values.astype(np.int64), index=index)
    return pd.Series(values, index=rest.index).reindex(index)


def _reading(texts: pd.Series) -> Reading:
    stripped, blank = _stripped(texts)
    rest = stripped[~blank].map(lambda text: re.sub(r"[^\d.,+-]", "", text) if GAPS.fullmatch(text) else text)
    values: dict[str, pd.Series | None] = {}
    for convention, pattern, thousands in ((".", POINT, ","), (",", COMMA, ".")):
        values[convention] = None
        if rest.map(lambda text, pattern=pattern: pattern.fullmatch(text) is not None).all():
            plain = rest.str.replace(thousands, "", regex=False).str.replace(convention, ".", regex=False)
            numbers = as_numbers(plain)
            if np.isfinite(numbers).all():
                values[convention] = _numbers(plain, numbers, texts.index)
    return Reading(values["."], values[","], bool(rest.str.contains("[.,]").any()))


def _by_point(texts: pd.Series) -> bool:
    """Whether a column of plain numbers has decimals that no mark of thousands can be."""
    stripped, _ = _stripped(texts)
    pointed = stripped[stripped.str.contains(".", regex=False)]
    return bool((~pointed.str.fullmatch(EITHER_POINT.pattern)).any())


def _only_thousands(texts: pd.Series) -> bool:
    stripped, _ = _stripped(texts)
    pointed = stripped[stripped.str.contains(".", regex=False)]
    return len(pointed) > 0 and bool(pointed.str.fullmatch(EITHER_POINT.pattern).all())


def _words(texts: pd.Series, comma: bool) -> str:
    if not comma:
        return "thousands with marks between them"
    stripped, _ = _stripped(texts)
    parts = [words for mark, words in ((",", "commas as decimals"), (".", "points between thousands"))
             if stripped.str.contains(mark, regex=False).any()]  # fmt: skip
    return " and ".join(parts)
