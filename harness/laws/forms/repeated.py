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


def _bends(x: Array, fresh: Array, log_repeats: Array) -> tuple[Array, Array]:
    """First and second derivative of `_worth` in log_repeats."""
    R, repeats = np.exp(log_repeats), np.exp(np.maximum(x - fresh, 0.0)) - 1
    left = np.exp(-repeats / R)
    paid = R * (1 - left)
    slope = (paid - repeats * left) / (1 + paid)
    return slope, (paid - repeats * left * (1 + repeats / R)) / (1 + paid) - slope**2


class Repeated(Smooth):
    """Chinchilla's law of what the tokens are worth (equation 5), unique_tokens U at most D.

    Internal parameters: Chinchilla's, and log R. Derivatives are written out: fits and their refits take many.
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

    def derivatives(self, theta_MP: Array, at: Variables) -> tuple[Array, Array]:
        L_MR, A_MR, B_MR, slopes_PMR, _ = self._terms(theta_MP, at)
        J_PMR = slopes_PMR * np.stack([1 / L_MR, A_MR, A_MR, B_MR, B_MR, B_MR])
        return np.log(L_MR), J_PMR.transpose(1, 2, 0)

    def second(self, gradient_MRP: Array, weight_MR: Array, at: Variables, theta_MP: Array) -> Array:
        """A log of a sum has the second derivatives L_ij / L - f_i f_j; a term's are (g_i g_j + g_ij) of its log g."""
        _, A_MR, B_MR, slopes_PMR, bends_2MR = self._terms(theta_MP, at)
        H_MPP = -(gradient_MRP * weight_MR[..., None]).transpose(0, 2, 1) @ gradient_MRP
        for share_MR, own in ((A_MR, slice(1, 3)), (B_MR, slice(3, 6))):
            H_MPP[:, own, own] += np.einsum("mr,pmr,qmr->mpq", weight_MR * share_MR, slopes_PMR[own], slopes_PMR[own])
        with_beta_M, twice_M = (weight_MR * B_MR * bends_2MR).sum(-1)
        H_MPP[:, 4, 5] += with_beta_M
        H_MPP[:, 5, 4] += with_beta_M
        H_MPP[:, 5, 5] += twice_M
        return H_MPP

    def _terms(self, theta_MP: Array, at: Variables) -> tuple[Array, Array, Array, Array, Array]:
        """L, the shares of the terms of params and of tokens; the derivative of each parameter's term, of E itself and
        of the logs of the others; that of the log of the last term in log R and beta, and twice in log R."""
        n_R, d_R, u_R = _logs(at)
        E_M, logA_M, alpha_M, logB_M, beta_M, log_M = theta_MP.T[:, :, None]
        fresh_R = np.minimum(u_R, d_R)
        n_R, worth_MR = n_R - at.centre_K[0], _worth(d_R, fresh_R, log_M) - at.centre_K[1]
        A_MR, B_MR = np.exp(logA_M - alpha_M * n_R), np.exp(logB_M - beta_M * worth_MR)
        slope_MR, bend_MR = _bends(d_R, fresh_R, log_M)
        L_MR, one_MR = E_M + A_MR + B_MR, np.ones_like(worth_MR)
        slopes_PMR = np.stack([one_MR, one_MR, -n_R * one_MR, one_MR, -worth_MR, -beta_M * slope_MR])
        return L_MR, A_MR / L_MR, B_MR / L_MR, slopes_PMR, np.stack([-slope_MR, -beta_M * bend_MR])

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
    derivatives, second = Smooth.derivatives, Smooth.second

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
