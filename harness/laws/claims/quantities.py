"""The quantities that claims are decided by, by name, and what each is measured from."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.laws.checks import epochs
from harness.laws.claims.aspect import by_aspect
from harness.laws.claims.beyond import extrapolation
from harness.laws.claims.dimension import against_dimension
from harness.laws.claims.emergence import emergence
from harness.laws.claims.entropy import above_floor
from harness.laws.claims.exponent import above_exponent
from harness.laws.claims.functions import by_counting, half_size, trained_on
from harness.laws.claims.insertion import insertion
from harness.laws.claims.measured import Evidence, Measured, Row
from harness.laws.claims.multipliers import MULTIPLIERS, drift, is_multiplier, multiplier
from harness.laws.claims.transfer import transfer
from harness.laws.forms import FORMS, centred
from harness.laws.methods.frontier import LAWS as FRONTIER_LAWS

OF_FIT = "fit."


@dataclass(frozen=True)
class Quantity:
    """`needs`: the script that runs before it is measured, fit or compare; none where the run table is enough."""

    needs: str | None
    measure: Callable[[Evidence], Measured]
    optimum: bool = False  # whether the law must have a compute optimum


QUANTITIES = {
    "counting": Quantity("fit", by_counting, optimum=True),
    "convergence": Quantity("fit", trained_on, optimum=True),
    "half_size": Quantity("fit", half_size, optimum=True),
    "aspect": Quantity(None, by_aspect),
    "transfer": Quantity(None, transfer),
    "emergence": Quantity(None, emergence),
    "dimension": Quantity(None, against_dimension),
    "extrapolation": Quantity("fit", extrapolation),
    "floor": Quantity("fit", above_floor),
    "exponent": Quantity("fit", above_exponent),
    "insertion": Quantity("compare", insertion),
    "compare.drift": Quantity("compare", drift),
}


def check_quantity(name: str, law: str) -> None:
    """Raises UserError where a sweep of this law cannot measure the quantity."""
    found = QUANTITIES.get(name)
    if found is None and name.startswith(OF_FIT):
        known = estimates_of(law)
        if name.removeprefix(OF_FIT) not in known:
            listed = ", ".join(OF_FIT + each for each in known)
            raise UserError(f"claim.quantity={name} is no estimate of law={law}: choose {listed}")
    elif found is None and not is_multiplier(name):
        of_variant = f"compare.VARIANT.NAME with one of {', '.join(MULTIPLIERS)}"
        listed = ", ".join([*QUANTITIES, "fit.NAME of an estimate of the law", of_variant])
        near = difflib.get_close_matches(name, QUANTITIES, 1, 0.6)
        hint = f"did you mean {near[0]}? Else choose {listed}" if near else f"choose {listed}"
        raise UserError(f"claim.quantity={name} is not known: {hint}")
    if found is not None and found.optimum and law not in FRONTIER_LAWS:
        raise UserError(
            f"claim.quantity={name} is of a compute optimum, which law={law} has not: choose {', '.join(FRONTIER_LAWS)}"
        )


def estimates_of(law: str) -> list[str]:
    """The names of a law's estimates."""
    form, one_R = FORMS[law], np.ones(1)
    return list(form.natural(np.ones((1, len(form.internal))), centred(one_R, *(one_R for _ in form.uses))))


def needed(name: str) -> str | None:
    """The script that runs before a quantity is measured."""
    if name in QUANTITIES:
        return QUANTITIES[name].needs
    return "fit" if name.startswith(OF_FIT) else "compare"


def measure(name: str, evidence: Evidence) -> Measured:
    """A quantity of a sweep; raises UserError where its files do not have it."""
    if name in QUANTITIES:
        found = QUANTITIES[name].measure(evidence)
    else:
        found = estimate(evidence, name) if name.startswith(OF_FIT) else multiplier(evidence, name)
    if not found.doubts and (found.low is None or found.high is None):
        found = replace(found, doubts=["it has no finite interval"])
    return replace(found, sources=evidence.sources())


def estimate(evidence: Evidence, name: str) -> Measured:
    """An estimate of fit.json, beside those by other counts of params and under other losses."""
    content, key = evidence.content("fit"), name.removeprefix(OF_FIT)
    head = content["fit"]
    if key not in head["estimates"]:
        raise UserError(f"{evidence.folder}/fit.json has no estimate {key}: fit it by the law that the sweep states")
    others = [fit for fit in content["by_params"] if fit["params"] != head["params"]]
    rows = [_row(f"{key}, N = {head['params']}", head, key, decides=True)]
    rows += [_row(f"{key}, N = {fit['params']}", fit, key) for fit in others]
    rows += [_row(f"{key}, {fit['loss']}", fit, key) for fit in content["by_loss"] if fit["loss"] != head["loss"]]
    found, certificate = rows[0], head["certificate"]
    doubts = [] if certificate["certified"] else [f"the fit is not certified: {'; '.join(certificate['reasons'])}"]
    beside = epochs.sentence(content.get("epochs")) if key in epochs.COSTS else ""
    return Measured(key, f"{head['predicts']}; {head['interval_method']}", found.estimate, found.low, found.high, rows,
                    doubts=doubts, beside=beside)  # fmt: skip


def _row(label: str, fit: dict[str, Any], key: str, decides: bool = False) -> Row:
    low, high = fit["intervals"].get(key) or (None, None)
    return Row(label, fit["estimates"][key], low, high, decides)
