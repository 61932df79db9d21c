"""The exponents under each way of counting params and FLOPs that a table holds: one set of runs has as many answers."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from harness.laws.fit import Fit, fit_rows
from harness.laws.forms import Array
from harness.laws.table.entry import PARAMS
from harness.laws.table.rows import read_rows
from harness.laws.table.table import Table

RULE_OF_THUMB = "6 N D"


def by_params(table: Table, fit: Fit, bootstrap: int, seed: int) -> list[Fit]:
    """The headline fit under each parameter count that the table holds; alone where its law has no params."""
    if "params" not in fit.form.uses:
        return [fit]
    names = [name for name in PARAMS if name in table.frame.columns]
    if fit.columns.params not in names:
        names.insert(0, fit.columns.params)
    fits = []
    for name in names:
        if name == fit.columns.params:
            fits.append(fit)
            continue
        if table.spare(name) is None:
            continue
        columns = replace(fit.columns, params=name)
        rows = read_rows(table, columns, fit.law)
        fits.append(fit_rows(rows, columns, fit.law, fit.loss, fit.delta, bootstrap, seed, table.source))
    return fits


def accounting(table: Table, fits: list[Fit]) -> list[dict[str, Any]]:
    """One row for each count of params and of FLOPs: the exponent of N*(C) with its 95 % interval.

    Over the rows C = kappa N^n D^d. Where alpha A / (n N^alpha) = beta B / (d D^beta), the loss is least at that C, so
    N* grows as C^(1 / (n + d alpha / beta)), which is a for C = kappa N D (Hoffmann et al. 2022, equation 4).
    """
    compared = []
    for fit in fits:
        if "a" not in fit.estimates:
            continue
        products = fit.rows.params * fit.rows.tokens
        counts = {fit.columns.flops: fit.rows.flops} if fit.rows.flops_exact else {}
        by_rule = table.spare("flops_6nd")
        if by_rule is not None and fit.columns.flops != "flops_6nd":
            counts["flops_6nd"] = by_rule
        counts |= {RULE_OF_THUMB: 6 * products}
        compared += [_row(fit, name, flops_R) for name, flops_R in counts.items()]
    return compared


def _row(fit: Fit, name: str, flops_R: Array) -> dict[str, Any]:
    design = np.stack([np.ones(len(fit.rows)), np.log(fit.rows.params), np.log(fit.rows.tokens)], axis=1)
    _, n, d = np.linalg.lstsq(design, np.log(flops_R), rcond=None)[0].tolist()
    ratio = _ratio(fit, n, d)
    low, high = (float(end[0]) for end in fit.interval(ratio))
    value = float(ratio(fit.theta_P[None])[0, 0])
    return {
        "params": fit.columns.params,
        "flops": name,
        "flops_exponents": {"params": n, "tokens": d},
        "a": {"value": value, "low": low, "high": high},
        "certified": fit.certificate.certified,
    }


def _ratio(fit: Fit, n: float, d: float) -> Callable[[Array], Array]:
    """The exponent of N*(C) as a function of internal parameters, (M, 1); alpha / beta is 1 / a - 1."""
    return lambda theta_MP: 1 / (n + d * (1 / fit.at(theta_MP)["a"][:, None] - 1))
