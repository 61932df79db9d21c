"""How far exponents move when each cell is taken at its own best settings, and their intervals with that doubt.

Shapes: R rows, K settings, Q parameters of a tuning, S draws.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.laws.fit import Fit, fit_rows
from harness.laws.forms import Array
from harness.laws.noise import intervals as ci
from harness.laws.table.table import Table
from harness.laws.tuning.joint import Joint, read_joint, settings_in
from harness.records import axis_name

WATCHED = ("alpha", "beta", "gamma", "a", "E")
# Where the intervals of the fit come from its curvature.
LEAST_DRAWS = 1000
# Draws of the tuning are other random numbers than those of the fit.
STREAM = 1


def found_beside(runs: list[str]) -> Path | None:
    """The tune.json of the sweep in one folder, outputs/cpu-tune/tune.json of outputs/cpu; None where there is none."""
    if len(runs) != 1 or not Path(runs[0]).is_dir():
        return None
    folder = Path(runs[0])
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    path = folder.with_name(f"{folder.name}-tune") / "tune.json"
    return path if path.is_file() else None


def by_tuning(fit: Fit, table: Table, path: Path, bootstrap: int, seed: int) -> dict[str, Any]:
    """The headline fit to losses less what their settings cost, by a tune.json.

    Of each quantity: its value at the cells' own best settings, with a 95 % interval that carries the noise of the
    rows and that of the tuning; and its shift from the fit as trained, with the interval of the tuning alone. Raises
    UserError where the table does not have what was tuned.
    """
    tuning = read_joint(path)
    if tuning.target != fit.columns.target:
        raise UserError(f"{path} has minima of {tuning.target}, and this law is of {fit.columns.target}: tune on that")
    if not fit.rows.knows("params", "tokens"):
        raise UserError(f"{path} has minima by params and tokens, and this table does not say both: name their columns")
    tuning.check_alike(table)
    setting_RK = settings_in(table, tuning.columns, str(path))
    params_R = _params(fit, table, tuning)
    weight_RKQ, own_R = tuning.minima(params_R, fit.rows.tokens)
    inflated_R = tuning.inflation(setting_RK, weight_RKQ)
    height_R = tuning.heights(tuning.value_Q[None], setting_RK, weight_RKQ)[0] - inflated_R
    best = _at_best(fit, height_R, seed, table.source)
    draws = bootstrap or LEAST_DRAWS
    drawn_SQ = tuning.draw(draws, np.random.default_rng([seed, STREAM]))
    # The heights of minima that were moved twice, by the noise of the tuning and by that of its draws.
    height_SR = tuning.heights(drawn_SQ, setting_RK, weight_RKQ) - 2 * inflated_R
    trained = _drawn(fit, iter([(fit.problem.target * np.exp(-height_SR), np.zeros(draws))]))
    both = _drawn(best, _moved(best, height_SR - height_R, draws, seed))
    # At a bound, or between minima, draws that start from the fit tell nothing of it.
    sound = fit.certificate.certified and best.certificate.certified
    quantities = {}
    for name in (name for name in WATCHED if name in fit.estimates):
        shift_S = trained[name] - fit.estimates[name]
        ends = [*ci.quantiles(shift_S), *ci.quantiles(both[name])]
        low, high, least, most = (float(end) if sound and np.isfinite(end) else None for end in ends)
        value = best.estimates[name]
        shift = {"estimate": value - fit.estimates[name], "low": low, "high": high}
        quantities[name] = {"value": value, "low": least, "high": most, "shift": shift}
    worst = int(np.argmax(height_R))
    where = setting_RK - weight_RKQ @ tuning.value_Q
    return {
        "path": str(path),
        "settings": [axis_name(name) for name in tuning.names],
        "rows": len(fit.rows),
        "rows_tuned": int(own_R.sum()),
        "rows_beyond": int((np.abs(where) > np.log(tuning.within)).any(1).sum()),
        "not_bracketed": tuning.ends(params_R),
        "tuning_certified": bool(tuning.certificate["certified"]),
        "certified": best.certificate.certified,
        "certificate_reasons": best.certificate.reasons,
        "draws": draws,
        "quantities": quantities,
        "largest_penalty": {"cell": table.name(worst), "estimate": float(np.expm1(height_R[worst]))},
        "penalties": np.expm1(height_R).tolist(),
    }


def _params(fit: Fit, table: Table, tuning: Joint) -> Array:
    """The rows' params as the tuning counts them; raises UserError where the table does not have that count."""
    if tuning.params == fit.columns.params:
        return fit.rows.params
    if tuning.params not in table.frame.columns:
        raise UserError(f"{tuning.path} counts params as {tuning.params}, and {table.source} does not: add that column")
    return table.numbers(tuning.params)


