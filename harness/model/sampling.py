"""Documents that a model writes, drawn from its own distribution, with keys and values kept from token to token."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.model.cpu_ops import rms_norm, rotate
from harness.model.gpt import GPT, Attention, Block

# Of a model that ends no document: it is cut at so many contexts.
MOST_CONTEXTS = 64


class Context:
    """What a model of the gpt, gpt2 or llama family has read of B sequences, up to its seq_len."""

    def __init__(self, model: GPT, sequences: int):
        config = model.config
        shape = config.depth, sequences, config.heads, config.seq_len, config.head_size
        self.model, self.length = model, 0
        self.key_LBNTH, self.value_LBNTH = torch.empty(shape), torch.empty(shape)

    def read(self, tokens_BT: Tensor) -> Tensor:
        """Logits (B, vocab_size) after tokens that follow those read before: many at once at the start, then one."""
        model, start, end = self.model, self.length, self.length + tokens_BT.shape[1]
        assert start == 0 or end == start + 1
        x_BTD, rotary = model.embedding(tokens_BT), None
        if model.position is None:
            rotary = model.cos_T1H[start:end], model.sin_T1H[start:end]
        else:
            x_BTD = x_BTD + model.position.weight[start:end]
        for layer, block in enumerate(model.blocks):
            assert isinstance(block, Block)
            attended_BTD = self._attend(layer, block.attention, block.attention_norm(x_BTD), rotary)
            x_BTD = torch.add(x_BTD, attended_BTD, alpha=block.residual)
            x_BTD = torch.add(x_BTD, block.feed_forward(block.feed_forward_norm(x_BTD)), alpha=block.residual)
        self.length = end
        return model.head(model.final_norm(x_BTD[:, -1])) * model.logits_scale

    def _attend(self, layer: int, layer_of: Attention, x_BTD: Tensor, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        """`Attention.forward` of the last tokens, over all that were read."""
        qkv_BT3NH = layer_of.qkv(x_BTD).unflatten(2, (3, layer_of.heads, layer_of.head_size))
        query_BTNH, key_BTNH, value_BTNH = qkv_BT3NH.unbind(2)
        if layer_of.query_gain is not None and layer_of.key_gain is not None:
            query_BTNH = rms_norm(query_BTNH, layer_of.query_gain, layer_of.eps)
            key_BTNH = rms_norm(key_BTNH, layer_of.key_gain, layer_of.eps)
        if rotary is not None:
            query_BTNH, key_BTNH = rotate(query_BTNH, *rotary), rotate(key_BTNH, *rotary)
        start, end = self.length, self.length + x_BTD.shape[1]
        key_BNTH, value_BNTH = self.key_LBNTH[layer, :, :, :end], self.value_LBNTH[layer, :, :, :end]
        key_BNTH[:, :, start:], value_BNTH[:, :, start:] = key_BTNH.transpose(1, 2), value_BTNH.transpose(1, 2)
        query_BNTH = query_BTNH.transpose(1, 2)
        mixed_BNTH = F.scaled_dot_product_attention(
            query_BNTH, key_BNTH, value_BNTH, is_causal=start == 0, scale=layer_of.scale
        )
        return layer_of.out(mixed_BNTH.transpose(1, 2).flatten(2))


def draw(logits_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """An id of each row (B,) by its probability, the softmax: the first whose cumulative one is above the number."""
    logits_BV = logits_BV.double()
    sum_BV = (logits_BV - logits_BV.amax(1, keepdim=True)).exp_().cumsum(1)
    found_B1 = torch.searchsorted(sum_BV, uniform_B[:, None] * sum_BV[:, -1:], right=True)
    return found_B1[:, 0].clamp_(max=sum_BV.shape[1] - 1)  # where the product was rounded up to the whole sum


@torch.no_grad()
def write_documents(
    model: GPT, end_of_text: int, vocab_size: int, documents: int, uniforms: Iterator[np.ndarray]
) -> list[np.ndarray]:
    """The ids of documents, each from an end of text to the next, which is left out.

    vocab_size   ids from there on, which a model may have beyond its tokenizer's, are not drawn
    uniforms     numbers below 1, float64 (documents,), an array for each place in the documents

    A context that is full begins again with its last half, so that a token is drawn given the seq_len / 2 to seq_len
    before it, as far as its document and the end of text before that go.
    """
    seq_len = model.config.seq_len
    parts: list[list[np.ndarray]] = [[] for _ in range(documents)]
    going, read_BT = torch.arange(documents), torch.full((documents, 1), end_of_text)
    for _ in range(2 * MOST_CONTEXTS):
        context, written = Context(model, len(going)), read_BT
        logits_BV = context.read(read_BT)
        while True:
            uniform_B = torch.from_numpy(next(uniforms))[going]
            written = torch.cat([written, draw(logits_BV[:, :vocab_size], uniform_B)[:, None]], 1)
            if context.length == seq_len:
                break
            logits_BV = context.read(written[:, -1:])
        new_BT = written[:, read_BT.shape[1] :]
        for number, ids in zip(going.tolist(), new_BT.numpy(), strict=True):
            parts[number].append(ids)
        unended = (new_BT != end_of_text).all(1)
        going, read_BT = going[unended], written[unended, -(seq_len // 2) :]
        if not len(going):
            break
    return [_before(np.concatenate(ids), end_of_text) for ids in parts]


def _before(ids: np.ndarray, end: int) -> np.ndarray:
    ends = np.flatnonzero(ids == end)
    return ids[: ends[0]] if len(ends) else ids
