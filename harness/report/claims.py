"""What claim.json says: a section of the report with its figure, and the page of all claims."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from harness import __version__
from harness.files import make_folder, write_atomically
from harness.laws.claims.claim import number, read_claim, rule
from harness.report import style
from harness.report.figures import Figure
from harness.report.render import javascript, rendered

NAME = "claim"
WIDTH, ROW_HEIGHT, PANEL_HEIGHT = 270, 26, 230
# Numbers that span a larger factor stand on a log axis.
WIDE = 50
VERDICTS = {"holds": "It holds", "fails": "It fails", "undecided": "It is undecided"}


@dataclass(frozen=True)
class Section:
    """A claim as the page tells it; `sweep` is the folder's name, `figure` None where it was not measured."""

    sweep: str
    claim: str
    verdict: str
    sentence: str
    method: str
    beside: str
    figure: Figure | None


def section(sweep: str, content: Mapping[str, Any], name: str = NAME) -> Section:
    """The section of one claim.json."""
    shown = "not measured" if content["estimate"] is None else number(content)
    said = f"{content['measures']}: {shown}; it holds if that is {rule(content)}."
    return Section(
        sweep,
        content["claim"],
        content["verdict"],
        f"{VERDICTS[content['verdict']]}: {content['reason']}. Measured: {said}",
        f"{content['quantity']}: {content['method']}.",
        content.get("beside", ""),
        figure(content, name) if content["estimate"] is not None else None,
    )


def figure(content: Mapping[str, Any], name: str = NAME) -> Figure:
    """The numbers with their intervals over the range in which the claim holds, and what they come from."""
    panels = [panel for panel in (content["panel"], *content.get("panels", ())) if panel]
    names = [each["series"] for panel in panels for key in ("points", "lines") for each in panel[key]]
    parts = [_panel(panel, list(dict.fromkeys(names))) for panel in panels]
    caption = (
        "The measured number (blue) with its 95 % interval, beside others of the same kind; the band is the range in "
        "which the claim holds."
    )
    where = ("", "Left", "Above", "Before it")[min(len(parts), 3)]
    caption += f" {where}, what it comes from." if where else ""
    parts.append(_numbers(content))
    chart: Any = alt.hconcat(*parts) if len(parts) < 3 else alt.vconcat(*_pairs(parts))  # as wide as the page
    return Figure(name, "The claim", caption, chart.resolve_scale(color="independent"))


def _pairs(parts: Sequence[Any]) -> list[Any]:
    """Rows of two; the numbers, which are last, have colours of their own."""
    *rows, last = [parts[first : first + 2] for first in range(0, len(parts), 2)]
    numbers = alt.hconcat(*last).resolve_scale(color="independent") if len(last) > 1 else last[0]
    return [*(alt.hconcat(*row) for row in rows), numbers]


def _numbers(content: Mapping[str, Any]) -> Any:
    rows = pd.DataFrame([row for row in content["rows"] if row["estimate"] is not None])
    rows["decides"] = rows["decides"].map({True: "decides", False: "beside"})
    ends = [end for end in (content["rule"]["low"], content["rule"]["high"]) if end is not None]
    values = [*rows["estimate"], *rows["low"].dropna(), *rows["high"].dropna(), *ends]
    margin = 0.06 * (max(values) - min(values)) or 0.1 * abs(values[0]) or 0.1
    domain = [min(values) - margin, max(values) + margin]
    x = alt.X("estimate:Q", title=None, scale=alt.Scale(domain=domain, nice=False), axis=alt.Axis(tickCount=6))
    if min(values) > 0 and max(values) > WIDE * min(values):  # such as an R with an upper end of a thousand
        domain = list(style.padded(values))
        x = style.log_axis("estimate", "", (domain[0], domain[1]), alt.X, label="plain", most=6)
    y = alt.Y("label:N", sort=list(rows["label"]), title=None, axis=alt.Axis(labelLimit=320, grid=False))
    colour = alt.Color(
        "decides:N", scale=alt.Scale(domain=["decides", "beside"], range=[style.FIT, style.FAINT]), legend=None
    )
    low, high = content["rule"]["low"], content["rule"]["high"]
    band = pd.DataFrame({"from": [domain[0] if low is None else low], "to": [domain[1] if high is None else high]})
    holds = alt.Chart(band).mark_rect(color=style.FIT, opacity=0.12).encode(
        alt.X("from:Q", title=None, scale=x["scale"], axis=x["axis"]), alt.X2("to")
    )  # fmt: skip
    base = alt.Chart(rows).encode(y, color=colour)
    tips = ["label:N", *(alt.Tooltip(f"{key}:Q", format=".4g") for key in ("estimate", "low", "high"))]
    whiskers = (
        base.transform_filter("datum.low !== null && datum.high !== null")
        .mark_rule(strokeWidth=2)
        .encode(alt.X("low:Q", title=None, scale=x["scale"], axis=x["axis"]), alt.X2("high"))
    )
    points = base.mark_point(filled=True, size=60, opacity=1).encode(x, tooltip=tips)
    return alt.layer(holds, whiskers, points).properties(width=WIDTH, height=max(3, len(rows)) * ROW_HEIGHT)


