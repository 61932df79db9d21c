"""The figures that say how far a fit is to be trusted: residuals, hold-outs, exponents by choice, the frontier."""

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from harness.laws.tuning import doubt
from harness.report import style
from harness.report.figures import FLOPS, PANEL, TOKENS, Figure, params_title, shape_colour, tooltip, trusted, warning
from harness.report.inputs import SweepFiles

# What panels side by side may take of the width of the page.
ABREAST = 640
QUANTITIES = (("alpha", "α  (parameters)"), ("beta", "β  (tokens)"), ("a", "a = β/(α+β)"))
TUNED = "settings: best of each cell"
LOSS_NAMES = {
    "huber": "Huber, log loss",
    "lad": "absolute, log loss",
    "log_mse": "squared, log loss",
    "mse": "squared, loss",
}


def residuals(sweep: SweepFiles) -> Figure:
    """Measured over fitted loss, in percent, against N and against D."""
    assert sweep.fit is not None
    rows = pd.DataFrame(sweep.fit["residuals"])
    rows = rows.merge(sweep.cells[["cell", "shape", "seed", "repeat"]], on="cell", how="inner")
    rows["percent"] = 100 * np.expm1(rows.residual.astype(float))
    noise = (sweep.fit["seed_noise"] or {}).get("sd_relative")
    limit = 1.15 * max(float(rows.percent.abs().max()), 200 * (noise or 0.0), 0.01)
    left = _residual_panel(sweep, rows, ("params", params_title(sweep)), limit, noise)
    right = _residual_panel(sweep, rows, ("tokens", TOKENS), limit, noise)
    band = " The grey band is twice the run-to-run standard deviation measured from repeated seeds." if noise else ""
    caption = (
        "Measured loss relative to the fitted law, cell by cell. Points should scatter about zero without a trend "
        f"along either axis; a bend means that the form does not hold over the whole grid.{band}"
    ) + warning(sweep)
    return Figure("residuals", "Residuals", caption, alt.hconcat(left, right))


def _residual_panel(
    sweep: SweepFiles, rows: pd.DataFrame, along: tuple[str, str], limit: float, noise: float | None
) -> Any:
    field, title = along
    x = style.log_axis(field, title, style.padded(rows[field]), alt.X)
    scale = alt.Scale(domain=[-limit, limit], nice=False)
    y = alt.Y("percent:Q", title="residual (% of loss)", scale=scale)
    names = ("cell", "shape", "seed", "params", "tokens", "loss", "predicted", "percent")
    base = alt.Chart(rows).encode(x, y, shape_colour(sweep), tooltip=tooltip(*names))
    solid = base.transform_filter("!datum.repeat").mark_point(size=46, filled=True, opacity=1)
    ring = base.transform_filter("datum.repeat").mark_point(size=46, strokeWidth=1.5, opacity=1)
    zero = alt.Chart(pd.DataFrame({"percent": [0.0]})).mark_rule(color=style.INK, strokeWidth=1).encode(y)
    layers = [zero, solid, ring]
    if noise:
        edges = pd.DataFrame({"percent": [-200 * noise], "high": [200 * noise]})
        layers.insert(0, alt.Chart(edges).mark_rect(color="#dddddd", opacity=0.7).encode(y, alt.Y2("high")))
    return alt.layer(*layers).properties(width=PANEL, height=230)


def frontier(sweep: SweepFiles) -> Figure:
    """N* and D* over C with their bands; dashed where no cell was trained."""
    assert sweep.fit is not None
    curve = sweep.fit["frontier"]
    equations = curve.get("equations") or {}
    panels = [
        _frontier_panel(sweep, "params", f"optimal {params_title(sweep)}", _equation("N*", equations.get("params"))),
        _frontier_panel(sweep, "tokens", f"optimal {TOKENS}", _equation("D*", equations.get("tokens"))),
    ]
    caption = (
        "How to spend a training compute C: the parameters N* (left) and tokens D* (right) of least loss under the "
        "fitted law, with 95 % bands. Between the dotted lines lies the compute of the trained cells (faint points); "
        "beyond it the lines are dashed: extrapolation."
    ) + warning(sweep)
    return Figure("frontier", "Compute-optimal frontier", caption, alt.hconcat(*panels))


