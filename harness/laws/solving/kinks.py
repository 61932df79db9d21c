"""Least absolute deviations by linear programming. Shapes: R rows, P parameters."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linprog

from harness.laws.forms import Array

# Of a row's residual after the step, relative to the largest before it: smaller ones are 0.
ZERO = 1e-9


def linear_step(
    J_RP: Array, residual_R: Array, weight_R: Array, low_P: Array, high_P: Array
) -> tuple[Array, Array, NDArray[np.bool_]] | None:
    """The step between low and high that minimises sum_r weight_r |residual_r - (J step)_r|.

    Gives step_P, the slope of each row's term (between -1 and 1, the multiplier where the residual is 0), and which
    residuals it makes 0; None where the linear programme is beyond the solver.
    """
    rows, count = J_RP.shape
    scale = float(np.abs(residual_R).max()) or 1.0
    one_RR = sparse.identity(rows, format="csc")
    constraint = sparse.hstack([sparse.csc_matrix(J_RP / scale), one_RR, -one_RR], format="csc")
    bounds = [*zip(low_P, high_P, strict=True), *[(0.0, None)] * (2 * rows)]
    cost = np.concatenate([np.zeros(count), weight_R, weight_R])
    found = linprog(cost, A_eq=constraint, b_eq=residual_R / scale, bounds=bounds, method="highs")
    if found.status != 0:
        return None
    left_R = residual_R - J_RP @ found.x[:count]
    slope_R = np.clip(found.eqlin.marginals / weight_R, -1.0, 1.0)
    return found.x[:count], slope_R, np.abs(left_R) < ZERO * scale
