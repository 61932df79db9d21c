"""Whether the training curves of all shapes, decayed at one D/N, fall on one curve.

After Qiu et al. 2025 (arXiv 2507.02119). Each curve is set against the law's own at the same params, L(N, x D) at the
share x of its run: the losses of runs that are decayed there. How far it lies above them depends on x alike for all
shapes whose settings are alike good. A grid of absolute budgets holds D/N only nearly, so a part that is straight in
log N counts as one of the common curve.

Shapes: R rows, S shapes, X windows of a curve, P parameters of the law, K regressors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.laws.fit import Fit
from harness.laws.forms import Array
from harness.laws.noise.noise import Labels, Wild, estimate, sums
from harness.laws.table.curves import read_curve, window_means
from harness.laws.table.filter import as_numbers
from harness.laws.table.rows import Cells
from harness.records import SweepFolder

# A shape takes part where one of its budgets lies within this factor of the common D/N.
NEAR = 2.0
# A line through three others, and one that may leave it.
LEAST_SHAPES = 5
# A curve is read from so many times its warmup on, but not from before the first fraction, nor after the second.
WARMUPS, EARLIEST, LATEST = 3.0, 0.1, 0.5
WINDOWS = 14
SIGNIFICANT = 0.05
# Of a regressor's square: with less of its own it is the others' sum, and its coefficient is unknown.
LEAST_OF_ITS_OWN = 1e-10
# Log losses that differ by less differ by the digits that they were written with.
LEAST_SD = 1e-8


@dataclass(frozen=True)
class Spread:
    """What curves of one shape and budget differ by between seeds: the standard deviation of one curve's mean."""

    sd: float
    freedom: float


def by_curves(fit: Fit, cells: Cells, repeat_R: Labels, runs: Sequence[str]) -> dict[str, Any] | None:
    """The section `collapse` of fit.json, or why there is none under `left_out`; None where no row has a curve.

    runs: the folders of the sweeps. repeat_R: one label for rows that are told apart by budget and seed alone.
    """
    folders = [SweepFolder(Path(path)) for path in runs if path and Path(path).is_dir()]
    if not folders or "cell" not in cells.table.frame.columns:
        return None
    paths = [_path(folders, cells.table.name(row)) for row in range(len(cells.rows))]
    if not any(paths):
        return None
    if not fit.certificate.certified:
        return {"left_out": "the law is not certified"}
    if fit.columns.target != "loss" or fit.rows.others or not fit.rows.knows("params", "tokens"):
        return {"left_out": "it needs a law of params and tokens for the column loss"}
    return _of_curves(fit, cells, repeat_R, paths)


