"""How initialisation, learning rate and multipliers follow from a model's shape.

With m = width / base_width and k = depth / base_depth (AdamW):

| quantity                        | sp             | mup       | completep |
|---------------------------------|----------------|-----------|-----------|
| embedding, head: init std, lr   | 1              | 1         | 1         |
| matrix: init std                | 1              | m^-1/2    | m^-1/2    |
| matrix: learning rate           | 1              | 1/m       | 1/m       |
| matrix: weight decay            | 1              | m         | m         |
| vector: learning rate           | 1              | 1         | 1         |
| Adam epsilon, inside blocks     | 1              | 1/m       | 1/(m k)   |
| Adam epsilon, embedding, head   | 1              | 1/m       | 1/m       |
| logits                          | 1              | 1/m       | 1/m       |
| attention                       | d_head^-1/2    | 1/d_head  | 1/d_head  |
| residual branch                 | 1              | 1         | 1/k       |

Sources: Yang et al. 2022 (Tensor Programs V, table 3), Dey et al. 2024 (Cerebras and EleutherAI, The
Practitioner's Guide to the Maximal Update Parameterization), Dey et al. 2025 (CompleteP, table 1, with alpha = 1,
where the depth factors k^(alpha-1) of the learning rates are 1).
"""

from __future__ import annotations

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


@torch.no_grad()
def initialize(model: GPT, seed: int) -> None:
    """Sets every parameter from one generator: normal weights, zero biases, unit gains."""
    generator = torch.Generator().manual_seed(seed)
    config, scale = model.config, scales(model.config)
    for name, parameter in model.named_parameters():
        kind = kind_of(name, parameter)
        if kind == "vector":
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        std = config.init_std * (scale.matrix_std if kind == "matrix" else 1.0)
        values = torch.empty(parameter.shape, dtype=torch.float32).normal_(0.0, std, generator=generator)
        parameter.copy_(values)


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
