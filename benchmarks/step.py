"""Tokens per second of our training step against a plain loop, interleaved on one CPU core: make bench

The plain loop has the same shapes and batches, from torch's standard modules: nn.RMSNorm, nn.Linear, SDPA,
F.cross_entropy on whole logits, AdamW as it comes. It runs twice: as one would write it, with one thread, in a process
of its own, and under the settings that a job makes (denormals flushed, freed memory kept), in the process of ours. So
the gain of the code and that of the settings are told apart. The share is the time of the step's matrix products alone,
by torch.mm and by what the step uses, over the step's.
"""

import statistics
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.grid import make_trunks
from harness.model.gpt import GPT, rotary_tables
from harness.model.parameters import initialize
from harness.model.products import product, weight_gradient
from harness.sweep.compose import compose_sweep
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


def plain_step(shape: str) -> Callable[[], None]:
    width, depth = (int(part[1:]) for part in shape.split("-"))
    model = PlainGPT(width, depth)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3)
    inputs, targets = torch.randint(0, VOCAB, (2, BATCH, SEQ_LEN))

    def step() -> None:
        adamw.zero_grad()
        model.loss(inputs, targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()

    return step


def our_step(shape: str) -> Callable[[], None]:
    job = compose_sweep([f"shape={shape}", "tokens=1e6", "tracking=none"]).jobs[0]
    device = resolve(job)
    configure_process(job, device)
    (trunk,) = make_trunks(job, VOCAB, "benchmark", "float32")
    model = GPT(job.model, VOCAB)
    initialize(model, 0)
    optimizer, parameters = Optimizer(model, trunk), list(model.parameters())
    inputs, targets = torch.randint(0, VOCAB, (2, BATCH, SEQ_LEN))

    def step() -> None:
        model.loss(inputs, targets).backward()
        clip_gradients(parameters, 1.0)
        optimizer.step(1.0)

    return step


def products(shape: str, multiply: Callable[[Tensor, Tensor], Tensor], gradient: Callable[[Tensor, Tensor], Tensor]):
    """A function that makes the matrix products of one step but attention's: forward, and both gradients."""
    width, depth = (int(part[1:]) for part in shape.split("-"))
    layers = depth * [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)] + [(width, VOCAB)]
    tensors = [(torch.randn(BATCH * SEQ_LEN, i), torch.randn(o, i), torch.randn(BATCH * SEQ_LEN, o)) for i, o in layers]

    def step() -> None:
        for x_TI, weight_OI, grad_TO in tensors:
            multiply(x_TI, weight_OI)
            multiply(grad_TO, weight_OI.t())
            gradient(grad_TO, x_TI)

    return step


def seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def serve(connection: Connection) -> None:
    """A process without any setting but its one thread, which times a plain step when it is asked to."""
    torch.set_num_threads(1)
    while shape := connection.recv():
        step = plain_step(shape)
        while connection.recv():
            connection.send(seconds(step))


def compare(shape: str, bare: Connection) -> dict[str, float]:
    """Median seconds of each kind of step."""
    bare.send(shape)
    steps = {
        "ours": our_step(shape),
        "plain": plain_step(shape),
        "torch.mm": products(shape, lambda a, b: a @ b.t(), lambda grad, x: grad.t() @ x),
        "products": products(shape, product, weight_gradient),
    }
    times: dict[str, list[float]] = {name: [] for name in (*steps, "bare")}
    for _ in range(ROUNDS + 3):
        for name, step in steps.items():
            times[name].append(seconds(step))
        bare.send(True)
        times["bare"].append(bare.recv())
    bare.send(False)
    return {name: statistics.median(values[3:]) for name, values in times.items()}


if __name__ == "__main__":
    bare, other_end = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=serve, args=(other_end,), daemon=True)
    process.start()
    print(f"a training step, one thread, batch of {BATCH} x {SEQ_LEN}; times the tokens/s of a plain loop")
    print("shape     gain  = code x settings   share of torch.mm's, of our products' rate")
    for name in SHAPES:
        took = compare(name, bare)
        print(
            f"{name:8} {took['bare'] / took['ours']:5.2f}  = {took['plain'] / took['ours']:.2f} x "
            f"{took['bare'] / took['plain']:.2f} {took['torch.mm'] / took['ours']:19.0%} "
            f"{took['products'] / took['ours']:18.0%}"
        )
    bare.send("")
