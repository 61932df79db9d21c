"""Laws of repeated data (Muennighoff et al. 2023): more of the same tokens, or of too many params, is worth less.

What x is worth of which u is fresh: u + u R (1 - exp(-(x/u - 1) / R)); R is the number of repeats over which more of
it pays.
"""

import numpy as np

from harness.laws.forms.base import Array, Variables, log
from harness.laws.forms.chinchilla import Chinchilla
from harness.laws.forms.smooth import Smooth

REPEATS = ("R", "R_D", "R_N")
FEWEST, MOST = 1e-2, 1e4


def _worth(x: Array, fresh: Array, log_repeats: Array) -> Array:
    """log of what exp(x) is worth of which exp(fresh) is fresh; x at least fresh, up to rounding."""
    R = np.exp(log_repeats)
    excess = np.where((x - fresh).real > 0, x - fresh, 0.0)
    return fresh + np.log(1 + R * (1 - np.exp(-(np.exp(excess) - 1) / R)))


class Repeated(Smooth):
    """Chinchilla's law of what the tokens are worth (equation 5), unique_tokens U at most D.

    Internal parameters: Chinchilla's, and log R.
    """

    name = "chinchilla_repeated"
    equation = "L = E + A / N^alpha + B / D'^beta, D' = U + U R (1 - exp(-(D/U - 1) / R))"
    uses: tuple[str, ...] = ("params", "tokens", "unique_tokens")
    internal: tuple[str, ...] = (*Chinchilla.internal, "R")
    bounded_below: tuple[str, ...] = Chinchilla.bounded_below
    exponents: tuple[str, ...] = ("alpha", "beta")

    def _log(self, theta_MP: Array, at: Variables) -> Array:
        n_R, d_R, u_R = _logs(at)
        worth = _worth(d_R, np.minimum(u_R, d_R), theta_MP.T[5][:, None])
        return _chinchilla(theta_MP, n_R, worth, at)

    def starts(self, relative_R: Array, at: Variables) -> Array:
        starts_MP = Chinchilla().starts(relative_R, _fresh(at))[::4]
        return np.array([[*start_P, log_R] for start_P in starts_MP for log_R in np.log([2.0, 15.0])])

    def bounds(self) -> tuple[Array, Array]:
        low_P, high_P = Chinchilla().bounds()
        extra = len(self.internal) - len(low_P)
        return np.r_[low_P, np.log([FEWEST] * extra)], np.r_[high_P, np.log([MOST] * extra)]

    def natural(self, theta_MP: Array, at: Variables) -> dict[str, Array]:
        repeats = {name: np.exp(theta_MP[:, 5 + k]) for k, name in enumerate(self.internal[5:])}
        return Chinchilla().natural(theta_MP[:, :5], _fresh(at)) | repeats

    def from_natural(self, estimates: dict[str, float], at: Variables) -> Array:
        repeats = [log(estimates[name]) for name in self.internal[5:]]
        return np.append(Chinchilla().from_natural(estimates, _fresh(at)), repeats)


class DataConstrained(Repeated):
    """The whole law (equations 5 and 6): params beyond what the unique tokens would need count less too.

    N' is worth like D', of which U_N = min(N, N*(U)) is fresh: N*(U) are the params for which U tokens are optimal,
    where D* = U of the law without repeats (Hoffmann et al. 2022, equation 4). Internal parameters: Chinchilla's,
    log R_D and log R_N.
    """

    name = "data_constrained"
    equation = (
        "L = E + A / N'^alpha + B / D'^beta, D' = U + U R_D (1 - exp(-(D/U - 1) / R_D)), "
        "N' = U_N + U_N R_N (1 - exp(-(N/U_N - 1) / R_N)), U_N = min(N, N*(U))"
    )
    internal: tuple[str, ...] = (*Chinchilla.internal, "R_D", "R_N")

    def _log(self, theta_MP: Array, at: Variables) -> Array:
        n_R, d_R, u_R = _logs(at)
        u_R = np.minimum(u_R, d_R)
        _, logA_M, alpha_M, logB_M, beta_M, logD_M, logN_M = theta_MP.T[:, :, None]
        # alpha A / N^alpha = beta B / D^beta at the optimum.
        height_M = np.log(alpha_M) + logA_M + alpha_M * at.centre_K[0] - np.log(beta_M) - logB_M
        needed = (height_M + beta_M * (u_R - at.centre_K[1])) / alpha_M
        needed = np.where((needed - n_R).real < 0, needed, n_R)
        return _chinchilla(theta_MP, _worth(n_R, needed, logN_M), _worth(d_R, u_R, logD_M), at)

    def starts(self, relative_R: Array, at: Variables) -> Array:
        starts_MP = Chinchilla().starts(relative_R, _fresh(at))[::4]
        repeats = [(a, b) for a in np.log([3.0, 30.0]) for b in np.log([3.0, 30.0])]
        return np.array([[*start_P, *pair] for start_P in starts_MP for pair in repeats])


def _logs(at: Variables) -> Array:
    """Natural logs of the variables, (K, R)."""
    return at.x_KR + at.centre_K[:, None]


def _fresh(at: Variables) -> Variables:
    return Variables(at.x_KR[:2], at.centre_K[:2], at.scale)


def _chinchilla(theta_MP: Array, log_params: Array, log_tokens: Array, at: Variables) -> Array:
    E_M, logA_M, alpha_M, logB_M, beta_M = theta_MP.T[:5, :, None]
    n, d = log_params - at.centre_K[0], log_tokens - at.centre_K[1]
    return np.log(E_M + np.exp(logA_M - alpha_M * n) + np.exp(logB_M - beta_M * d))
