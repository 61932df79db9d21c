"""Scaling laws fitted to a run table: `from harness.laws import fit`, and those of others judged: `audit`."""

from harness.laws.audit import Audit, audit
from harness.laws.fit import Fit, fit

__all__ = ["Audit", "Fit", "audit", "fit"]
