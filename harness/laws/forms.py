"""The laws as functions of centred log variables, batched over many parameter vectors at once.

Shapes: M parameter vectors, R rows, P parameters, K variables. A new form is one class here.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SMALLEST_EXPONENT, LARGEST_EXPONENT = 1e-3, 4.0
# Profiled over this grid, the remaining parameters are linear (variable projection).
EXPONENT_GRID = np.array([0.07, 0.16, 0.29, 0.43, 0.62, 0.9, 1.4])


@dataclass(frozen=True)
class Variables:
    """Centred logs of the variables, x_KR, with their centres and the geometric mean of the loss."""

    x_KR: Array
    centre_K: Array
    scale: float

    def at(self, *values: Array) -> "Variables":
        """The same centring, other rows; `values` are the K variables in natural units."""
        x_KR = np.log(np.stack([np.asarray(value, float) for value in values])) - self.centre_K[:, None]
        return Variables(x_KR, self.centre_K, self.scale)

    def rows(self, keep_R: NDArray[np.bool_]) -> "Variables":
        return Variables(self.x_KR[:, keep_R], self.centre_K, self.scale)


def centred(loss_R: Array, *values: Array) -> Variables:
    """Variables centred on the rows of a table; all values in natural units and above 0."""
    logs_KR = np.log(np.stack(values))
    centre_K = logs_KR.mean(axis=1)
    return Variables(logs_KR - centre_K[:, None], centre_K, float(np.exp(np.log(loss_R).mean())))


class Form(Protocol):
    """A law: its log prediction relative to the scale, the derivatives, starts, bounds and natural units."""

    @property
    def name(self) -> str: ...

    @property
    def equation(self) -> str: ...

    @property
    def uses(self) -> tuple[str, ...]:
        """Of params, tokens, flops: the variables, in the order of x_KR."""

    @property
    def internal(self) -> tuple[str, ...]:
        """Names of the P internal parameters, for the certificate."""

    @property
    def bounded_below(self) -> tuple[str, ...]:
        """Internal parameters whose lower bound means that a term vanished."""

    def derivatives(self, theta_MP: Array, at: Variables) -> tuple[Array, Array]:
        """Log prediction f_MR and its gradient J_MRP."""

    def log_prediction(self, theta_MP: Array, at: Variables) -> Array:
        """f_MR alone."""

    def second(self, gradient_MRP: Array, weight_MR: Array, at: Variables) -> Array:
        """Sum over rows of weight times the second derivatives of f, (M, P, P)."""

    def starts(self, relative_R: Array, at: Variables) -> Array:
        """Start points, (M, P), from the losses relative to the scale."""

    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper bound of each internal parameter, (P,) each."""

    def natural(self, theta_MP: Array, at: Variables) -> dict[str, Array]:
        """The parameters that a paper would quote, (M,) each."""

    def from_natural(self, estimates: dict[str, float], at: Variables) -> Array:
        """The internal parameters (P,) of quoted ones."""


