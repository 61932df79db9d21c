"""A model of any family, its parameters set and grouped."""

import torch

from harness.model.config import CUSTOM, ModelConfig
from harness.model.custom import Custom
from harness.model.custom_rules import custom_groups, initialize_custom
from harness.model.gpt import GPT
from harness.model.parameters import ParameterGroup, initialize, parameter_groups

Model = GPT | Custom


def make_model(config: ModelConfig, vocab_size: int, seed: int | None = None) -> Model:
    """A model of `config` on the CPU, set from `seed`; without one, its parameters are to be loaded."""
    if config.family == CUSTOM:
        if seed is not None:
            torch.manual_seed(seed)  # of what the module's constructor draws, and its forward pass later
        custom = Custom(config, vocab_size)
        if seed is not None:
            initialize_custom(custom, seed)
        return custom
    model = GPT(config, vocab_size)
    if seed is not None:
        initialize(model, seed)
    return model


def groups_of(model: Model) -> list[ParameterGroup]:
    """All parameters, each once, grouped by what the optimizer must do with them."""
    return custom_groups(model) if isinstance(model, Custom) else parameter_groups(model)
