"""The figure of a sweep whose cells are variants: the loss of each against compute, and against the first one's."""

from typing import Any

import altair as alt
import pandas as pd

from harness.laws.table.levels import budget_labels
from harness.report import style
from harness.report.figures import FLOPS, LOSS, PANEL, Figure, tooltip
from harness.report.inputs import SweepFiles

# Okabe and Ito's colours, the baseline in black.
COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def loss_by_variant(sweep: SweepFiles) -> Figure:
    """Loss against C, a colour a variant; beside it the loss over that of the first variant's cell of one shape, seed
    and budget, where there is one."""
    cells = sweep.finished[["cell", "trunk", "shape", "seed", "variant", "tokens", "flops", "loss"]].copy()
    baseline, *others = sweep.variants
    colour = variant_colour(sweep.variants)
    panels = [_losses(cells, colour)]
    pairs = paired(cells, baseline)
    if len(pairs):
        panels.append(_differences(pairs, baseline, colour))
    names = ", ".join(others)
    caption = (
        f"Validation loss of every finished cell against its training compute, one line a trunk. Right: {names} beside "
        f"{baseline}, the loss of each cell over that of the cell of the same shape, seed and token budget; below zero "
        "is better. scripts/compare.py says what the difference is worth, and how sure that is."
    )
    return Figure("loss_by_variant", "Loss by variant", caption, alt.hconcat(*panels))


def variant_colour(names: list[str]) -> alt.Color:
    """The colour of each variant, the baseline first."""
    scale = alt.Scale(domain=names, range=style.cycled(COLOURS, len(names)))
    return alt.Color("variant:N", sort=names, scale=scale, legend=alt.Legend(title="variant", symbolOpacity=1))


def paired(cells: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """The cells of the other variants that have one of `baseline` beside them, with `percent` by which their loss lies
    above it. Budgets are paired as scripts/compare.py does."""
    cells = cells.assign(budget=budget_labels(cells.tokens.to_numpy(float)))
    first = cells[cells.variant == baseline][["shape", "seed", "budget", "loss"]]
    both = cells[cells.variant != baseline].merge(first, on=["shape", "seed", "budget"], suffixes=("", "_first"))
    return both.assign(percent=100 * (both.loss / both.loss_first - 1))


def _losses(cells: pd.DataFrame, colour: alt.Color) -> Any:
    x = style.log_axis("flops", FLOPS, style.padded(cells.flops), alt.X, label="power", most=6)
    y = style.log_axis("loss", LOSS, style.padded(cells.loss), alt.Y, label="plain", most=9)
    base = alt.Chart(cells).encode(x, y, colour, tooltip=tooltip("cell", "variant", "tokens", "flops", "loss"))
    line = base.mark_line(strokeWidth=1, opacity=0.6).encode(detail="trunk:N")
    return (line + base.mark_point(size=36, filled=True, opacity=1)).properties(width=PANEL, height=PANEL)


def _differences(pairs: pd.DataFrame, baseline: str, colour: alt.Color) -> Any:
    x = style.log_axis("flops", FLOPS, style.padded(pairs.flops), alt.X, label="power", most=6)
    y = alt.Y("percent:Q", title=f"loss over that of {baseline} (%)", scale=alt.Scale(zero=True, nice=True))
    base = alt.Chart(pairs).encode(x, y, colour, tooltip=tooltip("cell", "variant", "tokens", "loss", "percent"))
    zero = alt.Chart(pd.DataFrame({"percent": [0.0]})).mark_rule(color=style.INK).encode(y)
    line = base.mark_line(strokeWidth=1, opacity=0.6).encode(detail="trunk:N")
    points = base.mark_point(size=36, filled=True, opacity=1)
    return alt.layer(zero, line, points).properties(width=PANEL, height=PANEL)
