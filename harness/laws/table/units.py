"""Units: of counts that are no plain counts, and of losses that are no nats a token. R rows."""

import math
import re
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.laws.table.rows import Columns, Rows
from harness.laws.table.table import Table

WORDS = {"thousands": 1e3, "millions": 1e6, "billions": 1e9, "trillions": 1e12, "pf-days": 8.64e19}
TARGETS = ("nats", "bits", "perplexity", "bits_per_byte")
# No language model that a law is fitted to is smaller.
LEAST_PARAMS = 1e3
# The loss of a uniform guess over 440,000 tokens, more than any vocabulary.
MOST_NATS = 13.0
# Of the rows: fewer may have diverged.
MOST_ABOVE_UNIFORM, MOST_ABOVE_NATS = 0.5, 0.1
# C / (N D): training takes 6; experts of which few are active make it small, a head that N leaves out large.
POSSIBLE_RATIO, USUAL_RATIO = (1e-3, 3e3), (2.0, 60.0)
SPREAD = 2.0
# All losses below this may be bits a byte.
LOW_LOSS = 1.5
MOST_NAMES = 4
NAMED = {
    "bits_per_byte": re.compile(r"bpb|bits?_(per|a)_byte", re.IGNORECASE),
    "perplexity": re.compile(r"(^|_)ppl(_|$)|perplexity", re.IGNORECASE),
    "bits": re.compile(r"(^|_)(bits?|bpt)(_|$)", re.IGNORECASE),
}


@dataclass
class Units:
    """What one in a column is worth: a number, or one of thousands, millions, billions, trillions, pf-days."""

    params: Any = None  # such as billions or 1e9; null: 1, and asked for where that cannot be
    tokens: Any = None  # likewise; the tokens of a sequence where a column counts sequences
    flops: Any = None  # likewise; pf-days where it counts those, 6 where it is N D

    def worth(self) -> dict[str, float]:
        """The units that were given; raises UserError."""
        found = {}
        for name, value in asdict(self).items():
            if value is None:
                continue
            try:
                found[name] = WORDS.get(str(value).strip().lower()) or float(value)
            except (ValueError, TypeError):
                found[name] = math.nan
            if isinstance(value, bool) or not 1e-12 <= found[name] <= 1e30:
                raise UserError(f"units.{name}={value} is no unit: give a number, or one of {', '.join(WORDS)}")
        return found


def in_counts(table: Table, columns: Columns, units: Units, also: dict[str, tuple[str, ...]]) -> Table:
    """The table with params, tokens and flops as plain counts; `also` are further columns of a variable."""
    account = []
    for name, worth in units.worth().items():
        for column in dict.fromkeys((getattr(columns, name), *also.get(name, ()))):
            if column in table.frame.columns and worth != 1:
                table = table.column(column, table.numbers(column) * worth)
                account.append(f"converted: {column} times {_short(worth)}")
    return replace(table, account=[*table.account, *account])


def check_target_unit(unit: str | None, bytes_per_token: float | None) -> None:
    """Raises UserError for a unit that is not known, and for tokens of no or of very many bytes."""
    if unit not in (None, *TARGETS):
        raise UserError(f"target_unit={unit} is not known: choose {', '.join(TARGETS)}")
    if bytes_per_token is not None and not 0 < bytes_per_token < 1e3:
        raise UserError(f"bytes_per_token={bytes_per_token} is no mean length of tokens: give 1 to 20")


def in_nats(table: Table, columns: Columns, unit: str | None, bytes_per_token: float | None) -> Table:
    """The table with losses in nats a token; raises UserError where the column's name says another unit, and no one
    stated it."""
    target = columns.target
    check_target_unit(unit, bytes_per_token)
    if unit is None:
        plain = re.sub(r"[^a-zA-Z0-9]+", "_", target)
        told = next((name for name, pattern in NAMED.items() if pattern.search(plain)), None)
        if told is not None and not table.own:
            raise UserError(
                f"{table.source}, column {target} is {told.replace('_', ' ')} by its name, and a law is fitted to "
                f"nats a token: say `{_target(told)}`, or `target_unit=nats` where it holds those"
            )
        return table
    if unit == "nats":
        return table
    loss = table.numbers(target)
    words = unit.replace("_", " ")
    if unit == "bits":
        nats = loss * math.log(2)
    elif unit == "perplexity":
        if (low_R := loss <= 1).any():
            row = int(np.argmax(low_R))
            raise UserError(
                f"{table.source}, {table.row(row)}, column {target}: {loss[row]:g} is no perplexity, which is above 1: "
                "correct target_unit="
            )
        nats = np.log(loss)
    else:
        spare = table.spare("bytes_per_token")
        if bytes_per_token is None and spare is None:
            raise UserError(
                "target_unit=bits_per_byte needs the mean bytes of a token to become nats: give bytes_per_token=NUMBER"
            )
        worth = bytes_per_token if bytes_per_token is not None else spare
        assert worth is not None
        nats = loss * math.log(2) * worth
        shown = f"{bytes_per_token:g}" if bytes_per_token is not None else "column bytes_per_token"
        words += f" with {shown} bytes a token"
    line = f"converted: {target} from {words} to nats a token"
    return replace(table.column(target, nats), account=[*table.account, line])


