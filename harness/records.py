"""Run directories, run records, the run table."""

import contextlib
import csv
import io
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.errors import UserError
from harness.files import is_alive, write_atomically

SCHEMA = 1
STATUSES = ("finished", "diverged", "failed")
FINAL = ("finished", "diverged")

COLUMNS = (
    "cell", "status", "width", "depth", "heads", "seq_len", "vocab_size", "seed", "tokens", "unique_tokens",
    "epochs", "batch_tokens", "steps", "learning_rate", "warmup_tokens", "weight_decay", "schedule", "params_total",
    "params_non_embedding", "params_with_head", "flops", "flops_6nd", "loss", "loss_se", "loss_parts",
    "bits_per_byte", "wall_seconds", "tokens_per_second", "device", "flops_utilization", "config_hash",
    "code_version", "trunk", "family", "parametrization", "optimizer", "precision", "data", "bytes_per_token",
    "error",
)  # fmt: skip
# What a cell's loss is told by; of a further text with its name behind, as in loss_code.
OF_TEXT = ("loss", "loss_se", "loss_parts", "bits_per_byte")
# The same where the text is lines of a task: of its answers, the loss, the tokens that are right, and whole answers.
OF_TASK = ("loss", "loss_se", "accuracy", "exact")
# Of a record, not of the table: the same of each text by name, with the recipe that says which text that is.
TEXTS = "validation"
# In sweep.yaml, the text whose losses are those of the cells, where these train on different corpora.
COMPARED_ON = "compared_on"
# In sweep.yaml, where the text is of a known entropy: the loss of the best predictor, `nats` of the very tokens that
# validate and `expected` of endless text.
FLOOR = "floor"
# In sweep.yaml, the texts that are lines of a task, by name: `task`, the `tokens` of an answer, and how many `symbols`
# each may be.
TASKS = "tasks"
# Likewise of each dimension of data=manifold, where a sweep has several.
FLOORS = "floors"
# In sweep.yaml, where symbols are inserted into a text in several shares, by the corpus as the column `data` names it:
# the `share`, and the `nats` a token that they add to (1 - share) of the text's own entropy.
INSERTED = "inserted"
# Columns that, where they are an axis, say which entry of conf/ was chosen: two entries may have one name.
CHOSEN = ("optimizer", "schedule", "data")
# Axes of which, where they are numbers, a comparison takes the best for each variant.
TUNED = re.compile(r"(model|optimizer|schedule)(\.\w+)+")
# Of tune.yaml, which harness.laws.tuning.rule_file writes and harness.config reads.
RULES_SCHEMA = 1


@dataclass(frozen=True)
class SweepFolder:
    """Where the files of one sweep lie."""

    path: Path

    @property
    def sweep_yaml(self) -> Path:
        return self.path / "sweep.yaml"

    @property
    def table(self) -> Path:
        return self.path / "runs.csv"

    def run(self, cell: str) -> Path:
        return self.path / "runs" / cell

    def trunk(self, name: str) -> Path:
        return self.path / "trunks" / name


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Writes run.json, the last file of a cell; `record` holds every column of the run table, and TEXTS if any."""
    texts = record.get(TEXTS) or {}
    assert set(record) - {TEXTS, "schema"} == set(COLUMNS), set(record) ^ set(COLUMNS)
    assert record["status"] in STATUSES
    content = {"schema": SCHEMA} | {key: _plain(record[key]) for key in COLUMNS}
    if texts:
        content[TEXTS] = {name: {key: _plain(value) for key, value in text.items()} for name, text in texts.items()}
    write_atomically(folder / "run.json", json.dumps(content, indent=1) + "\n")


def text_columns(names: Iterable[str], tasks: Collection[str] = ()) -> list[str]:
    """The columns of further texts, of which those named in `tasks` are lines of a task."""
    return [f"{column}_{name}" for name in names for column in (OF_TASK if name in tasks else OF_TEXT)]


def check_texts(names: Sequence[str]) -> None:
    """Raises UserError where the columns of two texts, or of one and the run table, would have one name."""
    owners = dict.fromkeys(COLUMNS, "the run table")
    for name in names:
        for column in text_columns([name]):
            if column in owners:
                raise UserError(
                    f"validation.{name} would give the column {column}, which {owners[column]} has: take another name"
                )
            owners[column] = f"validation.{name}"


def text_losses(record: Mapping[str, Any], recipes: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The losses of a record on further texts by their columns: on all, or on those of these recipes, by name."""
    texts = record.get(TEXTS) or {}
    wanted = {name: text["recipe"] for name, text in texts.items()} if recipes is None else recipes
    known = {name: texts[name] for name, recipe in wanted.items() if texts.get(name, {}).get("recipe") == recipe}
    tasks = [name for name, text in known.items() if "exact" in text]
    return {
        f"{column}_{name}": known.get(name, {}).get(column)
        for name in wanted
        for column in (OF_TASK if name in tasks else OF_TEXT)
    }