def _equation(name: str, equation: list[float] | None) -> str:
    if not equation or not all(np.isfinite(equation)):
        return ""
    coefficient, exponent = equation
    power = f"{coefficient:.3g}" if 1e-2 <= coefficient < 1e4 else style.scientific(coefficient)
    return f"{name} = {power} C^{exponent:.3f}"


def _frontier_panel(sweep: SweepFiles, key: str, title: str, equation: str) -> Any:
    assert sweep.fit is not None
    curve = sweep.fit["frontier"]
    low, high = curve["sampled_flops"]
    many = len(curve["flops"])
    columns = {name: curve[key].get(name) or [np.nan] * many for name in ("value", "low", "high")}
    rows = trusted(sweep, pd.DataFrame({"flops": curve["flops"], **columns}).astype(float))
    rows = rows[(rows.flops >= low / 4) & (rows.flops <= high * 30)]
    sampled = _between(rows, low, high)
    points = sweep.fitted[["cell", "shape", "flops", "tokens"]].copy()
    points["value"] = sweep.fitted[sweep.fit["choices"]["params"] if key == "params" else "tokens"].astype(float)
    domain = style.padded([*rows.value, *points.value, *sampled.low.dropna(), *sampled.high.dropna()], 0.04)
    x = style.log_axis("flops", FLOPS, style.padded(rows.flops, 0.02), alt.X, label="power", most=6)
    y = style.log_axis("value", title, domain, alt.Y)
    doubt = "" if not equation or sweep.fit["fit"]["certificate"]["certified"] else "  (not certified)"
    base = alt.Chart(rows).encode(x, y)
    tips = [alt.Tooltip("flops:Q", format=".3e"), *(alt.Tooltip(f"{name}:Q", format=",.0f") for name in columns)]
    edges = alt.Chart(pd.DataFrame({"flops": [low, high]})).encode(x)
    layers = [
        edges.mark_rule(color=style.FAINT, strokeDash=[2, 3]),
        alt.Chart(points)
        .mark_point(size=22, filled=True, color=style.FAINT, opacity=0.55)
        .encode(x, y, tooltip="cell:N"),
        base.mark_line(color=style.FIT, strokeWidth=1.8, strokeDash=[6, 4], clip=True).encode(tooltip=tips),
        alt.Chart(sampled).mark_line(color=style.FIT, strokeWidth=2.4).encode(x, y, tooltip=tips),
    ]
    if rows.low.notna().any():
        y_low = style.log_axis("low", title, domain, alt.Y)
        band = alt.Chart(rows).mark_area(color=style.FIT, opacity=0.18, clip=True)
        layers.insert(0, band.encode(x, y_low, alt.Y2("high")))
    return alt.layer(*layers).properties(width=PANEL + 20, height=260, title=equation + doubt)


def _between(rows: pd.DataFrame, low: float, high: float) -> pd.DataFrame:
    """The curve from `low` to `high` exactly: power laws, so straight in log-log between its points."""
    inside = rows.flops[(rows.flops > low) & (rows.flops < high)]
    flops = np.array([low, *inside, high])
    columns = {
        name: np.exp(np.interp(np.log(flops), np.log(rows.flops), np.log(rows[name])))
        for name in ("value", "low", "high")
    }
    return pd.DataFrame({"flops": flops, **columns})


