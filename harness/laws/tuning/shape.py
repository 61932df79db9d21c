"""Whether a bowl of one curvature, and without a cubic, is what the rows show."""

import numpy as np

from harness.laws.forms import Array
from harness.laws.noise.wald import p_value
from harness.laws.tuning.basin import Basin
from harness.laws.tuning.rules import Sizes

# A column of which the fit leaves less than this part tells nothing of its own.
LEFT = 1e-4


def adds(basin: Basin, column_RQ: Array) -> float | None:
    """p of the hypothesis that columns, (R, Q), beside a basin's own have coefficients of 0; None where the rows do
    not tell them from those."""
    design = basin.bowl.design
    root_R = np.sqrt(design.weight_R)[:, None]
    own_RP = np.concatenate([design.groups_RG * root_R, basin.bowl.gradient(basin.theta_P)], axis=1)
    basis_RP = np.linalg.qr(own_RP)[0]
    column_RQ = column_RQ * root_R
    rest_RQ = column_RQ - basis_RP @ (basis_RP.T @ column_RQ)
    told_Q = (rest_RQ**2).sum(0) > LEFT * np.maximum((column_RQ**2).sum(0), 1e-30)
    if basin.noiseless or not told_Q.any() or len(design.loss_R) <= own_RP.shape[1] + int(told_Q.sum()):
        return None
    gain_QR = np.linalg.pinv(rest_RQ[:, told_Q] / np.linalg.norm(rest_RQ[:, told_Q], axis=0), rcond=1e-6)
    value_Q = gain_QR @ basin.bowl.residuals(basin.theta_P)
    return p_value(basin.curvature.noise, gain_QR * root_R[:, 0], value_Q)


def curvature_shared(basin: Basin, sizes: Sizes) -> float | None:
    """p of the hypothesis that H is the same at all sizes, beside one that moves with log N and log D."""
    v_RK = basin.bowl.offsets(basin.theta_P)
    log_RF = sizes.factors(sizes.varied("params", "tokens"))[basin.bowl.design.cell_R][:, 1:]
    if not log_RF.shape[1]:
        return None
    columns = [v_RK[:, j] * v_RK[:, k] * log_R for j, k in basin.bowl.pairs for log_R in log_RF.T]
    return adds(basin, np.stack(columns, axis=1))


def cubic(basin: Basin) -> list[float | None]:
    """Of each setting, p of the hypothesis that the loss has no cubic along it."""
    v_RK = basin.bowl.offsets(basin.theta_P)
    return [adds(basin, v_RK[:, [k]] ** 3) for k in range(v_RK.shape[1])]