def _short(worth: float) -> str:
    return f"{worth:g}".replace("e+0", "e").replace("e+", "e")


def _target(unit: str) -> str:
    return f"target_unit={unit}" + (" bytes_per_token=NUMBER" if unit == "bits_per_byte" else "")


def check_units(table: Table, rows: Rows, columns: Columns, units: Units, target_unit: str | None) -> None:
    """Refuses somebody else's table whose columns cannot be plain counts and nats; raises UserError.

    A study reports FLOPs, which need them. A table of our own cells states its units.
    """
    if table.own:
        return
    _check_counts(table, rows, columns, units.worth())
    _check_losses(table, rows, columns, target_unit)


def _check_counts(table: Table, rows: Rows, columns: Columns, stated: dict[str, float]) -> None:
    small_R = rows.params < LEAST_PARAMS
    if rows.knows("params") and "params" not in rows.derived and "params" not in stated and small_R.any():
        least, most = rows.params[small_R].min(), rows.params[small_R].max()
        raise UserError(
            f"{table.source}: {columns.params} is {least:.4g} to {most:.4g} in {_rows(table, small_R)}, and no model "
            f"has so few parameters{_offer(table, rows, stated, 'params')}"
        )
    both = rows.knows("params", "tokens") and not {"params", "tokens"} & set(rows.derived)
    if both and "tokens" not in stated and (rows.tokens < rows.params).all():
        raise UserError(
            f"{table.source}: every row has fewer {columns.tokens} than {columns.params}, as where they are counted in "
            f"different units{_offer(table, rows, stated, 'tokens')}"
        )
    if not (both and rows.flops_exact) or "flops" in stated:
        return
    ratio_R = rows.flops / rows.params / rows.tokens
    wrong_R = (ratio_R < POSSIBLE_RATIO[0]) | (ratio_R > POSSIBLE_RATIO[1])
    if wrong_R.any():
        raise UserError(
            f"{table.source}: {columns.flops} is {ratio_R[wrong_R].min():.2g} to {ratio_R[wrong_R].max():.2g} times "
            f"{columns.params} x {columns.tokens} in {_rows(table, wrong_R)}, where training takes about 6"
            f"{_offer(table, rows, stated, 'flops')}"
        )


def _check_losses(table: Table, rows: Rows, columns: Columns, target_unit: str | None) -> None:
    vocabulary = table.spare("vocab_size")
    if vocabulary is not None and target_unit is None:
        uniform_R = np.log(vocabulary)
        above_R = rows.loss > uniform_R
        if above_R.mean() >= MOST_ABOVE_UNIFORM:
            first = int(np.argmax(above_R))
            raise UserError(
                f"{table.source}, {table.row(first)}, column {columns.target}: {rows.loss[first]:.4g} is above "
                f"{uniform_R[first]:.4g}, the loss of a uniform guess, as are {int(above_R.sum())} of {len(rows)} "
                f"rows: write the loss in nats per token, or say its unit, {_units_to_type()}"
            )
    above_R = rows.loss > MOST_NATS
    if target_unit is None and above_R.mean() > MOST_ABOVE_NATS:
        raise UserError(
            f"{table.source}: {columns.target} is up to {rows.loss.max():.4g} and above {MOST_NATS:g} nats in "
            f"{_rows(table, above_R)}, more than a uniform guess over any vocabulary: say its unit, {_units_to_type()}"
        )


def _units_to_type() -> str:
    return ", ".join(f"`{_target(unit)}`" for unit in (*TARGETS[1:], TARGETS[0]))


def _offer(table: Table, rows: Rows, stated: dict[str, float], wrong: str) -> str:
    """The end of a sentence: the units under which the counts would fit together, as keys to type."""
    best = likely(table, rows, stated)
    keep = f"`units.{wrong}=1` where it is right"
    if not best:
        return f": write plain counts, or say what one is worth, as in `units.{wrong}=1e9`, or {keep}"
    shown = " ".join(f"units.{name}={_short(worth)}" for name, worth in best.items())
    return f": say what one is worth, probably `{shown}`, or {keep}"


