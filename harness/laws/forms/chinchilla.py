"""The laws that are fitted most, with their derivatives written out: Chinchilla's and the plain power law."""

from dataclasses import dataclass

import numpy as np

from harness.laws.forms.base import EXPONENT_GRID, LARGEST_EXPONENT, SMALLEST_EXPONENT, Array, Variables, log


class Chinchilla:
    """L = E + A/N^alpha + B/D^beta (Hoffmann et al. 2022, equation 2).

    Internal parameters: E / scale, log A / scale at the centre of log N, alpha, and the same for D.
    """

    name = "chinchilla"
    equation = "L = E + A / N^alpha + B / D^beta"
    uses: tuple[str, ...] = ("params", "tokens")
    internal: tuple[str, ...] = ("E", "A", "alpha", "B", "beta")
    bounded_below: tuple[str, ...] = ("E", "A", "B")
    exponents: tuple[str, ...] = ("alpha", "beta")

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
        J_MRP = np.empty((len(total_MR), 5, len(n_R))).transpose(0, 2, 1)
        J_MRP[..., 0] = 1 / total_MR
        J_MRP[..., 1] = params_MR / total_MR
        J_MRP[..., 2] = -J_MRP[..., 1] * n_R
        J_MRP[..., 3] = tokens_MR / total_MR
        J_MRP[..., 4] = -J_MRP[..., 3] * d_R
        return np.log(total_MR), J_MRP

    def second(self, gradient_MRP: Array, weight_MR: Array, at: Variables, theta_MP: Array) -> Array:
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
                log(estimates["A"] / at.scale) - alpha * at.centre_K[0],
                alpha,
                log(estimates["B"] / at.scale) - beta * at.centre_K[1],
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
    exponents: tuple[str, ...] = ("alpha",)

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

    def second(self, gradient_MRP: Array, weight_MR: Array, at: Variables, theta_MP: Array) -> Array:
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
        return np.array([alpha * (log(estimates[f"{self.symbol}c"]) - at.centre_K[0]) - np.log(at.scale), alpha])
