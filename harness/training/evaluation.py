"""Validation loss on one fixed token set, the same for every cell."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from harness.model.make import Model
from harness.stop import stop
from harness.training.device import Device

# Sequences at once: on a CPU the activations stay in cache.
TOKENS_AT_ONCE = {"cpu": 4096, "cuda": 16384, "mps": 16384}
PARTS = 10


@dataclass(frozen=True)
class Evaluation:
    """
    loss            mean nats a token
    loss_se         its standard error over sequences
    loss_parts      the loss on each of PARTS consecutive parts of the sequences, none where there are fewer sequences
    bits_per_byte   tokenizer-free, by the bytes a token of the whole validation split

    Of tokens that count by weights the loss is that mean, and the others are not known: no sample was drawn.
    """

    loss: float
    loss_se: float
    loss_parts: tuple[float, ...]
    bits_per_byte: float
    sequences: int

    def columns(self) -> dict[str, float | str]:
        """As a run record has them."""
        parts = " ".join(f"{part:.6f}" for part in self.loss_parts)
        return {"loss": self.loss, "loss_se": self.loss_se, "loss_parts": parts, "bits_per_byte": self.bits_per_byte}


def evaluate(
    model: Model,
    validation: np.ndarray,
    seq_len: int,
    bytes_per_token: float,
    device: Device,
    weights: np.ndarray | None = None,
) -> Evaluation:
    """Evaluates `model` on all whole sequences of `validation` (tokens,); raises Stopped between two batches.

    weights: what the loss at each of these tokens counts, (tokens,); None where all count alike.
    """
    count = (len(validation) - 1) // seq_len
    tokens = torch.from_numpy(validation[: count * seq_len + 1].astype(np.int64)).to(device.torch_device)
    inputs_ST, targets_ST = tokens[:-1].view(count, seq_len), tokens[1:].view(count, seq_len)
    at_once = max(1, TOKENS_AT_ONCE[device.kind] // seq_len)
    model.eval()
    with torch.no_grad(), device.autocast():
        parts = []
        for start in range(0, count, at_once):
            stop.check()
            part = slice(start, start + at_once)
            losses = model.sequence_losses if weights is None else model.token_losses
            parts.append(losses(inputs_ST[part], targets_ST[part]))
    model.train()
    found = torch.cat(parts).cpu().double()  # an Apple GPU has no float64
    return _alike(found, bytes_per_token) if weights is None else _weighted(found, weights)


def _weighted(losses_ST: torch.Tensor, weights: np.ndarray) -> Evaluation:
    of_targets = torch.from_numpy(weights[1 : losses_ST.numel() + 1]).view_as(losses_ST)
    loss = ((losses_ST * of_targets).sum() / of_targets.sum()).item()
    return Evaluation(loss, math.nan, (), math.nan, len(losses_ST))


def _alike(losses_S: torch.Tensor, bytes_per_token: float) -> Evaluation:
    count = len(losses_S)
    loss = losses_S.mean().item()
    spread = losses_S.std(correction=1).item() / math.sqrt(count) if count > 1 else math.nan
    split = losses_S.tensor_split(PARTS) if count >= PARTS else ()
    by_part = tuple(float(part.mean()) for part in split)
    return Evaluation(loss, spread, by_part, loss / math.log(2) / bytes_per_token, count)
