"""The sentences of a report: its headline, what was trained, and by what methods."""

import shlex
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

from harness.laws.checks.epochs import COSTS
from harness.records import FLOORS, INSERTED, axes_of
from harness.report.diagnostics import LOSS_NAMES
from harness.report.fields import Field, doubtful, estimate, number
from harness.report.inputs import SweepFiles
from harness.report.style import scientific
from harness.report.tables import span

UNFIT_FOR_PRINT = ("tracking", "output_directory", "store_directory", "sweep_id", "name")


@dataclass(frozen=True)
class Headline:
    """The law, its exponents, and whether they are certified."""

    law: Markup
    parts: list[tuple[str, Field]]
    certified: bool
    seal: str
    reasons: list[str]


def headline(sweep: SweepFiles) -> Headline | None:
    """None without a fit."""
    if sweep.fit is None:
        return None
    fit = sweep.fit["fit"]
    names = (("α", "alpha"), ("β", "beta"), ("γ", "gamma"), ("a", "a"), ("E", "E"))
    parts = [(symbol, estimate(fit, key)) for symbol, key in names if key in fit["estimates"]]
    parts += [(key, estimate(fit, key)) for key in COSTS if key in fit["estimates"]]
    seal = fit["certificate"]
    condition = "" if seal.get("condition") is None else f", condition number {number(seal['condition'])}"
    proof = (
        f"gradient {number(seal['gradient_norm'])} (tolerance {number(seal['tolerance'])}), "
        f"{seal['starts_agree']} of {seal['starts']} starts at the same minimum, rank {seal['rank']}{condition}"
    )
    reasons = [str(each) for each in seal["reasons"]]
    return Headline(_typeset(str(fit["predicts"])), parts, not doubtful(fit), proof, reasons)


def _typeset(law: str) -> Markup:
    """The exponents of a law as superscripts; everything else is escaped."""
    found = escape(law)
    for name, symbol in (("alpha", "α"), ("beta", "β"), ("gamma", "γ")):
        found = found.replace(f"^{name}", Markup(f"<sup>{symbol}</sup>"))
    return found


def why_no_fit(sweep: SweepFiles) -> str:
    """What a reader is told where there is no fit.json."""
    if sweep.fit is not None:
        return ""
    done = sweep.finished
    if len(sweep.variants) > 1:
        runs, axes = sweep.path, axes_of(sweep.content)
        first = " and ".join(f"{axis}=={sweep.cells[axis].iloc[0]}" for axis in axes)
        compare = f"`python scripts/compare.py runs={runs} column={axes[0]}` sets them side by side, "
        return (
            f"The cells are variants ({', '.join(sweep.variants)}), and no law is one of all: "
            f"{'' if sweep.comparison else compare}`python scripts/fit.py runs={runs} "
            f"{shlex.quote(f'filter={first}')}` fits one."
        )
    return (
        f"There is no fit.json in this sweep, so no law is shown. {_many(len(done), 'cell')} finished, over "
        f"{_many(done.params_with_head.nunique(), 'parameter count')} and {_many(_budgets(done), 'token budget')}; a "
        "fit of the Chinchilla law has five parameters and needs more cells than that, with at least three levels of "
        "each. scripts/fit.py, run on this directory, says what is missing."
    )


def _budgets(cells: pd.DataFrame) -> int:
    """Distinct token budgets: rounding to whole steps moves a budget by less than a tenth."""
    distinct: list[float] = []
    for tokens in sorted(cells.tokens.astype(float)):
        if not distinct or tokens > 1.1 * distinct[-1]:
            distinct.append(tokens)
    return len(distinct)


def _many(how_many: int, what: str) -> str:
    return f"{how_many} {what}" + ("" if how_many == 1 else "s")


def trained(sweep: SweepFiles) -> list[tuple[str, str]]:
    """What was trained, as names and values."""
    cells, done = sweep.cells, sweep.finished
    states = cells.status.value_counts()
    facts = [
        ("Grid", f"{_many(len(sweep.shapes), 'shape')} ({', '.join(sweep.shapes)}; w width, d depth) × "
                 f"{_many(_budgets(cells), 'token budget')}, {_many(cells.trunk.nunique(), 'trunk')}, seeds "
                 f"{_listed(cells.seed)}"),
        ("Cells", ", ".join(f"{states[state]} {state}" for state in states.index)),
        ("Parameters", "; ".join(f"{name.removeprefix('params_').replace('_', ' ')} {span(cells[name])}" for name in
                                 ("params_with_head", "params_non_embedding", "params_total") if name in cells)),
        ("Tokens", f"{span(cells.tokens)}; {span(cells.tokens / cells.params_with_head, lambda ratio: f'{ratio:.3g}')} "
                   "a parameter (with head)"),
        ("Compute", f"{span(cells.flops, scientific)} FLOPs a cell"),
    ]  # fmt: skip
    if len(sweep.variants) > 1:
        facts.insert(1, ("Variants", ", ".join(sweep.variants)))
    for name, label in (("family", "Model"), ("device", "Device"), ("code_version", "Code version")):
        if name in done and done[name].notna().any():
            facts.append((label, _listed(done[name])))
    model = [
        f"{label} {_listed(done[name])}"
        for name, label in (
            ("parametrization", "parametrization"),
            ("seq_len", "sequences of"),
            ("vocab_size", "vocabulary"),
        )
        if name in done and done[name].notna().any()
    ]
    facts = [(key, ", ".join([value, *model]) if key == "Model" else value) for key, value in facts]
    if "wall_seconds" in done and done.wall_seconds.notna().any():
        facts.append(("Cost", _cost(sweep)))
    packages = sweep.content.get("packages") or {}
    facts.append(("Packages", ", ".join(f"{name} {version}" for name, version in packages.items()) or "not recorded"))
    overrides = " ".join(str(each) for each in sweep.content.get("overrides") or [])
    facts.append(("Command", f"python scripts/train.py -m {overrides}".rstrip()))
    return facts


