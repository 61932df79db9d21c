"""Batches of training rows as a pure function of tokens, seed and number."""

import warnings

import numpy as np
import torch

from harness.data.tokens import LONGEST_SEQUENCE, WINDOW_TOKENS


class Batches:
    """Row r of T tokens: inputs tokens[rT : rT+T], targets tokens[rT+1 : rT+T+1].

    tokens           one-dimensional uint16 or uint32; where they are a file, only what the batches need is read of it
    batch_sequences  B, the rows of a batch

    Every epoch has every row once. Epoch 0 shuffles inside windows of WINDOW_TOKENS tokens, so that its order does
    not change when tokens are appended; later epochs shuffle all rows. A batch may span windows and epochs.
    """

    def __init__(
        self, tokens: np.ndarray, seq_len: int, batch_sequences: int, seed: int, device: torch.device | str
    ) -> None:
        assert WINDOW_TOKENS % seq_len == 0 or seq_len <= LONGEST_SEQUENCE
        self.device = torch.device(device)
        self.resident = fits(tokens.nbytes, self.device)
        self.rows_NT = rows_of(tokens, seq_len, self.device if self.resident else "cpu")
        self.rows = len(self.rows_NT)
        self.window_rows = max(1, WINDOW_TOKENS // seq_len)
        self.batch_sequences = batch_sequences
        self.mask = 2 ** (8 * tokens.dtype.itemsize) - 1
        self.seed = seed
        self.orders: dict[tuple[int, int], torch.Tensor] = {}

    def batch(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(inputs_BT, targets_BT), int64 on the device; the host never waits for it."""
        return self.read(self.drawn(i))

    def drawn(self, i: int) -> torch.Tensor:
        """Of batch i what the host knows: the numbers of its rows where the tokens lie on the device, else the rows."""
        start, end = i * self.batch_sequences, (i + 1) * self.batch_sequences
        parts = []
        while start < end:
            epoch, row = divmod(start, self.rows)
            window = row // self.window_rows if epoch == 0 else 0
            order = self._order(epoch, window)
            first = row - window * self.window_rows
            parts.append(order[first : first + end - start])
            start += len(parts[-1])
        rows_B = parts[0] if len(parts) == 1 else torch.cat(parts)
        return rows_B if self.resident else sent(self.rows_NT[rows_B], self.device)

    def read(self, drawn: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The batch of what was drawn; nothing but operations on the device."""
        batch_BT = widen(self.rows_NT[drawn] if self.resident else drawn, self.mask)
        return batch_BT[:, :-1].contiguous(), batch_BT[:, 1:].contiguous()

    def _order(self, epoch: int, window: int) -> torch.Tensor:
        """A window of epoch 0, or a whole later epoch; the one before it is kept for the batch that spans both."""
        if (epoch, window) not in self.orders:
            order = window_order(self.rows, self.window_rows, self.seed, epoch, window)
            self.orders = dict(list(self.orders.items())[-1:])
            self.orders[epoch, window] = torch.from_numpy(order).to(self.rows_NT.device)
        return self.orders[epoch, window]


def fits(token_bytes: int, device: torch.device) -> bool:
    """Whether an accelerator may hold all tokens: a quarter of its free memory leaves the training room."""
    if device.type == "cuda":
        return token_bytes <= torch.cuda.mem_get_info(device)[0] // 4
    return device.type != "mps" or token_bytes <= torch.mps.recommended_max_memory() // 4


def sent(batch_BT: torch.Tensor, device: torch.device) -> torch.Tensor:
    """On the device; to a CUDA GPU from pinned memory, so that the host does not wait for the copy.

    Elsewhere it does: what is copied is freed as soon as this returns.
    """
    if device.type == "cuda":
        return batch_BT.pin_memory().to(device, non_blocking=True)
    return batch_BT.to(device)


def rows_of(tokens: np.ndarray, seq_len: int, device: torch.device | str) -> torch.Tensor:
    """All rows with their targets, (N, seq_len + 1), as an overlapping view of the tokens; `widen` makes them ids.

    Signed integers of the same size stand in for the unsigned ones, which torch does not gather.
    """
    signed = tokens.view(np.int16 if tokens.dtype.itemsize == 2 else np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of memory that cannot be written to; nothing writes to it
        resident = torch.from_numpy(np.asarray(signed)).to(device)
    assert len(resident) > seq_len, "fewer tokens than one row"
    return resident.unfold(0, seq_len + 1, seq_len)


def widen(tokens: torch.Tensor, mask: int) -> torch.Tensor:
    """int64 ids from their signed stand-ins; `mask` has the bits of the stored type."""
    return tokens.to(torch.int64).bitwise_and_(mask)


def window_order(rows: int, window_rows: int, seed: int, epoch: int, window: int) -> np.ndarray:
    """The rows of a window of epoch 0, or for window 0 of a later epoch all rows, in its order; int64.

    A sort by splitmix64 of (seed, epoch, row), ours for ever, where a library's generator may change with its version.
    """
    start = window * window_rows if epoch == 0 else 0
    stop = min(start + window_rows, rows) if epoch == 0 else rows
    key = splitmix64(splitmix64(np.array([seed % 2**64], np.uint64)) ^ np.uint64(epoch))
    keys = splitmix64(splitmix64(np.arange(start, stop, dtype=np.uint64)) ^ key)
    return start + np.argsort(keys, kind="stable")


def splitmix64(state: np.ndarray) -> np.ndarray:
    """The first output of Steele, Lea and Flood's generator (2014) started at each state; uint64."""
    z = state + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
