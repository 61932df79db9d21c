"""Loss against aspect ratio, width / depth, at equal training FLOPs.

Shapes: R cells, G sizes, P coefficients, S draws, X aspect ratios.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from harness.errors import UserError
from harness.laws.claims.measured import Evidence, Measured, Panel, Row
from harness.laws.forms import Array
from harness.laws.table.levels import grouped
from harness.laws.table.pool import read_sources

# Shapes whose params without embeddings lie this near each other, in log, are of one size.
SAME_SIZE = 0.3
SAME_BUDGET = 0.05
CUBIC_P, TAIL, UPPER = 0.01, 0.01, 0.95
DRAWS, CURVE_POINTS = 20_000, 41


@dataclass(frozen=True)
class Surface:
    """log L = c_0 + c_1 C + c_2 C^2 + q_1 x + q_2 x^2 + q_3 x C (+ q_4 x^3), by least squares.

    C is log FLOPs, x the log of the aspect ratio, both less their mean. `covariance_PP` has the residuals' variance,
    misfit and seeds together.
    """

    c_P: Array
    covariance_PP: Array
    freedom: int
    sd: float

    @property
    def cubic(self) -> bool:
        return len(self.c_P) == 7

    def at(self, c_SP: Array, C: Array | float, x: Array | float) -> Array:
        """(S, X)."""
        C, x = np.broadcast_arrays(C, x)
        return np.asarray(c_SP @ _terms(C, x, self.cubic).T)

    def draws(self) -> Array:
        """Coefficients by Student's t, (S, P); the same each time."""
        generator = np.random.default_rng(0)
        normal_SP = generator.multivariate_normal(np.zeros(len(self.c_P)), self.covariance_PP, DRAWS, method="eigh")
        scale_S = np.sqrt(self.freedom / generator.chisquare(self.freedom, DRAWS))
        return np.asarray(self.c_P + normal_SP * scale_S[:, None])


def _terms(C: Array, x: Array, cubic: bool) -> Array:
    return np.stack([np.ones_like(x), C, C**2, x, x**2, x * C, *([x**3] if cubic else [])], axis=-1)


def fitted(C_R: Array, x_R: Array, log_loss_R: Array) -> Surface:
    """The surface, with a cubic along x where the cells ask for one."""
    plain, bent = (_least_squares(_terms(C_R, x_R, cubic), log_loss_R) for cubic in (False, True))
    t = bent.c_P[-1] / np.sqrt(bent.covariance_PP[-1, -1])
    return bent if 2 * special.stdtr(bent.freedom, -abs(t)) < CUBIC_P else plain


def _least_squares(design_RP: Array, log_loss_R: Array) -> Surface:
    c_P: Array = np.linalg.lstsq(design_RP, log_loss_R, rcond=None)[0].astype(float)
    freedom = len(log_loss_R) - len(c_P)
    sd = float(np.sqrt(((log_loss_R - design_RP @ c_P) ** 2).sum() / freedom))
    covariance_PP: Array = sd**2 * np.linalg.inv(design_RP.T @ design_RP).astype(float)
    return Surface(c_P, covariance_PP, freedom, sd)


def by_aspect(evidence: Evidence) -> Measured:
    """The range of the loss over the aspect ratios tried, the largest of the sizes; raises UserError."""
    table = read_sources(str(evidence.folder), "loss", None)
    names = ("width", "depth", "tokens", "flops", "loss", "params_non_embedding")
    width_R, depth_R, tokens_R, flops_R, loss_R, params_R = (table.numbers(name) for name in names)
    if np.ptp(np.log(tokens_R)) > SAME_BUDGET:
        raise UserError(f"{table.source} has several budgets, and aspect ratios are compared at one: give one tokens=")
    size_R = grouped(params_R, SAME_SIZE)
    sizes = [size_R == size for size in range(int(size_R.max()) + 1)]
    aspect_R = width_R / depth_R
    if len(sizes) < 3 or min(len({*aspect_R[own_R]}) for own_R in sizes) < 3:
        raise UserError(f"{table.source} has not three aspect ratios at three sizes: add shapes")
    x_R, C_R = (np.log(values) - np.log(values).mean() for values in (aspect_R, flops_R))
    surface = fitted(C_R, x_R, np.log(loss_R))
    draws_SP = surface.draws()
    rows, points, lines, ranges_GS = [], [], [], []
    for own_R in sizes:
        label = f"{params_R[own_R].mean() / 1e3:.0f} k params"
        middle, ends = C_R[own_R].mean(), (x_R[own_R].min(), x_R[own_R].max())
        x_X = np.linspace(*ends, CURVE_POINTS)
        line_X = surface.at(surface.c_P[None], middle, x_X)[0]
        ranges_GS.append(np.ptp(surface.at(np.vstack([surface.c_P, draws_SP]), middle, x_X), axis=1))
        rows.append(Row(label, *_less_noise(ranges_GS[-1])))
        there_R, here_R = (surface.at(surface.c_P[None], C, x_R[own_R])[0] for C in (C_R[own_R], middle))
        points += _percent(label, aspect_R[own_R], np.log(loss_R[own_R]) - there_R + here_R - line_X.min())
        lines += _percent(label, np.exp(x_X + np.log(aspect_R).mean()), line_X - line_X.min())
    found = _less_noise(np.max(ranges_GS, axis=0))
    words = (
        f"range of the loss over width / depth of {aspect_R.min():.3g} to {aspect_R.max():.3g} at equal FLOPs, "
        "the largest of the sizes, as a part of it"
    )
    method = (
        f"least squares of log loss on log FLOPs and log width / depth{' with a cubic' if surface.cubic else ''}, "
        f"{len(loss_R)} cells; residuals {surface.sd:.2%}; Student's t with {surface.freedom} degrees of freedom, less "
        "what noise adds to a range"
    )
    panel = Panel("width / depth", "loss above the best width / depth (%)", "size, without embeddings", points, lines)
    return Measured(words, method, *found, [*rows, Row("the largest", *found, True)], panel)


def _less_noise(range_S: Array) -> tuple[float, float, float]:
    """A range and its interval out of the fitted one, which comes first, and of those of its draws.

    Noise only adds to a range: as far as draws lie above the fitted one, that lies above the true one. Where a bend is
    taken for a straight line that goes too far, so the upper end is that of the draws at least. Both tails are narrower
    than a normal's, for 95 % to be held (tests/laws/claims/aspect_coverage.py).
    """
    fit, draws_S = range_S[0], range_S[1:]
    middle, least, most, upper = np.quantile(draws_S, (0.5, TAIL, 1 - TAIL, UPPER))
    ends = np.maximum([2 * fit - middle, 2 * fit - most, max(2 * fit - least, upper)], 0.0)
    value, low, high = np.expm1(ends).tolist()
    return value, low, high


def _percent(label: str, x_X: Array, above_X: Array) -> list[dict[str, object]]:
    pairs = zip(x_X.tolist(), (100 * np.expm1(above_X)).tolist(), strict=True)
    return [{"series": label, "x": x, "y": y} for x, y in pairs]
