"""Settings of a training process, and gradients' norms."""

import ctypes
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.grid import make_trunks
from harness.training.device import Device, keep_freed_memory, memory_limits
from harness.training.evaluation import TOKENS_AT_ONCE, evaluate
from harness.training.optimizer import clip_gradients
from harness.training.trainer import Trainer


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


class NoFloat64(TorchDispatchMode):
    """Refuses float64 anywhere but on the CPU, as an Apple GPU does."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "cpu" and tensor.dtype == torch.float64:
                raise TypeError(f"{function} makes float64 on {tensor.device}")
        return out


@pytest.mark.parametrize("family", ["gpt", "gpt2", "llama"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_no_float64_is_made_on_an_accelerator(compose, corpus, store, monkeypatch, family, optimizer):
    """Batches, a step and an evaluation on meta, up to the copy to the CPU, which meta has nothing for."""
    job = compose(*corpus, "tokens=20e3", f"model={family}", "model.parametrization=sp", f"optimizer={optimizer}")
    (trunk,) = make_trunks(job, store.vocab_size, store.recipe_hash, "float32")
    meta = Device(torch.device("meta"), "float32", False)
    monkeypatch.setattr("harness.training.trainer.matmul_rate", lambda device: 1.0)
    monkeypatch.setitem(TOKENS_AT_ONCE, "meta", 1024)
    with NoFloat64():
        one = Trainer(trunk, store, meta)
        one.gradients(0)
        one.optimizer.step(1.0)
        with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
            evaluate(one.model, store.validation, job.model.seq_len, store.bytes_per_token, meta)
        with pytest.raises(TypeError, match="makes float64 on meta"):
            torch.zeros(2, device="meta").double()


@pytest.mark.parametrize(
    ("groups", "files", "limits"),
    [
        (
            "0::/user.slice/job\n",
            {"user.slice/job/memory.max": "max", "user.slice/memory.max": "8000000000"},
            [8 * 10**9],
        ),
        ("0::/\n", {"memory.max": "4000000000\n"}, [4 * 10**9]),  # as a container with version 2 sees itself
        ("0::/docker/abc\n", {"memory.max": "4000000000\n"}, [4 * 10**9]),  # or with its path on the host
        (
            "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n",
            {
                "memory/docker/abc/memory.limit_in_bytes": "2000000000",
                "memory/memory.limit_in_bytes": str(2**63 - 4096),
            },
            [2 * 10**9, 2**63 - 4096],
        ),
        ("0::/init.scope\n", {}, []),
    ],
)
def test_the_memory_of_a_container_is_its_limit(tmp_path, groups, files, limits):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert memory_limits(tmp_path) == limits


def test_a_machine_without_control_groups_has_no_limit(tmp_path):
    assert memory_limits(tmp_path) == []
