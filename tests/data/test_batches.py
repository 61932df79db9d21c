import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from harness.data.batches import Batches, epoch_order, splitmix64


def test_splitmix64_has_its_published_values():
    """Rosetta Code, "Pseudo-random numbers/Splitmix64", seed 1234567: the state grows by 0x9e3779b97f4a7c15."""
    states = np.array([1234567, (1234567 + 0x9E3779B97F4A7C15) % 2**64], np.uint64)
    assert splitmix64(states).tolist() == [6457827717110365317, 3203168211198807973]


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
