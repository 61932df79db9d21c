"""How many tokens of the baseline do what one of a variant does, by the losses themselves.

Where each corpus has a floor of its own, a multiplier of the law is of what lies above that, and says nothing of this.
Shapes: B budgets, X losses, K runs.
"""

import numpy as np
import pandas as pd
from scipy import special

from harness.errors import UserError
from harness.laws.claims.measured import Evidence, Measured, Panel, Row
from harness.laws.forms import Array
from harness.laws.noise.intervals import TAILS
from harness.laws.table.levels import budget_labels
from harness.laws.table.pool import read_sources

RUN = ["width", "depth", "seed"]
# Beyond the baseline's budgets its outer slopes hold so many times farther.
FARTHEST = 1.5


def equal_tokens(tokens_B: Array, loss_B: Array, loss_X: Array) -> Array:
    """The tokens at which a run has each loss, (X,): straight in the logs between its budgets, which ascend.

    nan where that is too far beyond them. Raises ValueError where its loss does not fall from budget to budget.
    """
    x_B, y_B, y_X = np.log(tokens_B), np.log(loss_B), np.log(loss_X)
    if not (np.diff(y_B) < 0).all():
        raise ValueError
    part_X = np.clip(np.searchsorted(-y_B, -y_X) - 1, 0, len(y_B) - 2)
    slope_X = (np.diff(x_B) / np.diff(y_B))[part_X]
    x_X = x_B[part_X] + slope_X * (y_X - y_B[part_X])
    near_X = (x_X >= x_B[0] - np.log(FARTHEST)) & (x_X <= x_B[-1] + np.log(FARTHEST))
    return np.asarray(np.exp(np.where(near_X, x_X, np.nan)))


def replacement(evidence: Evidence, variant: str) -> Measured:
    """Of a variant at its largest budget, beside other budgets and variants; raises UserError."""
    content = evidence.content("compare")
    baseline, names = content["baseline"], list(content["variants"])
    if variant not in names:
        raise UserError(f"claim.quantity names {variant}, and compare.json has the variants {', '.join(names)}")
    words = f"tokens of {baseline} that do at equal params what one of {variant} does, at its largest budget"
    method = (
        f"tokens at which {baseline} has the same loss at the same shape and seed, straight in the logs between its "
        "budgets; the mean of the logs over shapes and seeds, by Student's t"
    )
    try:
        worth = _worth(evidence, content["column"], baseline, names)
    except ValueError as error:
        return Measured(words, method, None, None, None, doubts=[str(error)])
    last = worth["budget"][worth["variant"] == variant].max()
    rows, points = [], []
    for (name, budget), runs in worth.groupby(["variant", "budget"], sort=False):
        found = np.exp(_mean(runs["log"].to_numpy(float))).tolist()
        if not np.isfinite(found).all():
            continue
        tokens = float(runs["tokens"].mean())
        value, low, high = found
        rows.append(Row(f"{name}, {tokens / 1e6:.2g} M tokens", value, low, high, (name, budget) == (variant, last)))
        points.append({"series": name, "x": tokens / 1e6, "y": value, "low": low, "high": high})
    lines = [{key: point[key] for key in ("series", "x", "y")} for point in points]
    axes = "training tokens of a variant (millions)", f"tokens of {baseline} that one is worth"
    panel = Panel(*axes, "", points, lines)
    own = next((row for row in rows if row.decides), None)
    if own is None:
        doubts = [f"{variant} has a single run there, or losses too far beyond those of {baseline}"]
        return Measured(words, method, None, None, None, rows, panel, doubts)
    return Measured(words, method, own.estimate, own.low, own.high, rows, panel)


def _worth(evidence: Evidence, column: str, baseline: str, names: list[str]) -> pd.DataFrame:
    """The log of what a token is worth by variant, budget and run; ValueError with a sentence where nobody can tell."""
    table = read_sources(str(evidence.folder), "loss", None)
    numbers = {name: table.numbers(name) for name in ("tokens", "loss")}
    frame = table.frame.assign(**numbers, budget=budget_labels(numbers["tokens"]), variant=table.frame[column].map(str))
    frame = frame.sort_values("tokens")
    runs = dict(iter(frame[frame["variant"] == baseline].groupby(RUN)))
    parts = []
    for (_, *run), own in frame[frame["variant"].isin(names)].groupby(["variant", *RUN]):
        first = runs.get(tuple(run))
        if first is None or len(first) < 2:
            continue
        try:
            equal = equal_tokens(*(each.to_numpy(float) for each in (first["tokens"], first["loss"], own["loss"])))
        except ValueError:
            shape = "w{}-d{}-s{}".format(*run)
            raise ValueError(f"the loss of {baseline} does not fall from budget to budget at {shape}") from None
        parts.append(own[["variant", "budget", "tokens"]].assign(log=np.log(equal / own["tokens"])))
    if not parts:
        raise ValueError(f"no run has the shape and seed of one of {baseline} with two budgets")
    place = {name: index for index, name in enumerate(names)}
    return pd.concat(parts).sort_values(["variant", "budget"], key=lambda part: part.map(place).fillna(part))


def _mean(log_K: Array) -> tuple[float, float, float]:
    """The mean over runs and its 95 % interval by Student's t, nan of a single one."""
    if len(log_K) < 2:
        return float(log_K[0]), np.nan, np.nan
    half = float(special.stdtrit(len(log_K) - 1, TAILS[1]) * log_K.std(ddof=1) / np.sqrt(len(log_K)))
    return float(log_K.mean()), float(log_K.mean() - half), float(log_K.mean() + half)
