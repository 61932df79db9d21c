from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from harness.laws import fit
from harness.laws.forms import FORMS, centred
from harness.laws.solving.certificate import certify
from harness.laws.solving.losses import LOSSES, Loss
from harness.laws.solving.solver import Problem, local_model, solve

PARAMS = np.repeat(np.geomspace(1e5, 1e6, 5), 4)
TOKENS = np.tile(np.geomspace(1e6, 8e6, 4), 5)
FORM = FORMS["chinchilla"]


def problem(loss: Loss, noise: float = 0.01) -> Problem:
    errors = noise * np.random.default_rng(3).standard_t(3, len(PARAMS))
    losses = (2 + 100 * PARAMS**-0.4 + 900 * TOKENS**-0.45) * np.exp(errors)
    at = centred(losses, PARAMS, TOKENS)
    return Problem(FORM, at, (losses / at.scale)[None], np.ones(len(losses)), loss)


def a_point(law, alpha, beta, E, logA):
    """A form, variables of 20 rows, and internal parameters with the given values where it has them."""
    form = FORMS[law]
    variables = {"unique_tokens": np.full(20, 2e6), "width": PARAMS**0.5, "depth": np.tile([2.0, 3, 4, 6, 8], 4)}
    variables |= {"params": PARAMS, "tokens": TOKENS, "flops": 6 * PARAMS * TOKENS}
    at = centred(np.full(20, 1.3), *(variables[use] for use in form.uses))
    values = {"E": E, "A": logA, "intercept": logA, "alpha": alpha, "ratio": alpha, "B": -0.5, "beta": beta, "G": -0.7}
    values |= {"gamma": 0.8, "R": 1.5, "R_D": 1.5, "R_N": 1.2, "P": 0.3, "break": 0.2, "width": -0.4}
    return form, at, np.array([values[name] for name in form.internal])


@given(
    st.sampled_from(sorted(FORMS)),
    st.floats(0.05, 1.5),
    st.floats(0.05, 1.5),
    st.floats(0.01, 1),
    st.floats(-2, 1),
)
def test_derivatives_agree_with_finite_differences(law, alpha, beta, E, logA):
    form, at, theta = a_point(law, alpha, beta, E, logA)
    f, J = form.derivatives(theta[None], at)
    assert f[0] == pytest.approx(form.log_prediction(theta[None], at)[0])
    weight = np.linspace(-1, 2, 20)
    second = form.second(J, weight[None], at, theta[None])[0]
    for index in range(len(theta)):
        step = np.zeros(len(theta))
        step[index] = 1e-6
        up, down = form.derivatives((theta + step)[None], at), form.derivatives((theta - step)[None], at)
        assert J[0, :, index] == pytest.approx((up[0] - down[0])[0] / 2e-6, abs=1e-6)
        assert second[index] == pytest.approx(weight @ (up[1] - down[1])[0] / 2e-6, abs=1e-5, rel=1e-5)


