"""Laws given by their prediction alone: the complex step gives the exact gradient, differences of it the curvature.

Slower than derivatives written out, and as precise; for laws that are fitted now and then.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from harness.laws.forms.base import EXPONENT_GRID, LARGEST_EXPONENT, SMALLEST_EXPONENT, Array, Variables, log
from harness.laws.forms.chinchilla import Chinchilla

COMPLEX_STEP, STEP = 1e-30, 1e-6


class Smooth:
    """`_log` is analytic in theta, which may be complex."""

    internal: tuple[str, ...]

    def _log(self, theta_MP: Array, at: Variables) -> Array:
        raise NotImplementedError

    def log_prediction(self, theta_MP: Array, at: Variables) -> Array:
        return self._log(theta_MP, at)

    def derivatives(self, theta_MP: Array, at: Variables) -> tuple[Array, Array]:
        steps_PP = 1j * COMPLEX_STEP * np.eye(theta_MP.shape[1])
        J_PMR = [self._log(theta_MP + step_P, at).imag / COMPLEX_STEP for step_P in steps_PP]
        return self._log(theta_MP, at), np.stack(J_PMR, axis=2)

    def second(self, gradient_MRP: Array, weight_MR: Array, at: Variables, theta_MP: Array) -> Array:
        columns = []
        for step_P in STEP * np.eye(theta_MP.shape[1]):
            up_MRP, down_MRP = (self.derivatives(theta_MP + sign * step_P, at)[1] for sign in (1, -1))
            columns.append((weight_MR[:, None] @ (up_MRP - down_MRP))[:, 0] / (2 * STEP))
        H_MPP = np.stack(columns, axis=1)
        return (H_MPP + H_MPP.transpose(0, 2, 1)) / 2


class Repeated(Smooth):
    """Chinchilla's law of the tokens that repeated data is worth (Muennighoff et al. 2023, equation 5, tokens only).

    D' = U + U R (1 - exp(-(D/U - 1) / R)) with U unique tokens, at most D; R is the number of epochs over which
    repeating pays. Internal parameters: Chinchilla's, and log R.
    """

    name = "chinchilla_repeated"
    equation = "L = E + A / N^alpha + B / D'^beta, D' = U + U R (1 - exp(-(D/U - 1) / R))"
    uses: tuple[str, ...] = ("params", "tokens", "unique_tokens")
    internal: tuple[str, ...] = (*Chinchilla.internal, "R")
    bounded_below: tuple[str, ...] = Chinchilla.bounded_below
    exponents: tuple[str, ...] = ("alpha", "beta")

    def _log(self, theta_MP: Array, at: Variables) -> Array:
        E_M, logA_M, alpha_M, logB_M, beta_M, logR_M = theta_MP.T[:, :, None]
        n_R, tokens_R, unique_R = at.x_KR
        # log of tokens per unique token, not below 0: more unique tokens than tokens are as many.
        repeats_R = np.maximum(tokens_R - unique_R + at.centre_K[1] - at.centre_K[2], 0.0)
        R_M = np.exp(logR_M)
        worth = 1 + R_M * (1 - np.exp(-(np.exp(repeats_R) - 1) / R_M))
        d = tokens_R - repeats_R + np.log(worth)
        return np.log(E_M + np.exp(logA_M - alpha_M * n_R) + np.exp(logB_M - beta_M * d))

    def starts(self, relative_R: Array, at: Variables) -> Array:
        fresh = Variables(at.x_KR[:2], at.centre_K[:2], at.scale)
        starts_MP = Chinchilla().starts(relative_R, fresh)[::4]
        return np.array([[*start_P, log_R] for start_P in starts_MP for log_R in np.log([2.0, 15.0])])

    def bounds(self) -> tuple[Array, Array]:
        low_P, high_P = Chinchilla().bounds()
        return np.r_[low_P, np.log(1e-2)], np.r_[high_P, np.log(1e4)]

    def natural(self, theta_MP: Array, at: Variables) -> dict[str, Array]:
        fresh = Variables(at.x_KR[:2], at.centre_K[:2], at.scale)
        return Chinchilla().natural(theta_MP[:, :5], fresh) | {"R": np.exp(theta_MP[:, 5])}

    def from_natural(self, estimates: dict[str, float], at: Variables) -> Array:
        fresh = Variables(at.x_KR[:2], at.centre_K[:2], at.scale)
        return np.append(Chinchilla().from_natural(estimates, fresh), log(estimates["R"]))


@dataclass(frozen=True)
class BrokenPowerLaw(Smooth):
    """A power law with one smooth break and a floor (Caballero et al. 2023, equation 1 with n = 1).

    L = E + A X^-alpha (1 + (X / X1)^(1 / f))^(-(beta - alpha) f): exponent alpha before the break at X1, beta after it.
    Internal parameters: E / scale, log A / scale at the centre, both exponents, log X1 from the centre, log f.
    """

    name: str
    variable: str
    symbol: str
    internal: tuple[str, ...] = ("E", "A", "alpha", "beta", "break", "width")
    bounded_below: tuple[str, ...] = ("E", "A")
    exponents: tuple[str, ...] = ("alpha", "beta")

    @property
    def equation(self) -> str:
        x = self.symbol
        return f"L = E + A {x}^-alpha (1 + ({x} / {x}1)^(1/f))^((alpha - beta) f)"

    @property
    def uses(self) -> tuple[str, ...]:
        return (self.variable,)

    def _log(self, theta_MP: Array, at: Variables) -> Array:
        E_M, logA_M, alpha_M, beta_M, break_M, logf_M = theta_MP.T[:, :, None]
        x_R, f_M = at.x_KR[0], np.exp(logf_M)
        z = (x_R - break_M) / f_M
        # log(1 + e^z) without overflow, analytic on either side of z = 0.
        bend = np.where(z.real > 0, z, 0) + np.log1p(np.exp(-np.where(z.real > 0, z, -z)))
        return np.log(E_M + np.exp(logA_M - alpha_M * x_R + (alpha_M - beta_M) * f_M * bend))

    def starts(self, relative_R: Array, at: Variables) -> Array:
        x_R = at.x_KR[0]
        places = np.quantile(x_R, [0.25, 0.5, 0.75])
        floor = 0.5 * float(relative_R.min())
        height = float(np.log(np.maximum(relative_R - floor, 1e-3)).mean())
        exponents = product(EXPONENT_GRID[::2], EXPONENT_GRID[::2], places)
        return np.array([[floor, height, alpha, beta, place, -1.0] for alpha, beta, place in exponents])

    def bounds(self) -> tuple[Array, Array]:
        low = [0.0, -60.0, SMALLEST_EXPONENT, SMALLEST_EXPONENT, -30.0, -3.0]
        return np.array(low), np.array([1e3, 30.0, LARGEST_EXPONENT, LARGEST_EXPONENT, 30.0, 2.0])

    def natural(self, theta_MP: Array, at: Variables) -> dict[str, Array]:
        E_M, logA_M, alpha_M, beta_M, break_M, logf_M = theta_MP.T
        return {
            "E": E_M * at.scale,
            "A": at.scale * np.exp(logA_M + alpha_M * at.centre_K[0]),
            "alpha": alpha_M,
            "beta": beta_M,
            f"{self.symbol}1": np.exp(break_M + at.centre_K[0]),
            "f": np.exp(logf_M),
        }

    def from_natural(self, estimates: dict[str, float], at: Variables) -> Array:
        alpha, centre = estimates["alpha"], at.centre_K[0]
        height = log(estimates["A"] / at.scale) - alpha * centre
        place = log(estimates[f"{self.symbol}1"]) - centre
        return np.array([estimates["E"] / at.scale, height, alpha, estimates["beta"], place, log(estimates["f"])])
