"""Generalised least squares (Aitken 1936): rows weighted by what the residuals show of the noise that they share.

Shapes: R rows, P parameters, M parameter vectors, G shares, B groups that share no noise, N rows of one, X anything.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.laws.fit import Fit
from harness.laws.forms import Array, Form, Variables
from harness.laws.noise import intervals as ci
from harness.laws.noise.noise import Components, Noise
from harness.laws.noise.pairs import Paired
from harness.laws.solving.solver import BLOCK, Problem, solve

# Simulated tables that are not there after so many are followed by Newton's method.
MOST_STEPS = 25


@dataclass(frozen=True)
class Weights:
    """A root of the rows' precision, of mean 1: the same within all groups of one list, rows_BN and root_NN."""

    blocks: list[tuple[NDArray[np.intp], Array]]

    def mixed(self, value_XR: Array) -> Array:
        """The rows mixed so that their noise is independent and of one size."""
        return self._times(value_XR, [root_NN.T for _, root_NN in self.blocks])

    def back(self, value_XR: Array) -> Array:
        """The transpose of `mixed`."""
        return self._times(value_XR, [root_NN for _, root_NN in self.blocks])

    def _times(self, value_XR: Array, matrices: list[Array]) -> Array:
        found_XR = np.empty_like(value_XR)
        for (rows_BN, _), matrix_NN in zip(self.blocks, matrices, strict=True):
            found_XR[..., rows_BN] = value_XR[..., rows_BN] @ matrix_NN
        return found_XR


@dataclass(frozen=True)
class Mixed:
    """A form whose rows are mixed."""

    form: Form
    weights: Weights

    def __getattr__(self, name: str) -> Any:
        return getattr(self.form, name)

    def log_prediction(self, theta_MP: Array, at: Variables) -> Array:
        return self.weights.mixed(self.form.log_prediction(theta_MP, at))

    def derivatives(self, theta_MP: Array, at: Variables) -> tuple[Array, Array]:
        f_MR, J_MRP = self.form.derivatives(theta_MP, at)
        return self.weights.mixed(f_MR), self.weights.mixed(J_MRP.transpose(0, 2, 1)).transpose(0, 2, 1)

    def second(self, gradient_MRP: Array, weight_MR: Array, at: Variables, theta_MP: Array) -> Array:
        _, J_MRP = self.form.derivatives(theta_MP, at)
        return self.form.second(J_MRP, self.weights.back(weight_MR), at, theta_MP)


def weights_of(noise: Noise) -> Weights | None:
    """By the mean precision over the shares of trunks and of pairs; None where no share is estimated."""
    if isinstance(noise, Paired):
        weight_G = noise.weight_G * noise.freedom / noise.quadratic_G
        parts = [(block.rows_BN, np.tensordot(weight_G, block.inverse_GNN, 1)) for block in noise.groups.shares.blocks]
    elif isinstance(noise, Components) and not (noise.independent or noise.trunks_hidden):
        share_G, weight_G, scaled_G = noise.shares()
        weight_G = weight_G / scaled_G
        parts = []
        size_K = np.bincount(noise.cluster_R)
        for size in np.unique(size_K):
            rows_BN = np.stack([np.flatnonzero(noise.cluster_R == trunk) for trunk in np.flatnonzero(size_K == size)])
            # The inverse of (1 - s) I + s 1 1' is (I - s / (1 - s + s n) 1 1') / (1 - s).
            alone_G = weight_G / (1 - share_G)
            common = float(alone_G @ (share_G / (1 - share_G + share_G * size)))
            parts.append((rows_BN, alone_G.sum() * np.eye(size) - common))
    else:
        return None
    trace = sum(len(rows_BN) * float(np.trace(precision_NN)) for rows_BN, precision_NN in parts)
    mean = trace / sum(rows_BN.size for rows_BN, _ in parts)
    roots = [np.asarray(np.linalg.cholesky(precision_NN / mean), float).T for _, precision_NN in parts]
    return Weights([(rows_BN, root_NN) for (rows_BN, _), root_NN in zip(parts, roots, strict=True)])


def gain(J_RP: Array, weights: Weights | None) -> Array:
    """What the rows' noise moves the parameters by, (P, R)."""
    if weights is None:
        return np.asarray(np.linalg.pinv(J_RP, rcond=1e-9), float)
    return weights.back(np.asarray(np.linalg.pinv(weights.mixed(J_RP.T).T, rcond=1e-9), float))


