"""The configuration of a report: conf/report.yaml and the command line of scripts/report.py."""

from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_store import ConfigStore

from harness.commands import compose_config
from harness.errors import UserError
from harness.tracking.table import fetched


@dataclass
class ReportConfig:
    """What scripts/report.py reads."""

    runs: str = ""  # the sweep's directory, or wandb://entity/project/group


ConfigStore.instance().store(name="report_schema", node=ReportConfig)


def report_config(arguments: list[str]) -> Path:
    """The sweep directory that the command line names; raises UserError where it names none."""
    runs = str(compose_config("report", arguments).runs)
    if not runs:
        raise UserError("runs has no value: give a sweep directory, as in runs=outputs/cpu")
    return Path(fetched(runs))
