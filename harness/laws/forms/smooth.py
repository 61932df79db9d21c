"""Laws given by their prediction alone: the complex step gives the exact gradient, differences of it the curvature.

Slower than derivatives written out, and as precise; for laws that are fitted now and then.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from harness.laws.forms.base import EXPONENT_GRID, LARGEST_EXPONENT, SMALLEST_EXPONENT, Array, Variables, log

COMPLEX_STEP, STEP = 1e-30, 1e-6


class Smooth:
    """`_log` is analytic in theta, which may be complex."""

    internal: tuple[str, ...]

    def _log(self, theta_MP: Array, at: Variables) -> Array:
        raise NotImplementedError

    def bounds(self) -> tuple[Array, Array]:
        raise NotImplementedError

    def log_prediction(self, theta_MP: Array, at: Variables) -> Array:
        return self._log(theta_MP, at)

    def derivatives(self, theta_MP: Array, at: Variables) -> tuple[Array, Array]:
        steps_PP = 1j * COMPLEX_STEP * np.eye(theta_MP.shape[1])
        J_PMR = [self._log(theta_MP + step_P, at).imag / COMPLEX_STEP for step_P in steps_PP]
        return self._log(theta_MP, at), np.stack(J_PMR, axis=1).transpose(0, 2, 1)

    def second(self, gradient_MRP: Array, weight_MR: Array, at: Variables, theta_MP: Array) -> Array:
        columns = []
        low_P, high_P = self.bounds()
        for index, step_P in enumerate(STEP * np.eye(theta_MP.shape[1])):
            # Not over a bound: a floor below 0 has no logarithm.
            up_MP, down_MP = np.minimum(theta_MP + step_P, high_P), np.maximum(theta_MP - step_P, low_P)
            change_MRP = self.derivatives(up_MP, at)[1] - self.derivatives(down_MP, at)[1]
            columns.append((weight_MR[:, None] @ change_MRP)[:, 0] / (up_MP - down_MP)[:, index : index + 1])
        H_MPP = np.stack(columns, axis=1)
        return (H_MPP + H_MPP.transpose(0, 2, 1)) / 2


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
