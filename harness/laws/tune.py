"""Settings of training as a fitted step: their best values at each size, what others cost there, and their rules."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.files import write_atomically
from harness.laws.display import digits
from harness.laws.forms import Array
from harness.laws.provenance import check_out, plain, versions
from harness.laws.settings import TuneConfig
from harness.laws.table.entry import converted
from harness.laws.table.names import mapped
from harness.laws.table.pool import read_sources, sources
from harness.laws.table.rows import Columns
from harness.laws.table.table import Table, as_table, filtered
from harness.laws.table.units import Units
from harness.laws.tuning.basin import Basin
from harness.laws.tuning.choice import SIGNIFICANT, chosen, settled
from harness.laws.tuning.enough import enough
from harness.laws.tuning.enough import sentence as of_random
from harness.laws.tuning.joint import SCHEMA, joint
from harness.laws.tuning.penalty import Penalty, penalties, penalty_alone
from harness.laws.tuning.published import beside
from harness.laws.tuning.published import lines as published_lines
from harness.laws.tuning.rule_file import write_rules
from harness.laws.tuning.rules import Rules, Sizes, check_rules, fitted_rules, misfit, nearest_rules
from harness.laws.tuning.runs import Runs
from harness.laws.tuning.shape import curvature_shared
from harness.laws.tuning.verdict import Verdict, judge
from harness.laws.tuning.window import bracketed, lowest, ranges
from harness.laws.tuning.zero import sentence, zero_cost

LAW = "chinchilla"  # of params and tokens; which columns and units a table has is read for it
# Other windows, as parts of the one that is taken, whose exponents are told beside its own.
OTHER_WINDOWS = (2 / 3, 4 / 3)


@dataclass(frozen=True)
class Tuned:
    """The minima of a table's cells; `full` are rules in what of params and tokens varies, `plain` in params alone."""

    runs: Runs
    basin: Basin
    full: Rules | None
    plain: Rules
    content: dict[str, Any]
    verdict: Verdict | None = None

    def to_dict(self) -> dict[str, Any]:
        """The content of tune.json."""
        return self.content

    def __str__(self) -> str:
        return "\n".join(lines(self.content))


def tune(
    table: Any,
    settings: Sequence[str] = (),
    rules: Mapping[str, Sequence[float]] | None = None,
    within: float = 6.0,
    *,
    filter: str = "",
    target_unit: str | None = None,
    bytes_per_token: float | None = None,
    units: Mapping[str, Any] | None = None,
    **columns: Any,
) -> Tuned:
    """The best settings of training at each params and tokens of a table, with their intervals, and their rules.

    table: as of `fit`. settings: the columns that were tried (default: those that vary between runs of one size).
    rules: of others, NAME: (coefficient, params_exponent, tokens_exponent), whose cost is told; default: the rule in
    params alone. within: runs count the less the
    farther from their minimum they lie, and beyond this factor not at all. units, columns: as of `fit`.

    Raises UserError for an unknown choice, and for settings that have no minimum in the table.
    """
    known = {each.name for each in fields(Columns)}
    if unknown := sorted(set(columns) - known):
        raise UserError(f"tune has no argument {unknown[0]}: give some of {', '.join(sorted(known))}")
    config = TuneConfig(
        runs="table", settings=list(settings), rules=None if rules is None else dict(rules), within=within,
        filter=filter, columns=Columns(**columns), units=Units(**(units or {})), target_unit=target_unit,
        bytes_per_token=bytes_per_token,
    )  # fmt: skip
    return tune_table(as_table(table), config)


def audit_settings(table: Any, rules: Mapping[str, Sequence[float]], **choices: Any) -> Verdict:
    """Judges rules of settings that others published, as `audit` judges a law: are they the minima of this table, and
    what do they cost?

    rules, choices: as of `tune`. Raises UserError as `tune` does.
    """
    if not rules:
        raise UserError("audit_settings judges nothing: give rules, as in {'lr': (1.797, -0.713, 0.307)}")
    verdict = tune(table, rules=rules, **choices).verdict
    if verdict is None:
        raise UserError(f"no size of the table tells what {' and '.join(rules)} costs: add runs")
    return verdict


