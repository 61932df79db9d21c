"""What speaks against single rows of a table, and against the table; nothing is left out here, everything is named.

Shapes: R rows, P parameters.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from harness.laws.fit import Fit
from harness.laws.forms import Array
from harness.laws.noise.intervals import whitened
from harness.laws.solving.losses import Loss
from harness.laws.solving.solver import Problem, local_model, solve
from harness.laws.table.filter import TRUTH
from harness.laws.table.rows import VARIABLES, Cells

# Rows shown in a list of fit.json, and named in a sentence.
MOST_ROWS, MOST_NAMES = 20, 4
# Least squares bend towards the rows that are looked for: of Epoch's five outlying points they find one.
ROBUST = Loss("huber", 1e-3)
# In gaussian tables, how often any row is taken for an outlier.
FALSE_ALARM = 0.01
# Of the median absolute deviation on gaussian noise (Huber 1981, section 5.1); it shortens the degrees of freedom.
MAD_EFFICIENCY = 0.37
# Residuals below this are the digits that a table was written with, not noise.
LEAST_SCALE = 1e-8
# Of the half-width of the 95 % interval: a row that moves an exponent by more is named.
STEERING = 0.5
MOST_LEVERAGE = 0.95

COOLING = re.compile(r"cool|anneal|decayed|(?<![a-z])(hot|phase)(?![a-z])", re.IGNORECASE)
LAST_RATE = re.compile(r"(lr|learning_rate).*(end|final|last)|(end|final|last).*(lr|learning_rate)", re.IGNORECASE)
MOST_PHASES, SAME_RATE = 6, 2.0
# Of the steps to more tokens within a shape. Gemstones' losses rise in 2 % of them when hot, in 16 % where checkpoints
# are dense, and in 40 % when hot and cooled ones are mixed.
MOST_RISES, LEAST_RISES = 0.25, 5
# What C / (N D) is in training; a head that N leaves out makes it large in small models.
FLOPS_PER_PRODUCT = (1.0, 1e4)


def quality(cells: Cells, fit: Fit, varied: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """The section `quality` of fit.json, and a sentence on each thing that is wrong; rows that differ in a `varied`
    setting repeat none."""
    deviation = deviations(fit.problem, fit.theta_P)
    parts = [
        ("influence", *_influence(cells, fit)),
        ("outliers", *_outliers(cells, deviation)),
        ("duplicates", *_duplicates(cells, varied)),
        ("hot", *_hot(cells)),
        ("rising", *_rising(cells, deviation)),
        ("units", *_units(cells, fit)),
    ]
    return {name: section for name, section, _ in parts}, [note for _, _, notes in parts for note in notes]


def leave_one_out(problem: Problem, theta_P: Array) -> Array:
    """How far theta moves where a row is left out, (R, P): one Newton step from the optimum without that row.

    Exact to second order in the residuals for squares; for huber and lad with the density of the residuals at the
    kink smoothed as in the curvature intervals.
    """
    J_RP, residual_R = whitened(problem, theta_P)
    root_R = np.sqrt(problem.weight_R)
    bare_R = residual_R / root_R
    smooth, factor = problem.loss.stages()[-1], 1.0
    slope_R = smooth.slope(bare_R) * root_R
    if problem.loss.kind in ("huber", "lad"):
        band = max(1.5 * float(np.median(np.abs(bare_R))) * len(bare_R) ** -0.2, smooth.delta, 1e-12)
        factor = smooth.delta if problem.loss.kind == "huber" else 1.0
        smooth = Loss("lad", band)
    model = local_model(replace(problem, loss=smooth), theta_P[None])
    low_P, high_P = problem.form.bounds()
    free_P = (theta_P > low_P) & (theta_P < high_P)
    unit_P = model.unit_MP[0, free_P]
    inverse_PP = np.linalg.pinv(model.hessian_MPP[0][np.ix_(free_P, free_P)], rcond=1e-13, hermitian=True) / factor
    scaled_RP = J_RP[:, free_P] / unit_P
    along_RP = scaled_RP @ inverse_PP
    leverage_R = (along_RP * scaled_RP).sum(1) * smooth.curvature(bare_R) * factor
    step_R = slope_R / (1 - np.clip(leverage_R, 0.0, MOST_LEVERAGE))
    moved_RP = np.zeros_like(J_RP)
    moved_RP[:, free_P] = -along_RP * step_R[:, None] / unit_P
    return moved_RP


def influence(fit: Fit) -> tuple[str, Array]:
    """The name of the exponent, a or else the first, and its shift where a row is left out, (R,)."""
    name = "a" if "a" in fit.estimates else "alpha"
    theta_RP = np.clip(fit.theta_P + leave_one_out(fit.problem, fit.theta_P), *fit.form.bounds())
    with np.errstate(all="ignore"):
        return name, np.nan_to_num(fit.at(theta_RP)[name] - fit.estimates[name])


def _influence(cells: Cells, fit: Fit) -> tuple[dict[str, Any], list[str]]:
    name, shift_R = influence(fit)
    order = np.argsort(-np.abs(shift_R), kind="stable")[:MOST_ROWS].tolist()
    section = {"of": name, "rows": [{"cell": cells.table.name(row), "shift": float(shift_R[row])} for row in order]}
    interval, notes = fit.intervals[name], []
    steering = [row for row in order if interval and abs(shift_R[row]) > STEERING * (interval[1] - interval[0]) / 2]
    if steering:
        value, first = fit.estimates[name], steering[0]
        notes.append(
            f"Single rows steer {name}: without {cells.table.name(first)} it would be about "
            f"{value + shift_R[first]:.3f} instead of {value:.3f}{_besides(cells, steering[1:], 'so do')}."
        )
    return section, notes


@dataclass(frozen=True)
class Deviations:
    """Log residuals of a robust fit, their scale for each row, their size in scales, (R,), and the bound on that."""

    residual_R: Array
    sd_R: Array
    size_R: Array
    bound: float


def deviations(problem: Problem, theta_P: Array) -> Deviations:
    """How far rows lie from the robust fit of the law that is found from theta_P.

    The scale is the median absolute residual, corrected for leverage and without as many of the smallest as the law
    has parameters, since a robust fit passes through that many rows. The bound is Bonferroni's on Student's t.
    """
    robust = replace(problem, loss=ROBUST)
    theta_P = solve(robust, theta_P[None]).theta_MP[0]
    J_RP, residual_R = whitened(robust, theta_P)
    low_P, high_P = problem.form.bounds()
    Q_RP, _ = np.linalg.qr(J_RP[:, (theta_P > low_P) & (theta_P < high_P)])
    rows, count = Q_RP.shape
    pure_R = residual_R / np.sqrt(1 - np.minimum((Q_RP**2).sum(1), 0.9))
    scale = float(np.median(np.sort(np.abs(pure_R))[max(count - 1, 0) :])) / float(special.ndtri(0.75))
    scale = max(scale, LEAST_SCALE)
    bound = float(special.stdtrit(MAD_EFFICIENCY * (rows - count), 1 - FALSE_ALARM / 2 / rows))
    root_R = np.sqrt(problem.weight_R)
    return Deviations(residual_R / root_R, scale / root_R, pure_R / scale, bound)


def _outliers(cells: Cells, deviation: Deviations) -> tuple[dict[str, Any], list[str]]:
    size_R = np.abs(deviation.size_R)
    found = [row for row in np.argsort(-size_R, kind="stable").tolist() if size_R[row] > deviation.bound]
    listed = [
        {"cell": cells.table.name(row), "residual": deviation.residual_R[row], "scales": deviation.size_R[row]}
        for row in found[:MOST_ROWS]
    ]
    section = {"bound": deviation.bound, "count": len(found), "rows": listed}
    if not found:
        return section, []
    first = found[0]
    return section, [
        f"{_rows(len(found))} further from the law than noise explains: {cells.table.name(first)} by "
        f"{deviation.size_R[first]:+.1f} robust standard deviations, where {deviation.bound:.1f} is the bound"
        f"{_besides(cells, found[1:])}. Look at them; filter= leaves rows out."
    ]


def _duplicates(cells: Cells, varied: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Rows that agree in everything that a fit reads, and in seed."""
    rows, frame = cells.rows, cells.table.frame
    known = {use: rows.of(use) for use in (("params", "tokens") if rows.knows("params", "tokens") else VARIABLES)}
    keys = pd.DataFrame({use: values for use, values in known.items() if rows.knows(use)} | {"loss": rows.loss})
    keys = keys.assign(**rows.others)
    for name in varied:
        keys[name if name not in keys.columns else f"column {name}"] = frame[name].map(str).to_numpy()
    if rows.cluster is not None:
        keys["cluster"] = rows.cluster
    if "seed" in frame.columns:
        keys["seed"] = frame["seed"].map(str).to_numpy()
    found = np.flatnonzero(keys.duplicated().to_numpy()).tolist()
    if not found:
        return {"count": 0, "rows": []}, []
    first_R = keys.groupby(list(keys.columns), sort=False).ngroup().to_numpy(np.intp)
    first_R = np.unique(first_R, return_index=True)[1][first_R]
    listed = [{"cell": cells.table.name(row), "same_as": cells.table.name(first_R[row])} for row in found[:MOST_ROWS]]
    return {"count": len(found), "rows": listed}, [
        f"{_rows(len(found), 'repeat', 'repeats')} another one in {', '.join(keys.columns)}, and so counts twice: "
        f"{listed[0]['cell']} repeats {listed[0]['same_as']}{_besides(cells, found[1:])}. Remove them, or name what "
        "tells them apart in a column seed."
    ]


