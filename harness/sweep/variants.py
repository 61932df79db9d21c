"""The variants of a sweep: values of an axis that is no shape, seed or budget, or names for lists of overrides."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from harness.commands import COMPOSING, known_keys, sentence
from harness.config import TrainConfig
from harness.errors import UserError
from harness.grid import Trunk
from harness.records import COLUMNS, variant_of
from harness.sweep.axes import BUDGETS, key_of, settings_of
from harness.units import counted, data_size, duration

VARIANT = "variant"  # the column of names
COORDINATES = ("shape", "seed", "model.width", "model.depth", *BUDGETS)
# Keys that have one value in a sweep.
OF_SWEEP = (
    "name", "output_directory", "law", "variants", "validation", "tokenizer.data", "claim", "sizes", "sized",
    "detach", "sweep", "hydra", "tracking",
)  # fmt: skip
# What a table's reader takes for no text.
NO_TEXT = ("nan", "na", "nat", "null", "none", "true", "false", "inf", "infinity")
TOLD = 8  # variants whose costs a plan tells one by one
SAME_BUDGET = 0.05  # harness.laws.table.levels pairs what differs by less
EXAMPLE = "write variants: {adamw: [], muon: [optimizer=muon]}"
Label = dict[str, Any]  # of a job: the values of the axes, by their columns


def variants_of(base: Any, axes: Sequence[str], parser: OverridesParser) -> dict[str, list[str]]:
    """The overrides of each variant of a composed configuration, by name; empty where it has none.

    axes: the keys of the sweep's other axes. Raises UserError; within a context in which Hydra composes.
    """
    if base.variants is None:
        return {}
    given: Any = OmegaConf.to_container(base.variants) if OmegaConf.is_config(base.variants) else base.variants
    if not isinstance(given, dict):
        raise UserError(f"variants={given} is no mapping of names to lists of overrides: {EXAMPLE}")
    if not given:
        raise UserError(f"variants is empty: {EXAMPLE}, or leave it out")
    for name, overrides in given.items():
        _check_name(str(name), [str(other) for other in given])
        if not isinstance(overrides, list) or not all(isinstance(override, str) for override in overrides):
            raise UserError(f"variants.{name}: {overrides} is no list of overrides: {EXAMPLE}")
        for override in overrides:
            _check_override(f"variants.{name}: {override}", override, axes, parser)
    return {str(name): list(overrides) for name, overrides in given.items()}


@contextmanager
def naming(name: str | None, own: Sequence[str], without: Callable[[], object]) -> Iterator[None]:
    """Within it what cannot be composed is said of the variant `name`, where it can be composed `without` its own
    overrides."""
    try:
        yield
    except (UserError, *COMPOSING) as error:
        if not own or _fails(without):
            raise
        raise UserError(f"variants.{name}: {sentence(error)}") from error


def _fails(compose: Callable[[], object]) -> bool:
    try:
        compose()
    except (UserError, *COMPOSING):
        return True
    return False


def _check_name(name: str, names: Sequence[str]) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise UserError(f"variants.{name} is no identifier: name it by letters, digits and _, with no digit first")
    if name.lower() in NO_TEXT:
        raise UserError(f"variants.{name} is what tables write for a number or for nothing: take another name")
    alike = [other for other in names if other.lower() == name.lower()]
    if len(alike) > 1:
        raise UserError(f"variants.{alike[0]} and variants.{alike[1]} differ in case alone: take another name for one")


def _check_override(where: str, override: str, axes: Sequence[str], parser: OverridesParser) -> None:
    try:
        known_keys("train", [override])
    except UserError as error:
        raise UserError(f"{where.removesuffix(override)}{error}") from None
    key = key_of(override)
    if key in COORDINATES:
        raise UserError(f"{where} sets {key}, in which the cells of one variant differ: leave it out")
    if key in OF_SWEEP or key.split(".")[0] in OF_SWEEP:
        raise UserError(f"{where} sets {key}, which has one value in a sweep: leave it out")
    if key in axes:
        raise UserError(f"{where} sets {key}, which is an axis of this sweep: leave one of the two out")
    if parser.parse_override(override).is_sweep_override():
        raise UserError(f"{where} gives {key} several values: give each a variant of its own")


def axes_in(lines: Sequence[str], parser: OverridesParser) -> list[str]:
    """The keys that have several values in the overrides of a sweep, but for shapes, seeds and budgets."""
    several = [each.get_key_element() for each in parser.parse_overrides(list(lines)) if each.is_sweep_override()]
    return [key for key in map(key_of, several) if key not in COORDINATES]


def column_of(key: str) -> str:
    """The column of the run table that an axis is: that of its own name where there is one."""
    last = key.rpartition(".")[2]
    return last if last in COLUMNS else key


def label_of(overrides: Sequence[str], job: TrainConfig, axes: Sequence[str], variant: str | None) -> Label:
    """What tells a job from others of its shape, seed and budgets: its variant, and its value of each axis."""
    label: Label = {} if variant is None else {VARIANT: variant}
    chosen = {key_of(line): line.partition("=")[2].strip("'\"") for line in overrides}
    for axis in axes:
        value: Any = job
        for part in axis.split("."):
            there = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
            value = chosen.get(axis) if there is None else there
        # of a group of conf/, the entry
        label[column_of(axis)] = chosen.get(axis) if is_dataclass(value) else value
    return label


def check_differ(jobs: Sequence[TrainConfig], labels: Sequence[Label]) -> None:
    """Raises UserError where two variants are the same configuration."""
    seen: dict[str, str] = {}
    for job, label in zip(jobs, labels, strict=True):
        if VARIANT in label:
            settings = settings_of(asdict(job), repr((job.data, job.tokenizer)), job.precision)
            text = repr((settings, job.model.width, job.model.depth, job.seed, job.budgets()))
            first, name = seen.setdefault(text, label[VARIANT]), label[VARIANT]
            if first != name:
                raise UserError(
                    f"variants.{first} and variants.{name} resolve to the same configuration: drop one, or change "
                    "its overrides"
                )


def by_variant(jobs: Sequence[Sequence[Trunk]], labels: Sequence[Label]) -> dict[str, list[Trunk]]:
    """The trunks of each variant by its words; empty where nothing varies.

    Of more than two axes those at the value that most jobs have are left out of the words.
    """
    axes, found = list(labels[0]) if labels else [], dict[str, list[Trunk]]()
    usual = {axis: Counter(repr(label[axis]) for label in labels).most_common(1)[0][0] for axis in axes[2:] and axes}
    for trunks, label in zip(jobs, labels, strict=True) if any(labels) else ():
        telling = [axis for axis in axes if repr(label[axis]) != usual.get(axis)]
        found.setdefault(variant_of(label, telling) or "the usual ones", []).extend(trunks)
    return found


def costs(
    variants: Mapping[str, Sequence[Trunk]], seconds: Mapping[str, float | None], memory: Mapping[str, int]
) -> list[str]:
    """A line a variant: its cells, FLOPs, and time and memory of a process; of more than TOLD the dearest alone.

    seconds and memory are of trunks, by their names.
    """
    if (many := len(variants)) > TOLD:
        spent = {name: sum(seconds[trunk.name] or 0.0 for trunk in trunks) for name, trunks in variants.items()}
        dearest = max(spent, key=lambda name: spent[name])
        return [f"the dearest of {many} variants, " + costs({dearest: variants[dearest]}, seconds, memory)[0]]
    lines = []
    for name, trunks in variants.items():
        times = [seconds[trunk.name] for trunk in trunks]
        known = [time for time in times if time is not None]
        parts = [counted(sum(len(trunk.cells) for trunk in trunks), "cell")]
        parts.append(f"{sum(trunk.flops_to_train for trunk in trunks):.2e} FLOPs")
        needs = [memory[trunk.name] for trunk in trunks if trunk.name in memory]
        size = f"of up to {data_size(max(needs))}" if needs else ""
        time = f"{duration(sum(known))} of " if len(known) == len(times) else ""
        parts += [f"{time}processes {size}".rstrip()] if time or size else []
        lines.append(f"{name}: {', '.join(parts)}")
    return lines


def pairing(variants: Mapping[str, Sequence[Trunk]]) -> list[str]:
    """What cells of one shape, seed and budget do not share: sentences where batches or tokens are not the same."""
    every = [trunk for trunks in variants.values() for trunk in trunks]
    lengths = sorted({trunk.job.model.seq_len for trunk in every})
    said = [f"note: sequences of {_listed(lengths)} tokens: pairs see other batches"] if len(lengths) > 1 else []
    tokens: dict[tuple[int, int, int], dict[str, list[int]]] = {}
    for name, trunks in variants.items():
        for trunk in trunks:
            place = (trunk.job.model.width, trunk.job.model.depth, trunk.job.seed)
            tokens.setdefault(place, {}).setdefault(name, []).extend(cell.tokens for cell in trunk.cells)
    most = 0.0
    for of_variant in tokens.values():
        for budget in zip(*map(sorted, of_variant.values()), strict=False):
            most = max(most, max(budget) / min(budget) - 1)
    if not most:
        return said
    batches = _listed(sorted({trunk.batch_tokens for trunk in every}))
    differ = f"tokens of one budget differ between variants by up to {most:.2%} (batches of {batches} tokens)"
    if most < SAME_BUDGET:
        return [*said, f"note: {differ}; such cells still count as pairs, each with its own tokens"]
    return [*said, f"warning: {differ}, and such cells are no pairs: give budgets as tokens=, or larger ones"]


def _listed(numbers: Sequence[int]) -> str:
    return f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
