"""Muon of a CPU and of a GPU against torch's own."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from harness.grid import make_trunks
from harness.training.device import Device
from harness.training.muon import Muon
from harness.training.trainer import Trainer

SHAPES = [(24, 8), (8, 8), (32, 8), (8, 32)]  # of a block of width 8: qkv, out, up, down
DEPTH = 3
SETTINGS = {"lr": 0.02, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}


class Products(TorchDispatchMode):
    """Counts matrix products by the name of their operation, and the host's waits."""

    def __init__(self):
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[function._schema.name.removeprefix("aten::")] += 1
        return function(*args, **(kwargs or {}))

    def products(self) -> int:
        return sum(self.counts[name] for name in ("mm", "addmm", "bmm", "baddbmm", "matmul"))


def matrices() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in DEPTH * SHAPES]


def train(params: list[nn.Parameter], one, steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(1 + step)
        for parameter in params:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        for group in one.param_groups:
            group["lr"] = 0.02 / (1 + step)
        one.step()


def test_stacked_products_are_torchs_muon_to_rounding():
    start, ours, theirs = matrices(), matrices(), matrices()
    train(ours, Muon(ours, **SETTINGS), 10)
    train(theirs, torch.optim.Muon(theirs, **SETTINGS), 10)
    for one, other, begin in zip(ours, theirs, start, strict=True):
        moved = (other - begin).norm()
        assert moved > 0.05
        assert (one - other).norm() < 2**-8 * moved  # bf16 has 8 binary digits


def test_its_first_update_is_the_polar_factor_nearly():
    """Five iterations bring singular values to between about .7 and 1.2 (Jordan et al. 2024)."""
    ours = matrices()
    start = [parameter.detach().clone() for parameter in ours]
    train(ours, Muon(ours, **SETTINGS | {"weight_decay": 0.0}), 1)
    for one, begin in zip(ours, start, strict=True):
        values = torch.linalg.svdvals((begin - one) / (0.02 * 0.2 * max(one.shape) ** 0.5))
        assert values.min() > 0.6 and values.max() < 1.3


def test_a_shape_has_the_products_of_one_matrix():
    counts = []
    for kind in (torch.optim.Muon, Muon):
        params = matrices()
        one = kind(params, **SETTINGS)
        train(params, one, 1)
        with Products() as seen:
            one.step()
        counts.append(seen.products())
        if kind is Muon:
            assert seen.counts["_local_scalar_dense"] == 0
    assert counts == [12 * 5 * 3, 4 * 5 * 3]  # 12 matrices, 4 shapes; 5 iterations of 3 products


def test_its_state_is_torchs():
    ours, theirs = matrices(), matrices()
    one, other = Muon(ours, **SETTINGS), torch.optim.Muon(theirs, **SETTINGS)
    train(ours, one, 3)
    train(theirs, other, 3)
    mine, reference = one.state_dict(), other.state_dict()
    assert mine["param_groups"] == reference["param_groups"]
    assert list(mine["state"]) == list(reference["state"])
    for index, state in reference["state"].items():
        assert list(mine["state"][index]) == ["momentum_buffer"]
        assert torch.equal(mine["state"][index]["momentum_buffer"], state["momentum_buffer"])
    resumed, params = Muon(copies := [nn.Parameter(p.detach().clone()) for p in ours], **SETTINGS), copies
    resumed.load_state_dict(reference)
    train(params, resumed, 2, first=3)
    train(ours, one, 2, first=3)
    assert all(map(torch.equal, params, ours))


def test_rates_on_the_device_are_read_anew():
    ours, theirs = matrices(), matrices()
    one, other = Muon(ours, **SETTINGS), Muon(theirs, **SETTINGS)
    one.rates = [torch.zeros((), dtype=torch.float64)]
    for step in range(3):
        one.rates[0].fill_(0.02 / (1 + step))
        train(ours, one, 1, first=step)
        train(theirs, other, 1, first=step)
    assert all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("family", ["gpt", "llama"])
def test_a_cpu_has_torchs_muon_to_the_last_bit(compose, corpus, store, family):
    job = compose(*corpus, "tokens=20e3", f"model={family}", "optimizer=muon", "model.parametrization=sp")
    (trunk,) = make_trunks(job, store.vocab_size, store.recipe_hash, "float32")
    cpu = Device(torch.device("cpu"), "float32", False)
    ours, theirs = Trainer(trunk, store, cpu), Trainer(trunk, store, cpu)
    adamw, muon = (part.param_groups for part in theirs.optimizer.parts)
    references = [
        torch.optim.AdamW([dict(group) for group in adamw], betas=(0.9, 0.95), fused=True),
        torch.optim.Muon([{name: muon[0][name] for name in ("params", "lr", "weight_decay")}],
                         adjust_lr_fn="match_rms_adamw"),
    ]  # fmt: skip
    rates = [[group["lr"] for group in one.param_groups] for one in references]
    for step in range(6):
        ours.take(step, 1 / (1 + step))
        theirs.gradients(step)
        for one, base in zip(references, rates, strict=True):
            for group, rate in zip(one.param_groups, base, strict=True):
                group["lr"] = rate * (1 / (1 + step))
            one.step()
            one.zero_grad()
    assert len(muon[0]["params"]) == 4 and len(adamw) == 4
    assert all(map(torch.equal, ours.parameters, theirs.parameters))