def _listed(values: Any) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in sorted(set(values.dropna())))


def _cost(sweep: SweepFiles) -> str:
    """A trunk counts once: its longest cell whole, of every other cell the cooldown only."""
    done = sweep.finished
    schedule = sweep.job.get("schedule") or {}
    share = float(schedule.get("cooldown_fraction", 0.2)) if set(done.get("schedule", [])) <= {"wsd"} else 1.0
    seconds = 0.0
    for _, members in done.groupby("trunk"):
        wall = members.wall_seconds.fillna(0.0)
        seconds += float(wall.max() + share * (wall.sum() - wall.max()))
    on_gpu = "device" in done and done.device.dropna().str.contains("cuda|gpu|nvidia", case=False).any()
    threads = 1 if on_gpu else int(sweep.job.get("threads") or 1)
    unit = "GPU-hours" if on_gpu else "core-hours"
    return f"about {seconds * threads / 3600:.2g} {unit} for the finished cells, a trunk counted once"


def training(sweep: SweepFiles) -> list[str]:
    """How the cells were trained and measured."""
    job = sweep.job
    schedule = job.get("schedule") or {}
    sentences = []
    if schedule.get("name") == "wsd":
        sentences.append(
            f"Each shape and seed is trained once at a constant learning rate (its trunk); at "
            f"{1 - schedule['cooldown_fraction']:.0%} of every token budget a cooldown branches off, in which the rate "
            "falls as 1 − √t. Losses before the cooldown are shown, never fitted."
        )
    elif schedule.get("name") == "cosine":
        sentences.append("Every cell is a run of its own under a cosine schedule matched to its token budget.")
    apart = sweep.content.get(FLOORS) or sweep.content.get(INSERTED)
    same = "is the same for all cells that train on the same text" if apart else "is the same for all cells"
    sentences.append(
        "Loss is the validation cross-entropy in nats per token at the end of a cell, on one fixed set of tokens that "
        f"{same}. FLOPs are three times the forward pass, full attention and head included. "
        "params_with_head counts the non-embedding parameters and vocabulary × width for the head."
    )
    return sentences


def methods(sweep: SweepFiles) -> list[str]:
    """How the numbers came about, every choice of the fit included."""
    sentences = training(sweep)
    if sweep.fit is None:
        return sentences
    choices, source = sweep.fit["choices"], sweep.fit["source"]
    loss = LOSS_NAMES.get(choices["loss"], choices["loss"])
    delta = f" (δ = {choices['delta']:g})" if choices["loss"] == "huber" else ""
    draws = choices.get("bootstrap")
    versions = ", ".join(f"{name} {version}" for name, version in (sweep.fit.get("versions") or {}).items())
    sentences += [
        f"The law is {sweep.fit['fit']['predicts']}, fitted to {source['rows_used']} of {source['rows']} rows of "
        f"the run table (target {choices['target']}, N {choices['params']}, D {choices['tokens']}; filter "
        f"{source.get('filter') or 'none'}) with the loss function '{loss}'{delta} from many starts, judged by its "
        "gradient, by the starts that agree, and by whether the rows identify it (the certificate).",
        f"Intervals are 95 %: {choices['interval_method']}; bootstrap {draws}, seed {choices['seed']}.",
        f"Versions of the fit: {versions or 'not recorded'}.",
    ]
    return sentences


def settings(sweep: SweepFiles) -> list[tuple[str, str]]:
    """The training configuration that the jobs share, one key a row."""
    found: list[tuple[str, str]] = []

    def walk(part: dict[str, Any], prefix: str) -> None:
        for key, value in part.items():
            if key in UNFIT_FOR_PRINT:
                continue
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            elif f"{prefix}{key}" not in ("shape", "seed", "model.width", "model.depth"):
                found.append((prefix + key, "null" if value is None else str(value)))

    walk(sweep.job, "")
    return found


def excluded(sweep: SweepFiles) -> list[tuple[str, str]]:
    """The rows that the fit left out, and why."""
    if sweep.fit is None:
        return []
    return [(str(row.get("cell", row.get("row"))), str(row["why"])) for row in sweep.fit["source"]["excluded"] or []]
