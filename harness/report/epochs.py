"""What training on the same tokens again costs, law by law."""

from harness.laws.checks.epochs import mean_error
from harness.report.fields import Field, Table, number, percent
from harness.report.inputs import SweepFiles


def by_epochs(sweep: SweepFiles) -> Table:
    """A row a law; none where the headline does not count unique tokens."""
    assert sweep.fit is not None
    found, rows = sweep.fit.get("epochs") or [], []
    for entry in found:
        doubt = not entry["certified"]
        costs = "; ".join(f"{name} = {_spread(cost)}" for name, cost in entry["costs"].items())
        rows.append(
            [
                Field(entry["law"]),
                Field(costs or "repeats as fresh text", doubt),
                Field(number(entry["objective"]), doubt),
                Field(percent(entry["rms_residual"], 2), doubt),
                *(Field(percent(error, 2), not entry["errors_certified"]) for error in entry["errors"].values()),
                Field(percent(mean_error(entry), 2), not entry["errors_certified"]),
                Field(f"NO: {'; '.join(entry['reasons'])}" if doubt else "yes", mark="bad" if doubt else ""),
            ]
        )
    names = [name.replace("_", " ") for name in (found[0]["errors"] if found else ())]
    return Table(
        "epochs",
        "What training on the same tokens again costs",
        "By each law of the same cells: R is the repeats over which more of the same pays (Muennighoff et al. 2023), P "
        "the nats that a repeat costs for each parameter per unique token (after Lovelace et al. 2026), and the last "
        "takes repeats for fresh text. Objectives are of the headline's loss function, residuals over all cells, and "
        "errors relative means over cells that were kept from the fit.",
        ["law", "repeats", "objective", "rms residual", *names, "held out", "certified"],
        rows,
    )


def _spread(cost: dict[str, float | None]) -> str:
    low, high = cost["low"], cost["high"]
    return number(cost["value"]) + (" (no interval)" if low is None else f" [{number(low)}, {number(high)}]")
