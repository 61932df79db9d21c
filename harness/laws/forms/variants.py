"""One law for several variants of training: L_v(N, D) = L(f_v N, g_v D) (Volkova et al. 2026, arXiv 2602.07712).

Shapes as in forms/base.py; P are the joint parameters, F those of the law of one variant. The last row of x_KR says
which variant a row is of; rows of one variant may lie anywhere.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from harness.laws.forms.base import Array, Form, Variables

# Each variant has its own: f and g are A_v = A f^-alpha and B_v = B g^-beta.
COEFFICIENTS = ("A", "B")


@dataclass(frozen=True)
class JointLaw:
    """A law of params and tokens with coefficients A and B for each variant, the first of them the baseline.

    `shared` are the other parameters that all variants have in common. `internal` are the baseline's, then each other
    variant's own, as in `A of muon`.
    """

    form: Form
    variants: tuple[str, ...]
    shared: frozenset[str]

    @property
    def name(self) -> str:
        return self.form.name

    @property
    def equation(self) -> str:
        return self.form.equation

    @property
    def uses(self) -> tuple[str, ...]:
        return self.form.uses

    def _own(self, variant: str, name: str) -> str:
        return name if variant == self.variants[0] or name in self.shared else f"{name} of {variant}"

    @cached_property
    def internal(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._own(each, name) for each in self.variants for name in self.form.internal))

    @cached_property
    def places_VF(self) -> NDArray[np.intp]:
        """Where the parameters of each variant's own law are among the joint ones."""
        place = {name: index for index, name in enumerate(self.internal)}
        return np.array([[place[self._own(each, name)] for name in self.form.internal] for each in self.variants])

    def _among(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in self.internal if name.split(" of ")[0] in names)

    @property
    def bounded_below(self) -> tuple[str, ...]:
        return self._among(self.form.bounded_below)

    @property
    def exponents(self) -> tuple[str, ...]:
        return self._among(self.form.exponents)

    def _parts(self, at: Variables) -> list[tuple[Variables, NDArray[np.intp], slice | NDArray[np.intp]]]:
        """Each variant's variables, parameters and rows; those that follow each other as a slice."""
        label_R = at.x_KR[-1]
        parts = []
        for variant, place_F in enumerate(self.places_VF):
            rows = np.flatnonzero(label_R == variant)
            if len(rows):
                together = rows[-1] - rows[0] + 1 == len(rows)
                where = slice(int(rows[0]), int(rows[-1]) + 1) if together else rows
                parts.append((Variables(at.x_KR[:-1, where], at.centre_K[:-1], at.scale), place_F, where))
        return parts

    def log_prediction(self, theta_MP: Array, at: Variables) -> Array:
        f_MR = np.empty((len(theta_MP), at.x_KR.shape[1]))
        for own, place_F, where in self._parts(at):
            f_MR[:, where] = self.form.log_prediction(theta_MP[:, place_F], own)
        return f_MR

    def derivatives(self, theta_MP: Array, at: Variables) -> tuple[Array, Array]:
        f_MR = np.empty((len(theta_MP), at.x_KR.shape[1]))
        J_MPR = np.zeros((len(theta_MP), len(self.internal), at.x_KR.shape[1]))
        for own, place_F, where in self._parts(at):
            f_MR[:, where], J_MRF = self.form.derivatives(theta_MP[:, place_F], own)
            for index, place in enumerate(place_F):
                J_MPR[:, place, where] = J_MRF[..., index]
        return f_MR, J_MPR.transpose(0, 2, 1)

    def second(self, gradient_MRP: Array, weight_MR: Array, at: Variables, theta_MP: Array) -> Array:
        H_MPP = np.zeros((len(theta_MP), len(self.internal), len(self.internal)))
        for own, place_F, where in self._parts(at):
            J_MRF = np.stack([gradient_MRP[:, where, place] for place in place_F], axis=1).transpose(0, 2, 1)
            H_MFF = self.form.second(J_MRF, weight_MR[:, where], own, theta_MP[:, place_F])
            H_MPP[:, place_F[:, None], place_F] += H_MFF
        return H_MPP

    def starts(self, relative_R: Array, at: Variables) -> Array:
        """Those of one law for all rows."""
        start_MF = self.form.starts(relative_R, Variables(at.x_KR[:-1], at.centre_K[:-1], at.scale))
        start_MP = np.empty((len(start_MF), len(self.internal)))
        for place_F in self.places_VF:
            start_MP[:, place_F] = start_MF
        return start_MP

    def bounds(self) -> tuple[Array, Array]:
        ends = []
        for end_F in self.form.bounds():
            end_P = np.empty(len(self.internal))
            for place_F in self.places_VF:
                end_P[place_F] = end_F
            ends.append(end_P)
        return ends[0], ends[1]

    def natural(self, theta_MP: Array, at: Variables) -> dict[str, Array]:
        """The baseline's parameters, and those of the others that are their own."""
        own_at = Variables(at.x_KR[:-1], at.centre_K[:-1], at.scale)
        values: dict[str, Array] = {}
        for variant, place_F in zip(self.variants, self.places_VF, strict=True):
            for name, value_M in self.form.natural(theta_MP[:, place_F], own_at).items():
                derived = name == "a" and self.shared >= set(self.form.exponents)
                values.setdefault(name if derived else self._own(variant, name), value_M)
        return values

    def from_natural(self, estimates: dict[str, float], at: Variables) -> Array:
        own_at = Variables(at.x_KR[:-1], at.centre_K[:-1], at.scale)
        theta_P = np.empty(len(self.internal))
        for variant, place_F in zip(self.variants, self.places_VF, strict=True):
            own = {name: estimates[self._own(variant, name)] for name in self.form.internal}
            theta_P[place_F] = self.form.from_natural(own, own_at)
        return theta_P

    def terms(self, theta_MP: Array, at: Variables, variant: int, params: float, tokens: float) -> Array:
        """alpha, beta, gamma (1 where the law has none), and the logs of both terms at a place, (5, M)."""
        places_F = self.places_VF[variant]
        names = {name: theta_MP[:, place] for name, place in zip(self.form.internal, places_F, strict=True)}
        alpha_M = names["alpha"]
        beta_M = names.get("beta", alpha_M)
        gamma_M = names.get("gamma", np.ones(len(theta_MP)))
        n, d = np.log([params, tokens]) - at.centre_K[:2]
        return np.stack([alpha_M, beta_M, gamma_M, names["A"] - alpha_M * n, names["B"] - beta_M * d])


def labelled(at: Variables, variant_R: NDArray[np.intp]) -> Variables:
    """The variables of a law with the variant of each row."""
    return Variables(np.vstack([at.x_KR, variant_R.astype(float)]), np.append(at.centre_K, 0.0), at.scale)
