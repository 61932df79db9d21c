"""Forecasts of cells that a sweep has not trained: what they would be, which are refused, and their training."""

import contextlib
import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from harness.config import TrainConfig
from harness.data.tokens import TokenStore, prepare
from harness.errors import UserError
from harness.grid import Cell, Trunk, check_splits, check_unique, make_trunks
from harness.laws.forecast import Fitted, ForecastConfig, numbers, of_sweep, read_fitted, write_forecast
from harness.laws.prediction.forecast import Place, lines, read_all
from harness.records import FINAL, SweepFolder, axes_of, read_record, read_sweep
from harness.sweep.compose import code_version, compose_sweep, open_store, set_environment
from harness.sweep.run import train_sweep
from harness.sweep.tune import arguments
from harness.tracking import log_forecast
from harness.units import count_label

# The counts of params that a fit may take, as a trunk has them.
COUNTS = {"params_with_head": "with_head", "params_total": "total", "params_non_embedding": "non_embedding"}
# How long a name of a sweep grows by the budgets of a forecast.
MOST_BUDGETS = 4


@dataclass(frozen=True)
class Wanted:
    """What is forecast: the command line that would train it, its trunks, what they are named by beside their job, and
    the unique tokens of the corpus, None where a corpus of the hub is not read to its end."""

    command: list[str]
    trunks: list[Trunk]
    recipe_hash: str
    precision: str
    unique_tokens: int | None

    @property
    def cells(self) -> list[tuple[Trunk, Cell]]:
        return [(trunk, cell) for trunk in self.trunks for cell in trunk.cells]


def forecast_sweep(config: ForecastConfig) -> int:
    """Writes what a sweep's fit says of a shape, and trains that where train=true asks for it; the exit status.

    Raises UserError before anything is written. A forecast that stands already is trained as it stands.
    """
    set_environment()
    console = Console(soft_wrap=True, markup=False, highlight=False)
    folder = Path(config.runs)
    fitted = read_fitted(folder)
    wanted = wanted_of(folder, fitted, config)
    path = standing(folder, wanted) if config.train else None
    if path is None:
        check_new(folder, wanted)
        content = of_sweep(fitted, [place_of(*cell, fitted, wanted) for cell in wanted.cells], code_version())
        path = write_forecast(config, content)
        for line in lines(content):
            console.print(line)
        console.print(f"written to {path}")
        if config.out is None:
            for sentence in log_forecast(folder):
                console.print(sentence)
    else:
        console.print(f"{path} has forecast these cells before they were trained, and stands")
    if not config.train:
        return 0
    status, _ = train_sweep(wanted.command)
    console.print(f"what came beside what was forecast: python scripts/report.py runs={folder}")
    return status


def wanted_of(folder: Path, fitted: Fitted, config: ForecastConfig) -> Wanted:
    """What the sweep in `folder` would train at the shape and budgets that are asked for.

    Raises UserError where it compares variants, where today's code and configuration would not train its own cells
    again, and for what its corpus cannot train.
    """
    content = read_sweep(SweepFolder(folder))
    if axes := axes_of(content):
        raise UserError(
            f"{folder} compares {' and '.join(axes)}, and a law holds for one of them: train and fit that one alone"
        )
    budgets = sorted(numbers("tokens", config.tokens))
    command = command_of(folder, content.get("overrides") or [], str(config.shape), budgets)
    (job,) = compose_sweep(command).jobs
    store = open_store([job]) if job.data.source != "hub" else prepare(job.data, job.tokenizer, 1)
    precision = _only(fitted, "precision")
    if store.recipe_hash != _only(fitted, "data"):
        raise UserError(
            f"the corpus or the tokenizer is another than that of {folder} (recipe {store.recipe_hash}, there "
            f"{_only(fitted, 'data')}), and a forecast holds for the losses on that one"
        )
    _check_same_settings(folder, content, job, store, precision)
    trunks = make_trunks(job, store.vocab_size, store.recipe_hash, precision)
    unique = store.unique_tokens(job.model.seq_len)
    for trunk in trunks:
        check_splits(trunk, unique, len(store.validation))
        if store.exhausted:
            check_unique([trunk], unique, store.exhausted)
    return Wanted(command, trunks, store.recipe_hash, precision, unique if store.exhausted else None)


def command_of(folder: Path, overrides: Sequence[Any], shape: str, budgets: Sequence[float]) -> list[str]:
    """The command line of scripts/train.py that trains a shape with the settings of a sweep, beside its folder."""
    kept = [str(line) for line in overrides if not str(line).startswith("output_directory=")]
    own = [f"shape={shape}", f"tokens=[{','.join(map(repr, budgets))}]", "tokens_per_param=null", "flops=null"]
    if "-s" not in shape:
        own.append("seed=0")
    short = [f"t{count_label(budget)}" for budget in budgets]
    many = [f"{short[0]}to{short[-1]}"] if len(short) > MOST_BUDGETS else short
    name = "-".join([folder.resolve().name, "forecast", shape, *many])
    return [*arguments(kept, name, [own]), f"output_directory={folder.resolve().parent}"]


