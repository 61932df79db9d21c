"""The exponents on each text that a sweep's cells were evaluated on."""

from harness.report.fields import SYMBOLS, Table, fit_rows
from harness.report.inputs import SweepFiles


def by_text(sweep: SweepFiles) -> Table | None:
    assert sweep.fit is not None
    fits = sweep.fit.get("by_text") or []
    if not fits:
        return None
    keys = [key for key in SYMBOLS if key in sweep.fit["fit"]["estimates"]]
    return Table(
        "by-text",
        "Exponents by the text that validates",
        "The same cells and loss function of the fit; only the text differs that L is the mean loss on, that of the "
        "corpus that trains for loss. E and the coefficients hold for their text alone. Estimate and 95 % interval.",
        ["L", *(SYMBOLS[key] for key in keys), "objective", "certified"],
        fit_rows(fits, keys, lambda fit: fit["target"]),
    )
