"""m over compute, along the baseline's cells. Shapes: X points, M parameter vectors."""

from typing import Any

import numpy as np

from harness.laws.fit import Fit
from harness.laws.forms import Array
from harness.laws.variants.joint import Arms
from harness.laws.variants.multiplier import Place, level, logs, ratio

POINTS = 25
# The ends are means over cells of so nearly the least or the most compute: an IsoFLOP profile has several.
NEAR = 1.05


def by_flops(fit: Fit, arms: Arms, variant: int) -> dict[str, Any]:
    """m with its 95 % interval at equal params and tokens, and at equal training FLOPs, as lists over `flops`.

    The way leads from the baseline's cell of least compute to that of most, straight in the logs of `params` and
    `tokens`, so that it stays among the cells.
    """
    rows, first_R = arms.rows, arms.variant_R == 0
    place_RK = np.log(np.stack([rows.params, rows.tokens], axis=1))[first_R]
    flops_R, cost_R = rows.flops[first_R], rows.flops / rows.params / rows.tokens
    least, most = (
        place_RK[near_R].mean(0) for near_R in (flops_R <= NEAR * flops_R.min(), flops_R >= flops_R.max() / NEAR)
    )
    params_X, tokens_X = np.exp(np.linspace(least, most, POINTS)).T
    flops_X = level(cost_R, arms, 0, params_X) * params_X * tokens_X
    places = [Place(*place) for place in zip(params_X, tokens_X, flops_X, strict=True)]

    def m(theta_MP: Array) -> Array:
        return np.stack([logs(fit, variant, place, theta_MP).sum(1) for place in places], axis=1)

    found = dict(zip(("estimate", "low", "high"), (m(fit.theta_P[None])[0], *fit.interval(m)), strict=True))
    dearer_X = np.log(ratio(cost_R, arms, variant, params_X))
    return {
        "flops": flops_X.tolist(),
        "params": params_X.tolist(),
        "tokens": tokens_X.tolist(),
        "equal_tokens": {name: np.exp(log_X).tolist() for name, log_X in found.items()},
        "equal_flops": {name: np.exp(log_X - dearer_X).tolist() for name, log_X in found.items()},
    }
