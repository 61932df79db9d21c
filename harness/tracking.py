"""W&B as a mirror of a sweep's local files: what a training process does for it, which is next to nothing."""

from dataclasses import dataclass

from harness.errors import UserError

MODES = ("auto", "online", "offline", "none")


@dataclass
class TrackingConfig:
    """auto: online with an API key, offline without one; WANDB_MODE decides first where it is set."""

    mode: str = "auto"  # auto | online | offline | none
    project: str = "scaling"
    entity: str | None = None

    def check(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"tracking.mode={self.mode} is not known: choose auto, online, offline or none")
