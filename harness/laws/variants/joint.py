"""The joint law of several variants, fitted as a single law is, and the test of what they share.

Shapes: R rows, P joint parameters, V variants.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.laws.fit import Fit, fit_problem
from harness.laws.forms import FORMS, Form, centred
from harness.laws.forms.variants import COEFFICIENTS, JointLaw, labelled
from harness.laws.noise import intervals as ci
from harness.laws.noise.pairs import Groups, estimate_paired
from harness.laws.noise.wald import p_value
from harness.laws.solving.losses import Loss
from harness.laws.solving.solver import Problem, solve
from harness.laws.table.rows import Columns, Rows, check_levels

LAWS = ("chinchilla", "chinchilla_tied", "chinchilla_coupled")
# What the test of shared exponents lets a variant have of its own; gamma couples the terms of all alike.
TESTED = ("alpha", "beta")


@dataclass(frozen=True)
class Arms:
    """The rows of all variants, those of the baseline first: `names` (V,), and which of them each row is of."""

    names: tuple[str, ...]
    variant_R: NDArray[np.intp]
    rows: Rows
    columns: Columns
    groups: Groups


def shareable(law: str) -> tuple[str, ...]:
    """What the variants of a law can have in common beside its form: E and the exponents."""
    return tuple(name for name in FORMS[law].internal if name not in COEFFICIENTS)


def fit_joint(arms: Arms, law: str, shared: frozenset[str], loss: Loss, source: str) -> Fit:
    """One law for all variants, each with a coefficient of params and one of tokens.

    `shared` are those of shareable(law) that all have in common. Its intervals are of its curvature. Raises UserError
    where the rows are too few.
    """
    form = JointLaw(FORMS[law], arms.names, shared)
    check_levels(arms.rows, arms.columns, form, source)
    problem = _problem(arms, form, loss)
    return fit_problem(problem, arms.rows, arms.columns, 0, 0, noise_of=(arms.groups, estimate_paired))


def _problem(arms: Arms, form: Form, loss: Loss) -> Problem:
    rows = arms.rows
    at = centred(rows.loss, rows.params, rows.tokens)
    return Problem(form, labelled(at, arms.variant_R), (rows.loss / at.scale)[None], rows.weight, loss)


def freed(fit: Fit, arms: Arms, names: tuple[str, ...]) -> Fit | None:
    """The law with `names` of each variant's own, from where the shared one ended; None where that does not converge.

    Its intervals are of its curvature.
    """
    form = fit.form
    assert isinstance(form, JointLaw)
    own = JointLaw(form.form, form.variants, form.shared - set(names))
    problem = replace(fit.problem, form=own)
    start_P = np.empty(len(own.internal))
    for own_F, shared_F in zip(own.places_VF, form.places_VF, strict=True):
        start_P[own_F] = fit.theta_P[shared_F]
    solution = solve(problem, start_P[None])
    if not solution.converged_M[0]:
        return None
    theta_P = solution.theta_MP[0]
    curvature = ci.linearise(problem, theta_P, arms.groups, estimate_paired)
    return replace(fit, problem=problem, theta_P=theta_P, curvature=curvature, noise=curvature.noise)


def exponents_shared(fit: Fit, arms: Arms, variant: int) -> float | None:
    """p of the hypothesis that a variant has the exponents of all others: what its own would explain of the residuals.

    A score test at the fit of shared exponents (Rao 1948); None where the law or the rows leave none to test.
    """
    form = fit.form
    assert isinstance(form, JointLaw)
    tested = [name for name in TESTED if name in form.shared]
    if not tested:
        return None
    own = JointLaw(form.form, form.variants, form.shared - set(tested))
    theta_P = np.empty(len(own.internal))
    for own_F, shared_F in zip(own.places_VF, form.places_VF, strict=True):
        theta_P[own_F] = fit.theta_P[shared_F]
    J_RP, xi_R = ci.influence(replace(fit.problem, form=own), theta_P)
    freed_C = [own.internal.index(f"{name} of {form.variants[variant]}") for name in tested]
    J_RS, _ = ci.influence(fit.problem, fit.theta_P)
    low_P, high_P = form.bounds()
    J_RS = J_RS[:, (fit.theta_P > low_P) & (fit.theta_P < high_P)]
    basis_RS, _ = np.linalg.qr(J_RS)
    left_RC = J_RP[:, freed_C] - basis_RS @ (basis_RS.T @ J_RP[:, freed_C])
    size_C = np.linalg.norm(left_RC, axis=0)
    if len(xi_R) <= J_RS.shape[1] + len(freed_C) or (size_C < 1e-9 * np.linalg.norm(J_RP[:, freed_C], axis=0)).any():
        return None
    contrast_CR = np.asarray(np.linalg.pinv(left_RC), float)
    value_C = contrast_CR @ xi_R
    everything_RP = np.column_stack([J_RS, left_RC])
    residual_R = xi_R - left_RC @ value_C
    return p_value(estimate_paired(everything_RP, residual_R, arms.groups), contrast_CR, value_C)


def check_joint(law: str, shared: frozenset[str]) -> None:
    """Raises UserError for a law that has no joint form, or for what it cannot share."""
    if law not in LAWS:
        raise UserError(f"law={law} has no multipliers: choose {', '.join(LAWS[:-1])} or {LAWS[-1]}")
    unknown = sorted(shared - set(shareable(law)))
    if unknown:
        raise UserError(f"shared: {law} has no {unknown[0]} to share: give some of {', '.join(shareable(law))}")
