"""What a fit minimises: the sum over rows of a loss of the residual."""

from dataclasses import dataclass

import numpy as np

from harness.laws.forms import Array

LOSSES = ("huber", "lad", "log_mse", "mse")
# Least absolute deviations is solved as a Huber loss whose delta shrinks to the last of these.
LAD_DELTAS = tuple(2.0**-k for k in range(7, 24))


@dataclass(frozen=True)
class Loss:
    """huber and lad of the log residual, or its square (log_mse), or the square of the residual itself (mse).

    In natural units: huber is r^2/2 within delta and delta (|r| - delta/2) outside, lad |r|, the others r^2.
    """

    kind: str
    delta: float = 1e-3

    @property
    def in_logs(self) -> bool:
        return self.kind != "mse"

    @property
    def tolerance(self) -> float:
        """Of the relative gradient; the kink of lad is resolved to its last delta in float64."""
        return 1e-6 if self.kind == "lad" else 1e-8

    def stages(self) -> list["Loss"]:
        """The losses to minimise one after the other; the last one is the loss itself."""
        if self.kind == "lad":
            return [Loss("lad", delta) for delta in LAD_DELTAS]
        if self.kind == "huber":
            return [Loss("huber", delta) for delta in LAD_DELTAS[::3] if delta > 3 * self.delta] + [self]
        return [self]

    def value(self, residual: Array) -> Array:
        """The smooth loss that the solver descends; for lad the Huber loss divided by its delta."""
        if self.kind not in ("huber", "lad"):
            return residual * residual
        size = np.abs(residual)
        inner = np.minimum(size, self.delta)
        value = inner * (size - 0.5 * inner)
        return value / self.delta if self.kind == "lad" else value

    def natural(self, residual: Array) -> Array:
        return np.abs(residual) if self.kind == "lad" else self.value(residual)

    def slope(self, residual: Array) -> Array:
        if self.kind not in ("huber", "lad"):
            return 2 * residual
        slope = np.clip(residual, -self.delta, self.delta)
        return slope / self.delta if self.kind == "lad" else slope

    def curvature(self, residual: Array) -> Array:
        if self.kind not in ("huber", "lad"):
            return np.full_like(residual, 2.0)
        inside = (np.abs(residual) <= self.delta).astype(float)
        return inside / self.delta if self.kind == "lad" else inside

    def majorizer(self, residual: Array) -> Array:
        """slope / residual: the weight of the quadratic that touches the loss and lies above it."""
        if self.kind not in ("huber", "lad"):
            return np.full_like(residual, 2.0)
        size = np.maximum(np.abs(residual), self.delta)
        return 1 / size if self.kind == "lad" else self.delta / size
