"""A sweep's name belongs to its grid: whether what is asked for is the grid whose cells lie in the folder.

The same grid has the same settings, of all that can change a loss; where cells of several have ended, as those of an
axis, what these do not share is free, and so is what an axis, or the variants, of both give more values than have ended
yet. Shapes, seeds and budgets are its coordinates: it may grow, or be trained in part.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from harness.config import TrainConfig
from harness.data.tokens import recipe_of
from harness.errors import UserError
from harness.grid import Trunk
from harness.records import SweepFolder, axes_of, is_final, read_record, read_sweep
from harness.sweep.axes import Settings, settings_of
from harness.sweep.compose import Sweep
from harness.training.device import precision
from harness.training.stores import key_of
from harness.units import counted

Coordinate = tuple[Any, ...]


def check_settings(sweep: Sweep) -> None:
    """Raises UserError where the folder of a sweep holds cells that ended under other settings. Needs no token store.

    One job without a name, which all such jobs share, is never refused.
    """
    folder = sweep.folder
    ended = [path for path in sorted(folder.path.glob("runs/*")) if is_final(path)]
    known = [settings for path in ended if (settings := _settings_at(path)) is not None]
    if not known or _unnamed(sweep):
        return
    recipes = {key: recipe_of(job.data, job.tokenizer)[1] for key, job in {key_of(j): j for j in sweep.jobs}.items()}
    asked = [settings_of(asdict(job), recipes[key_of(job)], precision(job)) for job in sweep.jobs]
    default = settings_of(asdict(TrainConfig()), "", "")
    same_axes = bool(sweep.axes) and set(sweep.axes) <= set(_axes_of(folder))
    for key in asked[0]:  # of an older version that has not all the keys, the defaults
        before = _distinct(settings.get(key, default.get(key)) for settings in known)
        now = _distinct(settings.get(key) for settings in asked)
        if len(before) == 1 and now != before and not (same_axes and before[0] in now):
            raise UserError(
                f"{folder.path} holds {counted(len(ended), 'finished cell')} of another grid, "
                f"{_change(key, before[0], now)}: {_way_out(folder)}"
            )


def check_coordinates(sweep: Sweep, trunks: Sequence[Trunk]) -> None:
    """Raises UserError where a grid neither holds all cells of its folder's sweep that have ended nor is part of it."""
    folder = sweep.folder
    try:
        listed = [cell["cell"] for cell in read_sweep(folder)["cells"]]
    except UserError:  # none yet, or cut off
        return
    configs = {name: config for name in listed if (config := _config_at(folder.run(name))) is not None}
    jobs = [config["job"] for config in configs.values()] + [asdict(job) for job in sweep.jobs]
    every = [settings_of(job, "", "") for job in jobs]
    axes = [key for key in every[-1] if len(_distinct(settings.get(key) for settings in every)) > 1]
    found = {name: _coordinate(it["job"], it["derived"].get("tokens"), axes) for name, it in configs.items()}
    ended = {name: coordinate for name, coordinate in found.items() if is_final(folder.run(name))}
    asked = {cell.name: _coordinate(asdict(trunk.job), cell.tokens, axes) for trunk in trunks for cell in trunk.cells}
    lacking = [name for name, coordinate in ended.items() if coordinate not in asked.values()]
    new = [name for name in asked if name not in listed and asked[name] not in found.values()]
    if lacking and new and not _unnamed(sweep):
        raise UserError(
            f"{folder.path} holds {counted(len(ended), 'finished cell')}, of which this grid lacks {len(lacking)} "
            f"({', '.join(lacking[:2])}{', ...' * (len(lacking) > 2)}) while it adds {len(new)}: name them all, or "
            f"{_way_out(folder)}"
        )


def _axes_of(folder: SweepFolder) -> list[str]:
    try:
        return axes_of(read_sweep(folder))
    except UserError:  # none yet, or cut off
        return []


def _unnamed(sweep: Sweep) -> bool:
    return not sweep.multirun and sweep.jobs[0].name == "single"


def _way_out(folder: SweepFolder) -> str:
    return f"give this grid a name of its own, as in name={folder.path.name}-2, or move that folder away"


def _change(key: str, before: Any, now: Sequence[Any]) -> str:
    if key == "recipe":
        return "with another corpus or tokenizer"
    return f"whose {key} was {before} and is {', '.join(map(str, now[:4]))}"


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def _config_at(run: Path) -> dict[str, Any] | None:
    """What config.yaml says; None where it is missing or damaged."""
    try:
        config = yaml.load((run / "config.yaml").read_text(), Loader=yaml.CSafeLoader)
        whole = {"width", "depth"} <= set(config["job"]["model"]) and "seed" in config["job"] and "derived" in config
        return config if whole else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return None


def _settings_at(run: Path) -> Settings | None:
    config, record = _config_at(run), read_record(run)
    return settings_of(config["job"], record["data"], record["precision"]) if config and record else None


def _coordinate(job: dict[str, Any], tokens: int | None, axes: Sequence[str]) -> Coordinate:
    settings = settings_of(job, "", "")
    model = job["model"]
    return (model["width"], model["depth"], job["seed"], tokens, *(settings.get(axis) for axis in axes))
