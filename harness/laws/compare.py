"""Variants of training compared: a joint law, the compute that each is worth, and the losses of common cells."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from harness.errors import UserError
from harness.files import write_atomically
from harness.laws import display
from harness.laws.checks.misfit import lack_of_fit
from harness.laws.checks.misfit import sentence as misfit_sentence
from harness.laws.fit import Fit, check_choices
from harness.laws.noise import intervals as ci
from harness.laws.noise.pairs import Paired
from harness.laws.provenance import check_out, plain, source_of, versions
from harness.laws.settings import CompareConfig
from harness.laws.solving.losses import Loss
from harness.laws.table.entry import converted
from harness.laws.table.levels import budget_labels, shape_labels
from harness.laws.table.names import mapped
from harness.laws.table.pool import read_sources, sources
from harness.laws.table.rows import Columns
from harness.laws.table.table import Table, as_table, filtered
from harness.laws.table.units import Units
from harness.laws.variants.arms import cell_labels, differing, other_text
from harness.laws.variants.course import by_flops
from harness.laws.variants.joint import TESTED, Arms, check_joint, exponents_shared, fit_joint, freed, shareable
from harness.laws.variants.multiplier import SIGNIFICANT, Place, Worth, largest, worth
from harness.laws.variants.tuning import Tuning, read_tuned
from harness.laws.variants.weights import weighted

SCHEMA = 2
# Above this the intervals come from the curvature, as those of a study.
MANY_ROWS = 5_000


@dataclass(frozen=True)
class Difference:
    """Cells that the baseline and a variant both have: shape, budget, tokens, both losses, log(second / first)."""

    cells: pd.DataFrame

    def mean(self) -> tuple[float, float, float]:
        """The mean difference over trunks, each with all its budgets, and its 95 % interval by Student's t."""
        per_trunk = self.cells.groupby("shape")["difference"].mean().to_numpy(float)
        half = np.nan
        if len(per_trunk) > 1:
            error = per_trunk.std(ddof=1) / math.sqrt(len(per_trunk))
            half = special.stdtrit(len(per_trunk) - 1, ci.TAILS[1]) * error
        return float(per_trunk.mean()), float(per_trunk.mean() - half), float(per_trunk.mean() + half)

    def by_budget(self) -> list[tuple[float, float, float]]:
        """Tokens, mean difference and its standard error over shapes, one a budget."""
        tokens, difference = (self.cells[name].groupby(self.cells["budget"]) for name in ("tokens", "difference"))
        columns = (tokens.mean(), difference.mean(), difference.sem())
        return list(zip(*(column.tolist() for column in columns), strict=True))