def tune_table(table: Table, config: TuneConfig) -> Tuned:
    """`tune` by a configuration; raises UserError."""
    config.check()
    diverged = [row for row in table.excluded if row["why"] == "status is diverged"]
    if diverged and table.frame.empty:
        raise UserError(f"{table.source}: all {len(diverged)} runs diverged, so that none has a loss: lower the rates")
    table, columns = mapped(filtered(table, config.filter), config.columns, LAW)
    table, rows = converted(table, columns, LAW, config.units, config.target_unit, config.bytes_per_token)
    runs, basin = chosen(table, rows, columns, config.wanted(), config.within)
    others = check_rules(config.rules or {}, runs.names)
    varied = runs.sizes.varied("params", "tokens")
    full = fitted_rules(basin, runs.sizes, varied)
    nearest = nearest_rules(basin, runs.sizes, runs.sizes.varied("params"))
    tests = {
        "curvature_shared": curvature_shared(basin, runs.sizes),
        "rule": dict(zip(runs.names, misfit(basin, varied, runs.sizes), strict=True)),
    }
    judged = _of_others(others, runs, nearest)
    costs = penalties(basin, judged)
    certificate = _certificate(runs, basin, full, tests)
    verdict = (
        judge(runs.names, runs.sizes, basin, full, others, judged, costs, certificate["reasons"]) if others else None
    )
    content = {
        "schema": SCHEMA,
        "settings": {
            name: {
                "rule": (full or nearest_rules(basin, runs.sizes, varied)).rule(number),
                "rule_in_params": nearest.rule(number),
                "cells": _cells(runs, basin, number, judged),
            }
            for number, name in enumerate(runs.names)
        },
        "penalties": {
            "of": {name: list(rule) for name, rule in others.items()} or "rule_in_params",
            "cells": [_size(runs.sizes, cell) | _cost(cost) for cell, cost in enumerate(costs)],
        },
        "verdict": asdict(verdict) if verdict else None,
        "published": beside(runs, basin, config.within),
        "joint": joint(runs, basin, full or nearest_rules(basin, runs.sizes, varied), bracketed(runs.design, basin)),
        "best_runs": [_size(runs.sizes, cell) | _cost(cost) for cell, cost in
                      enumerate(penalties(basin, lowest(runs.design)))],
        "enough": enough(runs.design, basin, config.within),
        "zeros": {runs.names[zero.setting]: zero_cost(basin, zero, runs.sizes, config.within) for zero in runs.zeros},
        "bowl": _bowl(runs, basin),
        "windows": _windows(runs, config.within, varied),
        "certificate": certificate,
        "source": {
            "path": table.source, "sha256": table.sha256, "sources": table.sources(), "rows": table.rows_read,
            "rows_used": len(basin.bowl.design.loss_R), "excluded": runs.table.excluded, "filter": table.filter,
            "account": table.account, "columns": asdict(columns),
        },
        "choices": {"settings": list(runs.names), "within": config.within},
        "versions": versions(),
        "notes": [*_of_diverged(table, len(diverged)), *table.notes, *runs.notes],
    }  # fmt: skip
    return Tuned(runs, basin, full, nearest, plain(content), verdict)


def _of_diverged(table: Table, count: int) -> list[str]:
    """A note on the runs of a sweep that diverged; of another table it is among those of the table."""
    said = f"{count} cells diverged: their settings count as tried, and no loss is made up for them."
    return [said] if count and table.own else []


def _of_others(others: Mapping[str, tuple[float, float, float]], runs: Runs, nearest: Rules) -> Array:
    """Log settings by the rules of others at every cell; where they leave one out, by the rule in params alone."""
    setting_CK = nearest.settings().copy()
    for number, name in enumerate(runs.names):
        if name in others:
            coefficient, params, tokens = others[name]
            logs = math.log(coefficient) + params * np.log(runs.sizes.params_C) + tokens * np.log(runs.sizes.tokens_C)
            setting_CK[:, number] = logs
    return setting_CK


def _size(sizes: Sizes, cell: int) -> dict[str, float | None]:
    return {"params": float(sizes.params_C[cell]), "tokens": float(sizes.tokens_C[cell])}


