"""A decoder-only transformer in three families: gpt (our own), gpt2 and llama (exactly those)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError
from harness.model.config import FAMILIES, ModelConfig
from harness.model.cpu_ops import (
    attention,
    attention_layer,
    linear,
    rms_norm,
    rotate,
    squared_relu_layer,
    written_out,
)
from harness.model.cross_entropy import (
    bounded_cross_entropy,
    bounded_cross_entropy_rows,
    linear_cross_entropy,
    linear_cross_entropy_rows,
)
from harness.model.parametrization import Scales, scales

# Normed queries and keys bound the attention logits by head_size * scale at initialisation. This is that bound in nats,
# under every parametrization; at 1, which a scale of 1/head_size would mean, attention could not sharpen.
QK_LOGIT_BOUND = 16.0


def rotary_tables(seq_len: int, head_size: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin (T, 1, H) of the rotate-half convention; sin carries the sign of the first half."""
    frequency_P = theta ** (-torch.arange(0, head_size, 2, dtype=torch.float64) / head_size)
    angle_TP = torch.outer(torch.arange(seq_len, dtype=torch.float64), frequency_P)
    cos_TP, sin_TP = angle_TP.cos().float(), angle_TP.sin().float()
    return torch.cat([cos_TP, cos_TP], 1)[:, None], torch.cat([-sin_TP, sin_TP], 1)[:, None]


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x_BTD: Tensor) -> Tensor:
        return rms_norm(x_BTD, self.weight, self.eps)


class Linear(nn.Linear):
    def forward(self, x_BTD: Tensor) -> Tensor:
        return linear(x_BTD, self.weight, self.bias)


def make_norm(config: ModelConfig) -> nn.Module:
    norm = nn.LayerNorm if FAMILIES[config.family].layer_norm else RMSNorm
    return norm(config.width, eps=config.norm_eps)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, scale: Scales):
        super().__init__()
        family = FAMILIES[config.family]
        assert not (family.qk_norm and family.bias), "attention_layer takes no biases"
        self.heads, self.head_size, self.eps = config.heads, config.head_size, config.norm_eps
        self.scale = QK_LOGIT_BOUND / config.head_size if family.qk_norm else scale.attention
        self.qkv = Linear(config.width, 3 * config.width, bias=family.bias)
        self.out = Linear(config.width, config.width, bias=family.bias)
        self.query_gain = nn.Parameter(torch.ones(config.head_size)) if family.qk_norm else None
        self.key_gain = nn.Parameter(torch.ones(config.head_size)) if family.qk_norm else None

    def forward(self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        if self.query_gain is not None and self.key_gain is not None and rotary is not None:
            weights = self.qkv.weight, self.out.weight, self.query_gain, self.key_gain
            return attention_layer(x_BTD, *weights, *rotary, self.eps, self.scale)
        query_BTNH, key_BTNH, value_BTNH = self.qkv(x_BTD).unflatten(2, (3, self.heads, self.head_size)).unbind(2)
        if rotary is not None:
            query_BTNH, key_BTNH = rotate(query_BTNH, *rotary), rotate(key_BTNH, *rotary)
        return self.out(attention(query_BTNH, key_BTNH, value_BTNH, self.scale))


class FeedForward(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        family = FAMILIES[config.family]
        self.activation = family.activation
        gates = 2 if family.activation == "swiglu" else 1
        self.up = Linear(config.width, gates * config.ff_width, bias=family.bias)
        self.down = Linear(config.ff_width, config.width, bias=family.bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.activation == "relu2":
            return squared_relu_layer(x_BTD, self.up.weight, self.down.weight)
        up = self.up(x_BTD)
        if self.activation == "swiglu":
            gate, up = up.chunk(2, -1)
            return self.down(F.silu(gate) * up)
        return self.down(F.gelu(up, approximate="tanh"))


class Block(nn.Module):
    def __init__(self, config: ModelConfig, scale: Scales):
        super().__init__()
        self.residual = scale.residual
        self.attention_norm = make_norm(config)
        self.attention = Attention(config, scale)
        self.feed_forward_norm = make_norm(config)
        self.feed_forward = FeedForward(config)

    def forward(self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        x_BTD = torch.add(x_BTD, self.attention(self.attention_norm(x_BTD), rotary), alpha=self.residual)
        return torch.add(x_BTD, self.feed_forward(self.feed_forward_norm(x_BTD)), alpha=self.residual)


class GPT(nn.Module):
    """A decoder-only transformer of `config`'s family and shape over `vocab_size` tokens.

    Raises UserError for a shape that cannot be built. Its parameters are set by `initialize`.
    """

    cos_T1H: Tensor
    sin_T1H: Tensor

    def __init__(self, config: ModelConfig, vocab_size: int):
        super().__init__()
        config.check()
        if vocab_size < 2:
            raise UserError(f"model.vocab_size={vocab_size} is below 2; use a tokenizer of at least 2 tokens.")
        self.config, self.vocab_size = config, vocab_size
        scale = scales(config)
        self.logits_scale = scale.logits
        family = FAMILIES[config.family]
        self.embedding = nn.Embedding(vocab_size, config.width)
        self.position = None if family.rotary else nn.Embedding(config.seq_len, config.width)
        self.blocks = nn.ModuleList(Block(config, scale) for _ in range(config.depth))
        self.final_norm = make_norm(config)
        self.head = Linear(config.width, vocab_size, bias=False)
        if config.tied:
            self.head.weight = self.embedding.weight
        if family.rotary:
            cos_T1H, sin_T1H = rotary_tables(config.seq_len, config.head_size, config.rope_theta)
            self.register_buffer("cos_T1H", cos_T1H, persistent=False)
            self.register_buffer("sin_T1H", sin_T1H, persistent=False)

    def hidden(self, tokens_BT: Tensor) -> Tensor:
        """The final norm's output (B, T, width), which the head reads; T is at most seq_len."""
        T = tokens_BT.shape[1]
        assert self.config.seq_len >= T, f"{T} tokens in a model of seq_len {self.config.seq_len}"
        x_BTD = self.embedding(tokens_BT)
        rotary = None
        if self.position is None:
            rotary = self.cos_T1H[:T], self.sin_T1H[:T]
        else:
            x_BTD = x_BTD + self.position.weight[:T]
        for block in self.blocks:
            x_BTD = block(x_BTD, rotary)
        return self.final_norm(x_BTD)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits (B, T, vocab_size)."""
        return self.head(self.hidden(tokens_BT)) * self.logits_scale

    def loss(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean nats a token, a scalar: the training path."""
        hidden_ND, targets_N = self.hidden(inputs_BT).flatten(0, 1), targets_BT.flatten()
        loss = linear_cross_entropy if written_out(inputs_BT) else bounded_cross_entropy
        return loss(hidden_ND, self.head.weight, targets_N, self.logits_scale)

    @torch.no_grad()
    def token_losses(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Nats of each token (B, T), float32."""
        hidden_ND, targets_N = self.hidden(inputs_BT).flatten(0, 1), targets_BT.flatten()
        rows = linear_cross_entropy_rows if written_out(inputs_BT) else bounded_cross_entropy_rows
        losses_N = rows(hidden_ND, self.head.weight, targets_N, self.logits_scale)
        return losses_N.view_as(targets_BT).float()

    @torch.no_grad()
    def sequence_losses(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean nats a token of each sequence (B,), float32."""
        return self.token_losses(inputs_BT, targets_BT).mean(1)