def weighted(fit: Fit, bootstrap: int, seed: int) -> Fit:
    """A fit of squares of log residuals with its rows weighted, and with the intervals of its simulations.

    As it is, but for these, under another loss, with weights of its own, or where the residuals show no shares.
    """
    # The solver takes larger tables apart.
    plain = fit.loss == "log_mse" and np.ptp(fit.problem.weight_R) == 0 and len(fit.rows) <= BLOCK
    weights = weights_of(fit.noise) if plain else None
    problem = fit.problem
    if weights is not None:
        target = np.exp(weights.mixed(np.log(problem.target)))
        problem = replace(problem, form=Mixed(fit.form, weights), target=target)
        solution = solve(problem, fit.theta_P[None])
        if solution.converged_M[0]:
            fit = _moved(fit, problem, solution.theta_MP[0], float(solution.gradient_M[0]), weights)
        else:
            weights, problem = None, fit.problem
    if not bootstrap:
        return fit
    targets = ci.simulate(fit.problem, fit.theta_P, fit.noise, bootstrap, seed)
    draws = ci.refit(problem, fit.theta_P, targets) if weights is None else _refit(fit, problem, weights, targets)
    words = f"percentiles of {bootstrap} refitted simulations, fixed design, {fit.noise.words}"
    words += "" if weights is None else "; rows weighted by it"
    return replace(fit, draws=draws, intervals=ci.percentile_intervals(fit.problem, draws), interval_method=words)


def _refit(fit: Fit, mixed: Problem, weights: Weights, targets: Iterator[tuple[Array, Array]]) -> ci.Draws:
    """`ci.refit` of the mixed problem: steps by the fit's own curvature lead nearly all simulated tables there, without
    mixing the rows of each gradient."""
    J_RP, _ = ci.whitened(fit.problem, fit.theta_P)
    root_RP = weights.mixed(J_RP.T).T
    inverse_PP = np.asarray(np.linalg.pinv(root_RP.T @ root_RP, hermitian=True), float)
    parts, sds, converged = [], [], []
    size = max(1, BLOCK // len(J_RP))
    for target_SR, sd_S in targets:
        theta_SP = np.repeat(fit.theta_P[None], len(target_SR), axis=0)
        done_S = np.zeros(len(target_SR), bool)
        for first in range(0, len(target_SR), size):
            part = slice(first, first + size)
            theta_SP[part], done_S[part] = _stepped(fit, weights, np.log(target_SR[part]), theta_SP[part], inverse_PP)
        if not done_S.all():
            rest = replace(mixed, target=np.exp(weights.mixed(np.log(target_SR[~done_S]))))
            starts_SP = np.repeat(fit.theta_P[None], int((~done_S).sum()), axis=0)
            solution = solve(rest, starts_SP, ci.DRAW_ITERATIONS, ci.DRAW_TOLERANCE)
            theta_SP[~done_S], done_S[~done_S] = solution.theta_MP, solution.converged_M
        parts.append(theta_SP)
        sds.append(sd_S)
        converged.append(done_S)
    return ci.Draws(np.concatenate(parts), np.concatenate(sds), float(np.concatenate(converged).mean()))


def _stepped(
    fit: Fit, weights: Weights, target_MR: Array, theta_MP: Array, inverse_PP: Array
) -> tuple[Array, NDArray[np.bool_]]:
    """Where steps of one curvature end, and whether the gradient vanishes there within bounds."""
    low_P, high_P = fit.form.bounds()
    done_M = np.zeros(len(theta_MP), bool)
    for _ in range(MOST_STEPS):
        going = np.flatnonzero(~done_M)
        f_MR, J_MRP = fit.form.derivatives(theta_MP[going], fit.problem.at)
        pull_MR = weights.back(weights.mixed(target_MR[going] - f_MR))
        gradient_MP = (pull_MR[:, None, :] @ J_MRP)[:, 0]
        size_MP = (np.abs(pull_MR)[:, None, :] @ np.abs(J_MRP))[:, 0]
        near_M = (np.abs(gradient_MP) <= ci.DRAW_TOLERANCE * size_MP).all(1)
        done_M[going[near_M]] = True
        if done_M.all():
            break
        step_MP = theta_MP[going] + gradient_MP @ inverse_PP
        inside_M = np.isfinite(step_MP).all(1) & (step_MP > low_P).all(1) & (step_MP < high_P).all(1) & ~near_M
        theta_MP[going[inside_M]] = step_MP[inside_M]
    return theta_MP, done_M


def _moved(fit: Fit, problem: Problem, theta_P: Array, norm: float, weights: Weights) -> Fit:
    """The fit at where the weighted one ends; the noise is as it was."""
    J_RP, _ = ci.whitened(fit.problem, theta_P)
    low_P, high_P = fit.form.bounds()
    free_P = (theta_P > low_P) & (theta_P < high_P)
    gain_PR = np.zeros(J_RP.T.shape)
    gain_PR[free_P] = gain(J_RP[:, free_P], weights)
    curvature = ci.Curvature(gain_PR, fit.curvature.noise)
    natural = fit.form.natural(theta_P[None], fit.problem.at)
    return replace(
        fit,
        theta_P=theta_P,
        curvature=curvature,
        estimates={name: float(value[0]) for name, value in natural.items()},
        objective=float(fit.problem.natural(theta_P[None])[0]),
        intervals=ci.curvature_intervals(fit.problem, theta_P, curvature),
        interval_method=f"{fit.interval_method}; rows weighted by it",
        certificate=replace(fit.certificate, gradient_norm=norm),
    )
