"""The configuration of a claim's measurement: conf/claim.yaml and the command line of scripts/claim.py."""

from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_store import ConfigStore

from harness.commands import compose_config
from harness.errors import UserError


@dataclass
class ClaimConfig:
    """What scripts/claim.py reads."""

    runs: str = ""  # the folder of a sweep that states a claim


ConfigStore.instance().store(name="claim_schema", node=ClaimConfig)


def claim_config(arguments: list[str]) -> Path:
    """The sweep's folder that the command line names; raises UserError where it names none."""
    runs = str(compose_config("claim", arguments).runs)
    if not runs:
        raise UserError("runs has no value: give the folder of a sweep that states a claim, as in runs=outputs/shape")
    return Path(runs)
