"""The plan of a sweep as one W&B run: which cells belong to it, and in which order."""

import hashlib
from pathlib import Path

from harness.records import SweepFolder, read_sweep
from harness.tracking.log import PLAN, SWEEP_YAML
from harness.tracking.mirrors import MirrorTask
from harness.tracking.run import finish_run, open_run


def log(task: MirrorTask) -> None:
    """Logs sweep.yaml, whole as a text; a later plan of the same sweep replaces an earlier one."""
    folder = SweepFolder(Path(task.sweep_dir))
    content = read_sweep(folder)
    name = folder.path.name
    run = open_run(
        task,
        id=hashlib.sha256(f"{name} {PLAN}".encode()).hexdigest()[:8],
        name=f"{name} plan",
        group=name,
        job_type=PLAN,
        config={key: content.get(key) for key in ("overrides", "code_version", "packages")}
        | {"planned_cells": len(content["cells"]), SWEEP_YAML: folder.sweep_yaml.read_text()},
    )
    finish_run(run, task, PLAN, exit_code=0)
