"""The tied, the additive and the coupled law on published tables of fresh data at one setting: part of make reproduce

Each law is fitted (Huber, 1e-3) to the rest and judged on the rows of most compute, and on those of most params. Then:
would a rule that sees the smaller part alone have known which law predicts best? What a rule leaves open is chosen on
the other tables, or on those of other sources.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from reproduce import FOLDER
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from harness.errors import UserError
from harness.laws import combine, fit
from harness.laws.prediction.combination import LAWS, LEAST_ERROR
from harness.laws.table.levels import budget_labels

Array = NDArray[np.float64]
TIED, ADDITIVE, COUPLED = LAWS
# By the share of the rows that have the most compute, or by how many times the largest params are those fitted.
BY_FLOPS = {"largest quarter": 0.25, "larger half": 0.5}
BY_PARAMS = {"params over 1/4": 4.0, "params over 1/16": 16.0}
PARSIMONIES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)
REACH_EDGES = (2.1, 10.0)
REACHES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 16.0, np.inf)


@dataclass(frozen=True)
class Published:
    """Rows of a published table; `filter` says which, as pandas reads it."""

    name: str
    source: str
    filter: str
    columns: dict[str, str]
    rows: pd.DataFrame

    def numbers(self) -> tuple[Array, Array, Array, Array]:
        """Params, tokens, FLOPs (6 N D where the table has none) and losses, (R,) each."""
        params, tokens, loss = (self.rows[self.columns[use]].to_numpy(float) for use in ("params", "tokens", "target"))
        flops = self.rows[self.columns["flops"]].to_numpy(float) if "flops" in self.columns else 6 * params * tokens
        return params, tokens, flops, loss


@dataclass(frozen=True)
class Judged:
    """Mean absolute relative errors of the laws beyond what they were fitted to, and what could be known before:
    their errors on hold-outs within that (none where not asked for), and how many times its params are asked for."""

    table: Published
    errors: dict[str, float]
    certified: dict[str, bool]
    within: dict[str, float]
    reach: float

    @property
    def best(self) -> str:
        return min(LAWS, key=lambda law: self.errors[law])


def tables(folder: Path) -> Iterator[Published]:
    """The published tables that hold runs on fresh data at one setting."""
    for file, filter, columns in _listed():
        rows = pd.read_csv(folder / file)
        if file.startswith("step_law"):
            rows = rows.assign(least_of_N_and_D=rows.groupby(["N", "D"])["loss"].transform("min"))
        if filter:
            rows = rows.query(filter)
        source, chosen = file.partition("/")[0], filter.split("'")
        name = (
            source if len(chosen) < 2 else f"{source} {chosen[1].removeprefix('rw|').rpartition('|')[0] or chosen[1]}"
        )
        yield Published(name, source, filter, columns, rows)


def _listed() -> Iterator[tuple[str, str, dict[str, str]]]:
    """Files, filters and columns. Rows whose training ended within its warm-up are left out: they follow no law of N
    and D (Porian et al. 2024 warm up for 3,000 steps of 2^19 tokens, or for N tokens)."""
    columns = {"params": "N", "tokens": "D", "target": "loss"}
    yield "chinchilla_epoch/runs.csv", "kept", columns | {"flops": "C"}
    for data in ("c4_original", "rpj", "rw_original"):
        warm = "D > warmup * global_bs * 2048"
        yield "gadre_overtraining/runs.csv", f"train_set == '{data}' and {warm}", columns | {"target": "loss_c4_val"}
    yield "olmo_ladder/final.csv", "", columns | {"target": "eval/c4_en-validation/CrossEntropyLoss"}
    cooled = {"params": "params_active_precise", "tokens": "tokens", "target": "final_loss", "cluster": "run_name"}
    yield "gemstones/runs_cool_end.csv", "", cooled
    yield "data_constrained_muennighoff/runs.csv", "D == U", columns
    for config, warm in {
        "rw|base|long|kaplan|kaplan|train": "1.573e9",
        "rw|base|long|kaplan|standard|val": "1.573e9",
        "rw|base|short|kaplan|standard|val": "N",
        "rw|base|short|chinchilla|standard|val": "N",
        "rw|tuned|short|const|standard|val": "N",
        "rw|tuned|long|const|kaplan|train": "1.573e9",
    }.items():
        yield "porian_isoflop/isoflop_points.csv", f"config == '{config}' and D > {warm}", columns | {"flops": "flops"}
    for data in ("comma", "dclm", "nemotron"):
        yield "marin_isoflop/runs.csv", f"dataset == '{data}' and not outlier", columns | {"flops": "C"}
    yield "step_law/runs.csv", "loss == least_of_N_and_D", columns


def most_flops(flops_R: Array, share: float) -> NDArray[np.bool_]:
    """The rows of most compute, at most a share of them: whole budgets are held out."""
    budget_R = budget_labels(flops_R)
    return budget_R > np.sort(budget_R)[int(np.ceil((1 - share) * len(flops_R))) - 1]


def judge(table: Published, case: str) -> Judged | None:
    """None where the smaller part carries no law."""
    params_R, tokens_R, flops_R, loss_R = table.numbers()
    by_flops = case in BY_FLOPS
    held_R = most_flops(flops_R, BY_FLOPS[case]) if by_flops else params_R * BY_PARAMS[case] > params_R.max()
    smaller, within = table.rows[~held_R], {}
    try:
        if by_flops:
            members = combine(smaller, **table.columns).members
            fits = {member.fit.law: member.fit for member in members}
            within = {member.fit.law: float(np.nanmean(list(member.errors.values()))) for member in members}
        else:
            fits = {law: fit(smaller, law=law, **table.columns) for law in LAWS}
    except UserError:
        return None
    places, seen_R = (params_R[held_R], tokens_R[held_R]), loss_R[held_R]
    errors = {law: float(np.abs(found.predict(*places) / seen_R - 1).mean()) for law, found in fits.items()}
    certified = {law: found.certificate.certified for law, found in fits.items()}
    return Judged(table, errors, certified, within, params_R[held_R].max() / params_R[~held_R].max())


def by_hold_outs(judged: Judged, parsimony: float) -> str:
    """The rule of combine=holdout: the least error within the smaller part, at a price for each exponent more."""
    return max(LAWS, key=lambda law: parsimony ** LAWS.index(law) * max(judged.within[law], LEAST_ERROR) ** -2)


def by_reach(judged: Judged, choice: tuple[float, str]) -> str:
    """The coupled law where the params asked for lie within a factor of those fitted, else another."""
    return COUPLED if judged.reach <= choice[0] else choice[1]


def left_out(cases: list[Judged], rule: Callable[..., str], choices: list[Any], by: str) -> tuple[list[str], list[Any]]:
    """What a rule takes for each case, and its choice, made on the cases of other tables (`name`) or sources."""
    made = []
    for case in cases:
        others = [other for other in cases if getattr(other.table, by) != getattr(case.table, by)]
        made.append(min(choices, key=lambda choice: sum(other.errors[rule(other, choice)] for other in others)))  # noqa: B023
    return [rule(case, choice) for case, choice in zip(cases, made, strict=True)], made


def shown(judged: Judged | None) -> str:
    """The errors of the three laws in per cent, the least of them bold; a * where a fit is not certified."""
    if judged is None:
        return ""
    parts = []
    for law in LAWS:
        text = f"{100 * judged.errors[law]:.2f}" + ("" if judged.certified[law] else "*")
        parts.append(f"[bold]{text}[/]" if law == judged.best else text)
    return " ".join(parts)


def summary(cases: list[Judged]) -> str:
    means = ", ".join(f"{law} {100 * np.mean([case.errors[law] for case in cases]):.2f} %" for law in LAWS)
    hindsight = 100 * float(np.mean([case.errors[case.best] for case in cases]))
    best = sum(case.best == COUPLED for case in cases)
    return f"{means}, the best in hindsight {hindsight:.2f} %; the coupled law is best in {best} of {len(cases)}"


def knew(cases: list[Judged], taken: list[str]) -> str:
    error = 100 * float(np.mean([case.errors[law] for case, law in zip(cases, taken, strict=True)]))
    right = sum(case.best == law for case, law in zip(cases, taken, strict=True))
    return f"{error:.2f} %, the best law in {right} of {len(cases)}"


def main() -> int:
    if not (FOLDER / "expected.json").exists():
        print(f"the published runs are not at {FOLDER}: set PUBLISHED_RUNS to their folder")
        return 2
    console = Console(width=160)
    cases = (*BY_FLOPS, *BY_PARAMS)
    listing = Table("table", "rows", "gamma (95 %)", *cases, box=SIMPLE_HEAD)
    by_case: dict[str, list[Judged]] = {case: [] for case in cases}
    chosen = []
    for table in tables(FOLDER):
        whole = fit(table.rows, law=COUPLED, **table.columns)
        low, high = whole.intervals["gamma"] or (np.nan, np.nan)
        gamma = f"{whole.estimates['gamma']:.2f} ({low:.2f}-{high:.2f})" + "*" * (not whole.certificate.certified)
        judged = {case: judge(table, case) for case in cases}
        for case, found in judged.items():
            by_case[case] += [found] if found else []
        listing.add_row(table.name, str(len(table.rows)), gamma, *(shown(found) for found in judged.values()))
        columns = ", ".join(f"{use} {name}" for use, name in table.columns.items())
        chosen.append(f"  {table.name}: {table.filter or 'all rows'}; {columns}")
    console.print(
        "the tied, the additive and the coupled law: mean errors in per cent on what is named, fitted to the rest"
    )
    console.print(listing)
    console.print("filters and columns", *chosen, sep="\n", soft_wrap=True, markup=False, highlight=False)
    for case, found in by_case.items():
        console.print(f"{case}: {summary(found)}", soft_wrap=True, markup=False, highlight=False)
    every = [case for found in by_case.values() for case in found]
    for low, high in pairwise((0.0, *REACH_EDGES, np.inf)):
        found = [case for case in every if low < case.reach <= high]
        reach = f"params {low:g} to {high:g} times those fitted"
        console.print(f"{reach}: {summary(found)}", soft_wrap=True, markup=False, highlight=False)
    _print_rules(by_case, console)
    return 0


def _print_rules(by_case: dict[str, list[Judged]], console: Console) -> None:
    """What rules would have taken that know the smaller part, and which params are asked for."""
    reaches = [(reach, law) for reach in REACHES for law in (TIED, ADDITIVE)]
    by_flops = [case for name in BY_FLOPS for case in by_case[name]]
    every = [case for found in by_case.values() for case in found]
    for by in ("name", "source"):
        others = "tables" if by == "name" else "sources"
        rules = {
            "hold-outs within the smaller part, by compute": (by_flops, by_hold_outs, list(PARSIMONIES)),
            "the reach in params, by compute": (by_flops, by_reach, reaches),
            "the reach in params, by compute and by params": (every, by_reach, reaches),
        }
        for what, (cases, rule, choices) in rules.items():
            taken, made = left_out(cases, rule, choices, by)
            values = " or ".join(sorted(set(map(_choice, made))))
            console.print(
                f"{what}, chosen on other {others} ({values}): {knew(cases, taken)}; always the coupled law: "
                f"{knew(cases, [COUPLED] * len(cases))}",
                soft_wrap=True,
                markup=False,
                highlight=False,
            )


def _choice(choice: Any) -> str:
    return f"{choice[0]:g} times, else {choice[1]}" if isinstance(choice, tuple) else f"{choice:g} an exponent"


if __name__ == "__main__":
    raise SystemExit(main())
