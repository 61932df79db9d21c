"""Time of a training step of a model of one's own against a plain loop over the same module: make bench

The module is a copy of gpt in plain torch. It takes steps as in a job, by harness.model.custom and our optimizer, and
in a plain loop: F.cross_entropy, clip_grad_norm_, AdamW as it comes. Both run in one process, interleaved, with one
thread and the settings that a job makes.
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.grid import make_trunks
from harness.model.config import ModelConfig
from harness.model.gpt import rotary_tables
from harness.model.make import make_model
from harness.sweep.compose import compose_sweep
from harness.training.device import configure_process, resolve
from harness.training.optimizer import Optimizer, clip_gradients

SHAPES = ("w48-d2", "w64-d2", "w128-d2", "w144-d3")
VOCAB, ROUNDS, WARM = 1024, 41, 5


class PlainBlock(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        width, self.head = config.width, config.head_size
        self.norms = nn.ModuleList(nn.RMSNorm(size, eps=config.norm_eps) for size in (width, width, *2 * [self.head]))
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, config.ff_width, bias=False)
        self.down = nn.Linear(config.ff_width, width, bias=False)

    def forward(self, x_BTD: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norms[0](x_BTD)).unflatten(2, (3, -1, self.head)).permute(2, 0, 3, 1, 4)
        q, k = self.norms[2](q), self.norms[3](k)
        q, k = (x * cos_TH + x.roll(self.head // 2, -1) * sin_TH for x in (q, k))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=16 / self.head)
        x_BTD = x_BTD + self.out(mixed.transpose(1, 2).flatten(2))
        return x_BTD + self.down(F.relu(self.up(self.norms[1](x_BTD))).square())


class PlainGPT(nn.Module):
    def __init__(self, config: ModelConfig, vocab_size: int):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, config.width)
        self.blocks = nn.ModuleList(PlainBlock(config) for _ in range(config.depth))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.head = nn.Linear(config.width, vocab_size, bias=False)
        cos, sin = rotary_tables(config.seq_len, config.head_size, config.rope_theta)
        self.register_buffer("cos", cos[:, 0], persistent=False)
        self.register_buffer("sin", sin[:, 0], persistent=False)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x_BTD = self.embedding(tokens_BT)
        for block in self.blocks:
            x_BTD = block(x_BTD, self.cos, self.sin)
        return self.head(self.norm(x_BTD))


def steps_of(shape: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """A step as a job takes it, and one of a plain loop, on the same batch."""
    custom = ["model=custom", "model.target=benchmarks.custom:PlainGPT"]
    job = compose_sweep([f"shape={shape}", "tokens=1e6", "tracking=none", *custom]).jobs[0]
    configure_process(job, resolve(job))
    (trunk,) = make_trunks(job, VOCAB, "benchmark", "float32")
    inputs, targets = torch.randint(0, VOCAB, (2, trunk.batch_sequences, job.model.seq_len))
    model = make_model(job.model, VOCAB, 0)
    optimizer, parameters = Optimizer(model, trunk), list(model.parameters())
    plain = PlainGPT(job.model, VOCAB)
    adamw = torch.optim.AdamW(plain.parameters(), lr=1e-3)

    def ours() -> None:
        model.loss(inputs, targets).backward()
        clip_gradients(parameters, 1.0)
        optimizer.step(1.0)

    def theirs() -> None:
        adamw.zero_grad()
        F.cross_entropy(plain(inputs).flatten(0, 1), targets.flatten()).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        adamw.step()

    return ours, theirs


def seconds(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


if __name__ == "__main__":
    print("a training step of a copy of gpt in plain torch, one thread; times what it takes in a plain loop")
    for name in SHAPES:
        pairs = steps_of(name)
        rows = [[seconds(step) for step in pairs] for _ in range(WARM + ROUNDS)][WARM:]
        ours, theirs = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name:8} {ours / theirs:5.2f}")
