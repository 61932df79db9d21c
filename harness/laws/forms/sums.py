"""Laws of the kind L = E + (sum over k of A_k / x_k^p_k)^gamma, with their derivatives written once.

Shapes as in forms/base.py, and F full parameters: E, then A_k and p_k of each term, then gamma.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from harness.laws.forms.base import EXPONENT_GRID, LARGEST_EXPONENT, SMALLEST_EXPONENT, Array, Variables, log

# Start points: exponents, powers of the sum, and floors as parts of the least loss where the power is not 1.
FEW_EXPONENTS, POWERS, FLOORS = EXPONENT_GRID[1::2], (0.25, 0.5, 1.0, 1.6), (0.0, 0.5, 0.8)


@dataclass(frozen=True)
class PowerSum:
    """`full` says for each full parameter which internal one it is (one may serve twice), or its fixed value.

    Internally E is relative to the scale and A_k is the log of its term at the centre of x_k.
    """

    name: str
    equation: str
    uses: tuple[str, ...]
    full: tuple[str | float, ...]

    @cached_property
    def internal(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(entry for entry in self.full if isinstance(entry, str)))

    @property
    def coefficients(self) -> tuple[str, ...]:
        return tuple(str(entry) for entry in self.full[1:-1:2])

    @property
    def exponents(self) -> tuple[str, ...]:
        return tuple(name for name in self.internal if name not in self.bounded_below)

    @property
    def bounded_below(self) -> tuple[str, ...]:
        return (("E",) if self.full[0] == "E" else ()) + self.coefficients

    @cached_property
    def _map(self) -> Array:
        return np.array([[float(entry == name) for name in self.internal] for entry in self.full])

    @cached_property
    def _fixed(self) -> Array:
        return np.array([0.0 if isinstance(entry, str) else entry for entry in self.full])

    def _full(self, theta_MP: Array) -> Array:
        return theta_MP @ self._map.T + self._fixed

    def _terms(self, theta_MP: Array, at: Variables) -> tuple[Array, Array, Array, Array]:
        """E (M, 1), each term's share of the sum (M, K, R), log of the sum (M, R) and gamma (M, 1)."""
        full_MF = self._full(theta_MP)
        log_term_MKR = full_MF[:, 1:-1:2, None] - full_MF[:, 2:-1:2, None] * at.x_KR
        top_MR = log_term_MKR.max(1)
        share_MKR = np.exp(log_term_MKR - top_MR[:, None])
        total_MR = share_MKR.sum(1)
        return full_MF[:, :1], share_MKR / total_MR[:, None], top_MR + np.log(total_MR), full_MF[:, -1:]

    def log_prediction(self, theta_MP: Array, at: Variables) -> Array:
        E_M1, _, log_sum_MR, gamma_M1 = self._terms(theta_MP, at)
        return np.log(E_M1 + np.exp(gamma_M1 * log_sum_MR))

    def _inner(self, theta_MP: Array, at: Variables) -> tuple[Array, Array, Array, Array, Array]:
        """f, the reducible part's share of L, 1/L (M, R); the gradients of log(sum) and of gamma log(sum) (M, F, R)."""
        E_M1, share_MKR, log_sum_MR, gamma_M1 = self._terms(theta_MP, at)
        reducible_MR = np.exp(gamma_M1 * log_sum_MR)
        total_MR = E_M1 + reducible_MR
        log_sum_MFR = np.zeros((len(theta_MP), len(self.full), total_MR.shape[1]))
        log_sum_MFR[:, 1:-1:2] = share_MKR
        log_sum_MFR[:, 2:-1:2] = -share_MKR * at.x_KR
        power_MFR = gamma_M1[..., None] * log_sum_MFR
        power_MFR[:, -1] = log_sum_MR
        return np.log(total_MR), reducible_MR / total_MR, 1 / total_MR, log_sum_MFR, power_MFR

    def derivatives(self, theta_MP: Array, at: Variables) -> tuple[Array, Array]:
        f_MR, part_MR, floor_MR, _, power_MFR = self._inner(theta_MP, at)
        J_MFR = part_MR[:, None] * power_MFR
        J_MFR[:, 0] = floor_MR
        return f_MR, (self._map.T @ J_MFR).transpose(0, 2, 1)

    def second(self, gradient_MRP: Array, weight_MR: Array, at: Variables, theta_MP: Array) -> Array:
        _, part_MR, _, log_sum_MFR, power_MFR = self._inner(theta_MP, at)
        gamma_M1, weighted_MR = self._full(theta_MP)[:, -1:], weight_MR * part_MR
        # Of the power: its own square, gamma times the second derivatives of log(sum), and the mixed ones in gamma.
        H_MFF = (power_MFR * weighted_MR[:, None]) @ power_MFR.transpose(0, 2, 1)
        H_MFF -= (log_sum_MFR * (gamma_M1 * weighted_MR)[:, None]) @ log_sum_MFR.transpose(0, 2, 1)
        for k, x_R in enumerate(at.x_KR):
            first, slope = 1 + 2 * k, 2 + 2 * k
            own_MR = gamma_M1 * weighted_MR * log_sum_MFR[:, first]
            H_MFF[:, first, first] += own_MR.sum(1)
            H_MFF[:, first, slope] -= own_MR @ x_R
            H_MFF[:, slope, first] -= own_MR @ x_R
            H_MFF[:, slope, slope] += own_MR @ x_R**2
        mixed_MF = (log_sum_MFR @ weighted_MR[..., None])[..., 0]
        H_MFF[:, -1] += mixed_MF
        H_MFF[:, :, -1] += mixed_MF
        map_FP = self._map
        return map_FP.T @ H_MFF @ map_FP - (gradient_MRP * weight_MR[..., None]).transpose(0, 2, 1) @ gradient_MRP

    def starts(self, relative_R: Array, at: Variables) -> Array:
        """Given exponents, power and floor, (L - E)^(1 / gamma) is linear in the coefficients.

        The grid is of exponents times power, which is what shows in a table.
        """
        grid = FEW_EXPONENTS if len(self.uses) > 2 or isinstance(self.full[-1], str) else EXPONENT_GRID
        powers = POWERS if isinstance(self.full[-1], str) else (1.0,)
        free = [name for name in self.exponents if name != self.full[-1]]
        starts = []
        for values in product(grid, repeat=len(free)):
            for power in powers:
                known = dict(zip(free, values, strict=True)) | {str(self.full[-1]): power}
                floors = FLOORS if self.full[0] == "E" and power != 1 else (0.0,)
                starts += [self._start(known, power, floor, relative_R, at) for floor in floors]
        return np.array(starts)

    def _start(self, known: dict[str, float], power: float, floor: float, relative_R: Array, at: Variables) -> Array:
        known = {name: value if name == self.full[-1] else value / power for name, value in known.items()}
        exponents = [known[entry] if isinstance(entry, str) else entry for entry in self.full[2:-1:2]]
        target_R = (relative_R - floor * relative_R.min()) ** (1 / power)
        columns = [np.exp(-exponent * x_R) for exponent, x_R in zip(exponents, at.x_KR, strict=True)]
        if self.full[0] == "E" and power == 1:
            columns.append(np.ones_like(relative_R))
        X_RC = np.stack(columns, axis=1) / target_R[:, None]
        gram_CC = X_RC.T @ X_RC
        linear_C = np.linalg.solve(gram_CC + 1e-10 * np.trace(gram_CC) * np.eye(len(columns)), X_RC.sum(0))
        linear_C = np.clip(linear_C, 1e-4, 50.0)
        values = known | dict(zip(self.coefficients, np.log(linear_C).tolist(), strict=False))
        values["E"] = float(linear_C[-1]) if power == 1 else floor * float(relative_R.min())
        return np.array([values[name] for name in self.internal])

    def bounds(self) -> tuple[Array, Array]:
        low = {"E": 0.0} | dict.fromkeys(self.coefficients, -60.0)
        high = {"E": 1e3} | dict.fromkeys(self.coefficients, 30.0)
        return (
            np.array([low.get(name, SMALLEST_EXPONENT) for name in self.internal]),
            np.array([high.get(name, LARGEST_EXPONENT) for name in self.internal]),
        )

    def natural(self, theta_MP: Array, at: Variables) -> dict[str, Array]:
        full_MF = self._full(theta_MP)
        values: dict[str, Array] = {"E": full_MF[:, 0] * at.scale} if self.full[0] == "E" else {}
        for k, name in enumerate(self.coefficients):
            log_M = full_MF[:, 1 + 2 * k] + full_MF[:, 2 + 2 * k] * at.centre_K[k]
            values[name] = np.exp(np.clip(log_M + np.log(at.scale) / full_MF[:, -1], -700.0, 700.0))
        values |= {name: theta_MP[:, self.internal.index(name)] for name in self.exponents}
        if self.uses == ("params", "tokens"):
            values["a"] = full_MF[:, 4] / (full_MF[:, 2] + full_MF[:, 4])
        return values

    def from_natural(self, estimates: dict[str, float], at: Variables) -> Array:
        value_F = [estimates[entry] if isinstance(entry, str) else entry for entry in self.full]
        values = dict(estimates) | {"E": value_F[0] / at.scale}
        for k, name in enumerate(self.coefficients):
            values[name] = log(estimates[name]) - value_F[2 + 2 * k] * at.centre_K[k] - np.log(at.scale) / value_F[-1]
        return np.array([values[name] for name in self.internal])


class Joint(PowerSum):
    """Kaplan's joint law (Kaplan et al. 2020, equation 1.5), whose term in tokens has exponent 1 inside the power."""

    def natural(self, theta_MP: Array, at: Variables) -> dict[str, Array]:
        inner = super().natural(theta_MP, at)
        params_M = np.exp(np.clip(np.log(inner["A"]) / inner["ratio"], -700.0, 700.0))
        alpha_M = inner["ratio"] * inner["beta"]
        return {"Nc": params_M, "Dc": inner["B"], "alpha": alpha_M, "beta": inner["beta"], "a": inner["a"]}

    def from_natural(self, estimates: dict[str, float], at: Variables) -> Array:
        ratio = estimates["alpha"] / estimates["beta"]
        inner = {"A": estimates["Nc"] ** ratio, "ratio": ratio, "B": estimates["Dc"], "beta": estimates["beta"]}
        return super().from_natural(inner, at)
