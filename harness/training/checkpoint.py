"""Checkpoints that are whole or not there, and kept models."""

import hashlib
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from harness.errors import UserError
from harness.files import write_atomically
from harness.model.config import ModelConfig
from harness.model.make import Model, make_model

DIGEST_BYTES = hashlib.sha256().digest_size


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes `state`, tensors and plain values, atomically: its SHA-256, then torch's format."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    write_atomically(path, hashlib.sha256(payload).digest() + payload)


def load(path: Path) -> dict[str, Any] | None:
    """The state at `path`, on the CPU, or None where there is none or it is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    payload = content[DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != content[:DIGEST_BYTES]:
        return None
    return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)


def step_of(path: Path) -> int:
    return int(path.stem.split("-")[1])


def newest_step(folder: Path) -> int:
    """Of a trunk's checkpoints; 0 without one."""
    return max(map(step_of, folder.glob("step-*.pt")), default=0)


class TrunkCheckpoints:
    """The checkpoints of one trunk by step: those at branches stay, of the others the last two."""

    def __init__(self, folder: Path, branch_steps: set[int]):
        self.folder, self.branch_steps = folder, branch_steps

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step}.pt"

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"), key=step_of)

    def save(self, step: int, state: dict[str, Any]) -> None:
        save(self.path(step), state)
        passing = [path for path in self._paths() if step_of(path) not in self.branch_steps]
        for path in passing[:-2]:
            path.unlink()

    def load_up_to(self, step: int, beyond: int = 0) -> dict[str, Any] | None:
        """The newest undamaged state at or before `step`, and after `beyond`; None where there is none."""
        for path in reversed(self._paths()):
            if beyond < step_of(path) <= step and (state := load(path)) is not None:
                return state
        return None


def save_model(path: Path, model: Model) -> None:
    """Keeps a model: its weights, shape and vocabulary."""
    weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    save(path, {"model": asdict(model.config), "vocab_size": model.vocab_size, "weights": weights})


def load_model(path: Path) -> Model:
    """The model that save_model=true kept at `path` (runs/<cell>/model.pt), on the CPU, in evaluation mode.

    Raises UserError where the file is missing or damaged.
    """
    state = load(path)
    if state is None:
        raise UserError(f"{path} is missing or damaged: train the cell again with save_model=true")
    model = make_model(ModelConfig(**state["model"]), state["vocab_size"])
    model.load_state_dict(state["weights"])
    return model.eval()
