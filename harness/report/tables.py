"""The tables of a report: every number carries the certificate of the fit that it comes from."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd

from harness.report.diagnostics import LOSS_NAMES
from harness.report.epochs import by_epochs
from harness.report.fields import (
    PLACES,
    SYMBOLS,
    Field,
    Table,
    doubtful,
    estimate,
    exponent,
    fit_rows,
    number,
    percent,
    seal,
)  # fmt: skip
from harness.report.inputs import SweepFiles
from harness.report.style import count, scientific
from harness.report.texts import by_text


def tables(sweep: SweepFiles) -> list[Table]:
    """All tables that the sweep's files allow, in the order of the page."""
    makers: tuple[Callable[[SweepFiles], Table | None], ...] = (
        _by_params, by_text, _accounting, _by_loss, _by_noise, _frontier, by_epochs, _ranking, _approaches, _kaplan,
        _holdouts, _moves, _noise,
    )  # fmt: skip
    found = [maker(sweep) for maker in makers] if sweep.fit else []
    return [table for table in found if table is not None and table.rows]


def _by_params(sweep: SweepFiles) -> Table:
    assert sweep.fit is not None
    keys = [key for key in SYMBOLS if key in sweep.fit["fit"]["estimates"]]
    return Table(
        "by-params",
        "Exponents by parameter count",
        "The same cells and loss function; only what counts as a parameter differs. Estimate and 95 % interval.",
        ["N counted as", *(SYMBOLS[key] for key in keys), "objective", "certified"],
        fit_rows(sweep.fit["by_params"], keys, lambda fit: fit["params"]),
    )


def _accounting(sweep: SweepFiles) -> Table:
    assert sweep.fit is not None
    rows = [
        [
            Field(entry["params"]),
            Field(entry["flops"]),
            Field("{params:.3f}".format(**entry["flops_exponents"])),
            Field("{tokens:.3f}".format(**entry["flops_exponents"])),
            exponent(entry["a"], doubt=not entry["certified"]),
        ]
        for entry in sweep.fit.get("accounting") or []
    ]
    return Table(
        "accounting",
        "The exponent of N*(C) by what counts as a parameter and as a FLOP",
        "Over the cells C grows as N^n D^d; where n and d are not 1, the optimum at a given C grows otherwise than a.",
        ["N counted as", "C counted as", "n", "d", "exponent of N*(C)"],
        rows,
    )


def _by_noise(sweep: SweepFiles) -> Table:
    assert sweep.fit is not None
    head = sweep.fit["fit"]
    keys = [key for key in SYMBOLS if key in head["estimates"]]
    rows = []
    for entry in sweep.fit.get("by_noise") or []:
        shown = [_ends(entry["intervals"].get(key), 3 if key in PLACES else None) for key in keys]
        rows.append([Field(entry["noise"]), *(Field(text, doubtful(head)) for text in shown)])
    text = sweep.fit.get("validation_text")
    if rows and text:
        estimates, half = head["estimates"], text["half_width"]
        ends = {key: [estimates[key] - half[key], estimates[key] + half[key]] for key in half}
        shown = [_ends(ends.get(key), 3) for key in keys]
        rows.append([Field("the validation text"), *(Field(each, doubtful(head)) for each in shown)])
    tuned = sweep.fit.get("tuning")
    if rows and tuned:
        told = {key: each for key, each in tuned["quantities"].items() if each["low"] is not None}
        ends = {key: [each["low"], each["high"]] for key, each in told.items()}
        shown = [_ends(ends.get(key), 3) for key in keys]
        rows.append([Field("rows, at best settings"), *(Field(each, not tuned["certified"]) for each in shown)])
    test = sweep.fit.get("lack_of_fit")
    seeds = ""
    if test:
        first, second = test["degrees_of_freedom"]
        seeds = (
            f" Between seeds cells differ by {percent(test['noise_sd'], 2)}, and the law misfits by "
            f"{percent(test['misfit_sd'], 2)} beside it (F = {test['f']:.1f}, {first} and {second} degrees of freedom, "
            f"p = {test['p']:.2g})."
        )
    return Table(
        "by-noise",
        "Intervals under each noise",
        "95 % intervals by simulation. The first two take what the law leaves over as noise, misfit too; those of "
        "the noise measured between seeds hold if the law is exact. None of them counts the choice of the validation "
        "text: where there is a row for it, it holds the mean over all such texts, by a jackknife over parts."
        + (" At best settings: each cell at its own, with what is not known of these." if tuned else "") + seeds,
        ["noise", *(SYMBOLS[key] for key in keys)],
        rows,
    )


