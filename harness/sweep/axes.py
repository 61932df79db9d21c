"""The axes of a command line: what is settled before they are taken apart, and which of their jobs are one."""

from collections.abc import Iterator, Sequence
from typing import Any

from hydra import compose
from omegaconf import OmegaConf

from harness.arguments import PATHS, settled
from harness.config import TrainConfig, to_config
from harness.errors import UserError

BUDGETS = ("tokens", "tokens_per_param", "flops")
# Keys of a job that change no loss, or are coordinates, or are compared as what they stand for: precision, data.
FREE = (
    "name", "output_directory", "shape", "seed", "tokens", "tokens_per_param", "flops", "device", "precision",
    "compile", "threads", "slots", "slots_per_gpu", "price_per_hour", "save_model", "law", "variants", "grids",
    "claim", "sizes", "sized", "detach", "validation", "tracking", "optimizer.rules",
    "data", "tokenizer", "model.width", "model.depth", "optimizer.micro_batch_tokens",
)  # fmt: skip
Settings = dict[str, Any]


def unsettled(base: Any) -> list[str]:
    """Overrides that give each process of a sweep one value where files of conf/ would give it several, or a ~."""
    found = []
    for key, value in leaves(OmegaConf.to_container(base, resolve=False)):
        text = settled(value)
        if key.startswith(("validation.", "tokenizer.data")):  # which harness.sweep.texts settles as a whole
            continue
        if text != value or key in PATHS and value.startswith("~"):
            found.append(f"{key}={text}" if key in PATHS else f"{key}='{text}'")
    return found


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The texts of a configuration with their keys."""
    for key, value in node.items():
        if isinstance(value, dict) and f"{prefix}{key}" != "hydra":
            yield from leaves(value, f"{prefix}{key}.")
        elif isinstance(value, str):
            yield f"{prefix}{key}", value


def merge_budgets(batch: Sequence[Sequence[str]]) -> list[list[str]]:
    """The overrides of each job, those that differ in one budget alone made one job with all of them.

    One trunk has them all; under schedule=cosine, where each is a run of its own, they stay apart.
    """
    groups: dict[tuple[str, ...], list[list[str]]] = {}
    for overrides in batch:
        rest = [line for line in overrides if key_of(line) not in BUDGETS]
        groups.setdefault(tuple(rest), []).append(list(overrides))
    merged = []
    for members in groups.values():
        jobs = [to_config(compose("train", overrides)) for overrides in members] if len(members) > 1 else []
        keys = {job.budgets()[0] for job in jobs}
        if len(keys) != 1 or jobs[0].schedule.name != "wsd":
            merged += members
            continue
        (key,) = keys
        values = ",".join(map(repr, sorted(value for job in jobs for value in job.budgets()[1])))
        merged.append([*(line for line in members[0] if key_of(line) != key), f"{key}=[{values}]"])
    return merged


def key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


def check_one_folder(jobs: Sequence[TrainConfig]) -> None:
    """Raises UserError where the jobs of a sweep would lie in several folders."""
    for key in ("name", "output_directory"):
        values = list(dict.fromkeys(str(getattr(job, key)) for job in jobs))
        if len(values) > 1:
            raise UserError(
                f"{key} differs between the jobs of the grid ({', '.join(values[:3])}), whose folder is one: give it "
                "one value, and train one grid after the other"
            )


def settings_of(job: dict[str, Any], recipe: str, resolved_precision: str) -> Settings:
    """The settings of a job, given as the plain values of a TrainConfig, by their keys."""

    def flat(node: dict[str, Any], prefix: str) -> Settings:
        found: Settings = {}
        for key, value in node.items():
            if f"{prefix}{key}" not in FREE:
                inner = isinstance(value, dict) and key != "args"  # whose keys differ from one module to another
                found |= flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
        return found

    return flat(job, "") | {"recipe": recipe, "precision": resolved_precision}
