"""Scaling laws: `fit` one to a run table, `combine` several by hold-outs, `audit` the estimates of others."""

from harness.laws.audit import Audit, audit
from harness.laws.combination import Combination, combine
from harness.laws.fit import Fit, fit

__all__ = ["Audit", "Combination", "Fit", "audit", "combine", "fit"]
