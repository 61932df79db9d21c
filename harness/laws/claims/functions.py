"""Quantities that are functions of a fitted law: by what is counted, of a model trained on, of a smaller one.

Shapes: M sets of parameters.
"""

from collections.abc import Callable

import numpy as np

from harness.laws.claims.measured import Evidence, Measured, Panel, Row
from harness.laws.fit import Fit
from harness.laws.forms import Array
from harness.laws.methods.counts import accounting
from harness.laws.methods.frontier import optimum
from harness.laws.methods.serving import Terms, terms

CURVE_POINTS = 31
# Over how many times its tokens, or at which parts of its params, a compute-optimal model is shown.
LONGER = (2.0, 4.0, 10.0, 100.0)
SMALLER = (0.8, 0.65, 0.5)


def doubts(fit: Fit) -> list[str]:
    """Why nothing hangs on a fit."""
    certificate = fit.certificate
    return [] if certificate.certified else [f"the fit is not certified: {'; '.join(certificate.reasons)}"]


def by_counting(evidence: Evidence) -> Measured:
    """By how much the exponent a of N* rises where embedding and head are left out of N, and of C = 6 N D.

    Each count has a fit of its own to the same simulated noise, whose draws are paired.
    """
    fits = [evidence.fit(params) for params in ("params_with_head", "params_non_embedding")]
    draws_CS = [fit.at(fit.draws.theta_SP)["a"] for fit in fits if fit.draws is not None]
    assert len(draws_CS) == 2
    low, high = np.quantile(draws_CS[1] - draws_CS[0], (0.025, 0.975)).tolist()
    rows = [
        Row(f"a, {entry['params']}, C = {entry['flops']}", *(entry["a"][key] for key in ("value", "low", "high")))
        for entry in accounting(evidence.ready.table, fits)
    ]
    change = fits[1].estimates["a"] - fits[0].estimates["a"]
    words = "a without embeddings, less a with the head (C = 6 N D of each)"
    method = f"{fits[0].predicts}, and with N = params_non_embedding; {fits[0].interval_method}, pairs of both counts"
    found = [doubt for fit in fits for doubt in doubts(fit)]
    return Measured(words, method, change, low, high, [*rows, Row("difference", change, low, high, True)], None, found)


def trained_on(evidence: Evidence) -> Measured:
    """How far a compute-optimal model is from convergence: its loss over its own after endless training, less 1."""
    fit = evidence.fit()

    def left(longer: float) -> Callable[[Array], Array]:
        def excess(theta_MP: Array) -> Array:
            best, law = _at_optimum(fit, theta_MP)
            further = law.log_loss(best["params"], best["tokens"] + np.log(longer))
            return np.asarray(np.expm1(best["loss"] - further))

        return excess

    rows = [_row(fit, f"trained {longer:g} times as long", left(longer)) for longer in LONGER]
    decisive = _row(fit, "trained without end", left(np.inf), decides=True)
    words = "loss of a compute-optimal model over that of the same model at convergence, less 1"
    return _of_fit(fit, words, [*rows, decisive])


def half_size(evidence: Evidence) -> Measured:
    """How much more compute a model of half the optimal params takes to the optimal loss, as a part of C."""
    fit = evidence.fit()

    def overhead(part: float) -> Callable[[Array], Array]:
        def more(theta_MP: Array) -> Array:
            best, law = _at_optimum(fit, theta_MP)
            of_params = law.logA_M1 - law.alpha_M1 * (best["params"] + np.log(part))
            whole = np.logaddexp(
                law.logA_M1 - law.alpha_M1 * best["params"], law.logB_M1 - law.beta_M1 * best["tokens"]
            )
            with np.errstate(invalid="ignore", divide="ignore"):  # a model too small for that loss takes endless tokens
                left = np.where(whole > of_params, np.log1p(-np.exp(np.minimum(of_params - whole, 0.0))), -np.inf)
            tokens = (law.logB_M1 - whole - left) / law.beta_M1
            return np.asarray(part * np.exp(tokens - best["tokens"]) - 1)

        return more

    rows = [_row(fit, f"{part:g} of N*", overhead(part), decides=part == 0.5) for part in SMALLER]
    return _of_fit(fit, "compute of a model of half the optimal params over the optimum's at equal loss, less 1", rows)


def _at_optimum(fit: Fit, theta_MP: Array) -> tuple[dict[str, Array], Terms]:
    """Logs of the compute-optimal params, tokens and loss at the geometric mean of the cells' compute, and the law."""
    natural = fit.at(theta_MP)
    product = np.exp(np.log(fit.rows.flops).mean()) / fit.rows.flops_per_product
    return optimum(natural, np.array([product])), terms(natural)


def _row(fit: Fit, label: str, function: Callable[[Array], Array], decides: bool = False) -> Row:
    with np.errstate(over="ignore"):
        low, high = (float(end[0]) for end in fit.interval(function))
        return Row(label, float(function(fit.theta_P[None])[0, 0]), low, high, decides)


def _of_fit(fit: Fit, words: str, rows: list[Row]) -> Measured:
    (decisive,) = (row for row in rows if row.decides)
    method = f"{fit.predicts}, at the compute of the cells' geometric mean; {fit.interval_method}"
    return Measured(words, method, decisive.estimate, decisive.low, decisive.high, rows, _frontier(fit), doubts(fit))


def _frontier(fit: Fit) -> Panel:
    """The cells, and the frontier that the law draws below them."""
    rows = fit.rows
    flops_X = np.geomspace(rows.flops.min(), rows.flops.max(), CURVE_POINTS)
    best = np.exp(optimum(fit.at(fit.theta_P[None]), flops_X / rows.flops_per_product)["loss"][0])
    points = [{"series": "cells", "x": x, "y": y} for x, y in zip(rows.flops, rows.loss, strict=True)]
    lines = [{"series": "compute-optimal", "x": x, "y": y} for x, y in zip(flops_X, best, strict=True)]
    return Panel("training compute C (FLOPs)", "validation loss (nats per token)", "", points, lines)
