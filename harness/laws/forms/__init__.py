"""The laws by name."""

from harness.errors import UserError
from harness.laws.forms.base import Array, Form, Variables, centred
from harness.laws.forms.chinchilla import Chinchilla, PowerLaw
from harness.laws.forms.penalized import Penalized
from harness.laws.forms.repeated import DataConstrained, Repeated
from harness.laws.forms.smooth import BrokenPowerLaw
from harness.laws.forms.sums import Joint, PowerSum

__all__ = ["FORMS", "Array", "Form", "Variables", "centred", "check_law"]

_FORMS: tuple[Form, ...] = (
    Chinchilla(),
    PowerLaw("kaplan_params", "params", "N"),
    PowerLaw("kaplan_tokens", "tokens", "D"),
    PowerLaw("kaplan_flops", "flops", "C"),
    PowerSum("kaplan_params_floor", "L = E + A / N^alpha", ("params",), ("E", "A", "alpha", 1.0)),
    PowerSum("kaplan_tokens_floor", "L = E + A / D^alpha", ("tokens",), ("E", "A", "alpha", 1.0)),
    PowerSum("kaplan_flops_floor", "L = E + A / C^alpha", ("flops",), ("E", "A", "alpha", 1.0)),
    Joint(
        "kaplan_joint",
        "L = ((Nc / N)^(alpha / beta) + Dc / D)^beta",
        ("params", "tokens"),
        (0.0, "A", "ratio", "B", 1.0, "beta"),
    ),
    PowerSum(
        "chinchilla_tied",
        "L = E + A / N^alpha + B / D^alpha",
        ("params", "tokens"),
        ("E", "A", "alpha", "B", "alpha", 1.0),
    ),
    # Also in Busbridge et al. 2025, arXiv 2502.08606, and OpenEuroLLM/dense_english_scaling_laws.
    PowerSum(
        "chinchilla_coupled",
        "L = E + (A / N^alpha + B / D^beta)^gamma",
        ("params", "tokens"),
        ("E", "A", "alpha", "B", "beta", "gamma"),
    ),
    PowerSum(
        "width_depth",
        "L = E + A / width^alpha + G / depth^gamma + B / D^beta",
        ("width", "depth", "tokens"),
        ("E", "A", "alpha", "G", "gamma", "B", "beta", 1.0),
    ),
    Repeated(),
    DataConstrained(),
    Penalized(),
    BrokenPowerLaw("broken_params", "params", "N"),
    BrokenPowerLaw("broken_tokens", "tokens", "D"),
    BrokenPowerLaw("broken_flops", "flops", "C"),
)
FORMS: dict[str, Form] = {form.name: form for form in _FORMS}


def check_law(law: str) -> None:
    """Raises UserError for a name that is no law's."""
    if law not in FORMS:
        *names, last = FORMS
        raise UserError(f"law={law} is not known: choose {', '.join(names)} or {last}")
