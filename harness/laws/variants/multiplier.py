"""How much more compute the baseline needs to reach a variant's loss: m = f g.

f multiplies params and g tokens: the variant at (N, D) has the loss of the baseline at (f N, g D). Shapes: M parameter
vectors, X numbers.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harness.laws.fit import Fit
from harness.laws.forms import Array
from harness.laws.forms.variants import JointLaw
from harness.laws.noise.wald import p_value
from harness.laws.table.levels import SAME_PARAMS, grouped
from harness.laws.table.table import Table
from harness.laws.variants.joint import Arms

Ends = dict[str, float]
DECADE = 10.0
SIGNIFICANT = 0.05
# Multipliers closer than this, in log, are said once.
NEARLY = 0.005


@dataclass(frozen=True)
class Place:
    """Where a multiplier holds that moves with size: a cell of the baseline."""

    params: float
    tokens: float
    flops: float


def logs(fit: Fit, variant: int, place: Place, theta_MP: Array) -> Array:
    """log f and log g at a place, (M, 2).

    The excess over E of both is the same there, and so is the part of it that each term has: with shared exponents
    f = (A_v / A)^(-1 / alpha) and g likewise, at every place. Where each has an E, they are of the excess alone.
    """
    form = fit.form
    assert isinstance(form, JointLaw)
    at = fit.problem.at
    alpha_M, beta_M, gamma_M, a_M, b_M = form.terms(theta_MP, at, 0, place.params, place.tokens)
    _, _, own_gamma_M, own_a_M, own_b_M = form.terms(theta_MP, at, variant, place.params, place.tokens)
    sum_M = np.logaddexp(own_a_M, own_b_M)
    higher_M = (own_gamma_M / gamma_M - 1) * sum_M
    return np.stack([(a_M - own_a_M - higher_M) / alpha_M, (b_M - own_b_M - higher_M) / beta_M], axis=1)


def numbers(fit: Fit, variant: int, place: Place) -> dict[str, Ends]:
    """f, g and m at a place with their 95 % intervals, as `params`, `tokens` and `m`."""
    found = _ends(fit, lambda theta_MP: _with_product(logs(fit, variant, place, theta_MP)))
    return dict(zip(("params", "tokens", "m"), found, strict=True))


def per_decade(fit: Fit, variant: int, place: Place) -> Ends:
    """The factor by which m grows from a place to one of ten times its compute and as many tokens a parameter."""
    root = DECADE**0.5
    further = Place(place.params * root, place.tokens * root, place.flops * DECADE)

    def drift(theta_MP: Array) -> Array:
        return (logs(fit, variant, further, theta_MP) - logs(fit, variant, place, theta_MP)).sum(1, keepdims=True)

    return _ends(fit, drift)[0]


def neutral(fit: Fit, variant: int, place: Place) -> float:
    """p of the hypothesis that f = g."""
    step_PP = 1e-5 * np.eye(len(fit.theta_P))

    def difference(theta_MP: Array) -> Array:
        return -np.diff(logs(fit, variant, place, theta_MP))[:, 0]

    gradient_P = (difference(fit.theta_P + step_PP) - difference(fit.theta_P - step_PP)) / 2e-5
    contrast_R = gradient_P @ fit.curvature.gain_PR
    return p_value(fit.curvature.noise, contrast_R[None], difference(fit.theta_P[None]))


def _with_product(log_M2: Array) -> Array:
    return np.column_stack([log_M2, log_M2.sum(1)])


def _ends(fit: Fit, function: Any) -> list[Ends]:
    value_X = function(fit.theta_P[None])[0]
    low_X, high_X = fit.interval(function)
    return [
        {"estimate": float(np.exp(value)), "low": float(np.exp(low)), "high": float(np.exp(high))}
        for value, low, high in zip(value_X, low_X, high_X, strict=True)
    ]


@dataclass(frozen=True)
class Worth:
    """What a variant is worth: m at equal params and tokens, at equal training FLOPs and at equal time.

    `per_decade` is how m grows with compute where each variant has exponents of its own. `shared` and `neutral` are p.
    """

    equal_tokens: Ends
    equal_flops: Ends
    equal_time: Ends | None
    at: Place
    per_decade: Ends | None
    params: Ends
    tokens: Ends
    shared: float | None
    neutral: float

    def to_dict(self) -> dict[str, Any]:
        """The entry of compare.json."""
        return {
            "multiplier": {
                "equal_tokens": self.equal_tokens,
                "equal_flops": self.equal_flops,
                "equal_time": self.equal_time,
            },
            "at": asdict(self.at),
            "per_decade": self.per_decade,
            "params": self.params,
            "tokens": self.tokens,
            "exponents_shared": {"p": self.shared},
            "neutral": {"p": self.neutral},
        }

    def sentence(self, name: str, baseline: str) -> str:
        """One line that a person can act on."""
        m = self.equal_flops
        parts = [f"{m['estimate']:.2f}x the compute of {baseline} ({m['low']:.2f} to {m['high']:.2f})"]
        if self.shared is not None:
            same = self.shared >= SIGNIFICANT
            parts.append(f"exponents {'as' if same else 'not'} {baseline}'s (p {probability(self.shared)})")
        parts.append(self._saves())
        if abs(np.log(self.equal_tokens["estimate"] / m["estimate"])) > NEARLY:
            parts.append(f"{_shown(self.equal_tokens)} at equal params and tokens")
        if self.equal_time is not None and abs(np.log(self.equal_time["estimate"] / m["estimate"])) > NEARLY:
            parts.append(f"{_shown(self.equal_time)} at equal time on this device")
        if self.shared is not None and self.shared < SIGNIFICANT and self.per_decade is not None:
            parts.append(f"times {_shown(self.per_decade, '')} a decade of compute")
        return f"{name}: {', '.join(parts)}"

    def _saves(self) -> str:
        both = self.equal_tokens
        if self.neutral < SIGNIFICANT:
            of_params = self.params["estimate"] > self.tokens["estimate"]
            more, less = ("params", "tokens") if of_params else ("tokens", "params")
            return f"saves {more} rather than {less}" if both["estimate"] > 1 else f"costs {less} rather than {more}"
        if both["low"] > 1:
            return "saves params and tokens alike"
        return "costs params and tokens alike" if both["high"] < 1 else "no saving shown"


def _shown(ends: Ends, sign: str = "x") -> str:
    return f"{ends['estimate']:.2f}{sign} ({ends['low']:.2f} to {ends['high']:.2f})"


def probability(p: float) -> str:
    """As in `= .4` or `< .001`."""
    return f"= {p:.1g}".replace("0.", ".") if p >= 1e-3 else "< .001"


def largest(arms: Arms) -> Place:
    """The baseline's cell of the most compute."""
    rows = arms.rows
    row = int(np.argmax(np.where(arms.variant_R == 0, rows.flops, 0.0)))
    return Place(float(rows.params[row]), float(rows.tokens[row]), float(rows.flops[row]))


