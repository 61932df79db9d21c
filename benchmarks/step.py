"""Tokens per second of our training step against a plain loop, interleaved on one CPU core: make bench

The plain loop has the same shapes and batches, from torch's standard modules: nn.RMSNorm, nn.Linear, SDPA,
F.cross_entropy on whole logits, AdamW as it comes. Both run under the settings that a job sets (one thread, denormals
flushed, freed memory kept), so the ratio is that of the code alone.
"""

import statistics
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.grid import plan
from harness.model.gpt import GPT, rotary_tables
from harness.sweep import compose_grid
from harness.training.device import configure_process, resolve
from harness.training.optimizer import Optimizer, clip_gradients

SHAPES = ("w48-d2", "w64-d2", "w128-d2", "w144-d3", "w256-d2")
BATCH, SEQ_LEN, VOCAB, HEAD = 8, 128, 1024, 16
ROUNDS = 15


class PlainBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(size) for size in (width, width, HEAD, HEAD))
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x_BTD: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        normed = self.norms[0](x_BTD)
        q, k, v = (layer(normed).view(B, T, -1, HEAD).transpose(1, 2) for layer in (self.query, self.key, self.value))
        q, k = self.norms[2](q), self.norms[3](k)
        q, k = (x * cos_TH + torch.cat((x[..., HEAD // 2 :], x[..., : HEAD // 2]), -1) * sin_TH for x in (q, k))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTD = x_BTD + self.out(mixed.transpose(1, 2).reshape(B, T, D))
        return x_BTD + self.down(F.relu(self.up(self.norms[1](x_BTD))).square())


class PlainGPT(nn.Module):
    def __init__(self, width: int, depth: int):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, width)
        self.blocks = nn.ModuleList(PlainBlock(width) for _ in range(depth))
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, VOCAB, bias=False)
        cos, sin = rotary_tables(SEQ_LEN, HEAD, 10000.0)
        self.register_buffer("cos", cos[:, 0])
        self.register_buffer("sin", sin[:, 0])

    def loss(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        x = self.embedding(inputs_BT)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), targets_BT.flatten())


def compare(shape: str) -> tuple[float, float]:
    """Median seconds of a step: ours, the plain loop's."""
    job = compose_grid([f"shape={shape}", "tokens=1e6", "tracking=none"]).jobs[0]
    device = resolve(job)
    configure_process(job, device)
    (trunk,) = plan(job, VOCAB, "benchmark", "float32")
    ours = GPT(job.model, VOCAB)
    plain = PlainGPT(job.model.width, job.model.depth)
    optimizer, adamw = Optimizer(ours, trunk), torch.optim.AdamW(plain.parameters(), lr=1e-3)
    inputs, targets = torch.randint(0, VOCAB, (2, BATCH, SEQ_LEN))

    def our_step() -> None:
        ours.loss(inputs, targets).backward()
        clip_gradients(ours, 1.0)
        optimizer.step(1.0)

    def plain_step() -> None:
        adamw.zero_grad()
        plain.loss(inputs, targets).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        adamw.step()

    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(ROUNDS + 3):
        for name, step in (("ours", our_step), ("plain", plain_step)):
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return statistics.median(times["ours"][3:]), statistics.median(times["plain"][3:])


if __name__ == "__main__":
    print("tokens/s of a training step, one thread, batch of 8 x 128, ours against the plain loop")
    for name in SHAPES:
        our_seconds, plain_seconds = compare(name)
        tokens = BATCH * SEQ_LEN
        print(
            f"{name:8} {tokens / our_seconds:8.0f} against {tokens / plain_seconds:8.0f}: "
            f"{plain_seconds / our_seconds:.2f} times"
        )