def _at_best(fit: Fit, height_R: Array, seed: int, source: str) -> Fit:
    rows = replace(fit.rows, loss=fit.rows.loss * np.exp(-height_R))
    return fit_rows(rows, fit.columns, fit.law, fit.loss, fit.delta, 0, seed, source, fit.fixed)


def _moved(fit: Fit, away_SR: Array, draws: int, seed: int) -> Iterator[tuple[Array, Array]]:
    """Simulated targets around a fit, each with its own error of the heights."""
    first = 0
    for target_SR, sd_S in ci.simulate(fit.problem, fit.theta_P, fit.noise, draws, seed):
        yield target_SR * np.exp(-away_SR[first : first + len(sd_S)]), sd_S
        first += len(sd_S)


def _drawn(fit: Fit, targets: Iterator[tuple[Array, Array]]) -> dict[str, Array]:
    return fit.at(ci.refit(fit.problem, fit.theta_P, targets).theta_SP)


def sentence(found: dict[str, Any] | None) -> str | None:
    """The values at the best settings and how far they moved, in words."""
    if found is None:
        return None
    tuned, rows = found["rows_tuned"], found["rows"]
    minima = "by the rules" if not tuned else f"{tuned} by minima of their own, {rows - tuned} by the rules"
    doubt = "" if found["certified"] else "; this fit is NOT certified"
    doubt += "" if found["tuning_certified"] else "; the tuning is NOT certified"
    if found["rows_beyond"]:
        doubt += f"; {found['rows_beyond']} cells lie beyond the range in which runs were counted"
    shown = ", ".join(
        f"{name} {each['value']:.3f}{_range(each, '.3f')}, moved by {shift(each)}"
        for name, each in found["quantities"].items()
    )
    return (
        f"with each of {rows} cells at its own best {' and '.join(found['settings'])} ({minima}): {shown}{doubt}"
        f"{ends(found)}"
    )


def shift(entry: dict[str, Any]) -> str:
    """How far a quantity moves, with its interval."""
    moved = entry["shift"]
    return f"{moved['estimate']:+.3f}{_range(moved, '+.3f')}"


def _range(entry: dict[str, Any], form: str) -> str:
    if entry["low"] is None or entry["high"] is None:
        return " (no interval)"
    return f" ({entry['low']:{form}} to {entry['high']:{form}})"


def ends(found: dict[str, Any]) -> str:
    """A clause where the sweep was not tuned at both of its ends."""
    lacking = [
        f"{' and '.join(names)} at the {end} shape" for end, names in found["not_bracketed"].items() if names
    ]
    return f"; not tuned at both ends: no bracketed minimum of {' nor of '.join(lacking)}" if lacking else ""


def clause(found: dict[str, Any]) -> str:
    """What a headline says of the settings that it does not cover."""
    moved = ", ".join(f"{name} by {shift(each)}" for name, each in found["quantities"].items())
    doubt = "" if found["certified"] else "; that fit is NOT certified"
    return f"at each cell's own best they move {moved}{doubt}{ends(found)}"
