"""All that a fit of settings knows, and the covariance of it: what settings cost anywhere, in draws of that knowledge.

The part `joint` of tune.json. Shapes: K settings, Q parameters (minima, rules, H, cubics), R rows of another table,
S draws, F factors of a rule (1, log N, log D over their references).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.laws.forms import Array
from harness.laws.noise.wald import covariance
from harness.laws.table.levels import SAME_BUDGET
from harness.laws.table.table import ALIKE, Table
from harness.laws.tuning.basin import Basin
from harness.laws.tuning.rules import Rules
from harness.laws.tuning.runs import Runs
from harness.records import axis_name

SCHEMA = 2  # of tune.json
# Params of two tables that differ by less, in log, are those of one shape.
SAME_SHAPE = 1e-3
# A column holds a setting where it is within this factor of it in every run: batches are rounded to whole sequences.
SAME_VALUE = 1.05


def alike(table: Table) -> dict[str, list[str]]:
    """What a sweep's table says of all its runs alike, and of which minima are: its schedule, optimizer and so on."""
    names = [name for name in ALIKE if name != "precision" and table.own and name in table.frame.columns]
    return {name: sorted(set(table.frame[name].map(str))) for name in names}


def columns_of(runs: Runs) -> dict[str, str]:
    """The column of a run table in which each setting stands: of a sweep's axis the one of its own name."""
    found = {}
    for name in runs.names:
        column = axis_name(name)
        if runs.table.own and column in runs.table.frame.columns and column != name:
            value_R, other_R = (runs.table.numbers(each, positive=False) for each in (name, column))
            same = (other_R <= value_R * SAME_VALUE) & (value_R <= other_R * SAME_VALUE)
            found[name] = column if same.all() else name
        else:
            found[name] = name
    return found


def joint(runs: Runs, basin: Basin, rules: Rules, bracketed_CK: NDArray[np.bool_]) -> dict[str, Any]:
    """The minima of the cells, the coefficients of the rules, H and the cubics, with their covariance."""
    bowl, names = basin.bowl, runs.names
    cells, settings = np.nonzero(bowl.place >= 0)
    own_Q = bowl.place[cells, settings]
    bent_Q = np.arange(bowl.before, len(basin.theta_P))
    told = [
        (k, f) for k in range(len(names)) for f in range(rules.weight_FKP.shape[0])
        if not np.isnan(rules.weight_FKP[f, k]).any()
    ]  # fmt: skip
    weight_QP = np.array([rules.weight_FKP[f, k] for k, f in told]).reshape(len(told), len(rules.basin.theta_P))
    value_Q = np.concatenate([basin.theta_P[own_Q], weight_QP @ rules.basin.theta_P, basin.theta_P[bent_Q]])
    gain = basin.curvature.gain_PR
    gain_QR = np.concatenate([gain[own_Q], weight_QP @ rules.basin.curvature.gain_PR, gain[bent_Q]])
    spread_QQ, freedom = covariance(basin.curvature.noise, gain_QR)
    params, tokens = runs.sizes.references
    return {
        "columns": columns_of(runs),
        "alike": alike(runs.table),
        "minima": [
            {"setting": names[k], "params": runs.sizes.params_C[c], "tokens": runs.sizes.tokens_C[c],
             "bracketed": bracketed_CK[c, k]}
            for c, k in zip(cells, settings, strict=True)
        ],
        "rules": [{"setting": names[k], "factor": ("1", *rules.names)[f]} for k, f in told],
        "reference_params": params,
        "reference_tokens": tokens,
        "curvature": [[names[j], names[k]] for j, k in bowl.pairs],
        "cubic": [names[k] for k in bowl.cubed],
        "values": value_Q,
        "covariance": spread_QQ,
        "freedom": freedom,
    }  # fmt: skip


