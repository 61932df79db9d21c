"""The configuration of a fit: conf/fit.yaml and the command line of scripts/fit.py."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from harness.arguments import quoted
from harness.commands import compose_config
from harness.errors import UserError
from harness.laws.methods.approaches import ApproachesConfig
from harness.laws.methods.frontier import FrontierConfig
from harness.laws.table.rows import Columns
from harness.laws.table.table import Table
from harness.laws.table.units import Units, check_target_unit

TEXTS = ("law", "loss", "filter", "column", "baseline", "best_of", "settings", "tuning", "out")
Config = TypeVar("Config", "FitConfig", "CompareConfig", "TuneConfig")


@dataclass
class TableConfig:
    """Which table is read, and how a law is fitted to it."""

    # a sweep directory, a table (CSV, JSON lines, Parquet, compressed or not) or wandb://entity/project/group; several,
    # a,b or [a,b], are pooled
    runs: str = ""
    # null: the one that the sweep states, else chinchilla; harness/laws/forms/__init__.py has names and equations
    law: str | None = None
    loss: str = "log_mse"  # log_mse | huber | lad | mse
    delta: float = 1e-3  # of huber, on log loss
    bootstrap: int = 2000  # simulated tables behind the intervals; 0 takes those of a fit from the curvature
    seed: int = 0  # of the simulated tables
    filter: str = ""  # which rows are fitted, such as width>=48 and schedule==wsd
    columns: Columns = field(default_factory=Columns)
    # nats | bits | perplexity | bits_per_byte; null: nats, and asked for where that cannot be
    target_unit: str | None = None
    bytes_per_token: float | None = None  # of target_unit=bits_per_byte; null: the column of that name
    units: Units = field(default_factory=Units)

    def check(self) -> None:
        if not self.runs:
            raise UserError("runs has no value: give a sweep directory or a table, as in runs=outputs/cpu")
        for key, value in asdict(self.columns).items():
            if value == "":
                raise UserError(f"columns.{key} is empty: name a column of the table")
        check_target_unit(self.target_unit, self.bytes_per_token)
        self.units.worth()

    def law_of(self, table: Table) -> str:
        """The law to fit to a table."""
        return self.law or table.law or "chinchilla"


@dataclass
class FitConfig(TableConfig):
    """What scripts/fit.py reads."""

    # null: fit.json in the sweep directory, <stem>.fit.json beside a table; needed where runs= names several
    out: str | None = None
    # holdout: weigh chinchilla, chinchilla_tied and chinchilla_coupled by how they predict cells of more compute
    combine: str | None = None
    # settings, a or a,b, that differ between rows of one params and tokens: the best of them is fitted, the others are
    # left out
    best_of: str | None = None
    # what scripts/tune.py wrote, for how far the exponents hang on the settings; null: that of the folder beside a
    # sweep's, outputs/cpu-tune/tune.json of outputs/cpu, where there is one
    tuning: str | None = None
    verbose: bool = False  # of a sweep too, print all that is printed of another table: its headline is short
    approaches: ApproachesConfig = field(default_factory=ApproachesConfig)
    frontier: FrontierConfig = field(default_factory=FrontierConfig)

    def check(self) -> None:
        super().check()
        if self.combine not in (None, "holdout"):
            raise UserError(f"combine={self.combine} is not known: give combine=holdout, or leave it out")
        if self.best_of is not None and not self.best_of.strip(" ,[]"):
            raise UserError("best_of is empty: name a column, or leave it out")
        self.approaches.check()
        self.frontier.check(self.law or "chinchilla")

    def law_of(self, table: Table) -> str:
        """The law to fit to a table; raises UserError where it cannot give what is asked of it."""
        law = super().law_of(table)
        self.frontier.check(law)
        return law


@dataclass
class CompareConfig(TableConfig):
    """What scripts/compare.py reads: one table that holds several variants, or a table for each."""

    # a sweep directory or a table that holds all variants, or several of them, a,b, which are then the variants
    runs: str = ""
    column: str | None = None  # whose values are the variants; null: the one that varies, source of several tables
    baseline: str | None = None  # the value that the others are compared with; null: the first
    # which of E and the exponents all variants have in common, such as [alpha,beta,gamma]; null: all of them, E only
    # where they train on the same text
    shared: Any = None
    # null: compare.json in the sweep directory, <stem>.compare.json beside a table, compare.json here for several
    out: str | None = None

    def parameters(self) -> tuple[str, ...] | None:
        """What shared= names; None where it is left to the table."""
        if self.shared is None:
            return None
        names = self.shared.strip("[] ").split(",") if isinstance(self.shared, str) else list(self.shared)
        return tuple(str(name).strip() for name in names if str(name).strip())


@dataclass
class TuneConfig:
    """What scripts/tune.py reads: a table with several settings of training at each params and tokens."""

    # a sweep directory, a table (CSV, JSON lines, Parquet, compressed or not); several, a,b or [a,b], are pooled
    runs: str = ""
    # the columns that were tried, such as lr,batch_size; null: the axes of a sweep, or what else varies between runs
    settings: Any = None
    # rules of others, whose cost is told: {lr: [1.797,-0.713,0.307]} is lr = 1.797 N^-0.713 D^0.307
    rules: Any = None
    within: float = 6.0  # runs count the less the farther from the minimum, and beyond this factor not at all
    filter: str = ""  # which rows are read, such as width>=48
    columns: Columns = field(default_factory=Columns)
    target_unit: str | None = None  # as of a fit
    bytes_per_token: float | None = None  # of target_unit=bits_per_byte; null: the column of that name
    units: Units = field(default_factory=Units)
    verbose: bool = False  # print what rules that others published say too
    out: str | None = None  # null: tune.json in the sweep directory, <stem>.tune.json beside a table

    def wanted(self) -> list[str]:
        """The columns that settings= names."""
        if self.settings is None:
            return []
        names = self.settings.strip("[] ").split(",") if isinstance(self.settings, str) else list(self.settings)
        return [str(name).strip() for name in names if str(name).strip()]

    def check(self) -> None:
        if not self.runs:
            raise UserError("runs has no value: give a sweep directory or a table, as in runs=outputs/cpu-tune")
        if not 1 < self.within < 1e3:
            raise UserError(f"within={self.within:g} is no factor around a minimum: give one above 1, such as 6")
        if self.rules is not None and not isinstance(self.rules, dict):
            raise UserError(f"rules={self.rules} names no setting: write rules={{lr: [1.797,-0.713,0.307]}}")
        check_target_unit(self.target_unit, self.bytes_per_token)
        self.units.worth()


ConfigStore.instance().store(name="tune_schema", node=TuneConfig)
ConfigStore.instance().store(name="fit_schema", node=FitConfig)
ConfigStore.instance().store(name="compare_schema", node=CompareConfig)


def fit_config(arguments: list[str]) -> FitConfig:
    """conf/fit.yaml with the command line's overrides, checked; raises UserError."""
    return _composed("fit", FitConfig, arguments)


def compare_config(arguments: list[str]) -> CompareConfig:
    """conf/compare.yaml with the command line's overrides, checked; raises UserError."""
    return _composed("compare", CompareConfig, arguments)


def tune_config(arguments: list[str]) -> TuneConfig:
    """conf/tune.yaml with the command line's overrides, checked; raises UserError."""
    return _composed("tune", TuneConfig, arguments)


def _composed(name: str, schema: type[Config], arguments: list[str]) -> Config:
    texts = [*TEXTS, *(f"columns.{field.name}" for field in fields(Columns))]
    config = OmegaConf.to_object(compose_config(name, [quoted(argument, texts) for argument in arguments]))
    assert isinstance(config, schema)
    config.check()
    return config