def _only(fitted: Fitted, column: str) -> str:
    """The value that all rows have, for those of one fit share it; raises UserError where there is none."""
    if column not in fitted.table.frame.columns:
        raise UserError(f"{fitted.table.source} has no column {column}: train the sweep again to write it anew")
    return str(fitted.table.frame[column].iloc[0])


def _check_same_settings(
    folder: Path, content: dict[str, Any], job: TrainConfig, store: TokenStore, precision: str
) -> None:
    """Raises UserError where the job's settings would name other trunks at the shapes of the sweep than it has."""
    if job.schedule.name != "wsd":  # whose trunks hang on the budget as it was asked for
        return
    first = content["cells"][0]
    trunk = trunk_at(job, first["width"], first["depth"], first["seed"], store, precision)
    if trunk.name != first["trunk"]:
        raise UserError(
            f"{folder} was trained with other settings or other code than these: its {first['trunk']} would now be "
            f"{trunk.name}, and a forecast holds for what its cells share; train and fit it anew"
        )


def trunk_at(job: TrainConfig, width: int, depth: int, seed: int, store: TokenStore, precision: str) -> Trunk:
    """The first trunk of a job at another shape and seed."""
    other = copy.deepcopy(job)
    other.shape, other.model.width, other.model.depth, other.seed = None, width, depth, seed
    return make_trunks(other, store.vocab_size, store.recipe_hash, precision)[0]


def place_of(trunk: Trunk, cell: Cell, fitted: Fitted, wanted: Wanted) -> Place:
    """A cell as the laws take it. Raises UserError where the fit counts params in a way that a trunk does not know."""
    count = fitted.columns.params
    if count not in COUNTS:
        known = ", ".join(COUNTS)
        raise UserError(f"the fit counts params by {count}, which only its rows have: fit it with one of {known}")
    model = trunk.job.model
    unique = cell.tokens if wanted.unique_tokens is None else min(cell.tokens, wanted.unique_tokens)
    flops = float(cell.flops) if fitted.columns.flops == "flops" else 6.0 * trunk.params.with_head * cell.tokens
    return Place(
        {
            "params": float(getattr(trunk.params, COUNTS[count])),
            "tokens": float(cell.tokens),
            "flops": flops,
            "unique_tokens": float(unique),
            "width": float(model.width),
            "depth": float(model.depth),
        },
        {
            "width": model.width,
            "depth": model.depth,
            "seed": trunk.job.seed,
            "cell": cell.name,
            "trunk": trunk.name,
            "branch_step": cell.branch_step,
        },
    )


def check_new(folder: Path, wanted: Wanted) -> None:
    """Raises UserError for a cell that has ended in any sweep of the output directory, with any seed."""
    for trunk, cell in wanted.cells:
        for run in sorted(folder.resolve().parent.glob(f"*/runs/w{trunk.job.model.width}-d{trunk.job.model.depth}-t*")):
            if _is_run_of(run, trunk, cell, wanted):
                raise UserError(
                    f"{cell.name} cannot be forecast any more, for {run} holds its loss: give a shape or tokens that "
                    "were not trained yet"
                )


def _is_run_of(run: Path, trunk: Trunk, cell: Cell, wanted: Wanted) -> bool:
    """Whether a run has ended that is a cell but for the seed."""
    record = None
    with contextlib.suppress(UserError):  # of another schema, and so of other code
        record = read_record(run)
    if record is None or record["status"] not in FINAL or record["tokens"] != cell.tokens:
        return False
    other = copy.deepcopy(trunk.job)
    other.seed = record["seed"]
    named = make_trunks(other, trunk.vocab_size, wanted.recipe_hash, wanted.precision)
    return record["trunk"] in [each.name for each in named] and _branch_step(run) in (None, cell.branch_step)


def _branch_step(run: Path) -> int | None:
    with contextlib.suppress(OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        found = yaml.load((run / "config.yaml").read_text(), Loader=yaml.CSafeLoader)["derived"]["branch_step"]
        return int(found)
    return None


def standing(folder: Path, wanted: Wanted) -> Path | None:
    """An earlier forecast of all these cells, if any; raises UserError where one was changed."""
    asked = {(cell.trunk, cell.tokens, cell.branch_step) for _, cell in wanted.cells}
    for path, content in read_all(folder):
        if asked <= {(each["trunk"], each["tokens"], each["branch_step"]) for each in content["cells"]}:
            return path
    return None
