"""The comparison of a sweep's variants as one W&B run: what each is worth, in the summary and as a table."""

import hashlib
import json
from pathlib import Path
from typing import Any

import wandb

from harness.tracking.log import COMPARE
from harness.tracking.mirrors import MirrorTask
from harness.tracking.run import finish_run, open_run


def log(task: MirrorTask) -> None:
    """Logs compare.json; the same comparison is the same run."""
    folder = Path(task.sweep_dir)
    text = (folder / "compare.json").read_text()
    content = json.loads(text)
    run = open_run(
        task,
        id=hashlib.sha256(f"{folder.name} {COMPARE} {text}".encode()).hexdigest()[:8],
        name=f"{folder.name} {COMPARE}",
        group=folder.name,
        job_type=COMPARE,
        tags=[str(content["law"])],
        config={key: content.get(key) for key in ("source", "choices", "versions", "column", "baseline", "shared")},
    )
    rows = {name: numbers(entry) for name, entry in content["variants"].items()}
    certified = content["certificate"]["certified"]
    run.summary.update({"law": content["law"], "certified": certified})
    run.summary.update({f"{name}/{key}": value for name, row in rows.items() for key, value in row.items()})
    columns: list[Any] = ["variant", "baseline", *dict.fromkeys(key for row in rows.values() for key in row)]
    columns.append("certified")
    shared = {"baseline": content["baseline"], "certified": certified}
    data: list[Any] = [[({"variant": name} | shared | row).get(key) for key in columns] for name, row in rows.items()]
    run.log({"multipliers": wandb.Table(columns=columns, data=data)})
    finish_run(run, task, COMPARE, exit_code=0)


def numbers(entry: dict[str, Any]) -> dict[str, float | None]:
    """The numbers of a variant in compare.json, flat, each multiplier with the ends of its interval."""
    found: dict[str, float | None] = {}
    for key, ends in {**entry["multiplier"], **{key: entry[key] for key in ("params", "tokens", "per_decade")}}.items():
        if ends is not None:
            found |= {key: ends["estimate"], f"{key}_low": ends["low"], f"{key}_high": ends["high"]}
    return found | {f"{key}_p": entry[key]["p"] for key in ("exponents_shared", "neutral")}