def _path(folders: list[SweepFolder], cell: str) -> Path | None:
    paths = (folder.run(cell) / "curve.jsonl" for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def _of_curves(fit: Fit, cells: Cells, repeat_R: Labels, paths: list[Path | None]) -> dict[str, Any]:
    rows = fit.rows
    group_R = np.unique(repeat_R * (int(cells.budget_R.max()) + 1) + cells.budget_R, return_inverse=True)[1]
    known_R = np.array([path is not None for path in paths])
    chosen_R = at_one_ratio(rows.tokens / rows.params, cells.shape_R, cells.budget_R, known_R)
    warmup_R = WARMUPS * _warmup(cells) / rows.tokens
    first = max(EARLIEST, float(warmup_R[chosen_R].max(initial=0.0)))
    if first > LATEST:
        return {"left_out": f"the warmup takes up to {100 * first / WARMUPS:.0f} % of a run"}
    again_R = (np.bincount(group_R)[group_R] > 1) & (warmup_R <= first * (1 + 1e-9))
    fraction_X = np.linspace(first, 1.0, WINDOWS + 1)
    loss_RX = _losses(paths, chosen_R | again_R, rows.tokens, fraction_X)
    read_R = ~np.isnan(loss_RX).any(1)
    shapes = np.unique(cells.shape_R[chosen_R & read_R])
    if len(shapes) < LEAST_SHAPES:
        return {
            "left_out": f"{len(shapes)} shapes have training curves that end within a factor of {NEAR:g} of one D/N, "
            f"where {LEAST_SHAPES} are needed"
        }
    middle_X = (fraction_X[1:] + fraction_X[:-1]) / 2
    law_RX, J_RP = _law(fit, middle_X)
    level_R = np.log(loss_RX / law_RX).mean(1)
    spread = between_seeds(level_R, group_R, again_R & read_R, rows.cluster)
    members = [np.flatnonzero(chosen_R & read_R & (cells.shape_R == shape)) for shape in shapes]
    bent_SR = np.stack([J_RP[rows_S].mean(0) for rows_S in members]) @ _sensitivity(fit)
    of_shape_RS = (cells.shape_R[:, None] == shapes).astype(float)
    design = Design(np.eye(len(shapes)) - bent_SR @ of_shape_RS, _covariance(fit, bent_SR))
    return _section(fit, cells, members, (middle_X, loss_RX, law_RX), design, spread) | {"from": first}


def _law(fit: Fit, fraction_X: Array) -> tuple[Array, Array]:
    """The law's own curves, (R, X), and the gradient of their mean log, (R, P)."""
    rows = fit.rows
    values = {"params": rows.params[:, None] * np.ones_like(fraction_X), "tokens": rows.tokens[:, None] * fraction_X,
              "flops": rows.flops[:, None] * fraction_X}  # fmt: skip
    at = fit.problem.at.at(*(values[use].ravel() for use in fit.form.uses))
    f_MX, J_MXP = fit.form.derivatives(fit.theta_P[None], at)
    shape = (len(rows), len(fraction_X))
    return np.exp(f_MX[0].reshape(shape)) * at.scale, J_MXP[0].reshape(*shape, -1).mean(1)


def _sensitivity(fit: Fit) -> Array:
    """How the law's parameters move with the log losses that it is fitted to, to first order, (P, R)."""
    _, J_MRP = fit.form.derivatives(fit.theta_P[None], fit.problem.at)
    root_R = np.sqrt(fit.problem.weight_R)
    moved_PR: Array = np.linalg.pinv(J_MRP[0] * root_R[:, None], rcond=1e-10) * root_R
    return moved_PR


def _covariance(fit: Fit, bent_SR: Array) -> Array:
    """Of contrasts of the log losses that the law is fitted to, by its own noise of trunks and cells, (S, S)."""
    trunk, cell = fit.noise.estimates
    shared_SK = sums(bent_SR, fit.noise.cluster_R)
    covariance_SS: Array = trunk * shared_SK @ shared_SK.T + cell * bent_SR @ bent_SR.T
    return covariance_SS


def _section(
    fit: Fit,
    cells: Cells,
    members: list[Labels],
    curves: tuple[Array, Array, Array],
    design: "Design",
    spread: Spread | None,
) -> dict[str, Any]:
    """What is written of the shapes, each with the rows of its runs; curves: fractions (X,), losses and law (R, X)."""
    rows, (fraction_X, loss_RX, law_RX) = fit.rows, curves
    names = [_name(cells, int(rows_S[0])) for rows_S in members]

    def mean(values_R: Array) -> Array:
        return np.stack([values_R[rows_S].mean(0) for rows_S in members])

    over_SX, log_S = mean(np.log(loss_RX / law_RX)), mean(np.log(rows.params))
    runs_S = np.array([float(len(rows_S)) for rows_S in members])
    tokens_S, level_S = mean(rows.tokens), over_SX.mean(1)
    judged = judge(level_S, log_S, runs_S, design, spread)
    by_shape = {"measured": mean(loss_RX), "law": mean(law_RX), "law_end": mean(fit.predict(**rows.at(fit.form)))}
    return {
        "tokens_per_param": float(np.exp((np.log(tokens_S) - log_S).mean())),
        "noise": spread and {"sd": spread.sd, "degrees_of_freedom": spread.freedom},
        "drift": judged.drift,
        "shapes": [
            {"shape": name, "params": np.exp(log_S[s]), "tokens": tokens_S[s], "runs": int(runs_S[s])} | judged.of(s)
            for s, name in enumerate(names)
        ],
        "curves": {"fraction": fraction_X, "common": np.expm1(line(over_SX, log_S, runs_S, judged.on_S))}
        | {key: dict(zip(names, values, strict=True)) for key, values in by_shape.items()},
    }


def _losses(paths: list[Path | None], wanted_R: NDArray[np.bool_], tokens_R: Array, fraction_X: Array) -> Array:
    """The mean training loss of each window of the rows that are wanted, nan where a curve is not whole, (R, X)."""
    loss_RX = np.full((len(paths), len(fraction_X) - 1), np.nan)
    for row, path in enumerate(paths):
        if wanted_R[row] and path is not None:
            means_X = window_means(read_curve(path), fraction_X * tokens_R[row])
            loss_RX[row] = np.nan if means_X is None else means_X
    return loss_RX


def at_one_ratio(ratio_R: Array, shape_R: Labels, budget_R: Labels, known_R: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The rows of each shape whose budget lies nearest to one D/N, that which most shapes reach within NEAR."""
    best, chosen_R = (0, 0.0), np.zeros(len(ratio_R), bool)
    for ratio in np.unique(ratio_R[known_R]).tolist():
        away_R = np.where(known_R, np.abs(np.log(ratio_R / ratio)), np.inf)
        nearest_S = np.full(int(shape_R.max()) + 1, np.inf)
        np.minimum.at(nearest_S, shape_R, away_R)
        reached_S = nearest_S <= np.log(NEAR)
        if (score := (int(reached_S.sum()), -float(nearest_S[reached_S].sum()))) > best:
            best, chosen_R = score, (away_R == nearest_S[shape_R]) & reached_S[shape_R]
    budgets = np.unique(np.stack([shape_R, budget_R])[:, chosen_R], axis=1).T.tolist()
    first = {shape: budget for shape, budget in reversed(budgets)}
    return known_R & np.array([first.get(shape) == budget for shape, budget in zip(shape_R, budget_R, strict=True)])


def _warmup(cells: Cells) -> Array:
    """Tokens of the warmup of each row, 0 where the table does not say."""
    frame = cells.table.frame
    if "warmup_tokens" not in frame.columns:
        return np.zeros(len(frame))
    return np.nan_to_num(as_numbers(frame["warmup_tokens"]))


def _name(cells: Cells, row: int) -> str:
    width, depth = cells.number("width", row), cells.number("depth", row)
    return cells.table.name(row) if width is None or depth is None else f"w{width:g}-d{depth:g}"


def between_seeds(
    level_R: Array, labels_R: Labels, known_R: NDArray[np.bool_], cluster_R: Labels | None
) -> Spread | None:
    """The spread of repeats about their means, by trunks and cells; None where nothing repeats."""
    _, group_R, count_G = np.unique(labels_R[known_R], return_inverse=True, return_counts=True)
    kept_R = count_G[group_R] > 1
    if not kept_R.any():
        return None
    group_R = np.unique(group_R[kept_R], return_inverse=True)[1]
    value_R = level_R[known_R][kept_R]
    J_RG = (group_R[:, None] == np.arange(group_R.max() + 1)).astype(float)
    residual_R = value_R - (np.bincount(group_R, weights=value_R) / np.bincount(group_R))[group_R]
    noise = estimate(J_RG, residual_R, None if cluster_R is None else cluster_R[known_R][kept_R])
    if isinstance(noise, Wild):  # of 40 trunks and more: they speak for themselves
        return Spread(max(float(np.sqrt(sum(noise.estimates))), LEAST_SD), noise.freedom)
    sd_C, freedom_C = noise.spread(np.eye(1, len(value_R)))
    return Spread(max(float(sd_C[0]), LEAST_SD), float(freedom_C[0]))


@dataclass(frozen=True)
class Design:
    """What the fit of the law does to the levels of the curves: losses of a shape that are all too high by 1 move them
    by its column of `shift_SS`, since the law bends towards them, and noise of the losses adds `covariance_SS`."""

    shift_SS: Array
    covariance_SS: Array


@dataclass(frozen=True)
class Judged:
    """By how much all losses of a shape are off what the others say, (S,): in log loss, with the half-width of its 95 %
    interval, which holds for all shapes together, its p, likewise, and whether it is on the common curve.

    drift: how much that curve moves over ten times the params, and the p of no such move. No p without a spread.
    """

    off_S: Array
    half_S: Array
    p_S: Array
    on_S: NDArray[np.bool_]
    drift: dict[str, float | None]

    def of(self, s: int) -> dict[str, Any]:
        off, half = self.off_S[s], self.half_S[s] if np.isfinite(self.half_S[s]) else np.nan
        ends = {"deviation": np.expm1(off), "low": np.expm1(off - half), "high": np.expm1(off + half)}
        return ends | {"p": self.p_S[s], "leaves": not self.on_S[s]}


def judge(level_S: Array, log_S: Array, runs_S: Array, design: Design, spread: Spread | None) -> Judged:
    """Looks for the shape whose losses being off explains the levels best, then for another one beside it; where none
    is off, one is named in at most 5 % of the sweeps (Bonferroni).

    Levels are a line in log N and the shifts of the shapes that leave it, by generalised least squares.
    """
    count, sd, freedom = len(level_S), spread.sd if spread else 1.0, spread.freedom if spread else np.nan
    noise_SS = np.diag(sd**2 / runs_S) + (design.covariance_SS if spread else 0.0)
    on_S, p_S = np.ones(count, bool), np.full(count, np.nan)
    while True:
        off_S, sd_S = _shifts(level_S, log_S, noise_SS, design.shift_SS, on_S)
        now_S = np.minimum(1.0, on_S.sum() * 2 * special.stdtr(freedom, -np.abs(off_S / sd_S)))
        p_S = np.where(on_S, now_S, p_S)
        best = int(np.argmin(np.where(on_S, now_S, np.inf)))
        if spread is None or now_S[best] >= SIGNIFICANT or on_S.sum() < LEAST_SHAPES:
            break
        on_S[best] = False
    half_S = sd_S * special.stdtrit(freedom, 1 - SIGNIFICANT / 2 / count)
    beside_SK = np.column_stack([np.ones(count), design.shift_SS[:, ~on_S]])
    slope, sd_slope = _coefficient(log_S, beside_SK, level_S, noise_SS)
    p = None if spread is None else float(2 * special.stdtr(freedom, -abs(slope / sd_slope)))
    return Judged(off_S, half_S, p_S, on_S, {"per_decade": float(np.expm1(slope * np.log(10))), "p": p})


def _shifts(
    level_S: Array, log_S: Array, noise_SS: Array, shift_SS: Array, on_S: NDArray[np.bool_]
) -> tuple[Array, Array]:
    """The shift of each shape beside those that have left, and its standard deviation, (S,) each."""
    found = []
    for s in range(len(level_S)):
        others = [other for other in np.flatnonzero(~on_S).tolist() if other != s]
        beside_SK = np.column_stack([np.ones(len(level_S)), log_S, shift_SS[:, others]])
        found.append(_coefficient(shift_SS[:, s], beside_SK, level_S, noise_SS))
    off_S, sd_S = np.array(found).T
    return off_S, sd_S


def _coefficient(column_S: Array, beside_SK: Array, level_S: Array, noise_SS: Array) -> tuple[float, float]:
    """By generalised least squares, of a regressor beside others, with its standard deviation; 0 and infinity where
    the others leave nothing of it."""
    root_SS = np.linalg.cholesky(noise_SS)
    white_SK, white_S, target_S = (np.linalg.solve(root_SS, each) for each in (beside_SK, column_S, level_S))
    own_S = white_S - white_SK @ np.linalg.lstsq(white_SK, white_S)[0]
    square = float(own_S @ own_S)
    if square <= LEAST_OF_ITS_OWN * float(white_S @ white_S):
        return 0.0, np.inf
    return float(own_S @ target_S) / square, square**-0.5


def line(over_SX: Array, log_S: Array, runs_S: Array, on_S: NDArray[np.bool_]) -> Array:
    """The common curve, (X,): at the mean log N, of the line through the shapes on it."""
    root_S1 = np.sqrt(runs_S[on_S])[:, None]
    X_SK = np.column_stack([np.ones(int(on_S.sum())), log_S[on_S] - log_S[on_S].mean()])
    line_X: Array = np.linalg.lstsq(root_S1 * X_SK, root_S1 * over_SX[on_S])[0][0]
    return line_X


def sentence(found: dict[str, Any] | None) -> str:
    """The shapes that leave the common curve, in one line; empty where none does."""
    gone = [entry for entry in found.get("shapes", []) if entry["leaves"]] if found else []
    if not found or not gone:
        return ""
    said = [f"{entry['shape']} by {100 * entry['deviation']:+.1f} % (p = {entry['p']:.2g})" for entry in gone]
    verb, whose = ("leaves", "its") if len(gone) == 1 else ("leave", "their")
    return (
        f"{_listed(said)} {verb} the common curve of training at D/N near {found['tokens_per_param']:.2g}: {whose} "
        "settings, steps or the law may be why"
    )


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
