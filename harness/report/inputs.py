"""What a report reads: one sweep directory, and nothing else."""

import csv
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from harness.errors import UserError
from harness.laws.claims.claim import read_claim
from harness.laws.table.curves import read_curve
from harness.records import SweepFolder, axes_of, read_sweep, variant_of

# Of fit.json and compare.json.
SCHEMAS = {"fit": 1, "compare": 2}
# Means over tokens bins this wide (in log tokens) tame the noise of a single batch.
BIN_WIDTH = 0.03
NEEDED = ("cell", "trunk", "status", "width", "depth", "seed", "tokens", "flops", "loss", "params_with_head")


@dataclass(frozen=True)
class SweepFiles:
    """A sweep as its directory tells it.

    content: that of sweep.yaml.
    cells: one row a cell of sweep.yaml: the run table's columns, or sweep.yaml's where the cell has not ended yet; the
    columns `shape` (w64-d4), `repeat` (a further seed of a shape) and `variant` (what else varies, in words) are added.
    curves: training loss by tokens, in bins: cell, trunk, shape, phase, line, tokens, train_loss.
    """

    path: Path
    content: dict[str, Any]
    cells: pd.DataFrame
    curves: pd.DataFrame
    fit: dict[str, Any] | None
    fit_is_stale: bool
    comparison: dict[str, Any] | None
    comparison_is_stale: bool
    job: dict[str, Any]
    claim: dict[str, Any] | None = None

    @property
    def finished(self) -> pd.DataFrame:
        return self.cells[(self.cells.status == "finished") & self.cells.loss.notna()]

    @property
    def fitted(self) -> pd.DataFrame:
        """Those of finished that a law is shown for: where there are variants, those that its filter has left."""
        if self.fit is None or len(self.variants) < 2:
            return self.finished
        excluded = [row.get("cell") for row in self.fit["source"]["excluded"] or []]
        return self.finished[~self.finished.cell.isin(excluded)]

    @property
    def variants(self) -> list[str]:
        """The variants in the order of the sweep; one without words where nothing but shape, seed and budget varies."""
        return list(dict.fromkeys(self.cells.variant))

    @property
    def shapes(self) -> list[str]:
        """The shapes, ascending in params_with_head."""
        return list(dict.fromkeys(self.cells.sort_values(["params_with_head", "shape"])["shape"]))


def read(path: Path) -> SweepFiles:
    """Reads a sweep directory; raises UserError where it is none, or its files are damaged or of another schema."""
    if not path.is_dir():
        raise UserError(f"runs={path} is not a folder: give the folder of a sweep, such as runs=outputs/cpu")
    folder = SweepFolder(path)
    content = read_sweep(folder)
    cells = _cells(content, _table(folder.table), folder)
    digest = hashlib.sha256(folder.table.read_bytes()).hexdigest()
    found = [_result(path, name) for name in SCHEMAS]
    (fit, old), (comparison, older) = (
        (each, each is not None and each["source"].get("sha256") not in (None, digest)) for each in found
    )
    return SweepFiles(
        path, content, cells, _curves(folder, cells), fit, old, comparison, older, _job(folder, cells),
        read_claim(path / "claim.json"),
    )  # fmt: skip


def _table(path: Path) -> pd.DataFrame:
    try:
        with open(path, newline="") as file:
            header = next(csv.reader(file), [])
    except FileNotFoundError:
        raise UserError(f"{path} is missing: train the sweep first") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: train the sweep again to write it anew") from None
    missing = [name for name in NEEDED if name not in header]
    if missing:
        raise UserError(f"{path} has no column {missing[0]}: train the sweep again to write it anew")
    text = {name: str for name in ("cell", "trunk", "status", "error", "code_version", "config_hash", "device")}
    table = pd.read_csv(path, dtype={name: kind for name, kind in text.items() if name in header})
    for name in ("width", "depth", "seed", "tokens", "flops", "loss", "params_with_head"):
        if not pd.api.types.is_numeric_dtype(table[name]) and len(table):
            raise UserError(f"{path} has text in its column {name}: train the sweep again to write it anew")
    return table


def _cells(content: dict[str, Any], table: pd.DataFrame, folder: SweepFolder) -> pd.DataFrame:
    """The cells of sweep.yaml in its order, each with its row of the run table where it has one."""
    listed = pd.DataFrame(content.get("cells") or [])
    if listed.empty:
        raise UserError(f"{folder.sweep_yaml} names no cells: train the sweep again to write it anew")
    absent = listed[~listed.cell.isin(table.cell)].assign(status="not done")
    rows = [part for part in (table[table.cell.isin(listed.cell)], absent) if len(part)]
    columns = list(dict.fromkeys([*table.columns, *listed.columns]))
    cells = pd.concat(rows, ignore_index=True).reindex(columns=columns).set_index("cell").loc[listed.cell].reset_index()
    cells["shape"] = [f"w{width}-d{depth}" for width, depth in zip(cells.width, cells.depth, strict=True)]
    cells["variant"] = [variant_of(cell, axes_of(content)) for cell in content["cells"]]
    cells["repeat"] = cells.seed != cells.groupby("shape").seed.transform("min")
    return cells


def _result(folder: Path, name: str) -> dict[str, Any] | None:
    """The content of fit.json or compare.json; None where there is none."""
    path = folder / f"{name}.json"
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        raise UserError(f"{path} is not JSON: {name} the sweep again to write it anew") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMAS[name]:
        found = content.get("schema") if isinstance(content, dict) else None
        raise UserError(f"{path} has schema {found}, this version reads {SCHEMAS[name]}: {name} the sweep again")
    return content


def _job(folder: SweepFolder, cells: pd.DataFrame) -> dict[str, Any]:
    """The configuration that all jobs share but for shape and seed: that of the first cell that has one."""
    for cell in cells.cell:
        try:
            return yaml.safe_load((folder.run(cell) / "config.yaml").read_text()).get("job") or {}
        except FileNotFoundError:
            continue
    return {}


def _curves(folder: SweepFolder, cells: pd.DataFrame) -> pd.DataFrame:
    """Each trunk once, from its longest curve, and each cell's cooldown, joined to the trunk where it branches."""
    lines = []
    for _, members in cells.groupby("trunk", sort=False):
        curves = {cell: read_curve(folder.run(cell) / "curve.jsonl") for cell in members.cell}
        trunk_rows = [curve[curve.phase == "trunk"] for curve in curves.values() if len(curve)]
        if not trunk_rows:
            continue
        trunk = _binned(max(trunk_rows, key=len))
        first = members.iloc[0]
        lines.append(trunk.assign(cell=first.cell, trunk=first.trunk, shape=first["shape"], line=first.trunk))
        for cell, curve in curves.items():
            branch = _binned(curve[curve.phase == "cooldown"]) if len(curve) else curve
            if len(branch):
                start = trunk[trunk.tokens < branch.tokens.min()].tail(1).assign(phase="cooldown")
                branch = pd.concat([start, branch])
                lines.append(branch.assign(cell=cell, trunk=first.trunk, shape=first["shape"], line=cell))
    columns = ["cell", "trunk", "shape", "phase", "line", "tokens", "train_loss"]
    return pd.concat(lines, ignore_index=True)[columns] if lines else pd.DataFrame(columns=columns)


def _binned(curve: pd.DataFrame) -> pd.DataFrame:
    """Means over bins of equal width in log tokens."""
    if not len(curve):
        return curve
    bins = np.floor(np.log(curve.tokens.astype(float)) / BIN_WIDTH)
    return curve.groupby(bins).agg({"phase": "first", "tokens": "mean", "train_loss": "mean"}).reset_index(drop=True)