def _hot(cells: Cells) -> tuple[list[dict[str, Any]], list[str]]:
    """Columns that tell points before and after the decay of the learning rate apart, where they vary."""
    frame, found, notes = cells.table.frame, [], []
    why = "and hot points lie above cooled ones by an amount that shrinks with params, which bends every exponent"
    for column in frame.columns:
        if COOLING.search(column):
            counts = frame[column].map(str).str.strip().value_counts()
            numeric = pd.to_numeric(counts.index.to_series(), errors="coerce").notna().any()
            words = all(value.lower() in TRUTH for value in counts.index) or not numeric
            if words and 1 < len(counts) <= MOST_PHASES:
                found.append({"column": column, "values": {key: int(count) for key, count in counts.items()}})
                keep = next((value for value in counts.index if "cool" in value.lower()), counts.index[0])
                shown = ", ".join(f"{key or 'empty'} in {count} rows" for key, count in counts.items())
                notes.append(f"Column {column} varies ({shown}), {why}: keep one kind, as in filter={column}=={keep}.")
        elif LAST_RATE.search(column):
            rate_R = pd.to_numeric(frame[column], errors="coerce")
            by_shape = rate_R.groupby(cells.shape_R)
            if (by_shape.max() > SAME_RATE * by_shape.min()).any():
                found.append({"column": column, "values": {"least": rate_R.min(), "most": rate_R.max()}})
                notes.append(
                    f"Column {column} varies within a shape ({rate_R.min():.3g} to {rate_R.max():.3g}), {why}: keep "
                    f"the cooled ones, as in filter={column}<={rate_R.min():.3g}."
                )
    return found, notes


