"""The compute-optimal N*(C), D*(C), L*(C) of a fit of Chinchilla's kind (Hoffmann et al. 2022, equation 4)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.laws.fit import Fit
from harness.laws.forms import Array
from harness.laws.methods.serving import Terms, cheapest, terms

# Laws whose loss is least where A / N^alpha + B / D^beta is: a power of that sum moves no optimum.
LAWS = ("chinchilla", "chinchilla_tied", "chinchilla_coupled", "kaplan_joint")
POINTS = 41
# How far the frontier is shown beyond the sampled range of compute.
BELOW, BEYOND = 2.0, 4.0


@dataclass
class FrontierConfig:
    """Points that are reported beside the frontier's curve."""

    # training compute whose optimal params, tokens and loss are wanted: [1e15,1e18]
    flops: Any = field(default_factory=list)
    loss: float | None = None  # a loss, for the model that reaches it with the fewest FLOPs for training and serving
    served_tokens: float = 0.0  # tokens that it will serve

    @property
    def budgets(self) -> list[float]:
        return [float(value) for value in (self.flops if isinstance(self.flops, list) else [self.flops])]

    def check(self, law: str) -> None:
        try:
            wrong = [value for value in self.budgets if not 0 < value < math.inf]
        except (TypeError, ValueError):
            wrong = [self.flops]
        if wrong:
            raise UserError(f"frontier.flops={wrong[0]} is no compute: give FLOPs above 0, as in [1e15,1e18]")
        if not 0 <= self.served_tokens < math.inf:
            raise UserError(f"frontier.served_tokens={self.served_tokens} is no number of tokens: give 0 or more")
        if self.loss is None and self.served_tokens:
            raise UserError("frontier.served_tokens needs frontier.loss, the loss that the served model must reach")
        if self.loss is not None and not 0 < self.loss < math.inf:
            raise UserError(f"frontier.loss={self.loss} is no loss: give nats per token above 0")
        if (self.budgets or self.loss is not None) and law not in LAWS:
            raise UserError(f"law={law} has no compute optimum, so no frontier.*: choose {', '.join(LAWS)}")


def optimum(natural: dict[str, Array], product_X: Array) -> dict[str, Array]:
    """log N*, log D* and log L* at N D = product_X, each (M, X), for M sets of natural parameters.

    N* = G (C / kappa)^a and D* = (C / kappa)^(1 - a) / G with G = (alpha A / (beta B))^(1 / (alpha + beta)).
    """
    law: Terms = terms(natural)
    log_G_M = (np.log(law.alpha_M1) + law.logA_M1 - np.log(law.beta_M1) - law.logB_M1) / (law.alpha_M1 + law.beta_M1)
    log_product_X = np.log(product_X)
    params_MX = log_G_M + law.beta_M1 / (law.alpha_M1 + law.beta_M1) * log_product_X
    tokens_MX = log_product_X - params_MX
    loss_MX = law.log_loss(params_MX, tokens_MX)
    return {"params": params_MX, "tokens": tokens_MX, "loss": loss_MX, "tokens_per_param": tokens_MX - params_MX}


def _log_optimum(fit: Fit, product_X: Array, name: str, theta_MP: Array) -> Array:
    return optimum(fit.at(theta_MP), product_X)[name]


def frontier(fit: Fit, config: FrontierConfig | None = None) -> dict[str, Any] | None:
    """The frontier over the sampled compute and modestly beyond, with 95 % intervals; None for other laws.

    C = kappa N D with the rows' own kappa, so that params and tokens are in the units of the table. What `config`
    names stands under `at` and `serving`. Raises UserError where the fit's floor is above the loss it names.
    """
    if fit.law not in LAWS:
        return None
    kappa = fit.rows.flops_per_product
    low, high = float(fit.rows.flops.min()), float(fit.rows.flops.max())
    flops_X = np.geomspace(low / BELOW, high * BEYOND, POINTS)
    section: dict[str, Any] = {"flops": flops_X.tolist()}
    best = optimum(fit.at(fit.theta_P[None]), flops_X / kappa)
    # Exponents near 0, as of a hopeless table, put the optimum beyond float64.
    with np.errstate(over="ignore"):
        for name in ("params", "tokens", "loss"):
            ends = fit.interval(partial(_log_optimum, fit, flops_X / kappa, name))
            section[name] = {
                key: np.exp(value_X).tolist()
                for key, value_X in zip(("value", "low", "high"), (best[name][0], *ends), strict=True)
            }
        a = fit.estimates["a"]
        log_G = float(best["params"][0, 0] - a * np.log(flops_X[0] / kappa))
        section["equations"] = {
            "params": [float(np.exp(log_G - a * np.log(kappa))), a],
            "tokens": [float(np.exp(-log_G - (1 - a) * np.log(kappa))), 1 - a],
        }
    section["sampled_flops"] = [low, high]
    section["flops_per_product"] = kappa
    config = config or FrontierConfig()
    section["at"] = [_at(fit, flops, high) for flops in config.budgets]
    section["serving"] = None if config.loss is None else _serving(fit, config, high)
    return section


def _at(fit: Fit, flops: float, sampled: float) -> dict[str, Any]:
    """One point of the frontier; `beyond` is its compute over the largest one sampled."""
    product_X = np.array([flops / fit.rows.flops_per_product])
    names = ("params", "tokens", "loss", "tokens_per_param")
    return {"flops": flops, "beyond": flops / sampled} | {
        name: _estimate(fit, partial(_log_optimum, fit, product_X, name)) for name in names
    }


def _serving(fit: Fit, config: FrontierConfig, sampled: float) -> dict[str, Any]:
    """The model that reaches a loss with the fewest FLOPs for training and serving together.

    `beyond` is its training compute over the largest one sampled, `optimal_total_flops` what the compute-optimal
    model of that loss costs in all.
    """
    assert config.loss is not None
    loss, served = config.loss, config.served_tokens
    floor = fit.estimates.get("E", 0.0)
    if loss <= floor:
        raise UserError(f"frontier.loss={loss:g} is not above the fit's floor E = {floor:.4g}: give a higher loss")
    kappa = fit.rows.flops_per_product

    def logs(name: str, theta_MP: Array) -> Array:
        return cheapest(terms(fit.at(theta_MP)), loss, served, kappa)[name]

    section: dict[str, Any] = {"loss": loss, "served_tokens": served}
    for name in ("params", "tokens", "tokens_per_param", "training_flops", "total_flops"):
        section[name] = _estimate(fit, partial(logs, name))
    section["beyond"] = section["training_flops"]["value"] / sampled
    training = cheapest(terms(fit.at(fit.theta_P[None])), loss, 0.0, kappa)
    serving = kappa / 3 * served * np.exp(training["params"])
    section["optimal_total_flops"] = float((np.exp(training["training_flops"]) + serving)[0, 0])
    return section


def _estimate(fit: Fit, log: Callable[[Array], Array]) -> dict[str, float]:
    """Value and 95 % interval of a quantity whose log is a function (M, P) -> (M, 1) of the parameters."""
    # A simulated fit whose floor lies above the loss never reaches it: inf params, and no finite interval.
    with np.errstate(over="ignore", invalid="ignore"):
        parts = (log(fit.theta_P[None])[0], *fit.interval(log))
        return {name: float(np.exp(part[0])) for name, part in zip(("value", "low", "high"), parts, strict=True)}
