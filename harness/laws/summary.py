"""fit.json as a short readable table for the terminal."""

import re
import shlex
from functools import partial
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from harness.laws.checks import agreement, collapse, epochs, floor, validation
from harness.laws.display import seal
from harness.laws.forms.penalized import PENALTY
from harness.laws.tuning import doubt

MOST_WIDTH = 1000
EXPONENTS = ("alpha", "beta", "gamma", "a", "E", *epochs.COSTS)


def show_briefly(study: dict[str, Any], console: Console, runs: str) -> None:
    """Prints the headline of a sweep's study on a part of a screen; runs: its folder, for who wants to read on."""
    head = study["fit"]
    rest = f"the rest: its report, or `python scripts/fit.py runs={shlex.quote(runs)} verbose=true`"
    if not head["certificate"]["certified"]:
        say = partial(console.print, soft_wrap=True, markup=False)
        say(seal(head["certificate"]), style="bold")
        say(f"none of its exponents means anything, so none is printed here; {rest}")
        return
    say = partial(console.print, soft_wrap=True, markup=False, highlight=False)
    if apart := agreement.sentence(study["disagreement"]):
        say(apart, style="bold")
    say(f"{head['predicts']}   {study['source']['rows_used']} of {study['source']['rows']} rows", style="bold")
    _print_whole(_counts(study), console)
    say(seal(head["certificate"]))
    if known := floor.sentence(study.get("floor")):
        say(known)
    if repeats := epochs.sentence(study.get("epochs")):
        say(repeats)
    for entry in study["holdouts"][:1]:
        say(_hold_out(entry))
    for entry in study["moves"]:
        if any(not entry[name]["inside"] for name in ("alpha", "beta", "a") if name in entry):
            say(_move(entry))
    if left := collapse.sentence(study.get("collapse")):
        say(left)
    if advice := study["recommended"]:
        reason = re.sub(r" \([^)]*\)", "", advice["reason"])
        say(f"recommended: {advice['law'] or 'none'}: {reason}")
    for line in _by_text(study):
        say(line)
    text = study["validation_text"]
    other = f", nor other validation text ({_halves(text)})" if text else ""
    tuned = study.get("tuning")
    choice = f"grid{other}, nor that of settings: {doubt.clause(tuned)}" if tuned else f"grid and settings{other}"
    say(f"these intervals do not cover the choice of {choice}")
    for line in _frontier(study):
        say(line)
    notes = study["notes"]
    say(f"{len(notes)} note{'s' * (len(notes) > 1)} and {rest}" if notes else rest)


def _halves(text: dict[str, Any]) -> str:
    return ", ".join(f"{name} within {value:.3f}" for name, value in text["half_width"].items())


def _counts(study: dict[str, Any]) -> Table:
    """The headline's estimates with their intervals, a column for each count of params."""
    head = study["fit"]
    fits = [head, *(fit for fit in study["by_params"] if fit["params"] != head["params"])]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for title in ("", *(str(fit["params"] or "none") for fit in fits)):
        table.add_column(title, no_wrap=True)
    for key in (key for key in EXPONENTS if key in head["estimates"]):
        table.add_row(key, *(_number(fit, key) for fit in fits))
    table.add_row("certified", *("yes" if fit["certificate"]["certified"] else "NO" for fit in fits))
    return table


def show(study: dict[str, Any], console: Console) -> None:
    """Prints the exponents, the hold-outs, the moves, the certificate and the notes of a study."""
    head, source = study["fit"], study["source"]
    for line in source["account"]:
        console.print(line, soft_wrap=True, markup=False)
    if apart := agreement.sentence(study["disagreement"]):
        console.print(apart, soft_wrap=True, markup=False, style="bold")
    console.print(
        f"[bold]{escape(head['predicts'])}[/]   {source['rows_used']} of {source['rows']} rows", soft_wrap=True
    )
    _print_whole(_exponents(study), console)
    console.print(seal(head["certificate"]), soft_wrap=True, markup=False)
    if known := floor.sentence(study.get("floor")):
        console.print(known, soft_wrap=True, markup=False)
    if repeats := epochs.sentence(study.get("epochs")):
        console.print(repeats, soft_wrap=True, markup=False)
    for entry in study["holdouts"]:
        console.print(_hold_out(entry), soft_wrap=True)
    for entry in study["moves"]:
        console.print(_move(entry), soft_wrap=True)
    noise = study["seed_noise"]
    if noise:
        console.print(
            f"seed noise: sd {noise['sd_nats']:.4f} nats, {noise['sd_relative']:.3%} "
            f"({noise['degrees_of_freedom']} degrees of freedom)"
        )
    if text := validation.sentence(study["validation_text"]):
        console.print(f"validation text: {text}", soft_wrap=True, markup=False)
    if tuned := doubt.sentence(study.get("tuning")):
        console.print(f"tuning: {tuned}", soft_wrap=True, markup=False)
    if left := collapse.sentence(study.get("collapse")):
        console.print(left, soft_wrap=True, markup=False)
    for line in _by_text(study):
        console.print(line, soft_wrap=True, markup=False)
    if advice := study["recommended"]:
        console.print(f"recommended: {advice['law'] or 'none'}: {advice['reason']}", soft_wrap=True, markup=False)
    if line := _additive(study):
        console.print(line, soft_wrap=True, markup=False)
    for line in _frontier(study):
        console.print(line, soft_wrap=True, markup=False)
    for note in study["notes"]:
        console.print(f"note: {escape(note)}", soft_wrap=True)


