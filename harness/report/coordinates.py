"""The figure of coordinates.json: the powers of width and depth by which the parts of a model grow and are moved."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from harness.laws.claims.transfer import ALONG
from harness.report import style
from harness.report.figures import Figure
from harness.report.inputs import SweepFiles

NAME = "coordinates"
WIDTH, ROW_HEIGHT, LEAST_SIZES = 220, 30, 3
OF = {"size": "at initialisation", "moved": "the change by {steps} steps"}


def read_coordinates(path: Path) -> dict[str, Any] | None:
    """The content of a coordinates.json; None where there is none that can be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("rows") else None


def coordinates(sweep: SweepFiles) -> Figure | None:
    """A panel each of initialisation and of the first steps, along width and along depth."""
    content = read_coordinates(sweep.path / f"{NAME}.json")
    found = [] if content is None else powers(content)
    if content is None or not found:
        return None
    frame = pd.DataFrame(found)
    names = list(dict.fromkeys(frame.parametrization))
    rows = [
        [_panel(frame[(frame.along == along) & (frame.of == of)], f"{title.format(**content)}: power of the {along}",
                names) for of, title in OF.items()]
        for along in dict.fromkeys(frame.along)
    ]  # fmt: skip
    caption = (
        f"The coordinate check: the power of the width, and of the depth, by which the root mean square of each part's "
        f"outputs grows at initialisation, and of its change by {content['steps']} steps at a learning rate of "
        f"{content['learning_rate']:.3g} on one batch of {content['tokens']} random tokens. One rate serves all sizes "
        "where no change grows or vanishes: 0. blocks.* is the mean over the blocks."
    )
    return Figure(NAME, "Coordinates", caption, alt.vconcat(*(alt.hconcat(*row) for row in rows)))


def powers(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The powers of `size` and `moved` of each part, by least squares in logs over three sizes or more."""
    frame, found = pd.DataFrame(content["rows"]), []
    for along, stays in ALONG.items():
        many = frame.groupby(stays)[along].nunique()
        own = frame[frame[stays] == many.idxmax()]
        for (part, parametrization), cells in own.groupby(["part", "parametrization"], sort=False):
            for of in OF if len(cells) >= LEAST_SIZES else ():
                x, y = (cells[name].to_numpy(float) for name in (along, of))
                if np.isfinite(y).all() and (y > 0).all():
                    power = float(np.polyfit(np.log(x), np.log(y), 1)[0])
                    found.append({"along": along, "of": of, "part": part, "parametrization": parametrization,
                                  "power": power})  # fmt: skip
    return found


def _panel(frame: pd.DataFrame, title: str, names: list[str]) -> Any:
    parts = list(dict.fromkeys(frame.part))
    colours = alt.Scale(domain=names, range=style.ramp(style.SHAPE_RAMP, len(names)))
    y = alt.Y("part:N", sort=parts, title=None, axis=alt.Axis(labelLimit=200))
    base = alt.Chart(frame).encode(
        y, alt.YOffset("parametrization:N", sort=names),
        alt.Color("parametrization:N", sort=names, scale=colours, legend=alt.Legend(title=None, orient="bottom")),
        tooltip=["part:N", "parametrization:N", alt.Tooltip("power:Q", format=".3f")],
    )  # fmt: skip
    points = base.mark_point(filled=True, size=46, opacity=1).encode(alt.X("power:Q", title=title))
    zero = alt.Chart(pd.DataFrame({"power": [0.0]})).mark_rule(color=style.FAINT).encode(alt.X("power:Q", title=title))
    return alt.layer(zero, points).properties(width=WIDTH, height=len(parts) * ROW_HEIGHT)
