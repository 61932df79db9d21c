"""The cheapest model of a given loss, training and serving counted together (Sardana et al. 2023).

Shapes: M sets of parameters.
"""

from dataclasses import dataclass

import numpy as np

from harness.laws.forms import Array

# Each halves a bracket whose width is a few units of log odds: to the last bit of float64.
HALVINGS = 60


@dataclass(frozen=True)
class Terms:
    """L = E + (A / N^alpha + B / D^beta)^gamma, (M, 1) each."""

    E_M1: Array
    logA_M1: Array
    alpha_M1: Array
    logB_M1: Array
    beta_M1: Array
    gamma_M1: Array

    def log_loss(self, params_MX: Array, tokens_MX: Array) -> Array:
        """log L at log N and log D."""
        sum_MX = np.logaddexp(self.logA_M1 - self.alpha_M1 * params_MX, self.logB_M1 - self.beta_M1 * tokens_MX)
        return np.log(self.E_M1 + np.exp(self.gamma_M1 * sum_MX))

    def iso_loss(self, loss: float, odds_M1: Array) -> tuple[Array, Array]:
        """log N and log D on the curve of one loss, where A / N^alpha : B / D^beta = exp(odds); inf below the floor."""
        with np.errstate(divide="ignore", invalid="ignore"):
            log_sum_M1 = np.where(loss > self.E_M1, np.log(loss - self.E_M1), -np.inf) / self.gamma_M1
        params_M1 = (self.logA_M1 - log_sum_M1 + np.logaddexp(0, -odds_M1)) / self.alpha_M1
        tokens_M1 = (self.logB_M1 - log_sum_M1 + np.logaddexp(0, odds_M1)) / self.beta_M1
        return params_M1, tokens_M1


def terms(natural: dict[str, Array]) -> Terms:
    """The terms of a law of params and tokens by its natural parameters, (M,) each."""
    if "Nc" in natural:  # Kaplan's joint law, whose exponent of D inside the power is 1
        ratio_M = natural["alpha"] / natural["beta"]
        one_M = np.ones_like(ratio_M)
        logs = (ratio_M * np.log(natural["Nc"]), ratio_M, np.log(natural["Dc"]), one_M, natural["beta"])
        return Terms(np.zeros((len(one_M), 1)), *(part[:, None] for part in logs))
    alpha_M = natural["alpha"]
    beta_M, gamma_M = natural.get("beta", alpha_M), natural.get("gamma", np.ones_like(alpha_M))
    parts = (natural["E"], np.log(natural["A"]), alpha_M, np.log(natural["B"]), beta_M, gamma_M)
    return Terms(*(part[:, None] for part in parts))


def cheapest(law: Terms, loss: float, served: float, kappa: float) -> dict[str, Array]:
    """Logs of params, tokens, their ratio, training FLOPs and all FLOPs of the model that costs least, (M, 1) each.

    It minimises kappa N D + kappa / 3 N served over N on the curve of equal loss: a forward pass costs a third of
    training on a token. At the minimum the odds of the two terms are beta / alpha (D + served / 3) / D, which is
    Chinchilla's optimum where nothing is served; D grows with the odds, so there is one such point.
    """
    with np.errstate(divide="ignore"):
        log_served = np.log(np.float64(served) / 3)
    low_M1 = np.log(law.beta_M1 / law.alpha_M1)

    def wanted(odds_M1: Array) -> Array:
        return np.log(law.beta_M1 / law.alpha_M1) + np.logaddexp(0, log_served - law.iso_loss(loss, odds_M1)[1])

    high_M1 = wanted(low_M1)
    for _ in range(HALVINGS):
        middle_M1 = (low_M1 + high_M1) / 2
        below_M1 = middle_M1 < wanted(middle_M1)
        low_M1, high_M1 = np.where(below_M1, middle_M1, low_M1), np.where(below_M1, high_M1, middle_M1)
    params_M1, tokens_M1 = law.iso_loss(loss, (low_M1 + high_M1) / 2)
    training_M1 = np.log(kappa) + params_M1 + tokens_M1
    total_M1 = np.logaddexp(training_M1, np.log(kappa) + params_M1 + log_served)
    with np.errstate(invalid="ignore"):
        ratio_M1 = tokens_M1 - params_M1
    return {
        "params": params_M1,
        "tokens": tokens_M1,
        "tokens_per_param": ratio_M1,
        "training_flops": training_M1,
        "total_flops": total_M1,
    }