def as_compared(record: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the losses that its sweep compares: of one text for all; content: that of sweep.yaml."""
    name = content.get(COMPARED_ON)
    if name is None:
        return dict(record)
    losses = text_losses(record, {name: recipes_of(content).get(name, "")})
    return dict(record) | {column: losses.get(f"{column}_{name}") for column in OF_TEXT}


def lacking(record: Mapping[str, Any], recipes: Mapping[str, str]) -> list[str]:
    """The texts, by name, of `recipes` on which a record has no loss."""
    texts = record.get(TEXTS) or {}
    return [name for name, recipe in recipes.items() if texts.get(name, {}).get("recipe") != recipe]


def _plain(value: Any) -> Any:
    """JSON has no NaN: what is not a number is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a cell, or None where there is none or it is damaged, which counts as not done.

    Raises UserError for a record of another schema.
    """
    try:
        return as_record((folder / "run.json").read_text(), f"{folder}/run.json")
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None


def as_record(text: str, source: str) -> dict[str, Any] | None:
    """The content of a run.json, or None where it is damaged; raises UserError for a record of another schema."""
    try:
        record = json.loads(text)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    if record.get("schema") != SCHEMA:
        raise UserError(
            f"{source} has schema {record.get('schema')}, this version reads {SCHEMA}: "
            "train into another name=, or move that folder away"
        )
    for column in ("loss_parts", "warmup_tokens", "weight_decay"):  # of a record from before there were these
        record.setdefault(column, None)
    if record.get("status") not in STATUSES or not set(COLUMNS) <= set(record):
        return None
    loss, texts = record["loss"], record.get(TEXTS, {})
    if not isinstance(texts, dict) or not all(isinstance(text, dict) for text in texts.values()):
        return None
    if record["status"] == "finished" and not (isinstance(loss, float) and math.isfinite(loss)):
        return None
    return record


def is_final(folder: Path) -> bool:
    """Whether a cell has ended for good: finished or diverged. A failed one is tried again."""
    record = read_record(folder)
    return record is not None and record["status"] in FINAL


def is_damaged(folder: Path) -> bool:
    return (folder / "run.json").exists() and read_record(folder) is None


def write_sweep(folder: SweepFolder, content: dict[str, Any]) -> None:
    """Writes sweep.yaml, its cells last and each on a line of JSON, which is YAML too and parsed far faster."""
    head = {"schema": SCHEMA} | {key: value for key, value in content.items() if key != "cells"}
    cells = "".join(f"- {json.dumps(cell)}\n" for cell in content["cells"])
    # YAML 1.1 takes 1e-05 for text.
    cells = re.sub(r"(: -?\d+)(e[-+]\d+[,}])", r"\1.0\2", cells)
    text = yaml.dump(head, Dumper=yaml.CSafeDumper, sort_keys=False)
    write_atomically(folder.sweep_yaml, text + (f"cells:\n{cells}" if cells else "cells: []\n"))


def parse_sweep(text: str) -> Any:
    """The content of a sweep.yaml, its cells in any form that YAML has; raises yaml.YAMLError."""
    head, _, cells = text.partition("\ncells:\n")
    try:
        listed = json.loads(f"[{','.join(line.removeprefix('- ') for line in cells.splitlines())}]")
    except ValueError:
        listed = []
    content = yaml.load(head if listed else text, Loader=yaml.CSafeLoader)
    return content | {"cells": listed} if listed and isinstance(content, dict) else content


def renew_table(path: Path) -> None:
    """Writes runs.csv where `path` is a sweep with records younger than it: jobs may outlive their launcher."""
    folder = SweepFolder(path)
    youngest = max((record.stat().st_mtime for record in path.glob("runs/*/run.json")), default=0.0)
    written = folder.table.stat().st_mtime if folder.table.exists() else 0.0
    if folder.sweep_yaml.exists() and youngest > written:
        write_table(folder)


def read_sweep(folder: SweepFolder) -> dict[str, Any]:
    """sweep.yaml; raises UserError where it is missing, broken or of another schema."""
    try:
        content = _load_sweep(folder)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder.path} holds no sweep.yaml: give the folder of a sweep") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"{folder.sweep_yaml} is not YAML: train the sweep again to write it anew") from None
    _refuse_other_schema(folder, content)
    whole = isinstance(content, dict) and {"schema", "sweep"} <= set(content)
    cells = content.get("cells") if whole else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise UserError(f"{folder.sweep_yaml} names no cells: train the sweep again to write it anew")
    return content


def check_schema(folder: SweepFolder) -> None:
    """Raises UserError where sweep.yaml is of another schema; what is missing or broken may be written anew."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, yaml.YAMLError, UnicodeDecodeError):
        _refuse_other_schema(folder, _load_sweep(folder))


def _refuse_other_schema(folder: SweepFolder, content: Any) -> None:
    schema = content.get("schema") if isinstance(content, dict) else None  # None: cut off, or of no sweep
    if schema not in (None, SCHEMA):
        raise UserError(
            f"{folder.sweep_yaml} has schema {schema}, this version reads {SCHEMA}: train into another name="
        )


def _load_sweep(folder: SweepFolder) -> Any:
    return parse_sweep(folder.sweep_yaml.read_text())


def remove_checkpoints(path: Path) -> None:
    """Removes the checkpoints of the sweep in `path`, and follows no link below it; raises UserError where none is."""
    read_sweep(SweepFolder(path))
    if any(map(is_alive, [*path.glob("trunks/*/running"), *path.glob("runs/*/running")])):
        raise UserError(f"{path} is being trained, and a job that is killed needs its checkpoints: stop it first")
    of_trunks, of_runs = ("step-*.pt", ".step-*.tmp"), ("checkpoint.pt", ".checkpoint.pt.*.tmp")
    for pattern in [*(f"trunks/*/{name}" for name in of_trunks), *(f"runs/*/{name}" for name in of_runs)]:
        for file in path.glob(pattern):
            if not (file.parent.is_symlink() or file.parent.parent.is_symlink() or file.is_dir()):
                file.unlink()


def write_table(folder: SweepFolder) -> list[dict[str, Any]]:
    """Writes runs.csv, one row a cell of sweep.yaml that has a record, in its order; returns the rows."""
    content = read_sweep(folder)
    names = [cell["cell"] for cell in content["cells"]]
    records = {name: record for name in names if (record := read_record(folder.run(name))) is not None}
    return write_rows(folder.table, content, records)


def write_rows(path: Path, content: Mapping[str, Any], records: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Writes the records of a sweep's cells, by name, as a run table, and returns its rows.

    content: that of sweep.yaml, whose texts and axes are columns too, the last ones where no record has them.
    """
    axes, texts = axes_of(content), recipes_of(content)
    own = [axis for axis in axes if axis not in COLUMNS or axis in CHOSEN]
    rows = [
        as_compared(record, content) | text_losses(record, texts) | {axis: cell[axis] for axis in own if axis in cell}
        for cell in content["cells"]
        if (record := records.get(cell["cell"])) is not None
    ]
    text = io.StringIO()
    columns = [*COLUMNS, *text_columns(texts, tasks_of(content)), *(axis for axis in axes if axis not in COLUMNS)]
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
    return rows


def axes_of(content: Mapping[str, Any]) -> list[str]:
    """What varies in a sweep beside shape, seed and budget, by its column; content: that of sweep.yaml."""
    axes = content.get("axes") or []
    return [str(axis) for axis in axes] if isinstance(axes, list) else []


def axis_name(axis: str) -> str:
    """How an axis is named in words: learning_rate for optimizer.learning_rate.value."""
    return axis.removesuffix(".value").rpartition(".")[2]


def recipes_of(content: Mapping[str, Any]) -> dict[str, str]:
    """The further texts of a sweep, by name, and the recipe of each; content: that of sweep.yaml."""
    texts = content.get(TEXTS)
    return {str(name): str(recipe) for name, recipe in texts.items()} if isinstance(texts, dict) else {}


def tasks_of(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The texts of a sweep that are lines of a task, by name; content: that of sweep.yaml."""
    tasks = content.get(TASKS)
    return dict(tasks) if isinstance(tasks, dict) else {}


def variant_of(cell: Mapping[str, Any], axes: Sequence[str]) -> str:
    """What tells a cell of sweep.yaml from others of its shape, seed and budget, as in `muon beta2=0.99`."""
    parts = []
    for axis in (axis for axis in axes if axis in cell):
        value = cell[axis]
        parts.append(value if isinstance(value, str) else f"{axis_name(axis)}={json.dumps(value)}")
    return " ".join(parts)
