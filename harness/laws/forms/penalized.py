"""Chinchilla's law with a penalty for repeated data (after Lovelace et al. 2026, arXiv 2605.01640)."""

import numpy as np

from harness.laws.forms.base import Array, Variables
from harness.laws.forms.chinchilla import Chinchilla

PENALTY = "P"
# Of the geometric mean of the loss: the largest penalty of any row at a start.
FIRST_PENALTY = 0.1


class Penalized(Chinchilla):
    """L = E + A/N^alpha + B/D^beta + P (D/U - 1) N/U, unique_tokens U at most D; P is in nats.

    Lovelace et al. add a penalty that is a power law in the repeats and in N/U, and have a form with the coefficient
    alone. Only the paper's abstract and summaries were read, which do not give that form's exponents: both are 1 here.

    Internal parameters: Chinchilla's, and P N/U / scale at the centres of log N and log U. The law is linear in P, so
    Chinchilla's second derivatives are all there are.
    """

    name = "chinchilla_penalized"
    equation = "L = E + A / N^alpha + B / D^beta + P (D/U - 1) N/U"
    uses: tuple[str, ...] = ("params", "tokens", "unique_tokens")
    internal: tuple[str, ...] = (*Chinchilla.internal, PENALTY)
    bounded_below: tuple[str, ...] = (*Chinchilla.bounded_below, PENALTY)

    def log_prediction(self, theta_MP: Array, at: Variables) -> Array:
        return self._sum(theta_MP, at)[0]

    def derivatives(self, theta_MP: Array, at: Variables) -> tuple[Array, Array]:
        f_MR, fresh_MR = self._sum(theta_MP, at)
        _, J_MRF = super().derivatives(theta_MP[:, :-1], _fresh(at))
        share_MR = np.exp(fresh_MR - f_MR)
        J_MPR = np.empty((len(f_MR), len(self.internal), f_MR.shape[1]))
        J_MPR[:, :-1] = J_MRF.transpose(0, 2, 1) * share_MR[:, None]
        J_MPR[:, -1] = _repeats(at) * np.exp(-f_MR)
        return f_MR, J_MPR.transpose(0, 2, 1)

    def _sum(self, theta_MP: Array, at: Variables) -> tuple[Array, Array]:
        """Log prediction with the penalty and without it, (M, R) each."""
        fresh_MR = super().log_prediction(theta_MP[:, :-1], _fresh(at))
        return np.log(np.exp(fresh_MR) + theta_MP[:, -1:] * _repeats(at)), fresh_MR

    def starts(self, relative_R: Array, at: Variables) -> Array:
        starts_MP = super().starts(relative_R, _fresh(at))
        first = FIRST_PENALTY / max(float(_repeats(at).max()), FIRST_PENALTY)
        return np.append(starts_MP, np.full((len(starts_MP), 1), first), axis=1)

    def bounds(self) -> tuple[Array, Array]:
        low_P, high_P = super().bounds()
        return np.append(low_P, 0.0), np.append(high_P, 1e3)

    def natural(self, theta_MP: Array, at: Variables) -> dict[str, Array]:
        of_one = at.scale * np.exp(at.centre_K[2] - at.centre_K[0])
        return super().natural(theta_MP[:, :-1], _fresh(at)) | {PENALTY: theta_MP[:, -1] * of_one}

    def from_natural(self, estimates: dict[str, float], at: Variables) -> Array:
        of_one = at.scale * np.exp(at.centre_K[2] - at.centre_K[0])
        return np.append(super().from_natural(estimates, _fresh(at)), estimates[PENALTY] / of_one)


def _fresh(at: Variables) -> Variables:
    return Variables(at.x_KR[:2], at.centre_K[:2], at.scale)


def _repeats(at: Variables) -> Array:
    """(D/U - 1) N/U with N and U relative to their centres, (R,); 0 where U is not below D."""
    n_R, d_R, u_R = at.x_KR
    excess_R = np.maximum(d_R + at.centre_K[1] - u_R - at.centre_K[2], 0.0)
    return np.asarray(np.expm1(excess_R) * np.exp(n_R - u_R))
