"""Decoder-only transformers and the rules that carry hyperparameters from one shape to another."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.model.config import ModelConfig
    from harness.model.gpt import GPT
    from harness.model.parameters import ParameterGroup, initialize, parameter_groups

__all__ = ["GPT", "ModelConfig", "ParameterGroup", "initialize", "parameter_groups"]


def __getattr__(name: str) -> Any:
    """The names above; not before they are asked for, since a configuration needs no torch."""
    homes = {"ModelConfig": "config", "GPT": "gpt"}
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{homes.get(name, 'parameters')}"), name)
