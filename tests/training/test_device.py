"""Settings of a training process, and gradients' norms."""

import ctypes
import math

import pytest
import torch

from harness.training.device import keep_freed_memory
from harness.training.optimizer import clip_gradients


class OldLibrary:
    """glibc as it was when it refused to keep blocks of more than 32 MiB, or any at all."""

    def __init__(self, most):
        self.most, self.calls = most, []

    def mallopt(self, setting, size):
        taken = setting == -1 or size <= self.most
        self.calls.append((setting, size, taken))
        return int(taken)


@pytest.mark.parametrize(
    "most, calls",
    [
        (1 << 25, [(-3, 1 << 30, False), (-3, 1 << 25, True), (-1, 1 << 30, True)]),
        (0, [(-3, 1 << 30, False), (-3, 1 << 25, False)]),
    ],
)
def test_an_old_library_is_not_left_with_a_trim_threshold_alone(most, calls, monkeypatch):
    library = OldLibrary(most)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    keep_freed_memory.__wrapped__()
    assert library.calls == calls


@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0, 1e3, math.inf, math.nan])
def test_gradients_are_clipped_as_torch_does_it(size):
    ours, theirs = (torch.nn.Linear(3, 2) for _ in range(2))
    for number, (one, other) in enumerate(zip(ours.parameters(), theirs.parameters(), strict=True)):
        one.grad = size * torch.arange(1.0, one.numel() + 1).view_as(one) * (number + 1)
        other.grad = one.grad.clone()
    norm = clip_gradients(list(ours.parameters()), 0.5)
    torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5), equal_nan=True)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, equal_nan=True)