def _cost(cost: Penalty | None) -> dict[str, float | None]:
    return {"estimate": None, "low": None, "high": None} if cost is None else asdict(cost)


def _cells(runs: Runs, basin: Basin, setting: int, judged_CK: Array) -> list[dict[str, Any]]:
    """The best value of a setting at each cell that tells it, and what the judged one costs with the others at best."""
    told_CK = bracketed(runs.design, basin)
    found = []
    for cell in np.flatnonzero(basin.bowl.place[:, setting] >= 0):
        best, half = float(basin.best_CK[cell, setting]), float(basin.half_CK[cell, setting])
        with np.errstate(over="ignore"):  # of a minimum that may lie anywhere
            ends = np.exp([best, best - half, best + half])
        judged = float(judged_CK[cell, setting])  # nan where no rule is told
        cost = None if math.isnan(judged) else penalty_alone(basin, int(cell), setting, judged)
        found.append(
            _size(runs.sizes, int(cell))
            | dict(zip(("best", "low", "high"), ends.tolist(), strict=True))
            | {"penalty": _cost(cost)}
            | {"bracketed": bool(told_CK[cell, setting])}
        )
    return found


def _bowl(runs: Runs, basin: Basin) -> dict[str, Any]:
    """The shape of the loss around its minima, and what the rows scatter about it."""
    settings, kappa_K = runs.names, basin.bowl.kappa(basin.theta_P)
    told = {f"{settings[j]} {settings[k]}": float(basin.H_KK[j, k]) for j, k in basin.bowl.pairs}
    trunk, cell = np.sqrt(basin.curvature.noise.estimates).tolist()
    return {
        "curvature": told,
        "cubic": {settings[k]: float(kappa_K[k]) for k in basin.bowl.cubed},
        "residual_sd": basin.residual_sd,
        "trunk_sd": None if basin.curvature.noise.trunks_hidden else trunk,
        "cell_sd": cell,
        "noise": basin.curvature.noise.words,
    }