def holdout(sweep: SweepFiles) -> Figure:
    """Predicted against measured loss of the held-out cells, and the errors, beside the competitor's."""
    assert sweep.fit is not None
    rows = _holdout_rows(sweep)
    limit = 1.1 * float(rows.percent.abs().max())
    drawn = [split for split in sweep.fit["holdouts"] if (rows.holdout == split["name"]).any()]
    width = min(PANEL, ABREAST // len(drawn))
    columns: list[Any] = []
    for split in drawn:
        mine = rows[rows.holdout == split["name"]]
        domain = style.padded([*mine.loss, *mine.predicted])
        columns.append(_holdout_column(mine, domain, limit, split, width))
    caption = (
        "Cells that were kept from the fit, predicted by it. Top: predicted against measured loss; on the line the "
        "prediction is right. Bottom: the same as error in percent. Blue: the law fitted to the other cells; orange: "
        "the plainest competitor, an additive table of shape and budget effects extended in log-log. A law that earns "
        "its form has blue points nearer to zero than orange ones."
    )
    return Figure("holdout", "Hold-outs: predicted against measured", caption, alt.hconcat(*columns))


def _holdout_rows(sweep: SweepFiles) -> pd.DataFrame:
    assert sweep.fit is not None
    rows = []
    for split in sweep.fit["holdouts"]:
        for row in split["rows"]:
            shown = {key: row[key] for key in ("cell", "params", "tokens", "loss")} | {"holdout": split["name"]}
            for by, prefix in (("law", ""), ("competitor", "competitor_")):
                if row.get(f"{prefix}predicted") is not None:
                    error = 100 * row[f"{prefix}relative_error"]
                    rows.append(shown | {"by": by, "predicted": row[f"{prefix}predicted"], "percent": error})
    columns = ["cell", "params", "tokens", "loss", "holdout", "by", "predicted", "percent"]
    return pd.DataFrame(rows, columns=columns)


def _holdout_column(
    rows: pd.DataFrame, domain: tuple[float, float], limit: float, split: dict[str, Any], width: int
) -> Any:
    key = alt.Legend(title=None, symbolSize=70, symbolOpacity=1, orient="bottom")
    by = ["law", "competitor"]
    colour = alt.Color("by:N", sort=by, scale=alt.Scale(domain=by, range=[style.FIT, style.COMPETITOR]), legend=key)
    shape = alt.Shape("by:N", sort=by, scale=alt.Scale(domain=by, range=["circle", "triangle-up"]), legend=key)
    x = style.log_axis("loss", "measured loss (nats per token)", domain, alt.X, label="plain")
    bare = style.log_axis("loss", "", domain, alt.X, label="plain", labels=False, ticks=False)
    y = style.log_axis("predicted", "predicted loss (nats per token)", domain, alt.Y, label="plain")
    tips = tooltip("cell", "params", "tokens", "loss", "predicted", "percent", "by")
    marks = alt.Chart(rows).mark_point(size=55, filled=True, opacity=0.9).encode(colour, shape, tooltip=tips)
    ends = pd.DataFrame({"loss": domain, "predicted": domain})
    diagonal = alt.Chart(ends).mark_line(color=style.INK, strokeWidth=1).encode(bare, y)
    words = split["name"].replace("_", " ") + ("" if split["certified"] else " (fit not certified)")
    top = alt.layer(diagonal, marks.encode(bare, y)).properties(width=width, height=PANEL - 40, title=words)
    error = alt.Y("percent:Q", title="error (%)", scale=alt.Scale(domain=[-limit, limit], nice=False))
    zero = alt.Chart(pd.DataFrame({"percent": [0.0]})).mark_rule(color=style.INK, strokeWidth=1).encode(error)
    return alt.vconcat(top, alt.layer(zero, marks.encode(x, error)).properties(width=width, height=120), spacing=10)


def exponents(sweep: SweepFiles) -> Figure:
    """The exponents under every count of parameters and every loss function: dot and 95 % whisker."""
    assert sweep.fit is not None
    rows = _exponent_rows(sweep)
    labels = list(dict.fromkeys(rows.label))
    present = [(key, title) for key, title in QUANTITIES if (rows.key == key).any()]
    panels = [
        _exponent_panel(rows[rows.key == key], title, labels, number == 0)
        for number, (key, title) in enumerate(present)
    ]
    caption = (
        "The same cells fitted under each way of counting parameters (rows N, with the headline's loss function) and "
        "under each loss function of the fit (rows fit). Whiskers are 95 % intervals, the dotted line is the headline. "
        "An exponent is only meaningful with its count; the loss function should move it by less than its interval."
    )
    if tuned := sweep.fit.get("tuning"):
        caption += f" The row {TUNED} takes each cell at its own, with what is not known of these in its interval"
        caption += f"{doubt.ends(tuned)}."
    if not rows.certified.all():
        caption += " Hollow grey marks: that fit is not certified."
    return Figure("exponents", "Exponents by choice", caption, alt.hconcat(*panels, spacing=14))


def _exponent_rows(sweep: SweepFiles) -> pd.DataFrame:
    assert sweep.fit is not None
    named = [("N: " + fit["params"], fit) for fit in sweep.fit["by_params"]]
    named += [("fit: " + LOSS_NAMES.get(fit["loss"], fit["loss"]), fit) for fit in sweep.fit["by_loss"]]
    rows = []
    for label, fit in named:
        for key in sorted(set(fit["estimates"]) & {"alpha", "beta", "a"}):
            low, high = (fit["intervals"] or {}).get(key) or (np.nan, np.nan)
            rows.append((label, key, fit["estimates"][key], low, high, fit["certificate"]["certified"],
                         sweep.fit["fit"]["estimates"][key]))  # fmt: skip
    tuned = sweep.fit.get("tuning") or {"quantities": {}}
    for key, entry in tuned["quantities"].items():
        low, high = (np.nan if entry[end] is None else entry[end] for end in ("low", "high"))
        rows.append((TUNED, key, entry["value"], low, high, tuned["certified"], sweep.fit["fit"]["estimates"][key]))
    columns = ["label", "key", "value", "low", "high", "certified", "headline"]
    return pd.DataFrame(rows, columns=columns)


def _exponent_panel(rows: pd.DataFrame, title: str, labels: list[str], first: bool) -> Any:
    shown = pd.concat([rows.value, rows.low, rows.high]).dropna()
    # A fit that is not certified can be anywhere: it must not squeeze those that are.
    sound = rows[rows.certified] if rows.certified.any() else rows
    sound_values = pd.concat([sound.value, sound.low, sound.high, rows.headline]).dropna()
    margin = max(float(sound_values.max() - sound_values.min()), 0.02)
    low = max(float(shown.min()), float(sound_values.min()) - margin) - 0.08 * margin
    high = min(float(shown.max()), float(sound_values.max()) + margin) + 0.08 * margin
    scale = alt.Scale(domain=[low, high], nice=False, zero=False, clamp=True)
    x = alt.X("value:Q", title=title, scale=scale, axis=alt.Axis(tickCount=5))
    axis = alt.Axis(labelLimit=200, title=None, ticks=False) if first else None
    y = alt.Y("label:N", sort=labels, axis=axis)
    tone = alt.condition("datum.certified", alt.value(style.FIT), alt.value(style.FAINT))
    numbers = [alt.Tooltip(f"{name}:Q", format=".4f") for name in ("value", "low", "high")]
    base = alt.Chart(rows).encode(y, tooltip=["label:N", *numbers, "certified:N"])
    fill = alt.condition("datum.certified", alt.value(style.FIT), alt.value("white"))
    dots = base.mark_point(size=60, opacity=1, strokeWidth=1.6).encode(x, fill=fill, stroke=tone)
    whiskers = base.mark_rule(strokeWidth=1.8).encode(
        alt.X("low:Q", scale=scale, title=title), alt.X2("high"), color=tone
    )
    headline = alt.Chart(rows.head(1)).mark_rule(color=style.INK, strokeDash=[2, 3])
    line = headline.encode(alt.X("headline:Q", scale=scale, title=title))
    return alt.layer(line, whiskers, dots).properties(width=190, height=alt.Step(24))