class Chinchilla:
    """L = E + A/N^alpha + B/D^beta (Hoffmann et al. 2022, equation 2).

    Internal parameters: E / scale, log A / scale at the centre of log N, alpha, and the same for D.
    """

    name = "chinchilla"
    equation = "L = E + A / N^alpha + B / D^beta"
    uses: tuple[str, ...] = ("params", "tokens")
    internal: tuple[str, ...] = ("E", "A", "alpha", "B", "beta")
    bounded_below: tuple[str, ...] = ("E", "A", "B")

    def _terms(self, theta_MP: Array, at: Variables) -> tuple[Array, Array, Array]:
        n_R, d_R = at.x_KR
        E_M, logA_M, alpha_M, logB_M, beta_M = theta_MP.T[:, :, None]
        return E_M, np.exp(logA_M - alpha_M * n_R), np.exp(logB_M - beta_M * d_R)

    def log_prediction(self, theta_MP: Array, at: Variables) -> Array:
        E_M, params_MR, tokens_MR = self._terms(theta_MP, at)
        return np.log(E_M + params_MR + tokens_MR)

    def derivatives(self, theta_MP: Array, at: Variables) -> tuple[Array, Array]:
        n_R, d_R = at.x_KR
        E_M, params_MR, tokens_MR = self._terms(theta_MP, at)
        total_MR = E_M + params_MR + tokens_MR
        J_MRP = np.empty((*total_MR.shape, 5))
        J_MRP[..., 0] = 1 / total_MR
        J_MRP[..., 1] = params_MR / total_MR
        J_MRP[..., 2] = -J_MRP[..., 1] * n_R
        J_MRP[..., 3] = tokens_MR / total_MR
        J_MRP[..., 4] = -J_MRP[..., 3] * d_R
        return np.log(total_MR), J_MRP

    def second(self, gradient_MRP: Array, weight_MR: Array, at: Variables) -> Array:
        weighted_MPR = (gradient_MRP * weight_MR[..., None]).transpose(0, 2, 1)
        H_MPP = -(weighted_MPR @ gradient_MRP)
        for first, x_R in ((1, at.x_KR[0]), (3, at.x_KR[1])):
            share_MR = weighted_MPR[:, first]
            slope_M = -(share_MR @ x_R)
            H_MPP[:, first, first] += share_MR.sum(1)
            H_MPP[:, first, first + 1] += slope_M
            H_MPP[:, first + 1, first] += slope_M
            H_MPP[:, first + 1, first + 1] += share_MR @ x_R**2
        return H_MPP

    def starts(self, relative_R: Array, at: Variables) -> Array:
        n_R, d_R = at.x_KR
        alpha_M, beta_M = (grid.ravel() for grid in np.meshgrid(EXPONENT_GRID, EXPONENT_GRID))
        X_MRC = np.stack(
            [
                np.ones((len(alpha_M), len(n_R))),
                np.exp(-alpha_M[:, None] * n_R),
                np.exp(-beta_M[:, None] * d_R),
            ],
            axis=2,
        )
        X_MRC /= relative_R[:, None]
        gram_MCC = X_MRC.transpose(0, 2, 1) @ X_MRC
        ridge_MCC = 1e-10 * np.trace(gram_MCC, axis1=1, axis2=2)[:, None, None] * np.eye(3)
        linear_MC = np.linalg.solve(gram_MCC + ridge_MCC, X_MRC.sum(1)[..., None])[..., 0]
        E_M, A_M, B_M = np.clip(linear_MC, [0.0, 1e-4, 1e-4], 50.0).T
        return np.stack([E_M, np.log(A_M), alpha_M, np.log(B_M), beta_M], axis=1)

    def bounds(self) -> tuple[Array, Array]:
        low_P = np.array([0.0, -60.0, SMALLEST_EXPONENT, -60.0, SMALLEST_EXPONENT])
        high_P = np.array([1e3, 7.0, LARGEST_EXPONENT, 7.0, LARGEST_EXPONENT])
        return low_P, high_P

    def natural(self, theta_MP: Array, at: Variables) -> dict[str, Array]:
        E_M, logA_M, alpha_M, logB_M, beta_M = theta_MP.T
        return {
            "E": E_M * at.scale,
            "A": at.scale * np.exp(logA_M + alpha_M * at.centre_K[0]),
            "B": at.scale * np.exp(logB_M + beta_M * at.centre_K[1]),
            "alpha": alpha_M,
            "beta": beta_M,
            "a": beta_M / (alpha_M + beta_M),
        }

    def from_natural(self, estimates: dict[str, float], at: Variables) -> Array:
        alpha, beta = estimates["alpha"], estimates["beta"]
        return np.array(
            [
                estimates["E"] / at.scale,
                np.log(estimates["A"] / at.scale) - alpha * at.centre_K[0],
                alpha,
                np.log(estimates["B"] / at.scale) - beta * at.centre_K[1],
                beta,
            ]
        )


@dataclass(frozen=True)
class PowerLaw:
    """L = (Xc / X)^alpha in one variable (Kaplan et al. 2020, equations 1.1 to 1.3); linear in log-log.

    Internal parameters: log L / scale at the centre of log X, and alpha.
    """

    name: str
    variable: str
    symbol: str
    internal: tuple[str, ...] = ("intercept", "alpha")
    bounded_below: tuple[str, ...] = ()

    @property
    def equation(self) -> str:
        return f"L = ({self.symbol}c / {self.symbol})^alpha"

    @property
    def uses(self) -> tuple[str, ...]:
        return (self.variable,)

    def log_prediction(self, theta_MP: Array, at: Variables) -> Array:
        return theta_MP[:, :1] - theta_MP[:, 1:] * at.x_KR[0]

    def derivatives(self, theta_MP: Array, at: Variables) -> tuple[Array, Array]:
        f_MR = self.log_prediction(theta_MP, at)
        J_RP = np.stack([np.ones_like(at.x_KR[0]), -at.x_KR[0]], axis=1)
        return f_MR, np.broadcast_to(J_RP, (*f_MR.shape, 2))

    def second(self, gradient_MRP: Array, weight_MR: Array, at: Variables) -> Array:
        return np.zeros((len(weight_MR), 2, 2))

    def starts(self, relative_R: Array, at: Variables) -> Array:
        return np.array([[0.0, 0.3 * exponent] for exponent in EXPONENT_GRID])

    def bounds(self) -> tuple[Array, Array]:
        return np.array([-60.0, SMALLEST_EXPONENT]), np.array([60.0, LARGEST_EXPONENT])

    def natural(self, theta_MP: Array, at: Variables) -> dict[str, Array]:
        intercept_M, alpha_M = theta_MP.T
        log_constant_M = (intercept_M + np.log(at.scale)) / alpha_M + at.centre_K[0]
        return {f"{self.symbol}c": np.exp(np.clip(log_constant_M, -700.0, 700.0)), "alpha": alpha_M}

    def from_natural(self, estimates: dict[str, float], at: Variables) -> Array:
        alpha = estimates["alpha"]
        intercept = alpha * (np.log(estimates[f"{self.symbol}c"]) - at.centre_K[0]) - np.log(at.scale)
        return np.array([intercept, alpha])


FORMS: dict[str, Form] = {
    "chinchilla": Chinchilla(),
    "kaplan_params": PowerLaw("kaplan_params", "params", "N"),
    "kaplan_tokens": PowerLaw("kaplan_tokens", "tokens", "D"),
    "kaplan_flops": PowerLaw("kaplan_flops", "flops", "C"),
}
