"""Checkpoints that are whole or not there, and kept models."""

from pathlib import Path
from typing import Any

from harness.model.kept import load, load_model, save, save_model

__all__ = ["TrunkCheckpoints", "load", "load_model", "newest_step", "save", "save_model", "step_of"]


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