@dataclass(frozen=True)
class Joint:
    """A tune.json: settings by name, their columns in run tables, and `joint` as above."""

    path: str
    names: tuple[str, ...]
    content: Mapping[str, Any]
    certificate: Mapping[str, Any]
    params: str  # the columns that it was fitted to
    target: str
    within: float

    @property
    def columns(self) -> list[str]:
        return [self.content["columns"][name] for name in self.names]

    def check_alike(self, table: Table) -> None:
        """Raises UserError where a table's runs differ from the tuned ones in more than settings."""
        there = self.content["alike"]
        for name, values in alike(table).items():
            if name in there and there[name] != values:
                raise UserError(
                    f"{self.path} has minima of {name} {', '.join(there[name])}, and {table.source} of "
                    f"{', '.join(values)}: tune with the same"
                )

    @property
    def value_Q(self) -> Array:
        return np.array(self.content["values"], float)

    @property
    def root_QQ(self) -> Array:
        """A square root of the covariance, which may be singular: its columns are the ways that the noise can move."""
        size_Q, way_QQ = np.linalg.eigh(np.array(self.content["covariance"], float))
        return way_QQ * np.sqrt(np.maximum(size_Q, 0.0))

    def draw(self, draws: int, generator: np.random.Generator) -> Array:
        """Parameters (S, Q) as Student's t: normal ones whose variance was estimated."""
        freedom = float(self.content["freedom"])
        wider_S = np.sqrt(freedom / generator.chisquare(freedom, draws))
        normal_SQ = generator.standard_normal((draws, len(self.value_Q)))
        return self.value_Q + wider_S[:, None] * (normal_SQ @ self.root_QQ.T)

    def minima(self, params_R: Array, tokens_R: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Weights (R, K, Q) that make log minima of parameters, and which rows have a minimum of their own size.

        Where all settings have a bracketed minimum at a size, it is that; elsewhere that of the rules. Raises
        UserError where there is no rule.
        """
        minima, rules = self.content["minima"], self.content["rules"]
        count, K = len(params_R), len(self.names)
        weight_RKQ = np.zeros((count, K, len(self.value_Q)))
        logs = {
            "1": np.ones(count),
            "params": np.log(params_R / self.content["reference_params"]),
            "tokens": np.log(tokens_R / self.content["reference_tokens"]),
        }
        for place, rule in enumerate(rules, len(minima)):
            weight_RKQ[:, self.names.index(rule["setting"]), place] = logs[rule["factor"]]
        own_RK = np.full((count, K), -1)
        for place, each in enumerate(minima):
            here_R = np.abs(np.log(params_R / each["params"])) < SAME_SHAPE
            here_R &= np.abs(np.log(tokens_R / each["tokens"])) < SAME_BUDGET / 2
            if each["bracketed"]:
                own_RK[here_R, self.names.index(each["setting"])] = place
        own_R = np.all(own_RK >= 0, axis=1)
        weight_RKQ[own_R] = np.eye(len(self.value_Q))[own_RK[own_R]]
        ruled = {rule["setting"] for rule in rules}
        if lacking := [name for name in self.names if name not in ruled and not own_R.all()]:
            raise UserError(
                f"{self.path} tells no rule of {lacking[0]}, which sizes without a minimum of their own need: tune at "
                "two shapes or more"
            )
        return weight_RKQ, own_R

    def heights(self, theta_SQ: Array, setting_RK: Array, weight_RKQ: Array) -> Array:
        """How far log losses at log settings lie above their minima, (S, R), for parameters (S, Q)."""
        before = len(self.content["minima"]) + len(self.content["rules"])
        v_SRK = setting_RK - np.einsum("rkq,sq->srk", weight_RKQ, theta_SQ, optimize=True)
        height_SR = np.zeros(v_SRK.shape[:2])
        for place, (first, second) in enumerate(self.content["curvature"], before):
            j, k = self.names.index(first), self.names.index(second)
            height_SR += theta_SQ[:, [place]] * v_SRK[:, :, j] * v_SRK[:, :, k] * (0.5 if j == k else 1.0)
        for place, name in enumerate(self.content["cubic"], before + len(self.content["curvature"])):
            height_SR += theta_SQ[:, [place]] * v_SRK[:, :, self.names.index(name)] ** 3
        return height_SR

    def inflation(self, setting_RK: Array, weight_RKQ: Array) -> Array:
        """By how much the heights are too large on average, (R,), as minima that noise has moved lie lower."""
        way_QQ = self.root_QQ.T
        ways = (self.value_Q + way_QQ, self.value_Q - way_QQ, self.value_Q[None])
        up_QR, down_QR, here_1R = (self.heights(theta, setting_RK, weight_RKQ) for theta in ways)
        return np.asarray((up_QR + down_QR - 2 * here_1R).sum(0) / 2)

    def ends(self, params_R: Array) -> dict[str, list[str]]:
        """Of the smallest and the largest shape, the settings that have no bracketed minimum there."""
        found = {}
        for end, params in (("smallest", params_R.min()), ("largest", params_R.max())):
            there = {
                each["setting"] for each in self.content["minima"]
                if each["bracketed"] and abs(np.log(params / each["params"])) < SAME_SHAPE
            }  # fmt: skip
            found[end] = [axis_name(name) for name in self.names if name not in there]
        return found


def read_joint(path: Path) -> Joint:
    """A tune.json; raises UserError where it is none, or one of another schema."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"tuning={path} does not exist: python scripts/tune.py runs=... writes it") from None
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or "settings" not in content:
        raise UserError(f"tuning={path} is not what scripts/tune.py writes: tune again to write it anew")
    if content.get("schema") != SCHEMA or "joint" not in content:
        raise UserError(
            f"tuning={path} has schema {content.get('schema')}, this version reads {SCHEMA}: tune again"
        )
    columns = content["source"]["columns"]
    return Joint(
        str(path), tuple(content["settings"]), content["joint"], content["certificate"], columns["params"],
        columns["target"], content["choices"]["within"],
    )  # fmt: skip


def settings_in(table: Table, columns: Sequence[str], path: str) -> Array:
    """The log settings of a table's rows, (R, K); raises UserError where it has not all of them."""
    found = []
    for column in columns:
        if column not in table.frame.columns:
            raise UserError(
                f"{table.source} has no column {column}, which {path} has tuned: tune without it, or add that column"
            )
        value_R = table.numbers(column, positive=False)
        if not (value_R > 0).all():
            raise UserError(
                f"{table.source}, column {column} is {value_R.min():g} in a row, and no bowl in logs reaches there: "
                "leave such rows out with filter="
            )
        found.append(np.log(value_R))
    return np.stack(found, axis=1)
