"""tune.yaml: the rules of a sweep's settings in the terms of conf/optimizer, as optimizer=tuned reads them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from harness.errors import UserError
from harness.files import write_atomically
from harness.records import RULES_SCHEMA, SweepFolder, read_record, read_sweep

SETTINGS = ("learning_rate", "batch_tokens", "warmup_tokens", "weight_decay")
OF_OPTIMIZER = ("name", "target", "args", "beta1", "beta2", "eps", "gradient_clip")
SETTING = re.compile(rf"optimizer\.({'|'.join(SETTINGS)})\.value")
HEAD = "# Read by optimizer=tuned optimizer.rules={path}: docs/settings.md says what the keys are.\n"
NUMBERS = "# value (N / reference_params)^params_exponent (D / reference_tokens)^tokens_exponent\n"


def write_rules(content: Mapping[str, Any], frame: pd.DataFrame, sweep: Path, path: Path) -> str:
    """Writes the rules of a tune.json of the sweep in a folder; a sentence on where, or on why there are none, and then
    no file is left. frame: the rows that were fitted."""
    try:
        job = job_of(SweepFolder(sweep))
        for name in SETTINGS:
            column = f"optimizer.{name}.value"
            if column in frame.columns and column not in content["settings"]:  # held at one of its values
                job["optimizer"][name]["value"] = float(frame[column].iloc[0])
        found = rules_of(content, job)
    except UserError as error:
        path.unlink(missing_ok=True)
        return f"no {path}: {error}"
    text = yaml.dump(found, Dumper=yaml.CSafeDumper, sort_keys=False)
    write_atomically(path, HEAD.format(path=path) + NUMBERS + text)
    return f"rules: {path}, for optimizer=tuned optimizer.rules={path}"


def job_of(folder: SweepFolder) -> dict[str, Any]:
    """The configuration of the first finished cell of a sweep; raises UserError."""
    for cell in read_sweep(folder)["cells"]:
        run = folder.run(str(cell.get("cell")))
        record = read_record(run)
        if record is not None and record["status"] == "finished":
            try:
                job = yaml.load((run / "config.yaml").read_text(), Loader=yaml.CSafeLoader)["job"]
                return dict(job) | {"vocab_size": record["vocab_size"]}
            except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
                continue
    raise UserError("no finished cell has a config.yaml, which says what was trained")


def rules_of(content: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    """The content of tune.yaml. job: a configuration of the sweep, whose `value`s are the settings that were tried.

    Under schedule=wsd rules of params alone, which a trunk needs. Raises UserError where one is not told.
    """
    optimizer, schedule, model = job["optimizer"], job["schedule"]["name"], job["model"]
    own = {name: dict(optimizer[name]) for name in SETTINGS}
    by_tokens = schedule == "cosine"
    for column, found in content["settings"].items():
        named = SETTING.fullmatch(column)
        if named is None:
            raise UserError(f"{column} is no setting of a rule, as optimizer.learning_rate.value is")
        own[named[1]] = _rule(named[1], found["rule" if by_tokens else "rule_in_params"], own[named[1]])
    cells = content["penalties"]["cells"]
    costs = [cell for cell in cells if cell["estimate"] is not None]
    params, tokens = ([cell[use] for cell in cells] for use in ("params", "tokens"))
    worst = [max(costs, key=lambda cell: float(cell["estimate"]))] if costs else []
    judged = not by_tokens and content["penalties"]["of"] == "rule_in_params"
    return {
        "schema": RULES_SCHEMA,
        "measured": {
            "optimizer.name": optimizer["name"], "optimizer.target": optimizer["target"], "schedule.name": schedule,
            "model.parametrization": model["parametrization"], "model.base_width": model["base_width"],
            "model.base_depth": model["base_depth"], "model.family": model["family"],
            "vocab_size": job["vocab_size"], "settings": [name.split(".")[1] for name in content["settings"]],
            "params": [min(params), max(params)], "tokens": [min(tokens), max(tokens)],
        },
        "certified": content["certificate"]["certified"],
        "reasons": content["certificate"]["reasons"],
        **({"costs_at_most": worst[0]} if worst and judged else {}),
        "optimizer": {name: optimizer[name] for name in OF_OPTIMIZER} | own,
    }  # fmt: skip


def _rule(name: str, fitted: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, float]:
    """A fitted rule of the `value` of a setting, times what the present rule makes of a value at other sizes."""
    value, by_params, by_tokens = (fitted[key]["estimate"] for key in ("value", "params_exponent", "tokens_exponent"))
    if value is None or by_params is None:
        raise UserError(f"the runs tell no rule of {name} in params: try it at two sizes or more")
    params, tokens = fitted["reference_params"], fitted["reference_tokens"]
    value *= (params / present["reference_params"]) ** present["params_exponent"]
    value *= (tokens / present["reference_tokens"]) ** present["tokens_exponent"]
    numbers = {
        "value": value,
        "params_exponent": by_params + present["params_exponent"],
        "reference_params": params,
        "tokens_exponent": (by_tokens or 0.0) + present["tokens_exponent"],
        "reference_tokens": tokens,
    }
    return {key: float(f"{number:.6g}") for key, number in numbers.items()}