def _ends(pair: list[float] | None, places: int | None) -> str:
    return f"{number(pair[0], places)} to {number(pair[1], places)}" if pair else "–"


def _by_loss(sweep: SweepFiles) -> Table:
    assert sweep.fit is not None
    keys = [key for key in SYMBOLS if key in sweep.fit["fit"]["estimates"]]
    return Table(
        "by-loss",
        "Exponents by loss function of the fit",
        f"The same cells and parameter count ({sweep.fit['choices']['params']}). Objectives are sums over rows and "
        "comparable within a loss function only.",
        ["loss function", *(SYMBOLS[key] for key in keys), "objective", "certified"],
        fit_rows(sweep.fit["by_loss"], keys, lambda fit: LOSS_NAMES.get(fit["loss"], fit["loss"])),
    )


def _frontier(sweep: SweepFiles) -> Table:
    """The budgets and the served model that the fit was asked for."""
    assert sweep.fit is not None
    section, doubt = sweep.fit["frontier"] or {}, doubtful(sweep.fit["fit"])
    named = [(f"C = {scientific(point['flops'])}", point) for point in section.get("at") or []]
    if served := section.get("serving"):
        named.append((f"L = {number(served['loss'])}, {count(served['served_tokens'])} tokens served", served))
    rows = []
    for name, point in named:
        values = [point["params"], point["tokens"], point["tokens_per_param"], point["loss"]]
        rows.append([Field(name), *(_point(value, doubt) for value in values), Field(f"{point['beyond']:.3g} ×")])
    return Table(
        "frontier",
        "Points of the frontier",
        "The model of least loss for a training compute C, or the one that reaches a loss L with the fewest FLOPs for "
        "training and serving together; the last column is its training compute over the largest one sampled.",
        ["for", "N", "D", "D / N", "L", "C / sampled C"],
        rows,
    )


def _point(entry: dict[str, Any] | float, doubt: bool) -> Field:
    if not isinstance(entry, dict):
        return Field(number(entry))
    low, high = entry["low"], entry["high"]
    interval = (
        "(no interval)" if low is None else f"[{number(low)}, {'no upper end' if high is None else number(high)}]"
    )
    return Field(number(entry["value"]), doubt, interval=interval)


def _ranking(sweep: SweepFiles) -> Table:
    assert sweep.fit is not None
    rows = []
    for entry in sweep.fit.get("ranking") or []:
        law, why = str(entry.get("law")), entry.get("left_out")
        rows.append(
            [
                Field(law + (" (the headline)" if law == sweep.fit["choices"]["law"] else "")),
                exponent(entry.get("a")),
                Field(percent(entry.get("mean_relative_error"), 2)),
                Field("–" if entry.get("inside") is None else f"{entry['inside']}\u00a0of\u00a0{entry['n_test']}"),
                Field(percent(entry.get("rms_residual"), 2)),
                Field(f"left out: {why}" if why else "", mark="bad" if why else ""),
            ]
        )
    advice = sweep.fit.get("recommended")
    return Table(
        "ranking",
        "Laws by what they predict",
        "Best first by the mean relative error over the hold-outs, each law fitted without them, with the held-out "
        "cells inside their 95 % intervals; the residual is over all cells. A law with the lower residual but the "
        "higher held-out error has fitted noise."
        + (f" Recommended: {advice['law'] or 'none'}. {advice['reason']}" if advice else ""),
        ["law", SYMBOLS["a"], "held-out error", "inside", "rms residual", "note"],
        rows,
    )


