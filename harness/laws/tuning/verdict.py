"""Somebody else's rules of settings, judged on a table as `audit` judges their laws. Shapes: C cells, K settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.laws.forms import Array
from harness.laws.noise.wald import p_value
from harness.laws.tuning.basin import NOISELESS, Basin
from harness.laws.tuning.penalty import Penalty
from harness.laws.tuning.rules import Rules, Sizes

# As of a fit of settings.
SIGNIFICANT = 0.01
Given = Mapping[str, tuple[float, float, float]]


@dataclass(frozen=True)
class Verdict:
    """`p` is that of the hypothesis that rules give the minima of all cells, None where nothing tells; `mean` and
    `most` are what they cost of the loss. `verdict` says it in sentences, and `sound` that nothing speaks against
    them."""

    p: float | None
    mean: float
    most: Penalty
    sound: bool
    verdict: list[str]

    def __str__(self) -> str:
        return " ".join(self.verdict)


def judge(
    names: Sequence[str], sizes: Sizes, basin: Basin, full: Rules | None, rules: Given, judged_CK: Array,
    costs: Sequence[Penalty | None], reasons: Sequence[str],
) -> Verdict | None:  # fmt: skip
    """The verdict on `rules`, which give judged_CK (C, K) where they name a setting; None where no cell has a cost.

    costs: of all settings together, a cell each. reasons: why the fit of the table is not certified.
    """
    told = [(cell, cost) for cell, cost in enumerate(costs) if cost is not None]
    if not told:
        return None
    where, most = max(told, key=lambda each: each[1].estimate)
    mean = float(np.mean([cost.estimate for _, cost in told]))
    p = _p_of_minima([number for number, name in enumerate(names) if name in rules], basin, judged_CK)
    cost = (
        f"they cost {mean:.2%} of the loss on average, {most.estimate:.2%} ({most.low:.2%} to {most.high:.2%}) at "
        f"most, at N = {sizes.params_C[where]:.3g} and D = {sizes.tokens_C[where]:.3g}"
    )
    told_p = "" if p is None else f" (p = {p:.2g} that they are)"
    sound = p is None or p >= SIGNIFICANT
    if sound:
        verdict = [f"Nothing speaks against them{f' (p = {p:.2g})' if p is not None else ''}: {cost}."]
    else:
        verdict = [f"They are not at the minimum{told_p}: {cost}."]
    if not sound and full is not None:
        verdict += _outside(names, full, rules)
    if reasons:
        verdict.append(f"Our own fit is not certified: {'; '.join(reasons)}.")
    return Verdict(p, mean, most, sound, verdict)


def _p_of_minima(settings: Sequence[int], basin: Basin, judged_CK: Array) -> float | None:
    place_CK = basin.bowl.place[:, settings]
    held_CK = place_CK >= 0
    if not held_CK.any():
        return None
    away_P = (judged_CK[:, settings] - basin.best_CK[:, settings])[held_CK]
    if basin.noiseless:
        return float(np.abs(away_P).max() < NOISELESS**0.5)
    return p_value(basin.curvature.noise, basin.curvature.gain_PR[place_CK[held_CK]], away_P)


def _outside(names: Sequence[str], full: Rules, rules: Given) -> list[str]:
    """A sentence for each exponent that lies outside of the interval of ours."""
    said = []
    for name, (_, *exponents) in rules.items():
        about: dict[str, Any] = full.rule(names.index(name))
        for use, theirs in zip(("params", "tokens"), exponents, strict=True):
            ours = about[f"{use}_exponent"]
            if ours["estimate"] is not None and not ours["low"] <= theirs <= ours["high"]:
                said.append(
                    f"The exponent of {name} in {use}, {theirs:g}, lies outside of {ours['low']:.3f} to "
                    f"{ours['high']:.3f}."
                )
    return said