def _panel(panel: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Points, with their intervals where they have them, and lines by series; x on a log axis."""
    points, lines = (
        pd.DataFrame(panel[key], columns=None if panel[key] else ["series", "x", "y"])
        for key in ("points", "lines")
    )
    colours = style.cycled(style.ramp(style.SHAPE_RAMP, max(2, len(names))), len(names))
    scale = alt.Scale(domain=list(names), range=colours)
    legend = alt.Legend(title=panel["series"] or None, orient="bottom", columns=2)
    colour = alt.Color("series:N", sort=list(names), scale=scale, legend=legend)
    large = max([*points["x"], *lines["x"]]) >= 1e7
    domain = style.padded([*points["x"], *lines["x"]])
    x = style.log_axis("x", panel["x"], domain, alt.X, label="power" if large else "plain", most=6)
    y = alt.Y("y:Q", title=panel["y"], scale=alt.Scale(zero=False))
    if panel.get("log"):
        least, most = min([*points["y"], *lines["y"]]) / 2, max([*points["y"], *lines["y"]]) * 2
        for end in {"low", "high"} & set(points):  # of what may lie anywhere, null
            points[end] = points[end].astype(float).fillna(least if end == "low" else most).clip(least, most)
        shown = pd.concat([lines["y"], *(points[key] for key in ("y", "low", "high") if key in points)])
        y = style.log_axis("y", panel["y"], style.padded(shown), alt.Y, label="plain")
    drawn = [_lines(lines).encode(x, y, colour)] if len(lines) else []
    if "low" in points:
        low = alt.Y("low:Q", title=y["title"], scale=y["scale"], axis=y["axis"])
        drawn.append(alt.Chart(points).mark_rule(strokeWidth=1.5, clip=True).encode(x, low, alt.Y2("high"), colour))
    marks = alt.Chart(points).mark_point(size=46, filled=True, opacity=1, clip=True)
    drawn += [marks.encode(x, y, colour)] if len(points) else []
    return alt.layer(*drawn).properties(width=WIDTH, height=PANEL_HEIGHT)


def _lines(lines: pd.DataFrame) -> Any:
    """A line a series, or where it has several, one for each value of `line`."""
    if "line" not in lines:
        return alt.Chart(lines).mark_line(strokeWidth=1.8, clip=True)
    return alt.Chart(lines).mark_line(strokeWidth=1, clip=True, opacity=0.8).encode(detail="line:N")


def write_claims(folder: Path, sweeps: Sequence[str]) -> Path:
    """Writes claims.html into an output directory: every claim of these sweeps with its figure and its verdict.

    Raises UserError where a claim.json is damaged.
    """
    contents = {sweep: read_claim(folder / sweep / "claim.json") for sweep in sweeps}
    found = [section(sweep, content, f"claim-{sweep}") for sweep, content in contents.items() if content is not None]
    figures = [each.figure for each in found if each.figure is not None]
    page = rendered(
        "claims.html.j2",
        claims=found,
        missing=[sweep for sweep, content in contents.items() if content is None],
        specs={each.name: style.specification(each.chart, f"{each.title}. {each.caption}") for each in figures},
        version=__version__,
        javascript=javascript() if figures else "",
    )
    write_atomically(make_folder(folder) / "claims.html", page)
    return folder / "claims.html"
