"""How initialisation, learning rate and multipliers follow from a model's shape.

With m = width / base_width and k = depth / base_depth, relative to sp, under AdamW:

| quantity                         | sp           | mup        | completep  |
|----------------------------------|--------------|------------|------------|
| matrix: init std                 | 1            | m^-1/2     | m^-1/2     |
| matrix: learning rate            | 1            | 1/m        | 1/m        |
| matrix: weight decay             | 1            | m          | m          |
| embedding, head, vector: std, lr | 1            | 1          | 1          |
| vector: weight decay             | 0            | 0          | 0          |
| Adam epsilon in the blocks       | 1            | 1/m        | 1/(m k)    |
| Adam epsilon elsewhere           | 1            | 1/m        | 1/m        |
| logits                           | 1            | 1/m        | 1/m        |
| attention scale                  | d_head^-1/2  | 1/d_head   | 1/d_head   |
| residual branch                  | 1            | 1          | 1/k        |

At the base shape the three agree but for the attention scale. Head size is fixed across widths, so that scale is the
same at every width; where queries and keys are normed (family gpt) it is 16/d_head under all three (see gpt.py).
A family that shrinks its residual init with depth (gpt2) does so by base_depth under completep, whose 1/k does the
rest. Position tables count as embeddings. Weight decay times m keeps its product with the learning rate the same at
every width.

Sources: Yang et al. 2022 (Tensor Programs V, arXiv 2203.03466, table 8 and definition 4.1), Dey et al. 2024
(Cerebras and EleutherAI, The Practitioner's Guide to the Maximal Update Parameterization), Dey et al. 2025 (CompleteP,
arXiv 2505.01618, table 1, at alpha = 1, where the factors k^(alpha-1) of the learning rates are 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from harness.model.gpt import GPT, ModelConfig

PARAMETRIZATIONS = ("sp", "mup", "completep")


@dataclass(frozen=True)
class Scales:
    """Multipliers of one shape under its parametrization; the table above says which is which."""

    matrix_std: float
    matrix_lr: float
    matrix_weight_decay: float
    block_eps: float
    outer_eps: float
    logits: float
    attention: float
    residual: float


@dataclass
class ParameterGroup:
    """Parameters that share their optimizer settings; the scales multiply the base learning rate and so on."""

    params: list[nn.Parameter]
    kind: str  # matrix | embedding | head | vector
    lr_scale: float
    weight_decay_scale: float
    eps_scale: float


def scales(config: ModelConfig) -> Scales:
    """The multipliers of `config`'s shape."""
    if config.parametrization == "sp":
        return Scales(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, config.head_size**-0.5, 1.0)
    m = config.width / config.base_width
    k = config.depth / config.base_depth if config.parametrization == "completep" else 1.0
    return Scales(
        matrix_std=m**-0.5,
        matrix_lr=1 / m,
        matrix_weight_decay=m,
        block_eps=1 / (m * k),
        outer_eps=1 / m,
        logits=1 / m,
        attention=1 / config.head_size,
        residual=1 / k,
    )


def kind_of(name: str, parameter: nn.Parameter) -> str:
    """matrix | embedding | head | vector, by the parameter's name in a GPT; a tied head is the embedding."""
    if parameter.ndim == 1:
        return "vector"
    return {"embedding": "embedding", "position": "embedding", "head": "head"}.get(name.split(".")[0], "matrix")


def init_std(name: str, parameter: nn.Parameter, config: ModelConfig) -> float:
    """Standard deviation of a weight matrix or table at initialisation."""
    if kind_of(name, parameter) != "matrix":
        return config.init_std
    std = config.init_std * scales(config).matrix_std
    if config.shrinks_residual_init and name.endswith(("out.weight", "down.weight")):
        std /= math.sqrt(2 * (config.base_depth if config.parametrization == "completep" else config.depth))
    return std


@torch.no_grad()
def initialize(model: GPT, seed: int) -> None:
    """Sets every parameter from one generator, on any device alike: normal weights, zero biases, unit gains."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        std = init_std(name, parameter, model.config)
        parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))


def parameter_groups(model: GPT) -> list[ParameterGroup]:
    """All parameters, each once, grouped by what the optimizer must do with them."""
    scale = scales(model.config)
    groups: dict[tuple[str, bool], ParameterGroup] = {}
    for name, parameter in model.named_parameters():
        kind, in_block = kind_of(name, parameter), name.startswith("blocks.")
        group = groups.setdefault(
            (kind, in_block),
            ParameterGroup(
                params=[],
                kind=kind,
                lr_scale=scale.matrix_lr if kind == "matrix" else 1.0,
                weight_decay_scale={"matrix": scale.matrix_weight_decay, "vector": 0.0}.get(kind, 1.0),
                eps_scale=scale.block_eps if in_block else scale.outer_eps,
            ),
        )
        group.params.append(parameter)
    return list(groups.values())
