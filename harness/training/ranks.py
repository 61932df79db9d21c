"""The processes that train one trunk together, its ranks: what each takes of a batch, and the sum of their gradients.

Rank 0 runs the trunk as a process alone would, writes all that is written, and tells the others each thing that its
trainer does. So whether to stop, to save or to go on is never a matter of agreement.
"""

import datetime
import io
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from harness.errors import UserError
from harness.training.device import Device

# A rank that has not come so far ends all of them; the first step compiles, and not everywhere equally fast.
LATE = datetime.timedelta(minutes=30)


class Lost(BaseException):
    """Another rank is gone. No Exception, so that no cell counts as failed by it."""


class Apart(UserError):
    """The ranks cannot be joined."""


@dataclass(frozen=True)
class Ranks:
    """The place of this process among `size`.

    others: in rank 0, where it tells each what to do; halved: whether a step of theirs did not fit into memory before,
    failed: the cells that did not even with half the micro-batch.
    """

    rank: int
    size: int
    others: Sequence[Connection] = ()
    halved: bool = False
    failed: frozenset[str] = frozenset()

    def part(self, batch_BT: Tensor) -> Tensor:
        """This rank's rows of a batch; parts differ by at most one row."""
        first, end = (len(batch_BT) * rank // self.size for rank in (self.rank, self.rank + 1))
        return batch_BT[first:end]

    def tell(self, what: str, *arguments: Any) -> None:
        """Has every other rank call that method of its trainer, or make one for `trainer`; nothing but in rank 0."""
        try:
            for other in self.others:
                other.send((what, arguments))
        except OSError as error:
            raise Lost from error

    def tell_state(self, state: dict[str, Any]) -> None:
        """Has the others restore `state`; as bytes, since tensors would take shared memory."""
        if self.others:
            content = io.BytesIO()
            torch.save(state, content)
            self.tell("restore", content.getvalue())

    def sum(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
        """Adds up the gradients, and the loss, of all ranks in one all-reduce; the loss of the whole batch."""
        parts = [parameter.grad for parameter in parameters if parameter.grad is not None] + [loss]
        assert len(parts) == len(parameters) + 1
        flat = torch.cat([part.flatten() for part in parts])
        with lost_ranks():
            dist.all_reduce(flat)
        *grads, loss = flat.split([part.numel() for part in parts])
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad.view_as(parameter)
        return loss.view(())


@contextmanager
def lost_ranks() -> Iterator[None]:
    """Within it the error of a collective operation is another rank's end."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise Lost from error


def connect(ranks: Ranks, device: Device, file: Path) -> None:
    """Joins the ranks of one machine, by NCCL on GPUs and else by gloo; `file` is theirs alone.

    Raises Apart where that fails.
    """
    backend = "nccl" if device.kind == "cuda" else "gloo"
    loopback = {name for _, name in socket.if_nameindex()} & {"lo", "lo0"}
    if loopback:  # a host's name may lead to an address that it has not
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback.pop())
    try:
        store = dist.FileStore(str(file), ranks.size)
        dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.size, timeout=LATE)
        one = torch.ones((), device=device.torch_device)
        dist.all_reduce(one)  # NCCL connects here
        device.synchronize()
    except RuntimeError as error:
        said = " ".join(str(error).split())[:200]
        name = "NCCL" if backend == "nccl" else backend
        raise Apart(f"gpus={ranks.size}: {name} cannot connect them here ({said}): set gpus=1") from error
