"""A whole step over tensors that stay where they are, which a GPU replays as one graph where its host is too slow.

A step of a small model is hundreds of launches of some microseconds each, and the GPU waits for the host. What differs
from step to step, the batch's rows and the learning rates, lies in the device's memory, where the host puts it before
each; all the rest is captured once and launched as one.
"""

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from harness.data.batches import Batches
from harness.training.device import Device
from harness.training.optimizer import Optimizer

# Of each trainer: steps that compile and fill caches, then steps that are timed one by one.
WARM_STEPS, TIMED_STEPS = 2, 5
SETTLED = WARM_STEPS + TIMED_STEPS + 1  # steps after which nothing is tried any more
# Of a step, the time in which it is enqueued. A host that needs less keeps ahead of the GPU even when others slow it to
# half its speed, and a graph would gain nothing.
LAUNCH_BOUND = 0.5


class Graph(Protocol):
    """What torch.cuda.CUDAGraph offers."""

    def replay(self) -> None: ...
    def reset(self) -> None: ...


Capture = Callable[[Callable[[], None], Device], Graph]
Plain = Callable[[int, float], torch.Tensor]  # a step by its number and the factor of its rate; the gradients' norm
# Loss and norm of inputs and targets; the gradients, clipped, are left in the parameters.
Gradients = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def captured(run: Callable[[], None], device: Device) -> Graph:
    """`run` as a CUDA graph, after a first call on the stream that is captured, where libraries take what they need.

    Raises what cannot be captured; the memory that the graph took is free then.
    """
    gpu = device.torch_device
    current, side = torch.cuda.current_stream(gpu), torch.cuda.Stream(gpu)
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    side.wait_stream(current)
    try:
        with torch.cuda.stream(side):  # a capture that fails would leave the side stream the current one
            run()
            with torch.cuda.graph(graph, pool=pool, stream=side):
                run()
    except Exception:
        with contextlib.suppress(RuntimeError):  # of a capture that never began, or that torch ended itself
            torch._C._cuda_endAllocateToPool(gpu.index, pool)
            torch._C._cuda_releasePool(gpu.index, pool)
        raise
    finally:
        current.wait_stream(side)
    return graph


class StepGraph:
    """How a trainer takes its steps on a GPU: plainly, and by replays of one graph where launches take their time.

    batches, parameters, optimizer, loss_sum   the trainer's, all where they stay
    note       is told in one line what this device does not do

    A plain step and a replay end in the same bits: a graph that does not is given up.
    """

    def __init__(
        self, device: Device, batches: Batches, parameters: Sequence[nn.Parameter], optimizer: Optimizer,
        loss_sum: torch.Tensor, note: Callable[[str], None], capture: Capture = captured,
    ):  # fmt: skip
        self.device, self.batches, self.parameters, self.optimizer = device, batches, parameters, optimizer
        self.loss_sum, self.note, self.capture = loss_sum, note, capture
        optimizer.hold_rates()
        self.graph: Graph | None = None
        self.wanted: bool | None = None  # None until enough steps are timed
        self.warm, self.shares = 0, list[float]()
        # The whole step reads its batch from the first and leaves the norm of its gradients in the second.
        self.drawn: torch.Tensor | None = None
        self.norm: torch.Tensor | None = None

    def take(self, step: int, factor: float, plain: Plain, gradients: Gradients) -> torch.Tensor:
        """One step of training; the norm of its gradients before clipping. The host waits in the first few alone.

        The two functions are the trainer's, which must not be held here: it is freed when its last user lets it go.
        """
        if self.graph is not None:
            self._replay(step, factor)
            assert self.norm is not None
            return self.norm
        if self.wanted is None:
            return self._timed(step, factor, plain)
        norm = plain(step, factor)
        if self.wanted:
            self._try(step, factor, plain, gradients)
        return norm

    def release(self) -> None:
        """Frees what a graph holds, the memory of a step, for what comes between steps; the next one captures anew."""
        held, self.graph = self.graph, None
        self.drawn = self.norm = None
        if held is not None:
            self.device.synchronize()
            held.reset()
        self.device.release()

    def _whole(self, gradients: Gradients) -> None:
        """One step, in which all that differs from step to step is read from the device's memory."""
        assert self.drawn is not None
        loss, self.norm = gradients(*self.batches.read(self.drawn))
        self.optimizer.update()
        self.loss_sum += loss

    def _replay(self, step: int, factor: float) -> None:
        assert self.graph is not None and self.drawn is not None
        self.drawn.copy_(self.batches.drawn(step))
        self.optimizer.set_rates(factor)
        self.graph.replay()

    def _timed(self, step: int, factor: float, plain: Plain) -> torch.Tensor:
        """A plain step; the last of those that are timed decides whether a graph is wanted."""
        if self.warm < WARM_STEPS:
            self.warm += 1
            return plain(step, factor)
        self.device.synchronize()
        began = time.perf_counter()
        norm = plain(step, factor)
        enqueued = time.perf_counter() - began
        self.device.synchronize()
        self.shares.append(enqueued / (time.perf_counter() - began))
        if len(self.shares) == TIMED_STEPS:
            self.wanted = statistics.median(self.shares) > LAUNCH_BOUND
        return norm

    def _try(self, step: int, factor: float, plain: Plain, gradients: Gradients) -> None:
        """Captures a graph, kept where a replay ends in the bits of a plain step from here; both are undone."""
        tensors = [*self.parameters, *self.optimizer.tensors(), self.loss_sum]
        kept, why = None, ""
        try:
            kept = _copies(tensors)
            plain(step, factor)
            expected = _copies(tensors)
            # What is captured with other rows and rates than it is replayed with must read them to end alike.
            self.drawn = torch.zeros_like(self.batches.drawn(step))
            self.optimizer.set_rates(0.0)
            self.graph = self.capture(lambda: self._whole(gradients), self.device)
            _put_back(tensors, kept)
            self._replay(step, factor)
            if not _same_bits(tensors, expected):
                why = "a replay ends in other bits than the step"
        except Exception as error:
            why = "; then ".join(_said(one) for one in (error.__context__, error) if one is not None)
        # out of the handler, whose exception holds the tensors of the step
        if kept is not None:
            _put_back(tensors, kept)
        if why:
            self.wanted = False
            for parameter in self.parameters:
                parameter.grad = None
            self.release()
            self.note(
                f"a step cannot be replayed as a CUDA graph here ({why}): its kernels are launched one by one, slower, "
                "to the same bits"
            )


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _copies(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


@torch.no_grad()
def _put_back(tensors: Sequence[torch.Tensor], kept: Sequence[torch.Tensor]) -> None:
    for tensor, value in zip(tensors, kept, strict=True):
        tensor.copy_(value)


def _same_bits(tensors: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> bool:
    """Of float32 tensors; a value that is no number is like itself."""
    pairs: Any = zip(tensors, others, strict=True)
    return all(torch.equal(one.detach().view(torch.int32), other.view(torch.int32)) for one, other in pairs)
