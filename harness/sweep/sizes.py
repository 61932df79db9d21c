"""The sizes of a sweep: its shapes and budgets under an entry of conf/size, as for a GPU."""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from harness.commands import known_keys
from harness.errors import UserError
from harness.sweep.axes import key_of

EXAMPLE = 'write sizes: {gpu: ["shape=w512-d8,w256-d8", "tokens=[1e8,2e8]"]}'


def of_size(base: Any, asked: Sequence[str]) -> list[str]:
    """The overrides of the size that a composed configuration takes, but for keys that the command line asks for.

    Raises UserError; within a context in which Hydra composes.
    """
    if base.sizes is None:
        return []
    sizes = OmegaConf.to_container(base.sizes) if OmegaConf.is_config(base.sizes) else base.sizes
    own = sizes.get(base.sized, []) if isinstance(sizes, dict) else None
    if not isinstance(own, list) or not all(isinstance(line, str) for line in own):
        raise UserError(f"sizes={sizes} has no list of overrides a size: {EXAMPLE}")
    for line in own:
        if key_of(line) in ("sized", "sizes", "size", "name", "output_directory"):
            raise UserError(f"sizes.{base.sized} sets {key_of(line)}: give that on the command line")
    typed = set(map(key_of, asked))
    return [line for line in known_keys("train", own) if key_of(line) not in typed]
