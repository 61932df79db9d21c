"""What one step of a user's module costs, counted on torch's meta device: FLOPs, and bytes kept for backward."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from harness.errors import UserError
from harness.model.config import ModelConfig
from harness.model.custom import Custom, named
from harness.model.source import refused

ADVICE = ": let neither control flow nor shapes depend on values"


@dataclass(frozen=True)
class Cost:
    """Of a token of a sequence of seq_len.

    flops   of forward and backward, matrix products and convolutions alone
    kept    bytes that autograd keeps for backward op by op in float32, the logits' included and the parameters left out
    """

    flops: int
    kept: int


_KNOWN: dict[str, Cost] = {}


def cost_of(config: ModelConfig, vocab_size: int) -> Cost:
    """Raises UserError where the module cannot be run without values, or gives what cannot be trained."""
    key = repr((config, vocab_size))
    if key not in _KNOWN:
        _KNOWN[key] = _measured(config, vocab_size)
    return _KNOWN[key]


def _measured(config: ModelConfig, vocab_size: int) -> Cost:
    tokens_1T = torch.zeros(1, config.seq_len, dtype=torch.int64, device="meta")
    kept = Kept()
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = Custom(config, vocab_size)
        with refused(f"{named(config)} cannot be run on torch's meta device, where its FLOPs are counted", ADVICE):
            check_logits(model, model(tokens_1T), tokens_1T)
            counter.flop_counts.clear()
            # fused attention of a CPU would count as none
            with sdpa_kernel(SDPBackend.MATH):
                with saved_tensors_hooks(kept.pack, lambda tensor: tensor):
                    loss = model.loss(tokens_1T, tokens_1T)
                check_loss(model, loss)
                loss.backward()
    check_gradients(model)
    held = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    size = sum(storage.nbytes() for key, storage in kept.storages.items() if key not in held)
    return Cost(round(counter.get_total_flops() / config.seq_len), -(-size // config.seq_len))


class Kept:
    """The storages that autograd keeps, each once."""

    def __init__(self) -> None:
        self.storages: dict[int, torch.UntypedStorage] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self.storages[storage._cdata] = storage
        return tensor


def check_logits(model: Custom, logits: object, tokens_BT: Tensor) -> None:
    expected = (*tokens_BT.shape, model.vocab_size)
    if not isinstance(logits, Tensor):
        raise UserError(f"{named(model.config)} returns a {type(logits).__name__}: return logits {expected}")
    if tuple(logits.shape) != expected:
        raise UserError(
            f"{named(model.config)} returns {tuple(logits.shape)} for tokens {tuple(tokens_BT.shape)}: return logits "
            f"{expected}, one for each of the vocabulary"
        )


def check_loss(model: Custom, loss: object) -> None:
    if not isinstance(loss, Tensor) or loss.ndim or not loss.requires_grad:
        what = f"a tensor {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        what += " without a gradient" if isinstance(loss, Tensor) and not loss.requires_grad else ""
        raise UserError(f"{named(model.config)} has a loss that returns {what}: return mean nats a token, a scalar")


def check_gradients(model: Custom) -> None:
    """Raises UserError for a parameter that a step does not reach, with which no optimizer here could do anything."""
    for name, parameter in model.module.named_parameters():
        if parameter.grad is None:
            raise UserError(
                f"{named(model.config)} has a parameter {name} that gets no gradient: use it, or make it a buffer"
            )
