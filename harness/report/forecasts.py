"""What was forecast from a sweep's fit, beside what came of it."""

from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.laws.prediction.forecast import read_all
from harness.records import FINAL, read_record, text_losses
from harness.report.fields import Field, Table, number
from harness.report.inputs import SweepFiles
from harness.report.style import count

# Of the interval whose score is shown.
LEVEL = 0.9


def forecasts(sweep: SweepFiles) -> Table | None:
    """A row for each cell and law of each forecast; None where there are none. Raises UserError for a file that was
    changed."""
    rows = []
    for _, content in read_all(sweep.path):
        came = {cell["cell"]: outcome(sweep.path, cell, content["created"]) for cell in content["cells"]}
        rows += [_row(cell, came[cell["cell"]], content["created"]) for cell in content["cells"]]
    if not rows:
        return None
    return Table(
        "forecasts",
        "Forecasts, and what came",
        "Each was written at the time named, and what came was recorded after that; error is (forecast − loss) / loss. "
        "Score is the interval score of the 90 % interval in nats, less is better (Gneiting and Raftery 2007): "
        "S = (high − low) + 2/α (low − y)[y < low] + 2/α (y − high)[y > high], with α = 0.1 and y the loss. "
        "Inside names the narrowest of the 50, 90 and 95 % intervals that holds y.",
        ["cell", "forecast at (UTC)", "C / sampled C", "law", "forecast", "loss", "error", "score", "inside"],
        rows,
    )


def outcome(sweep: Path, cell: dict[str, Any], created: str) -> dict[str, Any] | None:
    """The record of a cell that ended after it was forecast, in any sweep beside this one; None where there is none."""
    since = datetime.fromisoformat(created).timestamp()
    for run in sorted(sweep.resolve().parent.glob(f"*/runs/{cell['cell'].partition('-t')[0]}-t*")):
        record = None
        with suppress(UserError):  # of another schema
            record = read_record(run)
        if record is None or record["status"] not in FINAL:
            continue
        same = record["trunk"] == cell["trunk"] and record["tokens"] == cell["tokens"]
        if same and (run / "run.json").stat().st_mtime >= since:
            return record
    return None


def interval_score(low: float, high: float, loss: float, level: float) -> float:
    """Of an interval of a level (Gneiting and Raftery 2007, equation 43)."""
    return high - low + 2 / (1 - level) * (max(low - loss, 0.0) + max(loss - high, 0.0))


def _row(cell: dict[str, Any], record: dict[str, Any] | None, created: str) -> list[Field]:
    low, high = cell["intervals"][f"{LEVEL:g}"]
    shape, budget = f"w{cell['width']}-d{cell['depth']}", count(cell["tokens"])
    head = [
        Field(f"{shape}, {budget} tokens"),
        Field(created.removesuffix("+00:00").replace("T", " ")),
        Field(f"{cell['beyond']:.3g} ×"),
        Field(cell["law"]),
        Field(number(cell["loss"], 3), not cell["certified"], interval=f"[{number(low, 3)}, {number(high, 3)}]"),
    ]
    nothing = [Field("–", mark="muted") for _ in range(3)]
    if record is None:
        return [*head, Field("not trained yet", mark="muted"), *nothing]
    loss = (record | text_losses(record)).get(cell["target"])
    if record["status"] != "finished" or loss is None:
        return [*head, Field(record["status"] if loss is None else "no loss", mark="bad"), *nothing]
    held = [level for level, (least, most) in cell["intervals"].items() if least <= loss <= most]
    return [
        *head,
        Field(number(loss, 3)),
        Field(f"{100 * (cell['loss'] / loss - 1):+.2f} %".replace("-", "−")),
        Field(number(interval_score(low, high, loss, LEVEL), 3)),
        Field(f"{100 * float(held[0]):g} %" if held else "no", mark="" if held else "bad"),
    ]
