"""How suddenly a task is solved, beside the loss of the same answers, as one model is trained on.

Exact match of an answer of n tokens is about the n-th power of their accuracy, so that it may rise suddenly where the
loss falls smoothly (Wei et al. 2022; Schaeffer et al. 2023). Each is followed over the budgets of a trunk as a logistic
curve of log compute, between what guessing gives and what is perfect. Its width is the decades of compute from a tenth
to nine tenths of the way. Shapes: K trunks, X budgets.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import optimize, special

from harness.errors import UserError
from harness.laws.claims.measured import Evidence, Measured, Panel, Row
from harness.laws.forms import Array
from harness.laws.noise.intervals import TAILS
from harness.laws.table.pool import read_sources
from harness.laws.table.table import Table
from harness.records import SweepFolder, read_sweep, tasks_of

# Exact match below the first and above the second, at some budget: then a trunk has seen a task switch on.
OFF, ON = 0.1, 0.75
LEAST_TRUNKS, LEAST_BUDGETS = 3, 5
# From a tenth to nine tenths of a logistic curve, in its scale.
WIDTH = 2 * math.log(9)
NARROWEST, WIDEST = 0.02, 10.0  # decades
EXACT, ACCURACY, LOSS = "exact match", "accuracy a token", "loss, over that of guessing"
WORDS = (
    "decades of compute in which exact match rises from a tenth to nine tenths, over those in which the loss of the "
    "same answers falls as far, of the task where that is largest"
)


@dataclass(frozen=True)
class Curves:
    """A task along one trunk: log10 FLOPs, and shares from 0, what guessing gives, to 1, what is perfect."""

    x_X: Array
    share_X: dict[str, Array]

    @property
    def switches_on(self) -> bool:
        exact_X = self.share_X[EXACT]
        return len(exact_X) >= LEAST_BUDGETS and exact_X.min() < OFF and exact_X.max() > ON

    @cached_property
    def widths(self) -> dict[str, float]:
        return {name: logistic_width(self.x_X, share_X) for name, share_X in self.share_X.items()}


def logistic_width(x_X: Array, share_X: Array) -> float:
    """Decades between a tenth and nine tenths of the logistic curve of least squares from 0 to 1."""

    def off_X(theta: Array) -> Array:
        return np.asarray(special.expit((x_X - theta[0]) / theta[1]) - share_X)

    def slope_X2(theta: Array) -> Array:
        z_X = (x_X - theta[0]) / theta[1]
        share_X = special.expit(z_X)
        return -(share_X * (1 - share_X))[:, None] * np.stack([np.ones_like(z_X), z_X], axis=1) / theta[1]

    bounds = ((x_X.min() - WIDEST, NARROWEST / WIDTH), (x_X.max() + WIDEST, WIDEST / WIDTH))
    middle = x_X[np.abs(share_X - 0.5).argmin()]
    starts = ((middle, width / WIDTH) for width in (0.1, 0.4, 1.6))
    fits = [optimize.least_squares(off_X, start, slope_X2, bounds, x_scale=(1.0, 0.1)) for start in starts]
    return WIDTH * float(min(fits, key=lambda fit: fit.cost).x[1])


def curves_of(table: Table, name: str, tokens: int, symbols: int) -> list[Curves]:
    """The curves of a task of `tokens` that may be `symbols` each, a trunk each."""
    flops_R, loss_R = table.numbers("flops"), table.numbers(f"loss_{name}", positive=False)
    accuracy_R, exact_R = (table.numbers(f"{key}_{name}", positive=False) for key in ("accuracy", "exact"))
    trunk_R, found = table.frame["trunk"].to_numpy(), []
    for trunk in dict.fromkeys(trunk_R):
        rows = np.flatnonzero(trunk_R == trunk)
        rows = rows[np.argsort(flops_R[rows])]
        right_X = accuracy_R[rows]
        shares = {
            EXACT: exact_R[rows],
            ACCURACY: (right_X - 1 / symbols) / (1 - 1 / symbols),
            f"accuracy^{tokens}": right_X**tokens,
            LOSS: 1 - loss_R[rows] / math.log(symbols),
        }
        found.append(Curves(np.log10(flops_R[rows]), shares))
    return found


@dataclass(frozen=True)
class Ratio:
    """Widths over that of the loss: the geometric mean over trunks and its interval of log-normal ratios."""

    log_K: Array
    widths: tuple[float, float]  # geometric means, in decades, the second that of the loss

    def ends(self, tails: float = TAILS[0]) -> tuple[float, float, float]:
        mean, trunks = float(self.log_K.mean()), len(self.log_K)
        half = float(special.stdtrit(trunks - 1, 1 - tails)) * float(self.log_K.std(ddof=1)) / math.sqrt(trunks)
        return math.exp(mean), math.exp(mean - half), math.exp(mean + half)

    def __str__(self) -> str:
        return f"{self.widths[0]:.2f} over {self.widths[1]:.2f} decades in {len(self.log_K)} trunks"


def ratio(curves: list[Curves], name: str) -> Ratio:
    """Of the trunks that have seen the task switch on."""
    log_2K = np.log([[each.widths[which] for each in curves] for which in (name, LOSS)])
    exact, loss = np.exp(log_2K.mean(1)).tolist()
    return Ratio(log_2K[0] - log_2K[1], (exact, loss))


def emergence(evidence: Evidence) -> Measured:
    """Widths of exact match over those of the loss, beside those of accuracy and of its power; raises UserError where
    the sweep validates on no task."""
    tasks = tasks_of(read_sweep(SweepFolder(evidence.folder)))
    if not tasks:
        raise UserError(f"{evidence.folder} validates on no task: name one under validation= before it is trained")
    table = read_sources(str(evidence.folder), "loss", None)
    rows, ratios, panels, never = list[Row](), dict[str, Ratio](), list[Panel](), list[str]()
    for name, task in tasks.items():
        curves = curves_of(table, name, task["tokens"], task["symbols"])
        panels.append(_panel(name, curves, task))
        on = [each for each in curves if each.switches_on]
        if len(on) < LEAST_TRUNKS:
            most = max((float(each.share_X[EXACT].max(initial=0.0)) for each in curves), default=0.0)
            never.append(f"{name} switches on in {len(on)} of {len(curves)}, with {most:.1%} right at most")
            continue
        ratios[name] = ratio(on, EXACT)
        rows += [Row(f"{name}, {which}", *ratio(on, which).ends()) for which in on[0].share_X if which != LOSS]
    method = (
        "logistic curves of least squares in log FLOPs, geometric means and Student's t over trunks; "
        + "; ".join([*(f"{name} {each}" for name, each in ratios.items()), *never])
    )  # fmt: skip
    first, *others = panels
    if not ratios:
        why = f"no task switches on in {LEAST_TRUNKS} trunks: {'; '.join(never)}"
        return Measured(WORDS, "no curve rises", None, None, None, doubts=[why], panel=first, panels=others)
    largest = _largest(list(ratios.values()))
    rows.append(Row("exact match, the largest", *largest, True))
    return Measured(WORDS, method, *largest, rows, first, panels=others)


def _largest(ratios: list[Ratio]) -> tuple[float, float, float]:
    """The largest ratio; any of the lower ends may be too high, so each errs as many times more seldom (Bonferroni)."""
    number, _, high = (max(ends) for ends in zip(*(each.ends() for each in ratios), strict=True))
    return number, max(each.ends(TAILS[0] / len(ratios))[1] for each in ratios), high


def _panel(name: str, curves: list[Curves], task: Mapping[str, Any]) -> Panel:
    """A line a trunk of each; the loss as a part of that of guessing."""
    lines = [
        {"series": which, "line": f"{which} {number}", "x": float(10**x), "y": float(share)}
        for which in (EXACT, ACCURACY, LOSS)
        for number, each in enumerate(curves)
        for x, share in zip(each.x_X, _shown(which, each.share_X[which], task["symbols"]), strict=True)
    ]
    return Panel("training FLOPs", name, "", [], lines)


def _shown(which: str, share_X: Array, symbols: int) -> Array:
    if which == LOSS:
        return 1 - share_X
    return share_X * (1 - 1 / symbols) + 1 / symbols if which == ACCURACY else share_X
