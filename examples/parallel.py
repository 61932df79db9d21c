"""Blocks whose attention and gated feed-forward read the same norm and are added together (Wang and Komatsuzaki 2021).

    python scripts/train.py model=custom model.target=examples.parallel:Model shape=w64-d2 tokens=1e6
"""

import torch
import torch.nn.functional as F
from torch import nn


def rotate(x_BNTH, theta):
    """Rotary positions (Su et al. 2021) of queries or keys."""
    T, H = x_BNTH.shape[-2:]
    frequency = theta ** (-torch.arange(0, H, 2, device=x_BNTH.device) / H)
    angle_TP = torch.outer(torch.arange(T, device=x_BNTH.device), frequency)
    first, second = x_BNTH.float().chunk(2, -1)
    cos, sin = angle_TP.cos(), angle_TP.sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1).type_as(x_BNTH)


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.head_size, self.theta, width = config.head_size, config.rope_theta, config.width
        self.norm = nn.RMSNorm(width)
        self.query_norm, self.key_norm = nn.RMSNorm(config.head_size), nn.RMSNorm(config.head_size)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.gates = nn.Linear(width, 2 * config.ff_width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.down = nn.Linear(config.ff_width, width, bias=False)

    def forward(self, x_BTD):
        normed = self.norm(x_BTD)
        q, k, v = self.qkv(normed).unflatten(-1, (3, -1, self.head_size)).permute(2, 0, 3, 1, 4)
        q, k = rotate(self.query_norm(q), self.theta), rotate(self.key_norm(k), self.theta)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=16 / self.head_size)
        gate, up = self.gates(normed).chunk(2, -1)
        return x_BTD + self.out(mixed.transpose(1, 2).flatten(2)) + self.down(F.silu(gate) * up)


class Model(nn.Module):
    def __init__(self, config, vocab_size):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, config.width)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.depth)))
        self.norm = nn.RMSNorm(config.width)
        self.head = nn.Linear(config.width, vocab_size, bias=False)

    def forward(self, tokens_BT):
        return self.head(self.norm(self.blocks(self.embedding(tokens_BT))))
