"""The way back: a sweep's run table out of its W&B group, as a folder like that of the sweep itself."""

import logging
import os
import re
from pathlib import Path
from typing import Any

import yaml

from harness.errors import UserError
from harness.files import make_folder, write_atomically
from harness.records import SweepFolder, as_record, parse_sweep, write_rows
from harness.tracking.config import api_key, base_url, without_key
from harness.tracking.log import PLAN, RECORD, SWEEP_YAML
from harness.tracking.probe import probe

ADDRESS = re.compile(r"wandb://(?!\.)([^/]+)/(?!\.)([^/]+)/(?!\.)([^/]+)")
FETCHED = Path("outputs") / "wandb"
TIMEOUT_SECONDS = 30


def fetched(runs: str) -> str:
    """The value of runs= with each wandb://entity/project/group replaced by the folder it was fetched into."""
    return re.sub(r"wandb://[^,\]'\"]*", lambda found: str(fetch(found[0])), runs)


def fetch(address: str) -> Path:
    """Writes sweep.yaml and runs.csv of a W&B group to outputs/wandb/entity/project/group, and returns that folder.

    The rows are the run records in the summaries of the cells' runs, their order is that of the plan; no history
    is read. Raises UserError, with nothing written, where W&B does not give a whole table.
    """
    parts = ADDRESS.fullmatch(address)
    if parts is None:
        raise UserError(f"runs={address} is not wandb://entity/project/group: the group is the name of a sweep")
    runs = _group(address, *parts.groups())
    plan = next((config[SWEEP_YAML] for kind, config, _ in runs if kind == PLAN and SWEEP_YAML in config), None)
    if plan is None:
        raise UserError(
            f"runs={address} has {len(runs)} runs but no plan that says which cells belong to the sweep: "
            "`python scripts/sync.py runs=FOLDER` sends it"
        )
    content, records = _records(address, plan, [summary[RECORD] for _, _, summary in runs if summary.get(RECORD)])
    folder = SweepFolder(make_folder(FETCHED.joinpath(*parts.groups())))
    write_atomically(folder.sweep_yaml, plan)
    write_rows(folder.table, content, records)
    return folder.path


def _records(address: str, plan: str, texts: list[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The content of the plan, and the records of its cells by name."""
    records = [as_record(text, f"runs={address}") for text in texts]
    by_cell = {record["cell"]: record for record in records if record is not None}
    try:
        content = parse_sweep(plan)
        names = [cell["cell"] for cell in content["cells"]]
    except (yaml.YAMLError, KeyError, TypeError):
        raise UserError(
            f"runs={address} has a plan that cannot be read: `python scripts/sync.py runs=FOLDER` sends it anew"
        ) from None
    if not set(names) & set(by_cell):
        raise UserError(f"runs={address} has {len(names)} cells planned, and none has ended yet: wait for the first")
    return content, by_cell


def _group(address: str, entity: str, project: str, group: str) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The runs of a group: (job type, config, summary)."""
    if api_key() is None:
        raise UserError(f"runs={address} needs a W&B API key: set WANDB_API_KEY, or run `wandb login`")
    if problem := probe():
        raise UserError(
            f"runs={address} cannot be read from {base_url()} ({problem}): check the address, the key and the network"
        )
    os.environ["WANDB_SILENT"] = "true"
    import wandb  # slow, and the scripts that come here seldom need it

    logging.getLogger("wandb").setLevel(logging.CRITICAL)
    try:
        api = wandb.Api(timeout=TIMEOUT_SECONDS)
        runs = list(api.runs(f"{entity}/{project}", {"group": group}, per_page=100, lazy=False))
        found = [(run.job_type, run.config, dict(run.summary_metrics)) for run in runs]
    except ValueError:  # what the client makes of a project that the server does not show
        raise UserError(
            f"runs={address}: there is no project {entity}/{project} that this API key may read: correct the address"
        ) from None
    except wandb.Error as error:
        said = without_key(" ".join(str(error).split()))
        raise UserError(f"runs={address} could not be read ({said}): try again") from error
    if not found:
        raise UserError(
            f"runs={address}: the project {entity}/{project} has no runs in the group {group}: give the name of a sweep"
        )
    return found
