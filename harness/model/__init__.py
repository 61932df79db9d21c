"""Decoder-only transformers and the rules that carry hyperparameters from one shape to another."""

from harness.model.config import ModelConfig
from harness.model.gpt import GPT
from harness.model.parameters import ParameterGroup, initialize, parameter_groups

__all__ = ["GPT", "ModelConfig", "ParameterGroup", "initialize", "parameter_groups"]
