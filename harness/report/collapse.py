"""What fit.json says of the collapse of training curves: a section of the report with its figure and its table."""

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from harness.laws.checks.collapse import sentence
from harness.report import style
from harness.report.fields import Field, Table, number
from harness.report.figures import PANEL, Figure, shape_colour
from harness.report.inputs import SweepFiles

NAME = "collapse"


@dataclass(frozen=True)
class Section:
    """The sentences, and where curves were set against each other their figure and their table."""

    sentences: list[str]
    figure: Figure | None = None
    table: Table | None = None


def section(sweep: SweepFiles) -> Section | None:
    """None where the fit says nothing of curves."""
    found = (sweep.fit or {}).get("collapse")
    if not found:
        return None
    if "left_out" in found:
        return Section([f"The training curves are not set against each other: {found['left_out']}."])
    return Section(_sentences(found), _figure(sweep, found), _table(found))


def _sentences(found: dict[str, Any]) -> list[str]:
    if found["noise"] is None:
        return ["No shape was trained with two seeds, so none can be said to leave the curve by more than seeds do."]
    drift = found["drift"]
    gone = sentence(found)
    return [
        f"{gone}." if gone else "No shape leaves the common curve by more than seeds do.",
        f"Over ten times the params the curve itself moves by {_signed(drift['per_decade'])} "
        f"(p = {drift['p']:.2g}), which settings that do not follow size, unequal D/N or the law may do.",
    ]


def _signed(value: float) -> str:
    return f"{100 * value:+.2f} %".replace("-", "−")


def _figure(sweep: SweepFiles, found: dict[str, Any]) -> Figure:
    """The normalised curves with the law's own, and what is left of them over the law's."""
    assert sweep.fit is not None
    curves, floor = found["curves"], float(sweep.fit["fit"]["estimates"].get("E") or 0.0)
    rows = pd.concat(
        pd.DataFrame({
            "shape": entry["shape"], "fraction": curves["fraction"],
            "measured": (np.array(curves["measured"][entry["shape"]]) - floor)
            / (curves["law_end"][entry["shape"]] - floor),
            "law": (np.array(curves["law"][entry["shape"]]) - floor) / (curves["law_end"][entry["shape"]] - floor),
            "percent": 100 * (np.array(curves["measured"][entry["shape"]]) / curves["law"][entry["shape"]] - 1),
        })
        for entry in found["shapes"]
    )  # fmt: skip
    common = pd.DataFrame({"fraction": curves["fraction"], "percent": 100 * np.array(curves["common"])})
    colour = shape_colour(sweep)
    x = alt.X("fraction:Q", title="share of the run", scale=alt.Scale(domain=[found["from"], 1.0], nice=False))
    scale = alt.Scale(zero=False)
    base = alt.Chart(rows).encode(x, colour, tooltip=["shape:N", *(
        alt.Tooltip(f"{key}:Q", format=".3f") for key in ("fraction", "measured", "law", "percent")
    )])  # fmt: skip
    title = "(loss − E) / (law's final loss − E)"
    measured = base.mark_line(strokeWidth=1.6).encode(alt.Y("measured:Q", title=title, scale=scale))
    law = base.mark_line(strokeWidth=1, strokeDash=[4, 3]).encode(alt.Y("law:Q", title=title, scale=scale))
    y = alt.Y("percent:Q", title="loss over the law's own curve (%)", scale=scale)
    left = alt.layer(law, measured).properties(width=PANEL, height=PANEL, title="a  normalised curves")
    line = alt.Chart(common).mark_line(color=style.INK, strokeWidth=2.4, opacity=0.6).encode(x, y)
    right = alt.layer(base.mark_line(strokeWidth=1.6).encode(y), line)
    right = right.properties(width=PANEL, height=PANEL, title="b  over the law's own curve")
    caption = (
        f"Training loss of each shape at the budget nearest to D/N = {found['tokens_per_param']:.2g}, means of its "
        f"runs over {len(common)} parts of a run. a: less the floor E, over what the law says of its end, so that a "
        "shape whose final loss is too high ends above 1; dashed is the law's own curve, the losses of runs that are "
        "decayed at each point. b: the same losses over the law's own curve; before the decay all lie above it, by a "
        "share that is alike for shapes whose settings are alike good. Black: the common curve, at the mean log N."
    )
    return Figure(NAME, "Collapse of the training curves", caption, alt.hconcat(left, right))


def _table(found: dict[str, Any]) -> Table:
    noise = found["noise"]
    rows = [
        [
            Field(entry["shape"]),
            Field(style.count(entry["tokens"])),
            Field(f"{entry['tokens'] / entry['params']:.3g}"),
            Field(str(entry["runs"])),
            Field(_signed(entry["deviation"]), interval=_interval(entry)),
            Field(number(entry["p"]), mark="bad" if entry["leaves"] else ""),
        ]
        for entry in found["shapes"]
    ]
    seeds = "" if noise is None else (
        f" Between seeds the mean of one curve differs by {100 * noise['sd']:.2f} % (standard deviation, "
        f"{noise['degrees_of_freedom']:.0f} degrees of freedom)."
    )  # fmt: skip
    return Table(
        NAME,
        "Shapes and the common curve",
        "By how much all losses of a shape would be off what the other shapes say, where the curve may move evenly "
        "with log N, and the law, which is fitted with the shape, bends towards it. Intervals and p hold for all "
        f"shapes together: where none is off, one is named in 5 % of the sweeps at most.{seeds}",
        ["shape", "tokens D", "D/N", "runs", "off by", "p"],
        rows,
    )


def _interval(entry: dict[str, Any]) -> str:
    return "" if entry["low"] is None else f"[{_signed(entry['low'])}, {_signed(entry['high'])}]"
