"""The laws as functions of centred log variables, batched over many parameter vectors at once.

Shapes: M parameter vectors, R rows, P parameters, K variables. A new form is one class of this package or one
PowerSum.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError

Array = NDArray[np.float64]

SMALLEST_EXPONENT, LARGEST_EXPONENT = 1e-3, 4.0
# Profiled over this grid, the remaining parameters are linear (variable projection).
EXPONENT_GRID = np.array([0.07, 0.16, 0.29, 0.43, 0.62, 0.9, 1.4])


@dataclass(frozen=True)
class Variables:
    """Centred logs of the variables, x_KR, with their centres and the geometric mean of the loss."""

    x_KR: Array
    centre_K: Array
    scale: float

    def at(self, *values: Array) -> "Variables":
        """The same centring, other rows; `values` are the K variables in natural units."""
        x_KR = np.log(np.stack([np.asarray(value, float) for value in values])) - self.centre_K[:, None]
        return Variables(x_KR, self.centre_K, self.scale)

    def rows(self, keep_R: NDArray[np.bool_] | NDArray[np.intp] | slice) -> "Variables":
        return Variables(self.x_KR[:, keep_R], self.centre_K, self.scale)


@dataclass(frozen=True)
class Pinned:
    """A form with some internal parameters held at values."""

    form: "Form"
    values: dict[str, float]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.form, name)

    def bounds(self) -> tuple[Array, Array]:
        low_P, high_P = self.form.bounds()
        for name, value in self.values.items():
            low_P[self.form.internal.index(name)] = high_P[self.form.internal.index(name)] = value
        return low_P, high_P


def with_fixed(form: "Form", fixed: Mapping[str, float], at: Variables) -> "Form":
    """The form with quoted parameters held at known values.

    Raises UserError for a name that it does not have, and for one whose internal value follows from a free one too.
    """
    unknown = [name for name in fixed if name not in form.internal]
    if unknown:
        raise UserError(f"fixed: {form.name} has no parameter {unknown[0]}: give some of {', '.join(form.internal)}")
    quoted = form.natural(np.ones((1, len(form.internal))), at)
    first_P, second_P = (form.from_natural(dict.fromkeys(quoted, free) | dict(fixed), at) for free in (1.0, 2.0))
    values = {}
    for name in fixed:
        value, other = (float(theta_P[form.internal.index(name)]) for theta_P in (first_P, second_P))
        if value != other:
            raise UserError(f"fixed: {name} of {form.name} can be held only beside its exponent: fix that too")
        values[name] = value
    return Pinned(form, values)


def centred(loss_R: Array, *values: Array) -> Variables:
    """Variables centred on the rows of a table; all values in natural units and above 0."""
    logs_KR = np.log(np.stack(values))
    centre_K = logs_KR.mean(axis=1)
    return Variables(logs_KR - centre_K[:, None], centre_K, float(np.exp(np.log(loss_R).mean())))


def log(value: float) -> float:
    """The logarithm, -inf at 0."""
    return math.log(value) if value > 0 else -math.inf


class Form(Protocol):
    """A law: its log prediction relative to the scale, the derivatives, starts, bounds and natural units."""

    @property
    def name(self) -> str: ...

    @property
    def equation(self) -> str: ...

    @property
    def uses(self) -> tuple[str, ...]:
        """The variables, in the order of x_KR: params, tokens, flops, unique_tokens, width, depth."""

    @property
    def internal(self) -> tuple[str, ...]:
        """Names of the P internal parameters, for the certificate."""

    @property
    def bounded_below(self) -> tuple[str, ...]:
        """Internal parameters whose lower bound means that a term vanished."""

    @property
    def exponents(self) -> tuple[str, ...]:
        """Internal parameters that are exponents, also quoted under these names."""

    def derivatives(self, theta_MP: Array, at: Variables) -> tuple[Array, Array]:
        """Log prediction f_MR and its gradient J_MRP, fastest where the rows lie next to each other in memory."""

    def log_prediction(self, theta_MP: Array, at: Variables) -> Array:
        """f_MR alone."""

    def second(self, gradient_MRP: Array, weight_MR: Array, at: Variables, theta_MP: Array) -> Array:
        """Sum over rows of weight times the second derivatives of f, (M, P, P)."""

    def starts(self, relative_R: Array, at: Variables) -> Array:
        """Start points, (M, P), from the losses relative to the scale."""

    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper bound of each internal parameter, (P,) each."""

    def natural(self, theta_MP: Array, at: Variables) -> dict[str, Array]:
        """The parameters that a paper would quote, (M,) each."""

    def from_natural(self, estimates: dict[str, float], at: Variables) -> Array:
        """The internal parameters (P,) of quoted ones; -inf where a coefficient is 0."""