def _by_text(study: dict[str, Any]) -> list[str]:
    """A line for each further text that the same cells were evaluated on."""
    lines = []
    for fit in (fit for fit in study["by_text"] if fit["target"] != study["fit"]["target"]):
        keys = [key for key in EXPONENTS if key in fit["estimates"]]
        shown = ", ".join(f"{key} {_number(fit, key)}" for key in keys)
        lines.append(f"L = {fit['target']}: {shown if fit['certificate']['certified'] else seal(fit['certificate'])}")
    return lines


def _hold_out(entry: dict[str, Any]) -> str:
    doubt = "" if entry["certified"] else " (that fit is not certified)"
    return (
        f"hold-out: {entry['description']}: mean error {entry['mean_relative_error']:.2%}, "
        f"additive table {entry['competitor_mean_relative_error']:.2%}; "
        f"{entry['inside']} of {entry['n_test']} inside their 95 % intervals{doubt}"
    )


def _move(entry: dict[str, Any]) -> str:
    parts = [
        f"{name} {entry[name]['move']:+.3f} ({entry[name]['low']:+.3f} to {entry[name]['high']:+.3f}"
        + (")" if entry[name]["inside"] else ", OUTSIDE)")
        for name in ("alpha", "beta", "a")
        if name in entry
    ]
    doubt = "" if entry["certified"] else " (that fit is not certified)"
    return f"without the {entry['dropped']}: {', '.join(parts)}{doubt}"


def _additive(study: dict[str, Any]) -> str:
    """What Chinchilla's law makes of a table whose headline is another one: the a that others report."""
    entry = next((entry for entry in study["ranking"] if entry["law"] == "chinchilla"), None)
    if study["fit"]["law"] == "chinchilla" or entry is None or entry["left_out"] is not None:
        return ""
    a = entry["a"]
    interval = "no finite interval" if a["low"] is None else f"{a['low']:.3f} to {a['high']:.3f}"
    error = f"{entry['mean_relative_error']:.3%}"
    return f"by chinchilla, the additive law: a {a['value']:.3f} ({interval}); it predicts held-out cells to {error}"


def _print_whole(table: Table, console: Console) -> None:
    """A table wider than the terminal wraps there: a number cut short is worse."""
    width = console.width
    natural = Measurement.get(console, console.options.update(max_width=MOST_WIDTH), table).maximum
    console.width = max(width, natural)
    console.print(table)
    console.width = width


def _frontier(study: dict[str, Any]) -> list[str]:
    """The points of the frontier that were asked for."""
    section = study["frontier"] or {}
    doubt = "" if study["fit"]["certificate"]["certified"] else " (NOT certified)"
    lines = []
    for point in section.get("at", []):
        parts = (("N*", "params"), ("D*", "tokens"), ("L*", "loss"), ("D*/N*", "tokens_per_param"))
        shown = ", ".join(f"{symbol} {_range(point[name])}" for symbol, name in parts)
        lines.append(f"at {point['flops']:.3g} FLOPs{_beyond(point)}: {shown}{doubt}")
    served = section.get("serving")
    if served:
        parts = (("N", "params"), ("D", "tokens"), ("D/N", "tokens_per_param"), ("FLOPs in all", "total_flops"))
        shown = ", ".join(f"{symbol} {_range(served[name])}" for symbol, name in parts)
        lines.append(
            f"loss {served['loss']:g} with {served['served_tokens']:.3g} tokens served{_beyond(served)}: {shown}, "
            f"against {served['optimal_total_flops']:.4g} of the compute-optimal model{doubt}"
        )
    return lines


def _beyond(point: dict[str, Any]) -> str:
    return f", {point['beyond']:.3g} times the most compute sampled" if point["beyond"] > 1 else ""


def _range(entry: dict[str, float | None]) -> str:
    low, high = entry["low"], entry["high"]
    if low is None:
        return f"{entry['value']:.4g} (no interval)"
    return f"{entry['value']:.4g} ({low:.4g} to {'no upper end' if high is None else f'{high:.4g}'})"


def _exponents(study: dict[str, Any]) -> Table:
    """One row a fit with values and 95 % intervals: headline, then by parameter count, then by loss."""
    head = study["fit"]
    keys = [key for key in EXPONENTS if key in head["estimates"]]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for title in ("params", "loss", *keys, "certified"):
        table.add_column(title, no_wrap=True)
    others = [fit for fit in study["by_params"] if fit["params"] != head["params"]]
    others += [fit for fit in study["by_loss"] if fit["loss"] != head["loss"]]
    for fit in (head, *others):
        cells = [_number(fit, key) for key in keys]
        verdict = "yes" if fit["certificate"]["certified"] else "NO"
        table.add_row(fit["params"] or "none", fit["loss"], *cells, verdict, style="bold" if fit is head else None)
    return table


def _number(fit: dict[str, Any], key: str) -> str:
    value, interval = fit["estimates"][key], fit["intervals"][key]
    form = ".3g" if key == PENALTY else ".3f"  # P may have any size
    return f"{value:{form}} " + ("none" if interval is None else f"{interval[0]:{form}}-{interval[1]:{form}}")
