"""What the parameters of a user's module are, by how they grow: with the vocabulary, the width, the sequence.

The module is built on torch's meta device, which takes no memory, at twice of each.
"""

from dataclasses import dataclass, replace

import torch
from torch import nn

from harness.errors import UserError
from harness.model.config import ModelConfig
from harness.model.custom import build, named

Shapes = dict[str, torch.Size]


@dataclass(frozen=True)
class Kind:
    """What one parameter is.

    name      matrix (grows with the width on both sides) | stack (the same, of more than two axes) | embedding |
              head | position | output (of an nn.Linear whose inputs alone grow with the width) | vector | other
    embeds    whether it is, or is a part of, the token table; reads likewise of the head: a tied table is both
    """

    name: str
    size: int
    embeds: bool = False
    reads: bool = False


_KNOWN: dict[str, dict[str, Kind]] = {}


def kinds_of(config: ModelConfig, vocab_size: int) -> dict[str, Kind]:
    """The kind of each parameter, by its name in the module, in the module's order. Raises UserError."""
    key = repr((config, vocab_size))
    if key not in _KNOWN:
        _KNOWN[key] = _kinds(config, vocab_size)
    return _KNOWN[key]


def _kinds(config: ModelConfig, vocab_size: int) -> dict[str, Kind]:
    module = on_meta(config, vocab_size)
    shapes = _shapes(module)
    if not shapes:
        raise UserError(f"{named(config)} has no parameters: register them as torch.nn.Parameter")
    with_vocabulary = _grown(config, shapes, on_meta(config, 2 * vocab_size), "vocabulary")
    with_width = _grown(config, shapes, on_meta(replace(config, width=2 * config.width), vocab_size), "width")
    with_length = _grown(config, shapes, on_meta(replace(config, seq_len=2 * config.seq_len), vocab_size), "seq_len")
    tables = [name for name, axes in with_vocabulary.items() if axes and len(shapes[name]) > 1]
    embeds, reads = _tables(config, module, tables)
    if set(embeds) & set(reads) and config.parametrization != "sp":
        raise UserError(
            f"{named(config)} shares one matrix between embedding and head, which cannot go with model.parametrization="
            f"{config.parametrization}: give it two, or set model.parametrization=sp"
        )
    linear = {f"{name}.weight".lstrip(".") for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    found = {}
    for name, shape in shapes.items():
        vocabulary, width, length = with_vocabulary[name], with_width[name], with_length[name]
        is_bias = bool(vocabulary) and len(shape) == 1
        if len(shape) < 2:
            kind = "vector"
        elif vocabulary:
            kind = "head" if name in reads and name not in embeds else "embedding"
        elif len(length) == 1 and len(width) == 1:
            kind = "position"
        elif len(width) > 1:
            kind = "matrix" if len(shape) == 2 else "stack"
        else:
            kind = "output" if name in linear and width == (1,) else "other"
        found[name] = Kind(kind, shape.numel(), name in embeds, name in reads or is_bias)
    return found


def on_meta(config: ModelConfig, vocab_size: int) -> nn.Module:
    """The module without memory."""
    with torch.device("meta"):
        return build(config, vocab_size)


def _shapes(module: nn.Module) -> Shapes:
    return {name: parameter.shape for name, parameter in module.named_parameters()}


def _grown(config: ModelConfig, shapes: Shapes, larger: nn.Module, what: str) -> dict[str, tuple[int, ...]]:
    """The axes of each parameter that are longer in a larger module."""
    others = _shapes(larger)
    found = {}
    for name, shape in shapes.items():
        other = others.get(name)
        if other is None or len(other) != len(shape):
            raise UserError(
                f"{named(config)} has a parameter {name} that it lacks with twice the {what}, or has with other axes, "
                "so that what it is cannot be told: give parameters the same names at every shape"
            )
        found[name] = tuple(axis for axis in range(len(shape)) if other[axis] > shape[axis])
    return found


def _tables(config: ModelConfig, module: nn.Module, tables: list[str]) -> tuple[list[str], list[str]]:
    """Which of the matrices that grow with the vocabulary embed tokens, and which are the head's."""
    by_name = dict(module.named_parameters())
    embeds = [name for name in tables if _is_in(by_name[name], getattr(module, "embedding", None))]
    reads = [name for name in tables if _is_in(by_name[name], getattr(module, "head", None))]
    rest = [name for name in tables if name not in embeds and name not in reads]
    if not embeds and not reads and len(tables) == 2:
        lookups = nn.ModuleList(part for part in module.modules() if isinstance(part, nn.Embedding))
        embeds = [name for name in tables if _is_in(by_name[name], lookups)]
        rest = [name for name in tables if name not in embeds]
        if len(embeds) == 1:
            return embeds, rest
    elif not embeds and not reads and len(tables) == 1:
        return tables, tables
    elif embeds and reads:
        return embeds, reads
    elif (embeds or reads) and len(rest) < 2:
        return embeds or rest or reads, reads or rest or embeds
    which = f"{len(tables)} ({', '.join(tables[:4])})" if tables else "none"
    raise UserError(
        f"{named(config)}: which matrix embeds tokens and which is the head cannot be told, since {which} of its "
        "parameters grow with the vocabulary: name the two by attributes `embedding` and `head` of the module"
    )


def _is_in(parameter: nn.Parameter, place: object) -> bool:
    """Whether a parameter is `place`, or one of the module's that `place` is."""
    held = place.parameters() if isinstance(place, nn.Module) else [place]
    return any(parameter is one for one in held)
