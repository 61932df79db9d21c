"""The parameters of a model as its parametrization wants them: set at the start, grouped for the optimizer."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from harness.model.config import ModelConfig
from harness.model.gpt import GPT
from harness.model.parametrization import scales


@dataclass
class ParameterGroup:
    """Parameters that share their optimizer settings; the scales multiply the base learning rate and so on."""

    params: list[nn.Parameter]
    kind: str  # matrix | embedding | head | vector
    lr_scale: float
    weight_decay_scale: float
    eps_scale: float


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