def _rising(cells: Cells, deviation: Deviations) -> tuple[dict[str, Any], list[str]]:
    """Rows whose loss is above one of fewer tokens of their shape by more than noise."""
    rows, log_R = cells.rows, np.log(cells.rows.loss)
    if not rows.knows("params", "tokens"):
        return {"steps": 0, "rises": 0, "count": 0, "rows": []}, []
    group_R = cells.shape_R
    if "unique_tokens" in rows.others:
        group_R = np.array(pd.Series(group_R).groupby([group_R, rows.others["unique_tokens"]]).ngroup(), np.intp)
    lowest = pd.Series(log_R).groupby([group_R, cells.budget_R]).min()
    before = lowest.groupby(level=0).cummin().groupby(level=0).shift(1)
    index = pd.MultiIndex.from_arrays([group_R, cells.budget_R])
    rise_R = np.nan_to_num(log_R - before.reindex(index).to_numpy())
    over_R = rise_R / (deviation.sd_R * np.sqrt(2))
    found = [row for row in np.argsort(-rise_R, kind="stable").tolist() if over_R[row] > deviation.bound]
    listed: list[dict[str, Any]] = []
    for row in found[:MOST_ROWS]:
        earlier_R = (group_R == group_R[row]) & (cells.budget_R < cells.budget_R[row])
        lower = int(np.flatnonzero(earlier_R)[np.argmin(log_R[earlier_R])])
        listed.append({"cell": cells.table.name(row), "above": cells.table.name(lower), "rise": float(rise_R[row])})
    step_R = pd.Series(log_R).groupby([group_R, rows.tokens]).mean().groupby(level=0).diff().dropna()
    rises = int((step_R > 0).sum())
    section = {"steps": len(step_R), "rises": rises, "count": len(found), "rows": listed}
    notes = []
    if rises >= max(LEAST_RISES, MOST_RISES * len(step_R)):
        notes.append(
            f"The loss rises in {rises} of {len(step_R)} steps to more tokens within a shape: hot points are mixed "
            "with cooled ones, or noise is larger than what the steps are worth."
        )
    if not found:
        return section, notes
    return section, [
        *notes,
        f"{_rows(len(found))} above a row of their shape with fewer tokens by more than noise: {listed[0]['cell']} is "
        f"{np.expm1(listed[0]['rise']):.1%} above {listed[0]['above']}{_besides(cells, found[1:])}. They diverged, "
        "were not cooled as the others were, or repeat their data too often.",
    ]