def test_form_in_natural_units_and_back():
    at = centred(np.full(20, 3.0), PARAMS, TOKENS)
    estimates = {"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.34, "beta": 0.37}
    natural = FORM.natural(FORM.from_natural(estimates, at)[None], at)
    assert {key: natural[key][0] for key in estimates} == pytest.approx(estimates)
    assert natural["a"][0] == pytest.approx(0.37 / 0.71)
    predicted = np.exp(FORM.log_prediction(FORM.from_natural(estimates, at)[None], at)[0]) * 3
    assert predicted == pytest.approx(1.7 + 400 / PARAMS**0.34 + 2000 / TOKENS**0.37)


@given(st.sampled_from(sorted(FORMS)), st.floats(0.05, 1.5), st.floats(0.05, 1.5), st.floats(0.01, 1), st.floats(-2, 1))
def test_every_form_in_natural_units_and_back(law, alpha, beta, E, logA):
    form, at, theta = a_point(law, alpha, beta, E, logA)
    natural = {name: float(value[0]) for name, value in form.natural(theta[None], at).items()}
    assert form.from_natural(natural, at) == pytest.approx(theta, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("loss", [Loss("log_mse"), Loss("mse"), Loss("huber", 1e-2)])
def test_scipy_finds_nothing_better(loss):
    task = problem(loss)
    solution = solve(task, FORM.starts(task.target[0], task.at))
    best = solution.theta_MP[np.argmin(solution.objective_M)]
    other = minimize(
        lambda theta: 1e4 * task.objective(theta[None])[0],
        best + 0.05,
        method="Nelder-Mead",
        options={"maxiter": 20000, "maxfev": 20000, "xatol": 1e-11, "fatol": 1e-14},
    )
    assert solution.converged_M.sum() > 40
    assert other.x == pytest.approx(best, abs=1e-5)
    assert task.objective(best[None])[0] <= other.fun / 1e4 * (1 + 1e-12)


def test_lad_cannot_be_improved_by_linear_programming():
    result = fit({"params_with_head": PARAMS, "tokens": TOKENS, "loss": _losses()}, loss="lad")
    task, theta = result.problem, result.theta_P
    _, J = FORM.derivatives(theta[None], task.at)
    residual = task.residual(theta[None])[0]
    rows, count = J[0].shape
    program = linprog(
        np.r_[np.zeros(count), np.ones(rows)],
        A_ub=np.block([[-J[0], -np.eye(rows)], [J[0], -np.eye(rows)]]),
        b_ub=np.r_[-residual, residual],
        bounds=[(-1e-3, 1e-3)] * count + [(0, None)] * rows,
    )
    assert (np.abs(residual) < 1e-12).sum() == 5
    assert program.fun == pytest.approx(result.objective, rel=1e-7)


def test_lad_ends_at_a_kink_in_every_table(simulated):
    """Linear programmes go on where the smooth stages strand, as they do in some of these tables."""
    for seed in range(10):
        result = fit(simulated(noise=0.002, seed=seed), loss="lad")
        assert result.certificate.converged, seed
        assert result.certificate.starts_agree > 1, seed
        residual_R = result.problem.residual(result.theta_P[None])[0]
        assert (np.abs(residual_R) < 1e-12).sum() >= 4


def _losses():
    return (problem(Loss("lad")).target * 2.5)[0]


def test_an_unconverged_fit_is_not_certified():
    task = problem(Loss("log_mse"))
    starts = FORM.starts(task.target[0], task.at)
    certificate = certify(task, starts, solve(task, starts, max_iterations=2), {})
    assert not certificate.certified
    assert not certificate.converged
    assert certificate.gradient_norm > certificate.tolerance
    assert certificate.reasons[0].startswith("it did not converge")


def test_the_exponents_that_are_quoted_are_judged():
    """Kaplan's joint law works with the ratio of its two exponents inside."""
    form = FORMS["kaplan_joint"]
    losses = ((2e5 / PARAMS) ** (0.3 / 0.25) + 3e8 / TOKENS) ** 0.25
    at = centred(losses, PARAMS, TOKENS)
    task = Problem(form, at, (losses / at.scale)[None], np.ones(len(losses)), Loss("log_mse"))
    starts = form.starts(task.target[0], task.at)
    intervals = {"alpha": (-0.1, 0.7), "beta": (0.2, 0.3)}
    assert certify(task, starts, solve(task, starts), intervals).reasons == [
        "alpha is not identified: its 95 % interval from curvature is -0.1 to 0.7"
    ]


def test_a_fit_that_equals_its_start_is_not_certified():
    task = problem(Loss("huber", 1e-3))
    starts = FORM.starts(task.target[0], task.at)[:3]
    stuck = solve(replace(task, loss=Loss("log_mse")), starts, max_iterations=0)
    certificate = certify(task, starts, stuck, {})
    assert not certificate.moved
    assert "it did not move from its start" in certificate.reasons


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("law", ["chinchilla", "chinchilla_tied"])
def test_a_table_without_noise_is_certified(law, loss):
    """Rounding is all that its gradient shows."""
    table = {"params_with_head": PARAMS, "tokens": TOKENS, "loss": 2 + 100 * PARAMS**-0.4 + 900 * TOKENS**-0.4}
    result = fit(table, law=law, loss=loss)
    assert result.certificate.reasons == []
    assert result.estimates["alpha"] == pytest.approx(0.4, abs=1e-6)


def test_weights_count_rows():
    table = {"params_with_head": PARAMS, "tokens": TOKENS, "loss": _losses(), "w": np.where(PARAMS < 2e5, 2.0, 1.0)}
    twice = {key: np.r_[value, value[PARAMS < 2e5]] for key, value in table.items()}
    weighted, doubled = fit(table, loss="log_mse", weight="w"), fit(twice, loss="log_mse")
    for key, value in doubled.estimates.items():
        assert weighted.estimates[key] == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("loss", ["log_mse", "huber", "lad"])
def test_many_rows_lead_where_all_rows_would(loss):
    generator = np.random.default_rng(1)
    params, tokens = np.exp(generator.uniform(np.log([1e6, 1e8]), np.log([1e9, 1e11]), (3000, 2))).T
    losses = (1.8 + 400 / params**0.34 + 2000 / tokens**0.37) * np.exp(0.01 * generator.standard_normal(3000))
    result = fit({"params_with_head": params, "tokens": tokens, "loss": losses}, loss=loss)
    assert result.certificate.certified
    task = result.problem
    whole = solve(task, FORM.starts(task.target[0], task.at)[::8])
    assert result.objective == pytest.approx(whole.objective_M.min(), rel=1e-7)
    low, high = result.intervals["alpha"]
    assert low < 0.34 < high and high - low < 0.03


def test_a_problem_in_blocks_is_the_same_problem(monkeypatch):
    task = problem(Loss("mse"))
    theta = FORM.starts(task.target[0], task.at)
    whole, value, solution = local_model(task, theta), task.objective(theta), solve(task, theta)
    monkeypatch.setattr("harness.laws.solving.solver.BLOCK", 7)
    blocks = local_model(task, theta)
    assert blocks.hessian_MPP == pytest.approx(whole.hessian_MPP, rel=1e-9, abs=1e-12)
    assert blocks.norm_M == pytest.approx(whole.norm_M, rel=1e-9, abs=1e-12)
    assert task.objective(theta) == pytest.approx(value, rel=1e-12)
    assert solve(task, theta[:3]).theta_MP == pytest.approx(solution.theta_MP[:3], abs=1e-6)
