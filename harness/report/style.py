"""The look that all figures share: colours, axes, marks."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt

FONT = "Liberation Sans, Helvetica, Arial, sans-serif"
INK, FAINT, GRID = "#222222", "#8a8a8a", "#e9e9e9"
# Okabe and Ito's colours, safe for the colour-blind.
FIT, COMPETITOR = "#0072b2", "#d55e00"
# viridis without its yellow end, which is too pale on white; and a brown ramp, for budgets.
SHAPE_RAMP = ("#440154", "#46307e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#9fc92f")
BUDGET_RAMP = ("#f0a868", "#dd7f4b", "#b9553b", "#86332d", "#4d1a20")
SUFFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def count(value: float, digits: int = 3) -> str:
    """917504 as 918k, 3.6e6 as 3.6M."""
    rounded = float(f"{value:.{digits}g}")
    for size, suffix in SUFFIXES:
        if abs(rounded) >= size:
            return f"{rounded / size:g}{suffix}"
    return f"{rounded:g}"


def scientific(value: float, digits: int = 3) -> str:
    """2e12 as 2e12, without the sign and the zeros that printf adds."""
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"


def ramp(colours: Sequence[str], many: int) -> list[str]:
    """`many` colours at equal distances along a ramp."""
    channels = [[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in colours]
    found = []
    for number in range(many):
        place = (number / (many - 1) if many > 1 else 0.5) * (len(channels) - 1)
        left = min(int(place), len(channels) - 2)
        mixed = [a + (place - left) * (b - a) for a, b in zip(channels[left], channels[left + 1], strict=True)]
        found.append("#" + "".join(f"{round(channel):02x}" for channel in mixed))
    return found


def cycled(colours: Sequence[str], many: int) -> list[str]:
    """`many` colours, the same again where there are fewer."""
    return [colours[number % len(colours)] for number in range(many)]


def padded(values: Iterable[float], share: float = 0.06) -> tuple[float, float]:
    """The domain of a log axis: the range of the values and a share of it on either side."""
    finite = [value for value in values if math.isfinite(value) and value > 0]
    low, high = min(finite), max(finite)
    margin = share * math.log(high / low) or 0.1
    return low * math.exp(-margin), high * math.exp(margin)


def log_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round values for a log axis: even steps over a short range, 1-2-5 or 1-3 or powers of ten over a long one."""
    if high / low < 3:
        return even_ticks(low, high, most)
    found: list[float] = []
    for digits in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [digit * 10.0**decade for decade in decades for digit in digits]
        found = [float(f"{tick:.6g}") for tick in found if low <= tick <= high]
        if len(found) <= most:
            return found
    return found[:: math.ceil(len(found) / most)]


def even_ticks(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, at most `most` of them."""
    size = math.floor(math.log10((high - low) / most))
    for digit in (1, 2, 5, 10, 20):
        step = digit * 10.0**size
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            break
    return [float(f"{number * step:.10g}") for number in range(first, last + 1)]


def log_axis(
    field: str, title: str, domain: tuple[float, float], kind: type, *, label: str = "count", most: int = 7, **axis: Any
) -> Any:
    """A log-scaled channel `kind` (alt.X, alt.Y) with round ticks; `label` is count, power or plain."""
    ticks = log_ticks(*domain, most=most)
    write = {"count": count, "power": scientific, "plain": lambda tick: f"{tick:.4g}"}[label]
    # Vega formats by d3 patterns, which know neither superscripts nor B: every tick's label is spelt out.
    cases = [f"datum.value < {tick * 1.0001!r} ? {write(tick)!r} : " for tick in ticks]
    return kind(
        f"{field}:Q",
        title=title,
        scale=alt.Scale(type="log", domain=list(domain), nice=False),
        axis=alt.Axis(values=ticks, labelExpr="".join(cases) + "''", **axis),
    )


def shape_colour(shapes: Sequence[str], labels: Sequence[str]) -> alt.Color:
    """Colour by shape, ascending in params, from dark to light; `labels` stand in the legend."""
    box = alt.Legend(title=["shape", "(params)"], symbolType="circle", symbolSize=70, symbolOpacity=1)
    cases = [f"datum.label == '{shape}' ? '{text}' : " for shape, text in zip(shapes, labels, strict=True)]
    box.labelExpr = "".join(cases) + "datum.label"
    scale = alt.Scale(domain=list(shapes), range=ramp(SHAPE_RAMP, len(shapes)))
    return alt.Color("shape:N", sort=list(shapes), scale=scale, legend=box)


CONFIG = {
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "grid": True,
        "gridColor": GRID,
        "gridWidth": 0.7,
        "domainColor": INK,
        "domainWidth": 0.8,
        "tickColor": INK,
        "tickSize": 4,
        "labelColor": INK,
        "titleColor": INK,
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelPadding": 3,
        "titlePadding": 8,
        "labelOverlap": False,
        "labelFlush": False,
    },
    "legend": {
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "labelColor": INK,
        "titleColor": INK,
        "rowPadding": 3,
        "labelLimit": 260,
        "titleLimit": 260,
        "symbolLimit": 40,
    },
    "title": {"fontSize": 12, "fontWeight": "normal", "anchor": "start", "color": INK, "offset": 8},
    "concat": {"spacing": 26},
}


def specification(chart: Any, description: str) -> dict[str, Any]:
    """A chart as Vega-Lite with the look of all figures; `description` is read to those who cannot see it."""
    # Set here and not by altair's configure methods, each of which copies the whole chart with its data.
    with alt.data_transformers.enable("default", max_rows=None):
        spec: dict[str, Any] = chart.to_dict()
    return spec | {"background": "white", "padding": 8, "description": description, "config": CONFIG}
