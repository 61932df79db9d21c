"""Grids that are no product of axes: a union of products, each a list of overrides with several values."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict

from harness.commands import known_keys
from harness.errors import UserError
from harness.sweep.axes import BUDGETS, key_of
from harness.sweep.variants import COORDINATES, OF_SWEEP

EXAMPLE = 'write grids: [["shape=w48-d2,w64-d2", "optimizer.beta2=0.9,0.95"], ["shape=w48-d2", "optimizer.eps=1e-6"]]'
SHAPE = ("shape", "model.width", "model.depth")


def grids_of(base: Any) -> list[list[str]]:
    """The overrides of each product of a composed configuration; empty where it has none.

    Raises UserError; within a context in which Hydra composes.
    """
    if base.grids is None:
        return []
    given: Any = OmegaConf.to_container(base.grids) if OmegaConf.is_config(base.grids) else base.grids
    lists = isinstance(given, list) and bool(given) and all(isinstance(own, list) for own in given)
    if not lists or not all(isinstance(line, str) for own in given for line in own):
        raise UserError(f"grids={given} is no list of lists of overrides: {EXAMPLE}")
    if base.variants is not None:
        raise UserError("grids and variants are both given: keep one, and set the other to null")
    for own in given:
        known_keys("train", own)
        for key in map(key_of, own):
            if key in OF_SWEEP or key == "grids" or key.split(".")[0] in OF_SWEEP:
                raise UserError(f"grids: {key} has one value in a sweep: give it beside them")
    return [list(own) for own in given]


def beside(lines: Sequence[str], own: Sequence[str]) -> list[str]:
    """The overrides of a sweep that hold in one of its grids, which may give the same keys other values."""
    keys = {"grids", *map(key_of, own)}
    for alike in (BUDGETS, SHAPE):
        keys |= set(alike) if keys & set(alike) else set()
    return [line for line in lines if key_of(line) not in keys]


def axes_of_grids(grids: Sequence[Sequence[str]]) -> list[str]:
    """What they set beside shapes, seeds and budgets, in the order in which it comes."""
    keys = dict.fromkeys(key_of(line) for own in grids for line in own)
    return [key for key in keys if key not in COORDINATES]


def composed_once(
    batch: Sequence[Sequence[str]], parser: OverridesParser, base: Any, given: Sequence[str]
) -> Iterator[Any]:
    """The configuration of each job of a batch; of those that override the same keys the first is composed, and what
    differs between them is set in copies of it.

    base: what Hydra made of the overrides `given`, with a node of its own, which must not be among them. It takes a
    tenth of a second or two for each, and sets the keys last too. A group is composed.
    """
    groups = GlobalHydra.instance().config_loader().list_groups("")
    composed: dict[tuple[str, ...], tuple[Sequence[str], Any]] = {}
    if not any(line.lstrip("+~").startswith("hydra") for line in given):
        config = copy.deepcopy(base)
        with open_dict(config):
            del config["hydra"]
        composed[tuple(map(key_of, given))] = given, config
    for overrides in batch:
        keys = tuple(map(key_of, overrides))
        if keys not in composed:
            composed[keys] = overrides, compose("train", list(overrides))
        first, config = composed[keys]
        changed = [line for before, line in zip(first, overrides, strict=True) if line != before]
        if any(line.startswith(("+", "~", "hydra")) or key_of(line) in groups for line in changed):
            yield compose("train", list(overrides))
            continue
        config = copy.deepcopy(config)
        for override in parser.parse_overrides(changed):
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        yield config