@dataclass(frozen=True)
class Comparison:
    """Variants of one table; `worth` and `differences` have a key for each but the baseline, where it has any."""

    column: str
    baseline: str
    fit: Fit
    shared: tuple[str, ...]
    at: Place
    worth: dict[str, Worth]
    differences: dict[str, Difference]
    pairs: tuple[float, float, float] | None
    content: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The content of compare.json."""
        return self.content

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """What a person reads: a line a variant, then the law, the noise, and the losses of common cells."""
        certificate = self.content["certificate"]
        said = [entry["sentence"] for entry in self.content["variants"].values()]
        said += [f"  {display.seal(certificate)}", f"  {self.fit.predicts}; {self._sharing()}"]
        if self.pairs is not None:
            mean, low, high = self.pairs
            shown = f"{mean:.0%} of their noise ({low:.0%} to {high:.0%})"
            said.append(f"  runs of one shape, seed and budget have {shown} in common")
        for name, found in self.differences.items():
            mean, low, high = found.mean()
            said.append(
                f"loss under {name} against {self.baseline}, {len(found.cells)} cells: {mean:+.2%} on average "
                f"({low:+.2%} to {high:+.2%}), standard deviation {found.cells['difference'].std(ddof=1):.2%}"
            )
            said += [f"  at {tokens:,.0f} tokens: {mean:+.2%} ± {se:.2%}" for tokens, mean, se in found.by_budget()]
        return said + [f"note: {note}" for note in self.content["notes"]]

    def _sharing(self) -> str:
        return f"{', '.join(self.shared) or 'nothing'} shared by all" if self.shared else "nothing shared"


def compare(
    table: Any,
    column: str | None = None,
    baseline: str | None = None,
    law: str | None = None,
    loss: str = "log_mse",
    bootstrap: int = 2000,
    seed: int = 0,
    *,
    delta: float = 1e-3,
    shared: Sequence[str] | None = None,
    filter: str = "",
    target_unit: str | None = None,
    bytes_per_token: float | None = None,
    units: Mapping[str, Any] | None = None,
    **columns: Any,
) -> Comparison:
    """How much more compute a baseline needs to reach the losses of each variant in a table.

    table: as of `fit`; several paths, a,b or a list, are compared under `source`. column: whose values are the variants
    (default: the one that varies). baseline: one of its values (default: the first). law: chinchilla, chinchilla_tied
    or chinchilla_coupled (default: the one that a sweep states, else chinchilla). shared: which of E and the exponents
    all variants have in common (default: all; E only where they train on the same text). units, columns: as of `fit`.

    Raises UserError for an unknown choice, and for variants that cannot be compared.
    """
    known = {each.name for each in fields(Columns)}
    if unknown := sorted(set(columns) - known):
        raise UserError(f"compare has no argument {unknown[0]}: give some of {', '.join(sorted(known))}")
    if isinstance(table, list | tuple):
        table = f"[{','.join(map(str, table))}]"
    if isinstance(table, str):
        table = read_sources(table, columns.get("target", "loss"), columns.get("cluster"), once=False)
    config = CompareConfig(
        runs="table", law=law, loss=loss, delta=delta, bootstrap=bootstrap, seed=seed, filter=filter,
        columns=Columns(**columns), column=column, baseline=baseline, shared=None if shared is None else list(shared),
        units=Units(**(units or {})), target_unit=target_unit, bytes_per_token=bytes_per_token,
    )  # fmt: skip
    return compare_table(as_table(table), config)


def compare_table(table: Table, config: CompareConfig) -> Comparison:
    """`compare` by a configuration; raises UserError."""
    config.check()
    law = config.law_of(table)
    wanted = config.parameters()
    check_joint(law, frozenset(wanted or ()))
    check_choices(config.loss, config.delta, config.bootstrap, config.seed)
    table, columns = mapped(filtered(table, config.filter), config.columns, law)
    table, _ = converted(table, columns, law, config.units, config.target_unit, config.bytes_per_token)
    loss = Loss(config.loss, config.delta)
    table, column, arms, tuning = read_tuned(table, columns, law, config.column, config.baseline, loss)
    own_floor = wanted is None and other_text(table, column, arms)
    shared = tuple(name for name in shareable(law) if name in (wanted if wanted is not None else shareable(law)))
    shared = tuple(name for name in shared if not (own_floor and name == "E"))
    config = replace(config, columns=arms.columns, bootstrap=0 if len(arms.rows) > MANY_ROWS else config.bootstrap)
    even = null = fit_joint(arms, law, frozenset(shared), loss, table.source)
    if not set(TESTED) & set(shareable(law)) <= set(shared):
        null = fit_joint(arms, law, frozenset({*shared, *TESTED} & set(shareable(law))), loss, table.source)
    fit = weighted(even, config.bootstrap, config.seed)
    free = None if null is not even else freed(even, arms, TESTED)
    own = fit if null is not even else free and weighted(free, 0, 0)
    at = largest(arms)
    found = {
        name: worth(fit, own, arms, table, variant, at, exponents_shared(null, arms, variant))
        for variant, name in enumerate(arms.names[1:], 1)
    }
    differences = {
        name: each
        for variant, name in enumerate(arms.names[1:], 1)
        if (each := _difference(table, column, arms, variant)) is not None
    }
    pairs = fit.curvature.noise.share_of_pairs() if isinstance(fit.curvature.noise, Paired) else None
    shape_R = shape_labels(table.frame, arms.rows.params)
    own_R = arms.variant_R * (int(shape_R.max()) + 1) + shape_R
    misfit = lack_of_fit(even, own_R, budget_labels(arms.rows.tokens))
    apart = ["each above an E of its own"] if "E" in set(shareable(law)) - set(shared) else []
    content = {
        "schema": SCHEMA,
        "baseline": arms.names[0],
        "law": law,
        "predicts": fit.predicts,
        "certificate": asdict(fit.certificate),
        "variants": {name: _entry(fit, arms, name, each, tuning, apart) for name, each in found.items()},
        "settings": tuning.to_dict(),
        "column": column,
        "shared": list(shared),
        "estimates": fit.estimates,
        "intervals": fit.intervals,
        "noise": _noise(fit, pairs),
        "lack_of_fit": misfit,
        "differences": {name: _as_dict(each) for name, each in differences.items()},
        "source": source_of(table, fit),
        "choices": _choices(config, fit, column),
        "versions": versions(),
        "notes": table.notes
        + _notes(table, column, arms, differences, own_floor)
        + tuning.notes()
        + _moving(found, shared)
        + misfit_sentence(misfit),
    }
    return Comparison(column, arms.names[0], fit, shared, at, found, differences, pairs, plain(content))


def _entry(fit: Fit, arms: Arms, name: str, found: Worth, tuning: Tuning, apart: list[str]) -> dict[str, Any]:
    """A variant of compare.json; apart: in what the variants are not compared."""
    baseline = arms.names[0]
    doubt = [] if fit.certificate.certified else ["NOT certified"]
    sentence = ", ".join([found.sentence(name, baseline), *apart, *tuning.clauses(name, baseline), *doubt])
    return found.to_dict() | {"sentence": sentence, "by_flops": by_flops(fit, arms, arms.names.index(name))}


def _difference(table: Table, column: str, arms: Arms, variant: int) -> Difference | None:
    """The cells that a variant has in common with the baseline; None where there are none."""
    run_R, budget_R = cell_labels(table, column, arms.columns)
    frame = pd.DataFrame({
        "shape": run_R, "budget": budget_R, "tokens": arms.rows.tokens, "loss": arms.rows.loss,
    })  # fmt: skip
    first, second = (frame[arms.variant_R == each] for each in (0, variant))
    both = first.merge(second, on=["shape", "budget"], suffixes=("", "_second"))
    return Difference(both.assign(difference=np.log(both["loss_second"] / both["loss"]))) if len(both) else None


def _as_dict(difference: Difference) -> dict[str, Any]:
    mean, low, high = difference.mean()
    return {
        "cells": len(difference.cells),
        "mean": {"estimate": mean, "low": low, "high": high},
        "by_budget": [
            {"tokens": tokens, "mean": mean, "standard_error": error} for tokens, mean, error in difference.by_budget()
        ],
    }


def _noise(fit: Fit, pairs: tuple[float, float, float] | None) -> dict[str, Any]:
    """Standard deviations of trunks and of cells, and the share of both that paired runs have in common."""
    trunk, cell = np.sqrt(fit.curvature.noise.estimates).tolist()
    share = None if pairs is None else dict(zip(("estimate", "low", "high"), pairs, strict=True))
    return {"trunk_sd": None if fit.curvature.noise.trunks_hidden else trunk, "cell_sd": cell, "share_of_pairs": share}


def _choices(config: CompareConfig, fit: Fit, column: str) -> dict[str, Any]:
    return {
        "law": fit.law,
        "loss": fit.loss,
        "delta": fit.delta,
        "params": fit.columns.params,
        "tokens": fit.columns.tokens,
        "target": fit.columns.target,
        "column": column,
        "bootstrap": config.bootstrap,
        "seed": config.seed,
        "tolerance": fit.certificate.tolerance,
        "draw_tolerance": ci.DRAW_TOLERANCE if fit.draws else None,
        "interval_method": fit.interval_method,
    }


def _notes(table: Table, column: str, arms: Arms, differences: dict[str, Difference], own_floor: bool) -> list[str]:
    """What a reader must know to read the numbers rightly."""
    notes = []
    alone = [name for name in arms.names[1:] if name not in differences]
    if alone:
        notes.append(
            f"{' and '.join(alone)} and {arms.names[0]} have no cell of one shape, seed and budget in common, so "
            "nothing is paired."
        )
    if column != "variant" and (other := differing(table, column, arms)):
        notes.append(f"The variants differ in {', '.join(other)} too, and the multiplier is of all of that together.")
    if own_floor:
        notes.append(
            "The variants train on different text, so each has an E of its own, and a multiplier is of the compute "
            "that reaches the same loss above it."
        )
    if arms.rows.cluster is None:
        notes.append("The table names no trunk or cluster column, so its rows count as independent but for pairs.")
    if arms.rows.derived:
        symbols = {"params": "N", "tokens": "D", "flops": "C"}
        shown = ", ".join(f"{symbols[use]} = {words}" for use, words in arms.rows.derived.items())
        notes.append(f"The table lacks a column of it, so {shown}.")
    if table.excluded:
        many = "1 row is" if len(table.excluded) == 1 else f"{len(table.excluded)} rows are"
        notes.append(f"{many} left out, listed under source.excluded.")
    return notes


def _moving(found: dict[str, Worth], shared: tuple[str, ...]) -> list[str]:
    """A note on variants whose m moves with size while the law takes it for constant."""
    names = [name for name, each in found.items() if each.shared is not None and each.shared < SIGNIFICANT]
    if not names or not set(TESTED) & set(shared):
        return []
    rest = ",".join(name for name in shared if name not in TESTED)
    return [
        f"The exponents of {' and '.join(names)} differ from the others', so one multiplier is a mean over these "
        f"cells: `shared=[{rest}]` gives each variant its own, and m at the baseline's largest cell."
    ]


def output_path(config: CompareConfig) -> Path:
    """Where the comparison is written."""
    if config.out:
        return Path(config.out)
    paths = sources(config.runs)
    runs = Path(paths[0])
    if len(paths) > 1:
        return Path("compare.json")
    return runs / "compare.json" if runs.is_dir() else runs.with_suffix(".compare.json")


def write_comparison(config: CompareConfig) -> Comparison:
    """Compares and writes compare.json; raises UserError before anything is written."""
    path = output_path(config)
    once = config.column not in (None, "source")
    table = read_sources(config.runs, config.columns.target, config.columns.cluster, once)
    check_out(path)
    found = compare_table(table, config)
    write_atomically(path, json.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n")
    return found