def _windows(runs: Runs, within: float, varied: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rules of narrower and wider windows, where these have a minimum."""
    found = []
    for part in OTHER_WINDOWS:
        factor = 1 + (within - 1) * part
        try:
            basin = settled(runs, factor)
        except UserError:
            continue
        rules = fitted_rules(basin, runs.sizes, varied)
        if rules is not None:
            about = {name: rules.rule(number) for number, name in enumerate(runs.names)}
            found.append({"within": factor, "rows": len(basin.bowl.design.loss_R), "rules": about})
    return found


def _certificate(runs: Runs, basin: Basin, full: Rules | None, tests: dict[str, Any]) -> dict[str, Any]:
    """What speaks against the rules: minima outside of what was tried or that follow none, unlike curvatures."""
    low_CK, high_CK = ranges(runs.design)
    reasons = []
    for number, name in enumerate(runs.names):
        best_C = basin.best_CK[:, number]
        beyond_C = (best_C <= low_CK[:, number]) | (best_C >= high_CK[:, number])
        if beyond_C.any():
            reasons.append(
                f"the best {name} lies outside of what was tried at {int(beyond_C.sum())} of "
                f"{int((~np.isnan(best_C)).sum())} sizes"
            )
        p = tests["rule"][name]
        if p is not None and p < SIGNIFICANT:
            reasons.append(f"the best {name} of the sizes follows no power law (p = {p:.1g})")
    if full is None:
        reasons.append("the rows tell no rule of all settings")
    p = tests["curvature_shared"]
    if p is not None and p < SIGNIFICANT:
        reasons.append(f"the curvature is not the same at all sizes (p = {p:.1g})")
    slope_P = basin.bowl.gradient(basin.theta_P).T @ basin.bowl.residuals(basin.theta_P)
    norm = float(np.abs(slope_P).max() / max(basin.residual_sd**2, 1e-300))
    return {"certified": not reasons, "gradient_norm": norm, "reasons": reasons, "tests": tests}


def lines(content: Mapping[str, Any], verbose: bool = False) -> list[str]:
    """What a person reads of tune.json; verbose: with the rules that others published."""
    symbols = {"params": "N", "tokens": "D"}
    said = []
    for name, found in content["settings"].items():
        rule = found["rule"]
        power = ""
        for use, symbol in symbols.items():
            exponent = rule[f"{use}_exponent"]
            if exponent["estimate"] is not None:
                value, low, high = digits(exponent["estimate"], (exponent["low"], exponent["high"]))
                power += f" ({symbol}/{rule[f'reference_{use}']:.3g})^{value} [{low} to {high}]"
        value = rule["value"]
        if value["estimate"] is None:
            sizes = len(content["penalties"]["cells"])
            said.append(f"best {name} is told at {len(found['cells'])} of {sizes} sizes, too few for a rule")
            continue
        at = "{estimate:.3g} [{low:.3g} to {high:.3g}]".format(**value)
        outside = sum(not cell["bracketed"] for cell in found["cells"])
        where = f"; not bracketed at {outside} of {len(found['cells'])} sizes" if outside else ""
        said.append(f"best {name} = {at}{power}{where}")
    certificate = content["certificate"]
    said.append("  certified" if certificate["certified"] else f"  NOT certified: {'; '.join(certificate['reasons'])}")
    for window in content["windows"]:
        shown = []
        for name, rule in window["rules"].items():
            exponents = [
                f"{symbol}^{rule[f'{use}_exponent']['estimate']:.3f}"
                for use, symbol in symbols.items()
                if rule[f"{use}_exponent"]["estimate"] is not None
            ]
            shown.append(f"{name} {' '.join(exponents)}")
        said.append(f"  within a factor {window['within']:.3g} of the minima: {', '.join(shown)}")
    if verbose:
        said += published_lines(content["published"], content["choices"]["within"])
    if verdict := content["verdict"]:
        said.append(f"rules: {' '.join(verdict['verdict'])}")
    costs = [cell for cell in content["penalties"]["cells"] if cell["estimate"] is not None]
    if costs:
        worst = max(costs, key=lambda cell: cell["estimate"])
        judged = content["penalties"]["of"]
        what = "the rule in params alone" if judged == "rule_in_params" else f"rules={_as_given(judged)}"
        said.append(
            f"{what} costs at most {worst['estimate']:.2%} of the loss ({worst['low']:.2%} to {worst['high']:.2%}), at "
            f"N = {worst['params']:.3g} and D = {worst['tokens']:.3g}"
        )
    runs = [cell for cell in content["best_runs"] if cell["estimate"] is not None]
    if runs:
        mean, worst = content["enough"]["gap"], max(runs, key=lambda cell: cell["estimate"])
        said.append(
            f"the settings of the best run of each size cost {mean['estimate']:.2%} on average ({mean['low']:.2%} to "
            f"{mean['high']:.2%}), {worst['estimate']:.2%} ({worst['low']:.2%} to {worst['high']:.2%}) at most"
            + of_random(content["enough"])
        )
    said += [sentence(name, cost) for name, cost in content["zeros"].items() if cost is not None]
    return said + [f"note: {note}" for note in content["notes"]]


def _as_given(rules: Mapping[str, Sequence[float]]) -> str:
    inner = ", ".join(f"{name}: [{','.join(f'{number:g}' for number in rule)}]" for name, rule in rules.items())
    return f"{{{inner}}}"


def output_path(config: TuneConfig) -> Path:
    """Where the result is written."""
    if config.out:
        return Path(config.out)
    paths = sources(config.runs)
    if len(paths) > 1:
        return Path("tune.json")
    runs = Path(paths[0])
    return runs / "tune.json" if runs.is_dir() else runs.with_suffix(".tune.json")


def write_tuned(config: TuneConfig) -> tuple[Tuned, str]:
    """Fits and writes tune.json, and of a sweep tune.yaml, and says where; raises UserError before anything is written.
    """
    path = output_path(config)
    table = read_sources(config.runs, config.columns.target, config.columns.cluster)
    check_out(path)
    found = tune_table(table, config)
    write_atomically(path, json.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n")
    said, (first, *more) = f"written to {path}", sources(config.runs)
    if found.runs.table.own and not more and Path(first, "sweep.yaml").exists():
        rules = write_rules(found.to_dict(), found.runs.table.frame, Path(first), path.with_suffix(".yaml"))
        said = f"{rules}\n{said}"
    return found, said
