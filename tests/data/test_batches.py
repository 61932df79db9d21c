import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from harness.data import batches as module
from harness.data.batches import Batches, fits, splitmix64, window_order


def test_splitmix64_has_its_published_values():
    """Rosetta Code, "Pseudo-random numbers/Splitmix64", seed 1234567: the state grows by 0x9e3779b97f4a7c15."""
    states = np.array([1234567, (1234567 + 0x9E3779B97F4A7C15) % 2**64], np.uint64)
    assert splitmix64(states).tolist() == [6457827717110365317, 3203168211198807973]


def epoch_order(rows: int, window_rows: int, seed: int, epoch: int) -> np.ndarray:
    windows = -(-rows // window_rows) if epoch == 0 else 1
    return np.concatenate([window_order(rows, window_rows, seed, epoch, window) for window in range(windows)])


def test_the_order_is_the_same_for_ever():
    """Runs that are to be repeated, or gone on with, depend on it."""
    assert epoch_order(10, 4, 0, 0).tolist() == [2, 3, 0, 1, 6, 5, 4, 7, 8, 9]
    assert epoch_order(10, 4, 0, 1).tolist() == [3, 2, 7, 5, 4, 1, 8, 6, 9, 0]


def test_rows_and_their_targets():
    """9 tokens hold two rows of 4 and one target more; the batch has both, in the order of the epoch."""
    batches = Batches(np.arange(10, 19, dtype=np.uint16), 4, 2, seed=0, device="cpu")
    inputs_BT, targets_BT = batches.batch(0)
    assert sorted(inputs_BT.tolist()) == [[10, 11, 12, 13], [14, 15, 16, 17]]
    assert sorted(targets_BT.tolist()) == [[11, 12, 13, 14], [15, 16, 17, 18]]
    assert inputs_BT.dtype == targets_BT.dtype == torch.int64
    assert inputs_BT.is_contiguous() and targets_BT.is_contiguous()


@pytest.mark.parametrize(("dtype", "largest"), [(np.uint16, 65535), (np.uint32, 200_018)])
def test_large_ids_survive(dtype, largest):
    inputs_BT, targets_BT = Batches(np.array([1, largest, 2], dtype), 2, 1, 0, "cpu").batch(0)
    assert inputs_BT.tolist() == [[1, largest]] and targets_BT.tolist() == [[largest, 2]]


def first_tokens(batches: Batches, numbers: range) -> list[int]:
    return torch.cat([batches.batch(i)[0][:, 0] for i in numbers]).tolist()


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(1, 40), batch=st.integers(1, 60), epochs=st.integers(1, 4), seed=st.integers(0, 2**63))
def test_every_row_once_an_epoch(rows, batch, epochs, seed):
    tokens = np.arange(rows * 3 + 1, dtype=np.uint16)
    batches = Batches(tokens, 3, batch, seed, "cpu")
    seen = first_tokens(batches, range(-(-rows * epochs // batch)))
    for epoch in range(epochs):
        assert sorted(seen[epoch * rows : (epoch + 1) * rows]) == list(range(0, rows * 3, 3))


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(1, 40), batch=st.integers(1, 60), seed=st.integers(0, 9), resident=st.booleans())
def test_batches_go_through_windows_and_epochs_in_order(rows, batch, seed, resident):
    """Windows of 12 tokens hold 4 rows of 3."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WINDOW_TOKENS", 12)
        patch.setattr(module, "fits", lambda size, device: resident)
        batches = Batches(np.arange(rows * 3 + 1, dtype=np.uint16), 3, batch, seed, "cpu")
        seen = first_tokens(batches, range(-(-rows * 2 // batch)))
    expected = np.concatenate([epoch_order(rows, 4, seed, epoch) for epoch in (0, 1)]) * 3
    assert seen[: rows * 2] == expected.tolist()


def test_tokens_that_do_not_fit_stay_where_they_are(monkeypatch):
    """The device "meta" has no memory at all: what is there was sent there."""
    monkeypatch.setattr(module, "fits", lambda size, device: False)
    batches = Batches(np.arange(101, dtype=np.uint16), 4, 3, 0, "meta")
    assert batches.rows_NT.device.type == "cpu"
    inputs_BT, targets_BT = batches.batch(0)
    assert (inputs_BT.device.type, inputs_BT.shape, targets_BT.dtype) == ("meta", (3, 4), torch.int64)


def test_a_quarter_of_the_free_memory_may_hold_tokens(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4000, 9000))
    assert fits(1000, torch.device("cuda")) and not fits(1001, torch.device("cuda"))
    assert fits(10**15, torch.device("cpu"))


LARGE = """
import hashlib, os, resource, sys
import numpy as np
from harness.data.batches import Batches
from harness.data.token_file import CHUNK_BYTES, Extent, open_tokens
from pathlib import Path
path, size = Path(sys.argv[1]), int(sys.argv[2])
first, zeros, last = (
    hashlib.sha256(part).hexdigest()
    for part in (open(path, "rb").read(CHUNK_BYTES), bytes(CHUNK_BYTES), bytes(size % CHUNK_BYTES))
)
extent = Extent(1, size // 2, 1, [first] + [zeros] * (size // CHUNK_BYTES - 1) + [last])
tokens = open_tokens(path, np.dtype("<u2"), extent)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
batches = Batches(tokens, 128, 64, 0, "cpu")
total = sum(int(batches.batch(i)[0].sum()) for i in range(300))
print(total, len(tokens), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_store_larger_than_memory(tmp_path):
    """A sparse file: zeros, but for 128 tokens of 7 at the start of the second window. 300 batches of 64 rows of 128
    are 2.3 windows, 5 MB."""
    size = (os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**26 + 16) * 2**26 + 2**20
    path = tmp_path / "train.bin"
    with open(path, "wb") as file:
        file.truncate(size)
        file.seek(2 * 2**20)
        file.write(np.full(128, 7, np.uint16).tobytes())
    try:
        command = [sys.executable, "-c", LARGE, str(path), str(size)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    finally:
        path.unlink()
    assert done.returncode == 0 and done.stderr == "", done.stderr
    total, count, kilobytes = (int(word) for word in done.stdout.split())
    assert (total, count) == (7 * 128, size // 2)
    assert kilobytes < 100_000


@settings(max_examples=20, deadline=None)
@given(numbers=st.lists(st.integers(0, 50), min_size=1, max_size=10), seed=st.integers(0, 5))
def test_a_batch_depends_on_its_number_only(numbers, seed):
    tokens = np.arange(101, dtype=np.uint16)
    visited = Batches(tokens, 4, 3, seed, "cpu")
    for number in numbers:
        fresh = Batches(tokens, 4, 3, seed, "cpu").batch(number)
        assert all(torch.equal(a, b) for a, b in zip(visited.batch(number), fresh, strict=True))


@settings(max_examples=50, deadline=None)
@given(window=st.integers(1, 9), windows=st.integers(1, 5), more=st.integers(0, 30), seed=st.integers(0, 9))
def test_growth_leaves_the_order_of_whole_windows(window, windows, more, seed):
    before = epoch_order(window * windows, window, seed, 0)
    after = epoch_order(window * windows + more, window, seed, 0)
    assert after[: window * windows].tolist() == before.tolist()
    assert sorted(after.tolist()) == list(range(window * windows + more))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [epoch_order(1000, 500, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({tuple(order) for order in orders}) == 6
    assert max(orders[0][:500]) == 499  # epoch 0 stays in its window
    assert max(orders[1][:500]) > 499  # later epochs do not


def test_order_is_uniform():
    """1000 seeds of 4 rows: each of 24 orders is expected 41.7 times; chi-squared with 23 degrees of freedom exceeds
    49.7 with probability .001."""
    counts = np.zeros(256)
    for seed in range(1000):
        counts[int(epoch_order(4, 4, seed, 0) @ [64, 16, 4, 1])] += 1
    counts = counts[counts > 0]
    assert len(counts) == 24
    assert ((counts - 1000 / 24) ** 2 / (1000 / 24)).sum() < 49.7


class Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def test_a_batch_never_makes_the_host_wait():
    batches = Batches(np.arange(1001, dtype=np.uint16), 10, 7, 0, "cpu")
    batches.batch(0)
    batches.batch(14)  # spans epochs 0 and 1, whose orders are now on the device
    with Operations() as operations:
        for i in (0, 1, 13, 14):
            batches.batch(i)
    assert any("index" in name for name in operations.names)
    assert not [name for name in operations.names if "_local_scalar_dense" in name or "nonzero" in name]
