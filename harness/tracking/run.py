"""W&B runs as this project opens and ends them; imported by mirrors only, never by a training process."""

import re
import shutil
from pathlib import Path
from typing import Any

import wandb

from harness.tracking.log import COMPARE, FIT, FORECAST, say
from harness.tracking.mirrors import MirrorTask

INIT_SECONDS = 20.0
FINISH_SECONDS = 20.0


def open_run(task: MirrorTask, **about: Any) -> Any:
    """A wandb run of this sweep; an online one goes on where the server's copy of it ends."""
    assert task.mode != "none"
    settings = wandb.Settings(
        console="off",
        silent=True,
        symlink=False,
        disable_git=True,
        disable_code=True,
        disable_job_creation=True,
        init_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )
    return wandb.init(
        project=task.project,
        entity=task.entity,
        dir=task.sweep_dir,
        mode=task.mode,
        reinit="create_new",
        resume="allow" if task.mode == "online" else None,
        settings=settings,
        **about,
    )


def finish_run(run: Any, task: MirrorTask, name: str, exit_code: int) -> None:
    """Ends a run, says where it is, and drops older folders of it: this one holds all that they hold."""
    folder, run_id, url = Path(run.dir).parent, run.id, run.url
    run.finish(exit_code=exit_code)
    for other in folder.parent.glob(f"*run-*-{run_id}*"):  # -1 follows where two began in one second
        if other != folder and re.fullmatch(rf".*run-\d+_\d+-{run_id}(-\d+)?", other.name):
            shutil.rmtree(other, ignore_errors=True)
    if task.mode == "online":
        group = f"{re.sub('/runs/[^/]*$', '', url)}/groups/{Path(task.sweep_dir).name}"
        say(Path(task.sweep_dir), name, "uploaded", url if name in (FIT, COMPARE, FORECAST) else group)
    else:
        say(Path(task.sweep_dir), name, "offline", task.why)
