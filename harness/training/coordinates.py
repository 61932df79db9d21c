"""Whether a model learns alike at every width: a coordinate check (Yang et al. 2022, appendix D.1).

Models of several widths or depths take a few steps on one batch; what these move the outputs of each part by, per
coordinate, must neither grow nor vanish with the width.
"""

import copy
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from harness.grid import Trunk
from harness.model.custom import Custom
from harness.model.make import Model, make_model
from harness.training.optimizer import Optimizer, clip_gradients

WIDTHS = (1, 2, 4)  # times that of the trunk
TOKENS, STEPS = 256, 3
# Parts of our own families that say nothing of their own: norms, and the head before the multiplier of the logits.
LEFT_OUT = re.compile(r".*norm|head")
# The power of the width by which a movement grows. Of gpt in plain torch and the models of examples/, at base widths 32
# and 64 and 64 or 128 tokens, those of all parts lay from -.31 to .02; with sp's rules, or with its head alone, that of
# the logits was .57 to .99; with logits scaled by 1/m once more, -1.16 to -1.11.
LEAST, MOST = -0.6, 0.3


def growth(trunk: Trunk) -> list[str]:
    """A warning where parts of the module of `trunk` move by a power of the width; under sp none is promised not to."""
    config = trunk.job.model
    if config.parametrization == "sp":
        return []
    slopes = slopes_of(trunk)
    worst = max(slopes, key=lambda name: max(slopes[name] / MOST, slopes[name] / LEAST))
    if LEAST <= slopes[worst] <= MOST:
        return []
    which, power = worst or "the logits", f"width^{slopes[worst]:.2f}"
    return [
        f"warning: model.target={config.target}: what a step changes of {which} follows {power} under "
        f"model.parametrization={config.parametrization}, so that one learning rate does not serve all widths"
    ]


def slopes_of(trunk: Trunk) -> dict[str, float]:
    """The power of the width by which outputs move, by the name of the part; the logits' is ''."""
    widths = [factor * trunk.job.model.width for factor in WIDTHS]
    moved = [movements(replaced(trunk, width)) for width in widths]
    names = [name for name in moved[0] if all(name in one for one in moved)]
    return {name: slope(widths, [one[name] for one in moved]) for name in names}


def replaced(trunk: Trunk, width: int) -> Trunk:
    job = copy.deepcopy(trunk.job)
    job.model = replace(job.model, width=width)
    return replace(trunk, job=job)


def slope(widths: list[int], values: list[float]) -> float:
    """Of log values over log widths, by least squares; 0 where nothing moves."""
    if not all(0 < value < math.inf for value in values):
        return 0.0 if not any(values) else math.inf
    x, y = [math.log(width) for width in widths], [math.log(value) for value in values]
    mean = sum(x) / len(x)
    return sum((a - mean) * b for a, b in zip(x, y, strict=True)) / sum((a - mean) ** 2 for a in x)


def movements(trunk: Trunk) -> dict[str, float]:
    """The root mean square by which a few steps move the outputs of each part of the model, by its name."""
    return {name: moved for name, (_, moved) in sizes_and_movements(trunk).items()}


def sizes_and_movements(trunk: Trunk) -> dict[str, tuple[float, float]]:
    """The root mean square of the outputs of each part at initialisation, and that by which a few steps move them."""
    config = trunk.job.model
    model = make_model(config, trunk.vocab_size, 0)
    optimizer, parameters = Optimizer(model, trunk), list(model.parameters())
    generator = torch.Generator().manual_seed(0)
    sequences = max(1, TOKENS // config.seq_len)
    tokens_BT = torch.randint(0, trunk.vocab_size, (sequences, config.seq_len + 1), generator=generator)
    inputs_BT, targets_BT = tokens_BT[:, :-1], tokens_BT[:, 1:]
    before = outputs(model, inputs_BT)
    for _ in range(STEPS):
        model.loss(inputs_BT, targets_BT).backward()
        clip_gradients(parameters, trunk.job.optimizer.gradient_clip)
        optimizer.step(1.0)
    after = outputs(model, inputs_BT)
    return {name: (_rms(old), _rms(after[name] - old)) for name, old in before.items() if name in after}


def _rms(output: Tensor) -> float:
    return float(output.square().mean().sqrt())


@torch.no_grad()
def outputs(model: Model, inputs_BT: Tensor) -> dict[str, Tensor]:
    """What each part of the model returns, where that is one tensor of floats; the logits are those of ''."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(_module: nn.Module, _given: object, out: object) -> None:
            if isinstance(out, Tensor) and out.is_floating_point():
                found[name] = out.float().clone()

        return hook

    module = model.module if isinstance(model, Custom) else model
    hooks = [part.register_forward_hook(keep(name)) for name, part in module.named_modules()]
    torch.manual_seed(0)
    module(inputs_BT)
    for hook in hooks:
        hook.remove()
    return found


def coordinates(trunks: Sequence[Trunk], rate: float) -> list[dict[str, Any]]:
    """`size` and `moved` of each part of the models of a sweep, one row a parametrization, shape and part.

    All take their steps at one learning rate. Alike parts of several blocks are one, blocks.*, in the root mean square.
    """
    models = [(trunk, trunk.job.model) for trunk in trunks]
    shapes = {(model.parametrization, model.width, model.depth): trunk for trunk, model in models}
    found = []
    with torch.random.fork_rng(devices=[]):  # so that what is drawn here changes nothing that is drawn later
        for (parametrization, width, depth), trunk in shapes.items():
            parts: dict[str, list[tuple[float, float]]] = {}
            for name, both in sizes_and_movements(replace(trunk, learning_rate=rate)).items():
                if trunk.job.model.target or not LEFT_OUT.fullmatch(name):
                    parts.setdefault(re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name) or "logits", []).append(both)
            shape = {"parametrization": parametrization, "width": width, "depth": depth}
            for part, several in parts.items():
                size, moved = (math.sqrt(sum(each**2 for each in own) / len(own)) for own in zip(*several, strict=True))
                found.append(shape | {"part": part, "size": size, "moved": moved})
    return found