def _approaches(sweep: SweepFiles) -> Table | None:
    assert sweep.fit is not None
    section = sweep.fit.get("approaches")
    if not section:
        return None
    names = [entry["name"] for entry in section["approaches"]]
    rows = []
    for entry in section["approaches"]:
        name, bias = entry["name"], entry.get("bias")
        against = _disagreeing(name, names, section["disagree"])
        doubt = name == "parametric" and doubtful(sweep.fit["fit"])
        note = f"left out: {entry['left_out']}" if entry.get("left_out") else _dropped(entry.get("dropped") or [])
        rows.append(
            [
                Field(name.replace("_", " ")),
                exponent(entry.get("a"), doubt),
                exponent(entry.get("b"), doubt),
                Field("–" if bias is None else f"{bias:+.3f}".replace("-", "−")),
                Field(str(entry.get("points", "–"))),
                Field(", ".join(against).replace("_", " ") or "–", mark="bad" if against else "muted"),
                Field(note, mark="bad" if entry.get("left_out") else "muted"),
            ]
        )
    return Table(
        "approaches",
        "The compute-optimal exponents by approach (Hoffmann et al. 2022)",
        f"N* ∝ Cᵃ and D* ∝ Cᵇ; budgets from {section['source']}. Isoflop fits take the shapes near each lowest loss "
        "(approaches.within); those called whole take all, their budgets unweighted. The bias is what an approach "
        "would err by where the law holds. Two approaches disagree where their a, less its bias, differ by more than "
        "their intervals allow; whole and near fits as they stand.",
        ["approach", "a", "b", "bias of a", "points", "disagrees with", "note"],
        rows,
    )


def _dropped(sentences: list[str]) -> str:
    """Budgets without an optimum, counted by reason; a sentence is a budget, a colon and the reason."""
    reasons = Counter(sentence.partition(": ")[2] or sentence for sentence in sentences)
    return "; ".join(f"{many} left out: {reason}" for reason, many in reasons.items())


def _disagreeing(name: str, names: list[str], sentences: list[str]) -> list[str]:
    """The other approaches that a sentence names beside this one."""
    told = [sentence for sentence in sentences if f" {name} (a " in sentence]
    return [other for other in names if other != name and any(f" {other} (a " in sentence for sentence in told)]


def _kaplan(sweep: SweepFiles) -> Table:
    assert sweep.fit is not None
    rows = []
    for fit in (sweep.fit.get("kaplan") or {}).values():
        if fit is None:
            continue
        constant = next((key for key in fit["estimates"] if key != "alpha"), "")
        value, law = estimate(fit, constant), str(fit.get("predicts") or fit["law"])
        rows.append(
            [
                Field(law),
                estimate(fit, "alpha"),
                replace(value, text=f"{constant} = {value.text}"),
                Field(f"{fit['rows']}" + (f": {fit['rows_used']}" if fit.get("rows_used") else "")),
                seal(fit),
            ]
        )
    return Table(
        "kaplan",
        "Single power laws (Kaplan et al. 2020)",
        "One variable at a time, without a floor: local slopes of the curves above, not asymptotic exponents.",
        ["law", "α", "constant", "rows", "certified"],
        rows,
    )


def _holdouts(sweep: SweepFiles) -> Table:
    assert sweep.fit is not None
    rows = []
    for split in sweep.fit["holdouts"]:
        law, plain = split["mean_relative_error"], split["competitor_mean_relative_error"]
        ratio = Field("–") if not law or plain is None else Field(f"{plain / law:.1f} ×", not split["certified"])
        cells = (
            Field(f"{split['n_test']} of {split['n_test'] + split['n_train']}"),
            Field(percent(law, 2), not split["certified"]),
            Field(percent(plain, 2)),
            ratio,
        )
        rows.append([Field(split["description"]), *cells])
    return Table(
        "holdouts",
        "Hold-outs",
        "Mean relative error of the predicted loss of cells kept from the fit, beside the plainest competitor: an "
        "additive table of shape and budget effects, extended in log-log.",
        ["held out", "cells", "law", "competitor", "competitor / law"],
        rows,
    )


