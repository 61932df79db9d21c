"""Scaling laws fitted to a run table: `from harness.laws import fit`."""

from harness.laws.fit import Fit, fit

__all__ = ["Fit", "fit"]
