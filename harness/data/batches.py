"""Batches of training rows as a pure function of tokens, seed and number."""

import numpy as np
import torch

from harness.data.tokens import LONGEST_SEQUENCE, WINDOW_TOKENS


class Batches:
    """Row r of T tokens: inputs tokens[rT : rT+T], targets tokens[rT+1 : rT+T+1].

    tokens           one-dimensional uint16 or uint32; on an accelerator they are resident there
    batch_sequences  B, the rows of a batch

    Every epoch has every row once. Epoch 0 shuffles inside windows of WINDOW_TOKENS tokens, so that its order does
    not change when tokens are appended; later epochs shuffle all rows. A batch may span two epochs.
    """

    def __init__(
        self, tokens: np.ndarray, seq_len: int, batch_sequences: int, seed: int, device: torch.device | str
    ) -> None:
        assert WINDOW_TOKENS % seq_len == 0 or seq_len <= LONGEST_SEQUENCE
        self.rows_NT = rows_of(tokens, seq_len, device)
        self.rows = len(self.rows_NT)
        self.window_rows = max(1, WINDOW_TOKENS // seq_len)
        self.batch_sequences = batch_sequences
        self.mask = 2 ** (8 * tokens.dtype.itemsize) - 1
        self.seed = seed
        self.orders: dict[int, torch.Tensor] = {}

    def batch(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(inputs_BT, targets_BT), int64 on the device; the host never waits for it."""
        start = i * self.batch_sequences
        parts = []
        while start < (i + 1) * self.batch_sequences:
            epoch, first = divmod(start, self.rows)
            last = min(self.rows, first + (i + 1) * self.batch_sequences - start)
            parts.append(self._order(epoch)[first:last])
            start += last - first
        rows_B = parts[0] if len(parts) == 1 else torch.cat(parts)
        batch_BT = widen(self.rows_NT[rows_B], self.mask)
        return batch_BT[:, :-1].contiguous(), batch_BT[:, 1:].contiguous()

    def _order(self, epoch: int) -> torch.Tensor:
        if epoch not in self.orders:
            order = epoch_order(self.rows, self.window_rows, self.seed, epoch)
            self.orders = {e: kept for e, kept in self.orders.items() if e == epoch - 1}
            self.orders[epoch] = torch.from_numpy(order).to(self.rows_NT.device)
        return self.orders[epoch]


def rows_of(tokens: np.ndarray, seq_len: int, device: torch.device | str) -> torch.Tensor:
    """All rows with their targets, (N, seq_len + 1), as an overlapping view of the tokens; `widen` makes them ids.

    Signed integers of the same size stand in for the unsigned ones, which torch does not gather.
    """
    signed = tokens.view(np.int16 if tokens.dtype.itemsize == 2 else np.int32)
    resident = torch.from_numpy(np.asarray(signed)).to(device)
    assert len(resident) > seq_len, "fewer tokens than one row"
    return resident.unfold(0, seq_len + 1, seq_len)


def widen(tokens: torch.Tensor, mask: int) -> torch.Tensor:
    """int64 ids from their signed stand-ins; `mask` has the bits of the stored type."""
    return tokens.to(torch.int64).bitwise_and_(mask)


def epoch_order(rows: int, window_rows: int, seed: int, epoch: int) -> np.ndarray:
    """The rows in the order of an epoch, (rows,) int64: a sort by splitmix64 of (seed, epoch, row), ours for ever,
    where a library's generator may change with its version."""
    key = splitmix64(splitmix64(np.array([seed % 2**64], np.uint64)) ^ np.uint64(epoch))
    keys = splitmix64(splitmix64(np.arange(rows, dtype=np.uint64)) ^ key)
    if epoch > 0:
        return np.argsort(keys, kind="stable")
    whole = rows // window_rows * window_rows
    starts = np.arange(0, whole, window_rows)[:, None]
    inside = np.argsort(keys[:whole].reshape(-1, window_rows), axis=1, kind="stable")
    tail = whole + np.argsort(keys[whole:], kind="stable")
    return np.concatenate([(starts + inside).reshape(-1), tail])


def splitmix64(state: np.ndarray) -> np.ndarray:
    """The first output of Steele, Lea and Flood's generator (2014) started at each state; uint64."""
    z = state + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