def _moves(sweep: SweepFiles) -> Table:
    assert sweep.fit is not None
    rows = []
    keys = [key for key in ("alpha", "beta", "a") if any(key in move for move in sweep.fit["moves"])]
    for move in sweep.fit["moves"]:
        rows.append([Field(str(move["dropped"])), Field(str(move["rows"]))])
        rows[-1] += [_move(move.get(key), not move["certified"]) for key in keys]
    return Table(
        "moves",
        "How far the exponents move",
        "Move of each exponent when the smallest width or budget is dropped, with the paired 95 % interval that noise "
        "alone would give if the law held; outside means that those cells do not follow the same law.",
        ["dropped", "rows left", *(SYMBOLS[key] for key in keys)],
        rows,
    )


def _move(entry: dict[str, Any] | None, doubt: bool) -> Field:
    if entry is None:
        return Field("–", mark="muted")
    moved = f"{entry['move']:+.3f}".replace("-", "−")
    if entry["low"] is None or entry["high"] is None:
        return Field(moved, doubt, interval="(no interval)")
    verdict = "inside" if entry["inside"] else "OUTSIDE"
    interval = f"[{number(entry['low'], 3)}, {number(entry['high'], 3)}] {verdict}"
    return Field(moved, doubt, "" if entry["inside"] else "bad", interval)


def _noise(sweep: SweepFiles) -> Table | None:
    assert sweep.fit is not None
    noise = sweep.fit["seed_noise"]
    if not noise:
        return None
    parts = (
        ("loss, nats per token", number(noise["sd_nats"], 4)),
        ("loss, relative", percent(noise["sd_relative"], 3)),
        ("of which shared by a trunk", percent(noise.get("trunk_sd_relative"), 3)),
        ("of which a cell's own", percent(noise.get("cell_sd_relative"), 3)),
    )
    return Table(
        "noise",
        "Seed noise",
        f"Standard deviation between runs that differ in their seed only: {noise['groups']} groups, "
        f"{noise['degrees_of_freedom']} degrees of freedom. Hold-out errors below it say nothing more.",
        ["of", "standard deviation"],
        [[Field(name), Field(value)] for name, value in parts],
    )


def run_table(sweep: SweepFiles) -> Table:
    """Every planned cell, those that failed, diverged or have not ended included."""
    header = [
        "cell",
        "status",
        "N with head",
        "D",
        "C (FLOPs)",
        "steps",
        "learning rate",
        "loss (nats)",
        "± se",
        "bits/byte",
    ]
    return Table(
        "runs",
        "All cells",
        "One row a planned cell, in the order of the plan. The standard error is over validation sequences and common "
        "to all cells, which share one validation set; minutes are as if a cell were trained alone.",
        [*header, "minutes", "error"],
        [_run_row(dict(zip(sweep.cells.columns, row, strict=True))) for row in sweep.cells.itertuples(index=False)],
    )


def _run_row(row: dict[str, Any]) -> list[Field]:
    def value(key: str, write: Callable[[float], str]) -> Field:
        found = row.get(key)
        return Field("–", mark="muted") if found is None or pd.isna(found) else Field(write(found))

    wrong = row["status"] != "finished"
    return [
        Field(f"{row['cell']} {row['variant']}".rstrip()),
        Field(row["status"], mark="bad" if wrong else ""),
        value("params_with_head", lambda found: f"{found:,.0f}"),
        value("tokens", lambda found: f"{found:,.0f}"),
        value("flops", lambda found: scientific(found)),
        value("steps", lambda found: f"{found:,.0f}"),
        value("learning_rate", lambda found: f"{found:.3g}"),
        value("loss", lambda found: f"{found:.4f}"),
        value("loss_se", lambda found: f"{found:.4f}"),
        value("bits_per_byte", lambda found: f"{found:.4f}"),
        value("wall_seconds", lambda found: f"{found / 60:.1f}"),
        Field("" if pd.isna(row.get("error")) else str(row["error"]), mark="bad" if wrong else ""),
    ]


def span(values: Any, write: Callable[[float], str] = count) -> str:
    """The range of some values, as in 104k to 918k (a factor of 8.8)."""
    low, high = float(min(values)), float(max(values))
    return write(low) if low == high else f"{write(low)} to {write(high)} (a factor of {high / low:.3g})"
