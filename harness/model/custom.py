"""A module that the user wrote, as training and evaluation want a model."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError
from harness.model.config import ModelConfig
from harness.model.cross_entropy import EAGER_BYTES, LOGITS_BYTES
from harness.model.source import load, refused


class Custom(nn.Module):
    """model.target of a configuration, called with it, `vocab_size` and model.args: tokens (B, T) to logits (B, T, V).

    Raises UserError where it cannot be built. docs/models.md says what the module may bring besides.
    """

    def __init__(self, config: ModelConfig, vocab_size: int):
        super().__init__()
        config.check()
        self.config, self.vocab_size = config, vocab_size
        self.module = build(config, vocab_size)

    @property
    def keeps_state(self) -> bool:
        """Whether it has more than parameters to keep, which a step may change."""
        parameters = {name for name, _ in self.named_parameters(remove_duplicate=False)}
        return bool(set(self.state_dict()) - parameters)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits (B, T, vocab_size)."""
        return self.module(tokens_BT)

    hidden = forward  # what a device is compared with a CPU by

    def loss(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean nats a token, a scalar, or what the module has in place of that: the training path."""
        own: Any = getattr(self.module, "loss", None)
        if own is not None:
            return own(inputs_BT, targets_BT)
        return F.cross_entropy(self.module(inputs_BT).flatten(0, 1).float(), targets_BT.flatten())

    @torch.no_grad()
    def token_losses(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Nats of each token (B, T), float32."""
        return torch.cat(list(self._losses(inputs_BT, targets_BT)))

    @torch.no_grad()
    def sequence_losses(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean nats a token of each sequence (B,), float32."""
        return torch.cat([losses_bT.mean(1) for losses_bT in self._losses(inputs_BT, targets_BT)])

    def _losses(self, inputs_BT: Tensor, targets_BT: Tensor) -> Iterator[Tensor]:
        rows = max(1, LOGITS_BYTES["evaluation"] // (EAGER_BYTES * self.vocab_size * inputs_BT.shape[1]))
        parts = zip(inputs_BT.split(rows), targets_BT.split(rows), strict=True)
        return (_nats(self.module(inputs_bT), targets_bT) for inputs_bT, targets_bT in parts)


def _nats(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    losses_N = F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten(), reduction="none")
    return losses_N.view_as(targets_BT)


def build(config: ModelConfig, vocab_size: int) -> nn.Module:
    """What the user's callable returns. Raises UserError where that is no module, or nothing."""
    assert config.target is not None
    make = load("model", config.target).value
    given = copy.deepcopy(config)
    with refused(f"{named(config)} cannot be built"):
        module = make(given, vocab_size, **given.args)
    if not isinstance(module, nn.Module):
        raise UserError(f"{named(config)} returns a {type(module).__name__}: return a torch.nn.Module")
    return module


def named(config: ModelConfig) -> str:
    """How errors call a user's model."""
    return f"model.target={config.target} at width {config.width} and depth {config.depth}"
