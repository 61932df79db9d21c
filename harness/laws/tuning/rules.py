"""How the best settings move with params and tokens: power laws, fitted to all cells at once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from harness.errors import UserError
from harness.laws.forms import Array
from harness.laws.noise.intervals import TAILS
from harness.laws.noise.wald import p_value
from harness.laws.tuning.basin import Basin, Bowl, fit_basin

ABOUT = ("estimate", "low", "high")
NOTHING = dict.fromkeys(ABOUT)


@dataclass(frozen=True)
class Sizes:
    """The params and tokens of the cells, (C,), which of the two vary, and their geometric means."""

    params_C: Array
    tokens_C: Array

    @property
    def references(self) -> tuple[float, float]:
        return float(np.exp(np.log(self.params_C).mean())), float(np.exp(np.log(self.tokens_C).mean()))

    def varied(self, *wanted: str) -> tuple[str, ...]:
        """Those of `wanted` that differ between cells."""
        values = {"params": self.params_C, "tokens": self.tokens_C}
        return tuple(name for name in wanted if np.ptp(np.log(values[name])) > math.log(1.05))

    def factors(self, names: Sequence[str]) -> Array:
        """1 and the logs of what is named over its reference, (C, F)."""
        logs = dict(zip(("params", "tokens"), self.logs.T, strict=True))
        return np.stack([np.ones(len(self.params_C)), *(logs[name] for name in names)], axis=1)

    @property
    def logs(self) -> Array:
        return np.log(np.stack([self.params_C, self.tokens_C], axis=1)) - np.log(self.references)


@dataclass(frozen=True)
class Rules:
    """Rules of all settings in `names`, as weights of a basin's parameters: coefficient f of setting k is
    weight_FKP[f, k] @ theta, nan where the cells do not tell it."""

    basin: Basin
    names: tuple[str, ...]
    sizes: Sizes
    weight_FKP: Array

    def settings(self) -> Array:
        """Log settings by the rules at every cell, (C, K), also where a setting does not vary."""
        return self.sizes.factors(self.names) @ (self.weight_FKP @ self.basin.theta_P)

    def rule(self, setting: int) -> dict[str, Any]:
        """Value at the references, exponents, and coefficient at N = D = 1, each with its 95 % interval.

        setting = value (N / reference_params)^params_exponent (D / reference_tokens)^tokens_exponent.
        """
        params, tokens = self.sizes.references
        logs = {"params": math.log(params), "tokens": math.log(tokens)}
        unit_FF = np.eye(1 + len(self.names))
        with np.errstate(over="ignore"):  # of one that may lie anywhere
            found = {"value": np.exp(self._about(setting, unit_FF[0]))}
        for number, name in enumerate(self.names, 1):
            found[f"{name}_exponent"] = self._about(setting, unit_FF[number])
        with np.errstate(over="ignore"):
            found["coefficient"] = np.exp(self._about(setting, np.array([1.0, *(-logs[name] for name in self.names)])))
        keys = ("value", "params_exponent", "tokens_exponent", "coefficient")
        about = {key: dict(zip(ABOUT, found[key].tolist(), strict=True)) if key in found else NOTHING for key in keys}
        return about | {"reference_params": params, "reference_tokens": tokens}

    def _about(self, setting: int, sum_F: Array) -> Array:
        """A sum of a rule's coefficients and its interval, three numbers."""
        gradient_P = sum_F @ self.weight_FKP[:, setting]
        if np.isnan(gradient_P).any():
            return np.full(3, np.nan)
        sd_C, freedom_C = self.basin.curvature.spread(gradient_P[None])
        half = float(sd_C[0] * special.stdtrit(max(float(freedom_C[0]), 1.0), TAILS[1]))
        value = float(gradient_P @ self.basin.theta_P)
        return np.array([value, value - half, value + half])


def fitted_rules(basin: Basin, sizes: Sizes, names: tuple[str, ...]) -> Rules | None:
    """The rules that fit the rows best, where every minimum follows them; None where the rows do not tell them."""
    bowl = basin.bowl
    factor_CF = sizes.factors(names)
    if any(np.linalg.matrix_rank(factor_CF[own_C]) < factor_CF.shape[1] for own_C in bowl.design.active_CK.T):
        return None
    found = fit_basin(Bowl(bowl.design, bowl.pairs, bowl.cubed, factor_CF))
    return None if found is None else Rules(found, names, sizes, np.eye(len(found.theta_P))[found.bowl.place])


def nearest_rules(basin: Basin, sizes: Sizes, names: tuple[str, ...]) -> Rules:
    """The rules nearest to the minima of the cells, which need not follow them: with one H for all cells they cost
    the least."""
    place = basin.bowl.place
    factor_CF = sizes.factors(names)
    weight_FKP = np.full((factor_CF.shape[1], place.shape[1], len(basin.theta_P)), np.nan)
    for setting, place_C in enumerate(place.T):
        own_C = place_C >= 0
        if np.linalg.matrix_rank(factor_CF[own_C]) == factor_CF.shape[1]:
            weight_FKP[:, setting] = 0.0
            weight_FKP[:, setting, place_C[own_C]] = np.linalg.pinv(factor_CF[own_C])
    return Rules(basin, names, sizes, weight_FKP)


def misfit(basin: Basin, names: tuple[str, ...], sizes: Sizes) -> list[float | None]:
    """Of each setting, p of the hypothesis that the minima of the cells follow a rule in `names`; None where they are
    too few to deviate."""
    bowl = basin.bowl
    found: list[float | None] = []
    for setting in range(bowl.place.shape[1]):
        own_C = bowl.place[:, setting] >= 0
        factor_CF, place_C = sizes.factors(names)[own_C], bowl.place[own_C, setting]
        left = len(place_C) - factor_CF.shape[1]
        if left < 1 or basin.noiseless:
            found.append(None)
            continue
        # What the factors leave of the minima: the last columns of a complete basis.
        basis_CC = np.linalg.qr(factor_CF, mode="complete")[0][:, factor_CF.shape[1] :]
        gain_CR = basin.curvature.gain_PR[place_C]
        found.append(p_value(basin.curvature.noise, basis_CC.T @ gain_CR, basis_CC.T @ basin.theta_P[place_C]))
    return found


def check_rules(rules: Mapping[str, Any], settings: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """Rules of others, NAME: [coefficient, params_exponent, tokens_exponent], as numbers; raises UserError."""
    found = {}
    for name, numbers in rules.items():
        if name not in settings:
            raise UserError(f"rules: {name} is none of the settings {', '.join(settings)}: name one of them")
        try:
            values = [float(number) for number in numbers]
        except (TypeError, ValueError):
            values = []
        if len(values) != 3 or not np.isfinite(values).all() or values[0] <= 0:
            raise UserError(
                f"rules: {name}={numbers} is no rule: give [coefficient, params_exponent, tokens_exponent], as in "
                f"rules={{{name}: [1.79,-0.713,0.307]}}"
            )
        found[name] = (values[0], values[1], values[2])
    return found
