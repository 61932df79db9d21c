"""What the code does on a Mac, asked of it as a Mac would: without MKL, oneDNN, glibc, control groups and float64."""

import ctypes
import os
import sys
from pathlib import Path

import pytest
import torch
import torchgen
import yaml
from live_bytes import counted
from test_memory import VOCAB, config_of
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from harness.accounting import count_params
from harness.data.batches import fits, sent
from harness.errors import UserError
from harness.grid import check_memory, make_trunks
from harness.model import GPT
from harness.sweep.compose import machine_slots
from harness.training import device as device_module
from harness.training.device import Device, configure_process, keep_freed_memory, memory_bytes, precision, resolve
from harness.training.memory import check_gpu_memory, evaluation_bytes, micro_sequences, score_bytes, step_bytes
from harness.training.trainer import Trainer

FUNCTIONS = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native" / "native_functions.yaml"
APPLE_GPU = Device(torch.device("mps"), "float32", False)


class AppleGpu(Device):
    """One whose tensors are on meta, where they can be made without it."""

    @property
    def kind(self) -> str:
        return "mps"


class Operations(TorchDispatchMode):
    """The names of what torch is asked for, as native_functions.yaml has them."""

    def __init__(self):
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "aten":
            self.names.add(str(function).removeprefix("aten.").removesuffix(".default"))
        return function(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def on_mps():
    """Whether torch says that an operation runs on an Apple GPU: by a kernel of its own, or made of others."""
    listed = yaml.load(FUNCTIONS.read_text(), Loader=yaml.CSafeLoader)
    by_name = {function["func"].split("(")[0]: function for function in listed}

    def runs(name: str) -> bool:
        function = by_name[name]
        if "structured_delegate" in function:
            return runs(function["structured_delegate"])
        keys = [key.strip() for keys in function.get("dispatch", {"Composite": 0}) for key in keys.split(",")]
        return any(key == "MPS" or key.startswith("Composite") for key in keys)

    return runs


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("family", ["gpt", "gpt2", "llama"])
def test_every_operation_of_a_step_and_an_evaluation_runs_on_an_apple_gpu(
    compose, corpus, store, monkeypatch, on_mps, family, optimizer
):
    job = compose(*corpus, "tokens=20e3", f"model={family}", "model.parametrization=sp", f"optimizer={optimizer}")
    (trunk,) = make_trunks(job, store.vocab_size, store.recipe_hash, "float32")
    monkeypatch.setattr("harness.training.trainer.matmul_rate", lambda device: 1.0)
    with Operations() as found, sdpa_kernel(SDPBackend.MATH):  # the only way of attention there
        one = Trainer(trunk, store, AppleGpu(torch.device("meta"), "float32", False))
        inputs_BT, targets_BT = one.batches.batch(0)
        one.gradients(0)
        one.optimizer.step(1.0)
        one.model.sequence_losses(inputs_BT, targets_BT)
    assert len(found.names) > 40 and {"_fused_adamw_", "embedding_dense_backward", "index.Tensor"} <= found.names
    assert [name for name in sorted(found.names) if not on_mps(name)] == []
    assert not on_mps("_flash_attention_forward") and not on_mps("_thnn_fused_lstm_cell")
    assert one.notes == [
        "an Apple GPU may add up in another order each time: the losses of a sweep that is resumed or repeated are not "
        "promised to the last bit there"
    ]


@pytest.mark.parametrize("seq_len", [128, 1024])
@pytest.mark.parametrize("family", ["gpt", "gpt2", "llama"])
def test_the_scores_of_attention_count_where_they_are_kept(family, seq_len, monkeypatch):
    """Against what tensors take by the math way of attention, as in test_memory.py."""
    for module in ("gpt", "cpu_ops"):
        monkeypatch.setattr(f"harness.model.{module}.written_out", lambda x: False)
    config, tokens = config_of(family, 512, 4), 16_384
    config.seq_len = seq_len
    batch = (tokens // seq_len, seq_len)
    with sdpa_kernel(SDPBackend.MATH), counted() as live:
        model = GPT(config, VOCAB)
        moments = [torch.empty_like(parameter) for parameter in model.parameters() for _ in range(2)]
        model.loss(*(torch.empty(batch, dtype=torch.int64) for _ in range(2))).backward()
        step = live.peak
        for parameter in model.parameters():
            parameter.grad = None
        live.restart()
        model.sequence_losses(*(torch.empty(batch, dtype=torch.int64) for _ in range(2)))
        assert moments
    params = count_params(config, VOCAB).total
    scores = score_bytes(config, APPLE_GPU)
    assert scores == 5 * 8 * seq_len and score_bytes(config, Device(torch.device("cuda"), "float32", False)) == 0
    assert 1 <= step_bytes(config, VOCAB, params, tokens, APPLE_GPU) / step <= 1.4
    assert 1 <= evaluation_bytes(config, VOCAB, params, "float32", scores) / live.peak <= 1.4


@pytest.fixture
def mac(monkeypatch):
    """A Mac of 16 GB: what torch and the operating system say there."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 10_670_000_000)
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 16384, "SC_PHYS_PAGES": 2**20}[name])
    monkeypatch.setattr(device_module, "memory_limits", lambda root: [])
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setenv("PATH", "/nonexistent")  # no nvidia-smi


@pytest.fixture
def large(compose):
    """w768-d12 of the large gpu grid: 64 sequences of 512 tokens a step."""
    job = compose("+sweep=gpu-large", "shape=w768-d12", "hydra.mode=RUN", "device=mps")
    (trunk,) = make_trunks(job, 50_257, "", "float32")
    return trunk


def test_an_apple_gpu_has_what_metal_recommends(mac, compose, large):
    found = resolve(large.job)
    assert (found.kind, found.precision, found.compile, found.memory) == ("mps", "float32", False, 10_670_000_000)
    assert memory_bytes(found) == 10_670_000_000
    assert machine_slots([large]) == 1
    # of 64 sequences a half, and again, until they take nine tenths of that: 2.9 GB of weights and moments, 1.0 of the
    # process, 1.6 of tokens, and of each sequence .31 of logits, .41 of blocks and .19 of scores
    assert micro_sequences(large, found) == 2
    check_gpu_memory(large, found)
    with pytest.raises(UserError, match="need .* GiB to train and this GPU has 1.86: make the model"):
        check_gpu_memory(large, Device(torch.device("mps"), "float32", False, 2 * 10**9))
    with pytest.raises(UserError, match="device=mps is not here"), pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.setattr(torch.backends.mps, "is_available", lambda: False)
        resolve(large.job)


def test_a_mac_trains_on_its_cores(mac, compose):
    job = compose("shape=w48-d2", "tokens=1e6")
    (trunk,) = make_trunks(job, 1024, "", "float32")
    found = resolve(job)
    assert (found.kind, precision(job)) == ("cpu", "float32")
    assert memory_bytes(found) == 16 * 2**30
    check_memory(trunk, memory_bytes(found))
    assert machine_slots([trunk]) == 8


def test_a_library_without_mallopt_is_left_alone(monkeypatch, compose):
    class LibSystem:
        def __getattr__(self, name):
            raise AttributeError(name)

    monkeypatch.setattr(ctypes, "CDLL", lambda name: LibSystem())
    keep_freed_memory.__wrapped__()
    monkeypatch.setattr(torch, "set_flush_denormal", lambda mode: False)  # as where a processor cannot
    monkeypatch.setattr(device_module, "keep_freed_memory", keep_freed_memory.__wrapped__)
    configure_process(compose("shape=w48-d2", "tokens=1e6"), Device(torch.device("cpu"), "float32", False))


def test_tokens_lie_on_an_apple_gpu_where_a_quarter_of_it_holds_them(mac):
    assert fits(10_670_000_000 // 4, torch.device("mps")) and not fits(10_670_000_000 // 4 + 1, torch.device("mps"))


def test_a_batch_is_not_freed_while_it_is_copied(monkeypatch):
    """The copy is not waited for from pinned memory only, which torch keeps until it is done."""
    asked = []
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device, **how: asked.append((device.type, how)))
    sent(torch.zeros(2), torch.device("mps"))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    sent(torch.zeros(2), torch.device("cuda"))
    assert asked == [("mps", {}), ("cuda", {"non_blocking": True})]
