"""The compute-optimal N*(C), D*(C), L*(C) of a fit of Chinchilla's kind (Hoffmann et al. 2022, equation 4)."""

from functools import partial
from typing import Any

import numpy as np

from harness.laws.fit import Fit
from harness.laws.forms import Array

# Laws whose loss is least where A / N^alpha + B / D^beta is: a power of that sum moves no optimum.
LAWS = ("chinchilla", "chinchilla_tied", "chinchilla_coupled")
POINTS = 41
# How far the frontier is shown beyond the sampled range of compute.
BELOW, BEYOND = 2.0, 4.0


def optimum(natural: dict[str, Array], product_X: Array) -> dict[str, Array]:
    """log N*, log D* and log L* at N D = product_X, each (M, X), for M sets of natural parameters.

    N* = G (C / kappa)^a and D* = (C / kappa)^(1 - a) / G with G = (alpha A / (beta B))^(1 / (alpha + beta)).
    """
    natural = {"beta": natural["alpha"], "gamma": np.ones_like(natural["alpha"])} | natural
    E_M, alpha_M, beta_M, gamma_M, a_M = (natural[name][:, None] for name in ("E", "alpha", "beta", "gamma", "a"))
    logA_M, logB_M = np.log(natural["A"])[:, None], np.log(natural["B"])[:, None]
    log_G_M = (np.log(alpha_M) + logA_M - np.log(beta_M) - logB_M) / (alpha_M + beta_M)
    log_product_X = np.log(product_X)
    params_MX = log_G_M + a_M * log_product_X
    tokens_MX = log_product_X - params_MX
    sum_MX = np.logaddexp(logA_M - alpha_M * params_MX, logB_M - beta_M * tokens_MX)
    loss_MX = np.log(E_M + np.exp(gamma_M * sum_MX))
    return {"params": params_MX, "tokens": tokens_MX, "loss": loss_MX}


def _log_optimum(fit: Fit, product_X: Array, name: str, theta_MP: Array) -> Array:
    return optimum(fit.at(theta_MP), product_X)[name]


def frontier(fit: Fit) -> dict[str, Any] | None:
    """The frontier over the sampled compute and modestly beyond, with 95 % intervals; None for other laws.

    C = kappa N D with the rows' own kappa, so that params and tokens are in the units of the table.
    """
    if fit.law not in LAWS:
        return None
    kappa = fit.rows.flops_per_product
    low, high = float(fit.rows.flops.min()), float(fit.rows.flops.max())
    flops_X = np.geomspace(low / BELOW, high * BEYOND, POINTS)
    report: dict[str, Any] = {"flops": flops_X.tolist()}
    best = optimum(fit.at(fit.theta_P[None]), flops_X / kappa)
    for name in ("params", "tokens", "loss"):
        ends = fit.interval(partial(_log_optimum, fit, flops_X / kappa, name))
        report[name] = {
            key: np.exp(value_X).tolist()
            for key, value_X in zip(("value", "low", "high"), (best[name][0], *ends), strict=True)
        }
    a = fit.estimates["a"]
    log_G = float(best["params"][0, 0] - a * np.log(flops_X[0] / kappa))
    report["sampled_flops"] = [low, high]
    report["flops_per_product"] = kappa
    report["equations"] = {
        "params": [float(np.exp(log_G - a * np.log(kappa))), a],
        "tokens": [float(np.exp(-log_G - (1 - a) * np.log(kappa))), 1 - a],
    }
    return report
