"""coordinates.json of a sweep whose claim is the transfer of rates: how far every part of its models moves at first."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.config import TrainConfig
from harness.files import write_atomically
from harness.grid import Trunk

NAME = "coordinates.json"
QUANTITY = "transfer"


def write_coordinates(folder: Path, job: TrainConfig, trunks: Sequence[Trunk]) -> None:
    """Writes what a few steps do to the shapes of a sweep, before they are trained, where its claim asks for it."""
    if job.claim is None or job.claim.get("quantity") != QUANTITY:
        return
    from harness.training.coordinates import STEPS, TOKENS, coordinates  # torch's models, which others need later

    rate = float(np.median([trunk.learning_rate for trunk in trunks]))
    content = {"schema": 1, "learning_rate": rate, "steps": STEPS, "tokens": TOKENS, "rows": coordinates(trunks, rate)}
    write_atomically(folder / NAME, json.dumps(content, indent=1) + "\n")
