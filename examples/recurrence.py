"""Gated linear recurrences in place of attention: h_t = a_t h_(t-1) + (1 - a_t) v_t, where a_t depends on x_t alone.

    python scripts/train.py model=custom model.target=examples.recurrence:Model shape=w64-d2 tokens=1e6
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


def scan(a_BTD, x_BTD):
    """h_t = a_t h_(t-1) + x_t from h_(-1) = 0, in log2(T) passes (Hillis and Steele 1986)."""
    shift = 1
    while shift < x_BTD.shape[1]:
        before = (0, 0, shift, -shift)  # zeros in front, the last ones dropped
        x_BTD = x_BTD + a_BTD * F.pad(x_BTD, before)
        a_BTD = a_BTD * F.pad(a_BTD, before)
        shift *= 2
    return x_BTD


class Recurrence(nn.Module):
    def __init__(self, width, longest):
        super().__init__()
        self.into = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        # with no input a channel forgets half at each token, the last one in 1 + longest tokens
        self.memory = nn.Parameter(math.log(longest) * torch.arange(width) / width)

    def forward(self, x_BTD):
        value, forget, gate = self.into(x_BTD).chunk(3, -1)
        keep = torch.sigmoid(forget + self.memory)
        return self.out(scan(keep, (1 - keep) * value) * F.silu(gate))


class Block(nn.Module):
    def __init__(self, config, longest):
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(config.width) for _ in range(2))
        self.recurrence = Recurrence(config.width, longest)
        self.up = nn.Linear(config.width, config.ff_width, bias=False)
        self.down = nn.Linear(config.ff_width, config.width, bias=False)

    def forward(self, x_BTD):
        x_BTD = x_BTD + self.recurrence(self.norms[0](x_BTD))
        return x_BTD + self.down(F.relu(self.up(self.norms[1](x_BTD))).square())


class Model(nn.Module):
    def __init__(self, config, vocab_size, longest=64):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, config.width)
        self.blocks = nn.Sequential(*(Block(config, longest) for _ in range(config.depth)))
        self.norm = nn.RMSNorm(config.width)
        self.head = nn.Linear(config.width, vocab_size, bias=False)

    def forward(self, tokens_BT):
        return self.head(self.norm(self.blocks(self.embedding(tokens_BT))))
