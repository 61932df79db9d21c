"""A CUDA graph's stand-in on a CPU: the operations of a function, recorded once and run again on the same memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.training.device import Device


def tensors_of(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class RecordedGraph(TorchDispatchMode):
    """Numbers of Python are kept as they are when it records, and what waits for the device is refused, as by CUDA.

    Only operations of torch are seen: no loops of ours, which a model in bf16 does not use.
    """

    def __init__(self):
        super().__init__()
        self.calls: list[tuple] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        out = function(*args, **(kwargs or {}))
        made = [] if function._schema.is_mutable else tensors_of(out)
        taken = {tensor.untyped_storage()._cdata for tensor in tensors_of((args, kwargs))}
        if not any(tensor.untyped_storage()._cdata in taken for tensor in made):  # a view sees its memory
            self.calls.append((function, args, kwargs or {}, made))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        for function, args, kwargs, made in self.calls:
            out = function(*args, **kwargs)
            for old, new in zip(made, tensors_of(out) if made else (), strict=True):
                old.copy_(new)

    def reset(self) -> None:
        self.calls.clear()


def recorded(run: Callable[[], None], device: Device) -> RecordedGraph:
    graph = RecordedGraph()
    run()
    with graph:
        run()
    return graph
