"""CPU seconds of a fit, of its simulated tables and of large tables, against scipy's L-BFGS, interleaved: make bench

The baseline is what public tools do: the log-sum-exp objective of Hoffmann et al. (2022), Huber 1e-3 summed over the
rows, analytic gradient, scipy's L-BFGS-B from their grid of 4,500 starts; every further draw of a bootstrap descends
from the best point. It takes minutes, so each round times one in a hundred of its starts and draws and multiplies.
"""

import resource
import statistics
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from harness.laws import fit

ROWS, DRAWS, DELTA = 240, 4000, 1e-3
LARGE = (10_000, 100_000, 1_000_000)
ROUNDS, SHARE = 5, 100
A_GRID, E_GRID, EXPONENTS = np.arange(0, 30, 5), np.linspace(-1, 1, 5), np.linspace(0, 2, 5)
Array = NDArray[np.float64]


def table(rows: int, seed: int = 0) -> dict[str, Array]:
    """Runs over the range of published sweeps, around the law that Besiroglu et al. (2024) report, heavy-tailed."""
    generator = np.random.default_rng(seed)
    params, tokens = np.exp(generator.uniform(np.log([5e7, 1e9]), np.log([1.6e10, 5e11]), (rows, 2))).T
    loss = 1.82 + 482 / params**0.348 + 2085 / tokens**0.366
    noise = 0.01 * generator.standard_t(3, rows)
    return {"params_with_head": params, "tokens": tokens, "loss": loss * np.exp(noise)}


def objective(theta: Array, n_R: Array, d_R: Array, log_loss_R: Array) -> tuple[float, Array]:
    """The sum of Huber losses and its gradient in (a, b, e, alpha, beta)."""
    a, b, e, alpha, beta = theta
    terms = np.stack([a - alpha * n_R, b - beta * d_R, np.full_like(n_R, e)])
    top_R = terms.max(0)
    parts = np.exp(terms - top_R)
    total_R = parts.sum(0)
    residual_R = log_loss_R - top_R - np.log(total_R)
    slope_R = np.clip(residual_R, -DELTA, DELTA)
    pull = -(parts / total_R) * slope_R
    gradient = np.array([pull[0].sum(), pull[1].sum(), pull[2].sum(), -(pull[0] @ n_R), -(pull[1] @ d_R)])
    return float((slope_R * (residual_R - slope_R / 2)).sum()), gradient


def descend(starts: list[Array], data: tuple[Array, Array, Array]) -> float:
    """The best objective that L-BFGS reaches from the starts."""
    options = {"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-9}
    return min(minimize(objective, start, data, "L-BFGS-B", jac=True, options=options).fun for start in starts)


def timed(work: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[float, Any]:
    """CPU seconds of all threads, and what the work gave."""
    start = time.process_time()
    result = work(*arguments, **options)
    return time.process_time() - start, result


def compare() -> None:
    runs = table(ROWS)
    data = tuple(np.log(runs[name]) for name in ("params_with_head", "tokens", "loss"))
    starts = [np.array(start, float) for start in product(A_GRID, A_GRID, E_GRID, EXPONENTS, EXPONENTS)]
    ours = fit(runs, loss="huber", delta=DELTA)
    natural = ours.estimates
    best = np.array(
        [np.log(natural["A"]), np.log(natural["B"]), np.log(natural["E"]), natural["alpha"], natural["beta"]]
    )
    times: dict[str, list[float]] = {"fit": [], "starts": [], "draws": [], "descents": []}
    reached = np.inf
    for number in range(ROUNDS):
        fitted, _ = timed(fit, runs, loss="huber", delta=DELTA)
        with_draws, _ = timed(fit, runs, loss="huber", delta=DELTA, bootstrap=DRAWS)
        descended, value = timed(descend, starts[number::SHARE], data)
        picks = np.random.default_rng(number).integers(ROWS, size=(DRAWS // SHARE, ROWS))
        resampled = [tuple(part[pick_R] for part in data) for pick_R in picks]
        redrawn, _ = timed(lambda tables: [descend([best], part) for part in tables], resampled)
        reached = min(reached, value)
        for name, took in zip(times, (fitted, descended * SHARE, with_draws - fitted, redrawn * SHARE), strict=True):
            times[name].append(took)
    median = {name: statistics.median(part) for name, part in times.items()}
    certified = "certified" if ours.certificate.certified else "not certified"
    print(
        f"global fit, {ROWS} rows      {median['fit']:8.3f} against {median['starts']:7.1f}: "
        f"{median['starts'] / median['fit']:.0f} times ({certified}; objective {ours.objective:.9f}, "
        f"the baseline's {ROUNDS * len(starts) // SHARE} starts reach {reached:.9f})"
    )
    print(
        f"{DRAWS} draws, {ROWS} rows    {median['draws']:8.3f} against {median['descents']:7.1f}: "
        f"{median['descents'] / median['draws']:.0f} times"
    )


def large() -> None:
    for rows in LARGE:
        runs = table(rows)
        took, _ = timed(fit, runs, loss="huber", delta=DELTA)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"global fit, {rows:9,} rows {took:6.2f}; peak memory of the process {peak:.0f} MiB")


if __name__ == "__main__":
    print("CPU seconds on one thread, Chinchilla's law, Huber 1e-3, ours against scipy's L-BFGS from 4,500 starts")
    compare()
    large()
