"""One fit: a law on a table, with estimates, intervals and a certificate."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy import special

from harness.errors import UserError
from harness.laws import display
from harness.laws.forms import FORMS, Array, Form, Variables, centred, check_law
from harness.laws.forms.base import with_fixed
from harness.laws.noise import intervals as ci
from harness.laws.noise.noise import Noise, estimate
from harness.laws.solving.certificate import Certificate, certify
from harness.laws.solving.losses import LOSSES, Loss
from harness.laws.solving.solver import Problem, minimise
from harness.laws.table.entry import prepared
from harness.laws.table.rows import VARIABLES, Columns, Rows, check_levels
from harness.laws.table.table import as_table
from harness.laws.table.units import Units

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Fit:
    """A law fitted to rows. `intervals` are 95 %; None where the rows allow no finite one.

    `objective` is the sum of the loss over the rows in natural units (huber r^2/2 within delta, lad |r|, the
    others r^2; r in log loss except under mse).
    """

    law: str
    loss: str
    delta: float
    columns: Columns
    rows: Rows
    fixed: dict[str, float]
    estimates: dict[str, float]
    intervals: dict[str, Interval]
    objective: float
    certificate: Certificate
    interval_method: str
    problem: Problem = field(repr=False)
    theta_P: Array = field(repr=False)
    curvature: ci.Curvature = field(repr=False)
    noise: Noise = field(repr=False)
    draws: ci.Draws | None = field(repr=False)

    def __repr__(self) -> str:
        return display.short(self.to_dict())

    def __str__(self) -> str:
        return display.text(self.to_dict())

    def _repr_html_(self) -> str:
        return display.html(self.to_dict())

    @property
    def form(self) -> Form:
        return self.problem.form

    @property
    def predicts(self) -> str:
        names = {"params": ("N", self.columns.params), "tokens": ("D", self.columns.tokens)}
        names["flops"] = ("C", self.columns.flops)
        names["unique_tokens"] = ("U", self.columns.unique_tokens)
        names |= {use: (names[use][0], words) for use, words in self.rows.derived.items()}
        where = ", ".join(" = ".join(names[use]) for use in self.form.uses if use in names)
        return f"{self.form.equation}; L = {self.columns.target}, {where}"

    def predict(self, params: Any = None, tokens: Any = None, **others: Any) -> Array:
        """The law at arrays of params and tokens that broadcast; C is `flops`, else the rows' own multiple of N D.

        `others` are flops, unique_tokens, width and depth where the law uses them. Raises UserError where one is
        missing.
        """
        at, shape = self._at({"params": params, "tokens": tokens} | others)
        f_X = self.form.log_prediction(self.theta_P[None], at)[0]
        return (np.exp(f_X) * at.scale).reshape(shape)

    def predict_interval(
        self, params: Any = None, tokens: Any = None, level: float = ci.CONFIDENCE, **others: Any
    ) -> tuple[Array, Array]:
        """Interval of the loss of a new run on a new trunk: doubt of the law and noise of the run."""
        at, shape = self._at({"params": params, "tokens": tokens} | others)
        logs = self.problem.loss.in_logs
        if self.draws is not None:
            f_SX = self.form.log_prediction(self.draws.theta_SP, at)
            # One quantile a draw, the same along a curve, keeps the band as smooth as the curve.
            normal_S = special.ndtri((np.random.default_rng(0).permutation(len(f_SX)) + 0.5) / len(f_SX))
            noise_SX = (normal_S * self.draws.sd_S)[:, None]
            low_X, high_X = ci.quantiles(f_SX + noise_SX if logs else np.exp(f_SX) + noise_SX, level)
        else:
            f_MX, J_MXP = self.form.derivatives(self.theta_P[None], at)
            J_XP = J_MXP[0] if logs else J_MXP[0] * np.exp(f_MX[0])[:, None]
            sd_X, freedom_X = self.curvature.spread(J_XP)
            run = math.sqrt(sum(self.noise.estimates))
            half_X = special.stdtrit(np.maximum(freedom_X, 1), (1 + level) / 2) * np.hypot(sd_X, run)
            centre_X = f_MX[0] if logs else np.exp(f_MX[0])
            low_X, high_X = centre_X - half_X, centre_X + half_X
        with np.errstate(over="ignore"):
            if logs:
                low_X, high_X = np.exp(low_X), np.exp(high_X)
            return (low_X * at.scale).reshape(shape), (high_X * at.scale).reshape(shape)

    def interval(self, function: Callable[[Array], Array]) -> tuple[Array, Array]:
        """95 % interval of functions (M, P) -> (M, X) of the internal parameters, two arrays (X,)."""
        if self.draws is not None:
            low_X, high_X = ci.quantiles(function(self.draws.theta_SP))
            return low_X, high_X
        step_PP = 1e-5 * np.eye(len(self.theta_P))
        gradient_XP = (function(self.theta_P + step_PP) - function(self.theta_P - step_PP)).T / 2e-5
        sd_X, freedom_X = self.curvature.spread(gradient_XP)
        half_X = sd_X * special.stdtrit(np.maximum(freedom_X, 1), ci.TAILS[1])
        value_X = function(self.theta_P[None])[0]
        return value_X - half_X, value_X + half_X

    def at(self, theta_MP: Array) -> dict[str, Array]:
        """Natural parameters of internal ones, (M,) each."""
        return self.form.natural(theta_MP, self.problem.at)

    def _at(self, given: dict[str, Any]) -> tuple[Variables, tuple[int, ...]]:
        given = {name: np.asarray(value, float) for name, value in given.items() if value is not None}
        values = dict(zip(given, np.broadcast_arrays(*given.values()), strict=True))
        if not all((value > 0).all() for value in values.values()):
            raise UserError("predict: params, tokens and all other variables must be above 0")
        if "flops" not in values and {"params", "tokens"} <= set(values) and self.rows.knows(*VARIABLES):
            values["flops"] = self.rows.flops_per_product * values["params"] * values["tokens"]
        missing = [use for use in self.form.uses if use not in values]
        if missing:
            raise UserError(f"predict: {self.law} needs {missing[0]} too: give {missing[0]}=...")
        shape = next(iter(values.values())).shape
        return self.problem.at.at(*(values[use].ravel() for use in self.form.uses)), shape

    def to_dict(self) -> dict[str, Any]:
        """The FIT object of fit.json."""
        return {
            "law": self.law,
            "loss": self.loss,
            "delta": self.delta,
            "params": self.columns.params if self.rows.knows("params") else None,
            "tokens": self.columns.tokens if self.rows.knows("tokens") else None,
            "target": self.columns.target,
            "rows": len(self.rows),
            "fixed": self.fixed,
            "estimates": dict(self.estimates),
            "intervals": {key: None if value is None else list(value) for key, value in self.intervals.items()},
            "interval_method": self.interval_method,
            "objective": self.objective,
            "predicts": self.predicts,
            "certificate": asdict(self.certificate),
        }


def fit(
    table: Any,
    law: str = "chinchilla",
    loss: str = "huber",
    delta: float = 1e-3,
    params: str = "params_with_head",
    tokens: str = "tokens",
    target: str = "loss",
    bootstrap: int = 0,
    seed: int = 0,
    *,
    flops: str = "flops",
    unique_tokens: str = "unique_tokens",
    width: str = "width",
    depth: str = "depth",
    weight: str | None = None,
    cluster: str | None = None,
    filter: str = "",
    fixed: Mapping[str, float] | None = None,
    target_unit: str | None = None,
    bytes_per_token: float | None = None,
    units: Mapping[str, Any] | None = None,
) -> Fit:
    """Fits a law to a run table: a path, a data frame, a mapping of columns, or a Table.

    law: a name in harness.laws.forms.FORMS. loss: huber (delta, on log loss), lad, log_mse,
    mse. bootstrap: how many simulated tables give the intervals; 0 takes them from the curvature. cluster: the
    column that names the run a row belongs to (default: `trunk`, then `cluster`, where the table has one).
    weight: relative precisions of the rows. Without a flops column, C is 6 N D. fixed: parameters that are held at
    known values, under the names that the law's estimates have; a coefficient only beside its exponent. Columns of
    other names are found by these where they are unambiguous. target_unit: nats, bits, perplexity or bits_per_byte,
    which needs bytes_per_token; the law is of nats. units: what one in the columns of params, tokens and flops is
    worth, as in {"params": "billions"}; asked for where they cannot be plain counts.

    Raises UserError for an unknown choice, and for a table that cannot be fitted.
    """
    columns = Columns(params, tokens, target, flops, unique_tokens, width, depth, weight, cluster)
    wishes = (filter, None, Units(**(units or {})), target_unit, bytes_per_token)
    ready = prepared(as_table(table), columns, law, *wishes)
    source, given = ready.table.source, fixed or {}
    return fit_rows(ready.rows, ready.columns, law, loss, delta, bootstrap, seed, source, given)


def by_loss(table: Any, law: str = "chinchilla", **choices: Any) -> dict[str, Fit]:
    """`fit` under each loss, since the choice of it moves an exponent; further arguments as of `fit`."""
    return {loss: fit(table, law, loss, **choices) for loss in LOSSES}


def fit_rows(
    rows: Rows,
    columns: Columns,
    law: str = "chinchilla",
    loss: str = "huber",
    delta: float = 1e-3,
    bootstrap: int = 0,
    seed: int = 0,
    source: str = "the table",
    fixed: Mapping[str, float] = MappingProxyType({}),
) -> Fit:
    """`fit` on numbers that are read already."""
    check_law(law)
    form = FORMS[law]
    check_choices(loss, delta, bootstrap, seed)
    check_levels(rows, columns, form, source)
    problem = _problem(rows, form, Loss(loss, delta), fixed)
    return fit_problem(problem, rows, columns, bootstrap, seed, fixed)


def fit_problem(
    problem: Problem,
    rows: Rows,
    columns: Columns,
    bootstrap: int,
    seed: int,
    fixed: Mapping[str, float] = MappingProxyType({}),
    noise_of: tuple[Any, Callable[[Array, Array, Any], Noise]] | None = None,
) -> Fit:
    """`fit` of what is to be minimised; `noise_of` are the groups of rows that share noise, and its estimator."""
    form, loss = problem.form, problem.loss
    noise_of = noise_of or (rows.cluster, estimate)
    starts_MP, solution = minimise(problem)
    best = int(np.argmin(solution.objective_M))
    theta_P = solution.theta_MP[best]
    curvature = ci.linearise(problem, theta_P, *noise_of)
    noise = ci.row_noise(problem, theta_P, *noise_of)
    by_curvature = ci.curvature_intervals(problem, theta_P, curvature)
    certificate = certify(problem, starts_MP, solution, by_curvature)
    draws = None
    intervals, method = by_curvature, "Student's t on the curvature with " + curvature.noise.curvature_words
    if bootstrap:
        draws = ci.refit(problem, theta_P, ci.simulate(problem, theta_P, noise, bootstrap, seed))
        intervals = ci.percentile_intervals(problem, draws)
        method = f"percentiles of {bootstrap} refitted simulations, fixed design, {noise.words}"
    natural = form.natural(theta_P[None], problem.at)
    return Fit(
        law=form.name,
        loss=loss.kind,
        delta=loss.delta,
        columns=columns,
        rows=rows,
        fixed=dict(fixed),
        estimates={name: float(value[0]) for name, value in natural.items()},
        intervals=intervals,
        objective=float(solution.objective_M[best]) * (1.0 if loss.in_logs else problem.at.scale**2),
        certificate=certificate,
        interval_method=method,
        problem=problem,
        theta_P=theta_P,
        curvature=curvature,
        noise=noise,
        draws=draws,
    )


def _problem(rows: Rows, form: Form, loss: Loss, fixed: Mapping[str, float]) -> Problem:
    at = centred(rows.loss, *(rows.of(use) for use in form.uses))
    return Problem(with_fixed(form, fixed, at) if fixed else form, at, (rows.loss / at.scale)[None], rows.weight, loss)


def check_choices(loss: str, delta: float, bootstrap: int, seed: int) -> None:
    if loss not in LOSSES:
        raise UserError(f"loss={loss} is not known: choose {_listed(LOSSES)}")
    if not 1e-8 <= delta <= 1e3:
        raise UserError(f"delta={delta} is not a Huber threshold: give a number between 1e-8 and 1000")
    if bootstrap < 0 or 0 < bootstrap < 200 or bootstrap > 1_000_000:
        raise UserError(f"bootstrap={bootstrap} gives no 95 % interval: give 0 (curvature), or 200 to 1000000")
    if seed < 0:
        raise UserError(f"seed={seed} is negative: give 0 or more")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" or {names[-1]}"
