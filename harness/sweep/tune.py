"""Tuning a sweep: settings around its rules are trained, their minima fitted, and what lies at an end tried farther."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from harness.arguments import literal
from harness.errors import UserError
from harness.laws.settings import TuneConfig
from harness.laws.table.levels import budget_labels
from harness.laws.tune import Tuned, write_tuned
from harness.records import SweepFolder, read_record, read_sweep
from harness.sweep.compose import compose_sweep, set_environment
from harness.sweep.grids import beside
from harness.sweep.run import prepare_plan, prepare_trunks, train_sweep
from harness.sweep.tuned_grid import (
    BATCH,
    DECAY,
    FACTORS,
    RATE,
    WARMUP,
    Place,
    Point,
    column_of,
    first_points,
    grids,
    more_points,
    places_of,
    value,
)
from harness.units import counted

MOST_ROUNDS = 3
# What is first held at its present value where not all settings show a minimum.
LEAST_FIRST = [column_of(name) for name in (WARMUP, DECAY, BATCH, RATE)]
OWN = ("plan", "rounds")


@dataclass(frozen=True)
class Asked:
    """A command line of scripts/tune.py that trains: overrides of the sweep that is tuned, and its own keys."""

    overrides: tuple[str, ...]
    rounds: int = MOST_ROUNDS
    plan: bool = False


def asked(arguments: Sequence[str]) -> Asked | None:
    """What a command line asks to train; None where it fits a table. Raises UserError."""
    own = {key: [word for word in arguments if word.startswith(f"{key}=")] for key in OWN}
    rest = [word for word in arguments if word not in own["plan"] + own["rounds"]]
    if any(word.startswith("runs=") for word in rest):
        if given := [*own["plan"], *own["rounds"]]:
            raise UserError(f"{given[0]} is of a sweep that is trained, and runs= names a table: leave one of them out")
        return None
    if not any(word in ("-m", "--multirun") or word.lstrip("+").startswith("sweep=") for word in rest):
        return None
    rounds, plan = ((own[key] or [f"{key}={other}"])[-1].partition("=")[2] for key, other in
                    (("rounds", str(MOST_ROUNDS)), ("plan", "false")))  # fmt: skip
    if not rounds.isdecimal() or int(rounds) < 1:
        raise UserError(f"rounds={rounds} is no number of rounds: give 1 or more")
    if plan not in ("true", "false"):
        raise UserError(f"plan={plan} is neither true nor false: plan=true trains nothing")
    return Asked(tuple(word for word in rest if word not in ("-m", "--multirun")), int(rounds), plan == "true")


def tune_sweep(what: Asked) -> tuple[int, Path | None, Tuned | None]:
    """Trains, fits and extends; the exit status, the folder where it was trained here, and the fit. Raises UserError.
    """
    set_environment()
    console = Console(soft_wrap=True, markup=False, highlight=False)
    base = compose_sweep(["-m", *what.overrides])
    if base.axes:
        raise UserError(
            f"the sweep compares {' and '.join(base.axes)}, and settings are tuned for one of them: fix it, as in "
            "ARGS='variants=null optimizer=muon'"
        )
    name = f"{base.folder.path.name}-tune"
    _, by_job, _ = prepare_trunks(base, console)
    places = places_of(trunk for trunks in by_job for trunk in trunks)
    tried = {place: first_points(place, place in (places[0], places[-1])) for place in places}
    present = present_values(places[0], tried)
    before = 0
    for number in range(1, what.rounds + 1):
        count = sum(map(len, tried.values()))
        new = counted(count - before, "further setting" if before else "setting")
        before = count
        console.print(f"round {number} of at most {what.rounds}: {new} at "
                      f"{', '.join(place.shape for place in places)}")  # fmt: skip
        command = arguments(what.overrides, name, grids(tried))
        if what.plan:
            _, plan = prepare_plan(compose_sweep(command), console)
            console.print(plan.table())
            console.print(plan.summary())
            console.print("further rounds train what lies beyond an end at which a minimum was found")
            return 0, None, None
        _, folder = train_sweep(command)
        if folder is None:
            return 0, None, None
        if cells := unfinished(folder):
            console.print(f"{counted(cells, 'cell')} failed, and nothing is fitted: the same command tries again")
            return 1, folder, None
        found, said = fitted(folder, present)
        more = beyond(found, folder, tried)
        if not more or number == what.rounds:
            break
        tried = {place: points | more.get(place, set()) for place, points in tried.items()}
    if found is None:
        raise UserError(said[0])
    for line in [*str(found).splitlines(), *last_words(more), *said]:
        console.print(line)
    return 0, folder, found


def arguments(overrides: Sequence[str], name: str, products: Sequence[Sequence[str]]) -> list[str]:
    """The command line of scripts/train.py that trains these products, which decide nothing that the sweep claims."""
    text = ",".join(f"[{','.join(map(literal, own))}]" for own in products)
    return ["-m", *beside(overrides, ["name=", "claim="]), f"name={name}", "claim=null", f"grids=[{text}]"]


def present_values(place: Place, tried: Mapping[Place, set[Point]]) -> dict[str, float]:
    """The values around which settings are tried, by their columns."""
    names = {name for points in tried.values() for each in points for name, _ in each}
    return {column_of(name): value(place.trunk.job, name, 0) for name in FACTORS if name in names}


def unfinished(folder: Path) -> int:
    """How many cells of a sweep failed; one that diverged has ended as such."""
    sweep = SweepFolder(folder)
    records = [read_record(sweep.run(cell["cell"])) for cell in read_sweep(sweep)["cells"]]
    return sum(record is None or record["status"] == "failed" for record in records)


def fitted(folder: Path, present: Mapping[str, float]) -> tuple[Tuned | None, list[str]]:
    """The fit of a sweep's settings, with what was written and left out; None, with the reason, where they show no
    minimum.

    present: the values around which they were tried, by their columns. What shows no minimum beside the others, as a
    warmup of no consequence, is held at its present value, as few as there must be.
    """
    free = [column for column in sorted(present, key=LEAST_FIRST.index) if column != column_of(RATE)]
    reasons: list[str] = []
    for held in (held for count in range(len(free) + 1) for held in combinations(free, count)):
        try:
            found, said = write_tuned(_fit_with(held, folder, present))
        except UserError as error:
            reasons.append(str(error))
            continue
        if all(of["rule_in_params"]["value"]["estimate"] is not None for of in found.content["settings"].values()):
            flat = [f"{column} shows no minimum beside the others: it stays at {present[column]:g}" for column in held]
            return found, [*flat, *said.splitlines()]
        reasons.append(f"{folder}: too few shapes show a minimum for a rule: try more values")
    return None, reasons


def _fit_with(held: Sequence[str], folder: Path, present: Mapping[str, float]) -> TuneConfig:
    """The fit of the settings that are not held at their present value."""
    choice = " and ".join(f"{column}=={present[column]!r}" for column in held)
    return TuneConfig(runs=str(folder), settings=[name for name in present if name not in held], filter=choice)


def beyond(found: Tuned | None, folder: Path, tried: dict[Place, set[Point]]) -> dict[Place, set[Point]]:
    """What is to be tried next at each shape: the next value of a setting whose minimum lies at an end or outside, if
    what was tried there did not diverge."""
    frame = pd.read_csv(folder / "runs.csv").query("status == 'finished'")
    more: dict[Place, set[Point]] = {}
    for place, points in tried.items():
        job = place.trunk.job
        own = frame[(frame["width"] == job.model.width) & (frame["depth"] == job.model.depth)]
        if own.empty:  # all of it diverged
            more[place] = more_points(place, points, RATE, up=False)
            continue
        for name in sorted({name for each in points for name, _ in each}):
            column = column_of(name)
            steps = [step for each in points if (step := dict(each).get(name, 0)) is not None]
            ends = value(job, name, min(steps)), value(job, name, max(steps))
            for _, cell in own.groupby(budget_labels(own["tokens"].to_numpy(float))):
                best = _best(found, column, place.trunk.params.with_head, float(cell["tokens"].median()))
                if best is None:
                    best = float(cell[column].to_numpy()[int(cell["loss"].to_numpy().argmin())])
                above = cell[column][cell[column] > 0]
                for up, end, last in ((False, ends[0], above.min()), (True, ends[1], above.max())):
                    if np.isclose(end, last) and (best >= end * (1 - 1e-9) if up else best <= end * (1 + 1e-9)):
                        more.setdefault(place, set()).update(more_points(place, points, name, up))
    return {place: new for place, points in more.items() if (new := points - tried[place])}


def _best(found: Tuned | None, column: str, params: int, tokens: float) -> float | None:
    """The fitted minimum of a setting at a size; None where none was told."""
    for cell in found.content["settings"].get(column, {"cells": []})["cells"] if found else ():
        if np.isclose(cell["params"], params) and np.isclose(cell["tokens"], tokens, rtol=0.05):
            return float(cell["best"])
    return None


def last_words(more: dict[Place, set[Point]]) -> list[str]:
    """What was left untried when the rounds were over."""
    if not more:
        return []
    names = sorted({name for points in more.values() for each in points for name, _ in each})
    shapes = ", ".join(place.shape for place in more)
    return [f"the rounds are over, and {' and '.join(names)} would be tried farther at {shapes}: give rounds= more"]
