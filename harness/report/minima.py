"""The figure of a tuning: the best of each setting at each size with its rule, and the bowl that the runs lie in."""

from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import vl_convert

from harness.files import write_atomically
from harness.laws.forms import Array
from harness.laws.tune import Tuned
from harness.records import axis_name
from harness.report import style
from harness.report.figures import PANEL, PARAMS, Figure
from harness.report.render import VEGA_LITE

CURVE_POINTS = 61


def write_minima(tuned: Tuned, path: Path) -> None:
    """Writes the figure as `path` with the endings .svg and .png."""
    figure = minima(tuned)
    spec = style.specification(figure.chart, f"{figure.title}. {figure.caption}")
    svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE)
    write_atomically(path.with_suffix(".svg"), svg)
    write_atomically(path.with_suffix(".png"), vl_convert.svg_to_png(svg, scale=2))


def minima(tuned: Tuned) -> Figure:
    """A row of two panels for each setting."""
    rows = [alt.hconcat(_best(tuned, number), _bowl(tuned, number)) for number in range(len(tuned.runs.names))]
    caption = (
        "Left, the best value of each setting by params, coloured by tokens, with 95 % intervals and the fitted rule; "
        "hollow where the interval reaches beyond what was tried. Right, how far the loss of each run lies above the "
        "fitted minimum of its size along this setting alone, what the other settings add taken off; the line is the "
        "fitted bowl, larger points count more."
    )
    if not tuned.content["certificate"]["certified"]:
        caption += f" NOT certified: {'; '.join(tuned.content['certificate']['reasons'])}."
    return Figure("tune", "The best settings", caption, alt.vconcat(*rows))


def _colour(tuned: Tuned) -> alt.Color:
    budgets = _budgets(tuned.runs.sizes.tokens_C)
    domain = list(dict.fromkeys(label for _, label in sorted(zip(tuned.runs.sizes.tokens_C, budgets, strict=True))))
    scale = alt.Scale(domain=domain, range=style.ramp(style.BUDGET_RAMP, len(domain)))
    return alt.Color("budget:N", sort=domain, scale=scale, legend=alt.Legend(title="tokens D"))


def _budgets(tokens: Array) -> list[str]:
    return [style.count(float(value)) for value in tokens]


def _best(tuned: Tuned, number: int) -> Any:
    """The minima of a setting against params, and the rule at the tokens of each."""
    name = tuned.runs.names[number]
    content = tuned.content["settings"][name]
    cells = pd.DataFrame(content["cells"]).drop(columns="penalty").dropna()
    cells["budget"] = _budgets(cells["tokens"].to_numpy(float))
    rule = (tuned.full or tuned.plain).settings()[:, number]
    sizes = tuned.runs.sizes
    lines = pd.DataFrame({"params": sizes.params_C, "best": np.exp(rule), "budget": _budgets(sizes.tokens_C)}).dropna()
    domain = style.padded([*cells["best"], *lines["best"], *_within(tuned, number)])
    x = style.log_axis("params", f"{PARAMS} ({tuned.content['source']['columns']['params']})",
                       style.padded(sizes.params_C.tolist()), alt.X)  # fmt: skip
    y = style.log_axis("best", f"best {axis_name(name)}", domain, alt.Y, label="plain")
    y["scale"]["clamp"] = True
    colour = _colour(tuned)
    base = alt.Chart(cells).encode(x, color=colour)
    whiskers = base.mark_rule(strokeWidth=1.5, clip=True).encode(
        alt.Y("low:Q", title=y["title"], scale=y["scale"], axis=y["axis"]), alt.Y2("high")
    )
    inside = base.transform_filter("datum.bracketed").mark_point(size=50, filled=True, opacity=1).encode(y)
    beyond = base.transform_filter("!datum.bracketed").mark_point(size=50, fill="white", opacity=1).encode(y)
    line = alt.Chart(lines).mark_line(strokeWidth=1.2, clip=True).encode(x, y, color=colour)
    return alt.layer(line, whiskers, inside, beyond).properties(width=PANEL, height=230)


def _within(tuned: Tuned, number: int) -> tuple[float, float]:
    """The least and the largest value of a setting that were tried."""
    tried_R = tuned.runs.design.setting_RK[:, number]
    return float(np.exp(tried_R.min())), float(np.exp(tried_R.max()))


def _bowl(tuned: Tuned, number: int) -> Any:
    """Runs above the minimum of their size against their distance from it along one setting."""
    bowl, theta_P = tuned.basin.bowl, tuned.basin.theta_P
    curved, kappa = float(tuned.basin.H_KK[number, number]), float(bowl.kappa(theta_P)[number])
    v_R = bowl.offsets(theta_P)[:, number]
    held_R = bowl.design.active_CK[bowl.design.cell_R, number]
    rest_R = bowl.residuals(theta_P) / np.sqrt(bowl.design.weight_R)
    frame = pd.DataFrame({
        "factor": np.exp(v_R), "percent": 100 * np.expm1(rest_R + curved * v_R**2 / 2 + kappa * v_R**3),
        "weight": bowl.design.weight_R, "budget": np.array(_budgets(tuned.runs.sizes.tokens_C))[bowl.design.cell_R],
    })[held_R]  # fmt: skip
    ends = style.padded(frame["factor"])
    curve_X = np.linspace(float(np.log(ends[0])), float(np.log(ends[1])), CURVE_POINTS)
    curve = pd.DataFrame({"factor": np.exp(curve_X),
                          "percent": 100 * np.expm1(curved * curve_X**2 / 2 + kappa * curve_X**3)})  # fmt: skip
    title = f"{axis_name(tuned.runs.names[number])} over its best"
    x = style.log_axis("factor", title, ends, alt.X, label="plain")
    y = alt.Y("percent:Q", title="loss above the minimum (%)")
    size = alt.Size("weight:Q", scale=alt.Scale(domain=[0, 1], range=[4, 40]), legend=None)
    points = alt.Chart(frame).mark_point(filled=True, opacity=0.7).encode(x, y, size, color=_colour(tuned))
    line = alt.Chart(curve).mark_line(color=style.FIT, strokeWidth=2).encode(x, y)
    return alt.layer(points, line).properties(width=PANEL, height=230)
