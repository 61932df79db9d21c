"""Our AdamW against torch's own."""

import subprocess
import sys

import torch
from torch import nn

from harness.training.optimizer import AdamW


def groups(model: nn.Module) -> list[dict]:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    return [
        {"params": matrices, "lr": 0.01, "weight_decay": 0.1, "eps": 1e-8},
        {"params": others, "lr": 0.03, "weight_decay": 0.0, "eps": 1e-6},
    ]


def train(model: nn.Module, optimizer, steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        inputs = torch.randn(16, 24, generator=torch.Generator().manual_seed(step))
        for parameter in model.parameters():
            parameter.grad = None
        model(inputs).square().mean().backward()
        optimizer.param_groups[0]["lr"] = 0.01 * (1 + step)
        optimizer.step()


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 37), nn.GELU(), nn.Linear(37, 5))


def test_the_parameters_are_torchs_to_the_last_bit():
    ours, theirs = model(), model()
    mine = AdamW(groups(ours), (0.9, 0.95))
    reference = torch.optim.AdamW(groups(theirs), betas=(0.9, 0.95), fused=True)
    train(ours, mine, 20)
    train(theirs, reference, 20)
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
    resumed = AdamW(groups(ours), (0.9, 0.95))
    resumed.load_state_dict(reference.state_dict())  # what an older checkpoint holds
    train(ours, resumed, 20, first=20)
    train(theirs, reference, 20, first=20)
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


def test_a_state_goes_on_by_itself():
    trained = model()
    one = AdamW(groups(trained), (0.9, 0.95))
    train(trained, one, 5)
    other = AdamW(groups(trained), (0.9, 0.95))
    other.load_state_dict(one.state_dict())
    kept = [tensor.clone() for moments in other.moments for tensors in moments for tensor in tensors]
    train(trained, one, 1, first=5)
    now = [tensor for moments in other.moments for tensors in moments for tensor in tensors]
    assert all(map(torch.equal, now, kept))


def test_training_on_a_cpu_starts_without_the_compiler():
    command = "import sys, harness.training.job; from harness.training.optimizer import AdamW; import torch; "
    command += "w = torch.nn.Parameter(torch.ones(3)); w.grad = w.detach(); "
    command += "AdamW([dict(params=[w], lr=.1, weight_decay=0, eps=1e-8)], (.9, .95)).step(); "
    command += "print('torch._dynamo' in sys.modules, w[0].item())"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=120)
    assert done.stdout == "False 0.8999999761581421\n", done.stderr
