"""Files of tensors that are whole or not there, and the models that they keep."""

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


def save_model(path: Path, model: Model, tokenizer_hash: str | None = None) -> None:
    """Keeps a model: its weights, shape and vocabulary, and which tokenizer's ids it knows."""
    weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    state = {"model": asdict(model.config), "vocab_size": model.vocab_size, "weights": weights}
    save(path, state | {"tokenizer": tokenizer_hash})


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
