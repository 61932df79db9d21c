"""Scaling laws: `fit` one to a run table, `by_loss` under all losses, `combine` several, `audit` those of others,
`compare` variants, `tune` settings of training, `audit_settings` other rules."""

from harness.laws.checks.audit import Audit, audit
from harness.laws.compare import Comparison, compare
from harness.laws.fit import Fit, by_loss, fit
from harness.laws.prediction.combination import Combination, combine
from harness.laws.tune import Tuned, audit_settings, tune

__all__ = [
    "Audit", "Combination", "Comparison", "Fit", "Tuned", "audit", "audit_settings", "by_loss", "combine", "compare",
    "fit", "tune",
]  # fmt: skip