def likely(table: Table, rows: Rows, stated: dict[str, float]) -> dict[str, float]:
    """The units that change least and make params, tokens and flops fit together; none where nothing does."""
    known = {name: float(np.exp(np.log(rows.of(name)).mean())) for name in ("params", "tokens", "flops")
             if rows.knows(name) and name not in rows.derived}  # fmt: skip
    sequence = table.spare("seq_len")
    steps: dict[str, list[float]] = {
        "params": [1.0, 1e3, 1e6, 1e9],
        "tokens": [1.0, 1e3, 1e6, 1e9, 1e12, *([] if sequence is None else [float(sequence[0])])],
        "flops": [1.0, 6.0, 1e9, 1e12, 1e15, 1e18, 1e21, WORDS["pf-days"]],
    }
    free = [name for name in known if name not in stated]
    found: tuple[float, dict[str, float]] = (math.inf, {})
    for choice in product(*(steps[name] for name in free)):
        worth = dict(zip(free, choice, strict=True))
        value = {name: known[name] * worth.get(name, 1.0) for name in known}
        cost = 0.5 * sum(unit != 1 for unit in choice)
        if "params" in value:
            least = float(rows.params.min()) * worth.get("params", 1.0)
            cost += math.inf if least < LEAST_PARAMS else 0.3 * abs(math.log10(value["params"]) - 8)
        if {"params", "tokens"} <= set(value):
            cost += math.inf if value["tokens"] < value["params"] else 0.0
            cost += abs(math.log10(value["tokens"] / value["params"] / 20))
        if set(value) == {"params", "tokens", "flops"}:
            ratio = value["flops"] / value["params"] / value["tokens"]
            cost += 2 * abs(math.log10(ratio / 6))
        if cost < found[0]:
            found = (cost, {name: unit for name, unit in worth.items() if unit != 1})
    return found[1]


def doubts(table: Table, rows: Rows, columns: Columns, units: Units, target_unit: str | None) -> list[str]:
    """Notes on units that may be meant otherwise."""
    if table.own:
        return []
    notes = []
    if rows.flops_exact and rows.knows("params", "tokens") and not rows.derived and "flops" not in units.worth():
        notes += _flops_doubts(table, rows, columns)
    above_R = rows.loss > MOST_NATS
    if above_R.any():
        notes.append(
            f"{columns.target} is above {MOST_NATS:g} nats in {_rows(table, above_R)}: they diverged, or the column is "
            "in another unit, as `target_unit=perplexity` would say."
        )
    if target_unit is None and rows.loss.max() < LOW_LOSS:
        notes.append(
            f"Every {columns.target} is below {LOW_LOSS:g}: if it counts bits a byte, say "
            "`target_unit=bits_per_byte bytes_per_token=NUMBER`."
        )
    return notes


def _flops_doubts(table: Table, rows: Rows, columns: Columns) -> list[str]:
    ratio_R = rows.flops / rows.params / rows.tokens
    middle = float(np.exp(np.log(ratio_R).mean()))
    notes = []
    if not USUAL_RATIO[0] <= middle <= USUAL_RATIO[1]:
        once = ", and `units.flops=6` makes N D of it" if 0.8 < middle < 1.25 else ""
        notes.append(
            f"{columns.flops} is {middle:.3g} times {columns.params} x {columns.tokens}, where training takes about 6"
            f"{once}: check what the three columns count."
        )
    if ratio_R.max() > SPREAD * ratio_R.min():
        low, high = int(np.argmin(ratio_R)), int(np.argmax(ratio_R))
        notes.append(
            f"{columns.flops} is {ratio_R[low]:.3g} times {columns.params} x {columns.tokens} in {table.name(low)} and "
            f"{ratio_R[high]:.3g} times in {table.name(high)}: a head that {columns.params} leaves out does that, or "
            "rows in different units."
        )
    return notes


def _rows(table: Table, which_R: NDArray[np.bool_]) -> str:
    """Rows by name, at most a few, or that they are all."""
    found = np.flatnonzero(which_R).tolist()
    if len(found) == len(which_R):
        return "every row"
    names = ", ".join(table.name(row) for row in found[:MOST_NAMES])
    return names + (f" and {len(found) - MOST_NAMES} more rows" if len(found) > MOST_NAMES else "")