def worth(fit: Fit, own: Fit | None, arms: Arms, table: Table, variant: int, at: Place, shared: float | None) -> Worth:
    """All of it for one variant; `own` is the fit in which each has exponents of its own."""
    found = numbers(fit, variant, at)
    rows = arms.rows
    cost = float(ratio(rows.flops / rows.params / rows.tokens, arms, variant, at.params))
    speed_R = _speeds(table)
    return Worth(
        equal_tokens=found["m"],
        equal_flops=_times(found["m"], 1 / cost),
        equal_time=None if speed_R is None else _times(found["m"], float(ratio(speed_R, arms, variant, at.params))),
        at=at,
        per_decade=None if own is None else per_decade(own, variant, at),
        params=found["params"],
        tokens=found["tokens"],
        shared=shared,
        neutral=neutral(fit, variant, at),
    )


def ratio(value_R: Array, arms: Arms, variant: int, params: Array | float) -> Array:
    """The variant's value over the baseline's for models of these params."""
    return level(value_R, arms, variant, params) / level(value_R, arms, 0, params)


def level(value_R: Array, arms: Arms, variant: int, params: Array | float) -> Array:
    """A variant's value for models of these params, between those that it has."""
    rows_R = arms.variant_R == variant
    level_R = grouped(arms.rows.params[rows_R], SAME_PARAMS)
    levels = range(int(level_R.max()) + 1)
    known = [np.log(np.median(arms.rows.params[rows_R][level_R == index])) for index in levels]
    values = [np.log(np.median(value_R[rows_R][level_R == index])) for index in levels]
    return np.exp(np.interp(np.log(params), known, values))


def _speeds(table: Table) -> Array | None:
    """Measured tokens a second; None where some row has none, or several kinds of device measured them."""
    devices = table.frame["device"].map(str).nunique() if "device" in table.frame.columns else 1
    return table.spare("tokens_per_second") if devices == 1 else None


def _times(ends: Ends, factor: float) -> Ends:
    return {name: value * factor for name, value in ends.items()}
