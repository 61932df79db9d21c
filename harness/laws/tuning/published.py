"""Rules of settings that others published, beside the minima of a table. Shape: C cells."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harness.laws.forms import Array
from harness.laws.tuning.basin import Basin
from harness.laws.tuning.penalty import penalty_alone
from harness.laws.tuning.runs import Runs
from harness.records import axis_name

RATE, BATCH, DECAY = "learning_rate", "batch_tokens", "weight_decay"
# What others call them; a batch in anything but tokens is compared by rules=.
COLUMNS = {
    RATE: re.compile(r"(max_|peak_)?(lr|learning_rate)", re.IGNORECASE),
    BATCH: re.compile(BATCH, re.IGNORECASE),
    DECAY: re.compile(r"weight_decay|wd", re.IGNORECASE),
}
# A scaled rate is that of a base width, and these rules are of the rate of every matrix.
SCALED = ("mup", "completep")
# d12, whose batch nanochat scales: 12 tokens a parameter of 12 blocks of width 768 and of a head of 32,768.
D12_TOKENS = 12 * (12 * 12 * 768**2 + 32768 * 768)


@dataclass(frozen=True)
class Published:
    """setting = coefficient params^params_exponent tokens^tokens_exponent; `params` is what it counts as N.

    others: settings that it is a multiple of too, with their powers; they count at their best of each cell.
    """

    rule: str
    setting: str
    coefficient: float
    params_exponent: float
    tokens_exponent: float
    params: str | None
    source: str
    others: tuple[tuple[str, float], ...] = ()

    def at(self, params_C: Array, tokens_C: Array) -> Array:
        """Log settings, (C,), less what `others` add."""
        logs = self.params_exponent * np.log(params_C) + self.tokens_exponent * np.log(tokens_C)
        return np.asarray(math.log(self.coefficient) + logs)


STEP_LAW = "Li et al. 2025, arXiv 2503.04715"
# Of figure 1, read in public implementations: the batch and tau in two that are independent of each other.
POWER_LINES = "Bergsma et al. 2025, arXiv 2505.13738"
PORIAN = "Porian et al. 2024, arXiv 2406.19146, in the units of table 1 of arXiv 2503.04715"
PUBLISHED = (
    Published("step_law", RATE, 1.797, -0.713, 0.307, "params_non_embedding", STEP_LAW),
    Published("step_law", BATCH, 0.581, 0.0, 0.571, None, STEP_LAW),
    Published("porian", RATE, 3.7, -0.36, 0.0, "params_with_head", PORIAN),
    Published("porian", BATCH, 0.7576, 0.703, 0.0, "params_with_head", PORIAN),
    Published(
        "nanochat", BATCH, 2**19 / D12_TOKENS**0.383, 0.0, 0.383, None,
        "karpathy/nanochat, scripts/base_train.py at 92d63d4, before it rounds to a power of two",
    ),
    # .0306 D^.383 sequences of 2,048 tokens
    Published("power_lines", BATCH, 0.0306 * 2048, 0.0, 0.383, None, POWER_LINES),
    # batch / (rate decay D) = tau = 1.084 (D/N)^-.527
    Published(
        "power_lines", DECAY, 1 / 1.084, -0.527, 0.527 - 1, "params_with_head", POWER_LINES,
        ((BATCH, 1.0), (RATE, -1.0)),
    ),
)  # fmt: skip


def beside(runs: Runs, basin: Basin, within: float) -> list[dict[str, Any]]:
    """What each rule says of a setting of the table at its sizes, and what that costs where it can be compared.

    Beyond a factor `within` of the best no run was counted, and no cost is told.
    """
    found = []
    for number, name in enumerate(runs.names):
        for rule in (rule for rule in PUBLISHED if COLUMNS[rule.setting].fullmatch(axis_name(name))):
            (params_C, counted), others_C = _params(runs, rule.params), _others(runs, basin, rule)
            log_C, cells = rule.at(params_C, runs.sizes.tokens_C) + others_C, []
            why = _why_not(runs, rule)
            for cell in np.flatnonzero((basin.bowl.place[:, number] >= 0) & np.isfinite(log_C)).tolist():
                near = abs(log_C[cell] - basin.best_CK[cell, number]) < math.log(within)
                cost = asdict(penalty_alone(basin, cell, number, float(log_C[cell]))) if near and not why else None
                cells.append({
                    "params": runs.sizes.params_C[cell], "tokens": runs.sizes.tokens_C[cell],
                    "published": math.exp(log_C[cell]), "best": math.exp(basin.best_CK[cell, number]), "penalty": cost,
                })  # fmt: skip
            if not cells:  # of a rule by settings that were not tried
                continue
            about = asdict(rule) | {"setting": name, "params_counted_as": counted}
            found.append(about | {"comparable": why is None, "why_not": why, "cells": cells})
    return found


def _params(runs: Runs, count: str | None) -> tuple[Array, str | None]:
    """Each cell's params as a rule counts them, (C,), where the table has that count; else as the table counts them."""
    frame, cell_R = runs.table.frame, runs.design.cell_R
    if count is None:
        return runs.sizes.params_C, None
    if count not in frame.columns:
        return runs.sizes.params_C, "the table's own count"
    value_R = runs.table.numbers(count)
    return np.array([np.median(value_R[cell_R == cell]) for cell in range(len(runs.sizes.params_C))]), count


def _others(runs: Runs, basin: Basin, rule: Published) -> Array:
    """What other settings add to a rule's log at their best of each cell, (C,); nan where one was not tried."""
    added_C = np.zeros(len(runs.sizes.params_C))
    for setting, power in rule.others:
        tried = [k for k, name in enumerate(runs.names) if COLUMNS[setting].fullmatch(axis_name(name))]
        added_C = added_C + (power * basin.best_CK[:, tried[0]] if tried else np.nan)
    return added_C


def _why_not(runs: Runs, rule: Published) -> str | None:
    """Why a rule is no one of this table's settings; None where it can be compared."""
    frame = runs.table.frame
    of_rate = RATE in (rule.setting, *dict(rule.others))
    if of_rate and "parametrization" in frame.columns:
        scaled = sorted(set(frame["parametrization"].map(str)) & set(SCALED))
        if scaled:
            return f"under {scaled[0]} the rate is that of the base width"
    if of_rate and "optimizer" in frame.columns:
        other = sorted({name for name in frame["optimizer"].map(str) if not name.startswith("adam")})
        if other:
            return f"the rule is AdamW's, and this is {other[0]}'s"
    return None


def lines(published: Sequence[dict[str, Any]], within: float) -> list[str]:
    """A line a rule and setting: what it says from the smallest to the largest value, beside this table's."""
    said = []
    for entry in published:
        theirs, ours = ([cell[key] for cell in entry["cells"]] for key in ("published", "best"))
        costs = [cell["penalty"]["estimate"] for cell in entry["cells"] if cell["penalty"]]
        beyond = len(theirs) - len(costs)
        cost = f"it costs at most {max(costs):.2%}" if costs else "no cost is told"
        cost += f"; beyond a factor {within:g} of the best at {beyond} of {len(theirs)} sizes" if beyond else ""
        if entry["why_not"]:
            cost = f"not compared: {entry['why_not']}"
        said.append(
            f"  {entry['rule']} says {entry['setting']} {min(theirs):.3g} to {max(theirs):.3g} at these sizes, where "
            f"the best are {min(ours):.3g} to {max(ours):.3g}; {cost}"
        )
    return said