def _units(cells: Cells, fit: Fit) -> tuple[list[str], list[str]]:
    """Sentences on columns whose magnitudes do not fit together."""
    rows, columns, found = cells.rows, fit.columns, []
    if {"params", "tokens"} <= set(fit.form.uses) and (rows.tokens < rows.params).all():
        found.append(
            f"Every row has fewer tokens than params: check that {columns.tokens} and {columns.params} are plain "
            "counts."
        )
    if rows.flops_exact and rows.knows("params", "tokens"):
        ratio_R = rows.flops / rows.params / rows.tokens
        if ratio_R.min() < FLOPS_PER_PRODUCT[0] or ratio_R.max() > FLOPS_PER_PRODUCT[1]:
            found.append(
                f"Column {columns.flops} is {ratio_R.min():.2g} to {ratio_R.max():.2g} times params x tokens, where "
                "training takes about 6: check the units of all three."
            )
    vocabulary = cells.table.spare("vocab_size")
    if vocabulary is not None:
        uniform_R = np.log(vocabulary)
        above = np.flatnonzero(rows.loss > uniform_R).tolist()
        if above:
            first = above[0]
            found.append(
                f"{_rows(len(above), 'have', 'has')} a loss above that of a uniform guess, such as "
                f"{cells.table.name(first)} with {rows.loss[first]:.4g} where log(vocab_size) is {uniform_R[first]:.4g}"
                f": check that {columns.target} is in nats per token."
            )
    return found, found


def _rows(count: int, many: str = "lie", one: str = "lies") -> str:
    return f"{count} rows {many}" if count > 1 else f"1 row {one}"


def _besides(cells: Cells, others: Sequence[int], verb: str = "also") -> str:
    """The rest of a list of rows, as the end of a sentence."""
    if not others:
        return ""
    names = ", ".join(cells.table.name(row) for row in others[:MOST_NAMES])
    return f"; {verb} {names}" + (f" and {len(others) - MOST_NAMES} more" if len(others) > MOST_NAMES else "")
