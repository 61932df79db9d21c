"""The figures of a sweep and its fit: one altair chart gives the interactive page, the PNG and the SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from harness.report import style
from harness.report.inputs import SweepFiles

PANEL = 300
TOKENS, LOSS, PARAMS = "training tokens D", "validation loss (nats per token)", "parameters N"
FLOPS = "training compute C (FLOPs)"


@dataclass(frozen=True)
class Figure:
    """A chart with its file name, its title and a caption that tells how to read it."""

    name: str
    title: str
    caption: str
    chart: Any


def shape_colour(sweep: SweepFiles) -> alt.Color:
    """The colour of each shape, the same in every figure; the legend gives its params_with_head."""
    params = sweep.cells.groupby("shape").params_with_head.first()
    labels = [f"{shape}  ({style.count(params[shape])})" for shape in sweep.shapes]
    return style.shape_colour(sweep.shapes, labels)


def cell_points(sweep: SweepFiles, cells: pd.DataFrame | None = None) -> pd.DataFrame:
    """The cells that a law is shown for, or `cells`, with what tooltips show, and the fit's count of `params`."""
    loss = loss_column(sweep) if cells is None else "loss"
    cells = sweep.fitted if cells is None else cells
    points = cells[["cell", "shape", "seed", "repeat", "tokens", "flops"]].assign(loss=cells[loss])
    points["params"] = cells[params_column(sweep)].astype(float)
    return points


def params_column(sweep: SweepFiles) -> str:
    return sweep.fit["choices"]["params"] if sweep.fit else "params_with_head"


def loss_column(sweep: SweepFiles) -> str:
    """What the law predicts, where the run table still has it."""
    target = sweep.fit["choices"]["target"] if sweep.fit else "loss"
    return target if target in sweep.cells.columns else "loss"


def params_title(sweep: SweepFiles) -> str:
    return f"{PARAMS} ({params_column(sweep)})"


def tooltip(*names: str) -> list[alt.Tooltip]:
    formats = {"params": ",.0f", "tokens": ",.0f", "flops": ".3e", "loss": ".4f", "predicted": ".4f"}
    formats |= {"train_loss": ".4f", "percent": "+.3f"}
    return [
        alt.Tooltip(f"{name}:Q", format=formats[name]) if name in formats else alt.Tooltip(f"{name}:N")
        for name in names
    ]


def points_mark(points: pd.DataFrame, x: Any, y: Any, colour: Any, size: int = 46) -> Any:
    """Circles in the colour of their shape; a ring for a repeat with another seed, so that it hides nothing."""
    names = ("cell", "shape", "seed", "params", "tokens", "flops", "loss")
    base = alt.Chart(points).encode(x, y, tooltip=tooltip(*names))
    solid = base.transform_filter("!datum.repeat").mark_point(size=size, filled=True, opacity=1).encode(colour)
    ring = base.transform_filter("datum.repeat").mark_point(size=2.6 * size, strokeWidth=1.5, opacity=1)
    return solid + ring.encode(colour)


def repeats_note(sweep: SweepFiles) -> str:
    return " Rings are repeats with another seed." if sweep.finished.repeat.any() else ""


def curves(sweep: SweepFiles) -> Figure:
    """Training loss against tokens: each trunk whole on the left, the cooldowns enlarged on the right."""
    finished = sweep.finished
    lines = sweep.curves
    late = float(sweep.cells.tokens.min()) * 0.6
    whole = _curves_panel(sweep, lines, float(lines.tokens.max()) / 300, 20).properties(title="a  whole runs")
    near = _curves_panel(sweep, lines, late, 46).properties(title="b  the cooldowns, enlarged")
    ends = "circles mark the validation loss at the end of each cell" if len(finished) else "no cell finished yet"
    caption = (
        "Training loss against tokens, one line a trunk (one shape and seed), averaged over bins of 3 % in tokens. "
        "Where the learning rate is cooled down towards a token budget a thinner line branches off downwards; "
        f"{ends}, and only these enter the fit. Panel b enlarges the range of the budgets." + repeats_note(sweep)
    )
    return Figure("curves", "Training curves", caption, alt.hconcat(whole, near).resolve_scale(y="independent"))


def _curves_panel(sweep: SweepFiles, lines: pd.DataFrame, start: float, size: int) -> Any:
    # One bin before the start keeps a line from beginning inside the panel.
    shown = lines[lines.tokens >= start / 1.05].round({"tokens": 0, "train_loss": 4})
    columns = ["cell", "shape", "phase", "line", "tokens", "train_loss"]
    ends = sweep.finished
    healthy = shown[shown.trunk.isin(ends.trunk)] if len(ends) else shown
    losses = [*healthy.train_loss, *ends.loss]
    x_domain = (start, style.padded([*lines.tokens, *ends.tokens], 0.01)[1])
    x = style.log_axis("tokens", TOKENS, x_domain, alt.X)
    y = style.log_axis("train_loss", "loss (nats per token)", style.padded(losses), alt.Y, label="plain", most=9)
    colour = shape_colour(sweep)
    base = alt.Chart(shown[columns]).encode(
        x, y, colour, detail="line:N", tooltip=tooltip("cell", "tokens", "train_loss")
    )
    trunk = base.transform_filter("datum.phase == 'trunk'").mark_line(strokeWidth=1.4, opacity=0.75, clip=True)
    branch = base.transform_filter("datum.phase == 'cooldown'").mark_line(strokeWidth=1.0, clip=True)
    layers = [trunk, branch]
    if len(ends):
        y_end = style.log_axis("loss", "loss (nats per token)", style.padded(losses), alt.Y, label="plain", most=9)
        layers.append(points_mark(cell_points(sweep, ends), x, y_end, colour, size))
    return alt.layer(*layers).properties(width=PANEL + 20, height=PANEL + 20)


def loss_by_tokens(sweep: SweepFiles) -> Figure:
    """Loss against D, one fitted line with its interval a shape."""
    assert sweep.fit is not None
    points = cell_points(sweep)
    bands = _bands_of_shapes(sweep, points)
    x = style.log_axis("tokens", TOKENS, style.padded(points.tokens), alt.X)
    chart = _banded(points, bands, x, shape_colour(sweep), "shape", floor=known_floor(sweep))
    caption = (
        f"Validation loss of every finished cell against its training tokens; lines are the fitted law at each shape's "
        f"{params_column(sweep)}, shaded bands the {_kind(sweep)} (often thinner than a point). A law that holds "
        "passes through the points of every shape with one set of five parameters."
        + repeats_note(sweep)
        + floor_note(sweep)
        + warning(sweep)
    )
    return Figure("loss_by_tokens", "Loss against training tokens", caption, chart)


def loss_by_params(sweep: SweepFiles) -> Figure:
    """Loss against N, one fitted line with its interval a token budget."""
    assert sweep.fit is not None
    points = cell_points(sweep)
    drawn = sorted(sweep.fit["bands"]["by_params"], key=lambda band: float(band["tokens"]))
    budgets = [float(band["tokens"]) for band in drawn] or sorted(set(points.tokens))
    labels = budget_labels(budgets)
    nearest = [int(np.argmin([abs(np.log(tokens / budget)) for budget in budgets])) for tokens in points.tokens]
    points["budget"] = [labels[number] for number in nearest]
    bands = trusted(sweep, _band_rows(drawn, "params", "budget", labels if drawn else []))
    x = style.log_axis("params", params_title(sweep), style.padded(points.params), alt.X)
    scale = alt.Scale(domain=labels, range=style.ramp(style.BUDGET_RAMP, len(labels)))
    legend = alt.Legend(title="token budget", symbolType="circle", symbolSize=70, symbolOpacity=1)
    colour = alt.Color("budget:N", sort=labels, scale=scale, legend=legend)
    chart = _banded(points, bands, x, colour, "budget", floor=known_floor(sweep))
    caption = (
        f"The same cells against their parameters ({params_column(sweep)}), one line a token budget; bands "
        f"are the {_kind(sweep)}. Lines that flatten to the right are limited by their tokens."
        + repeats_note(sweep)
        + floor_note(sweep)
        + warning(sweep)
    )
    return Figure("loss_by_params", "Loss against parameters", caption, chart)


def budget_labels(budgets: list[float]) -> list[str]:
    """Short names of token budgets, with as many digits as tell them apart."""
    for digits in (2, 3, 4):
        labels = [style.count(budget, digits) for budget in budgets]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{budget:.0f}" for budget in budgets]


def loss_by_flops(sweep: SweepFiles) -> Figure:
    """Loss against C: the cells, each shape's fitted line, and the compute-optimal frontier."""
    assert sweep.fit is not None
    points = cell_points(sweep)
    bands = _bands_of_shapes(sweep, points)
    per_token = (points.flops / points.tokens).groupby(points["shape"]).mean()
    bands["flops"] = bands.tokens * bands["shape"].map(per_token)
    x = style.log_axis("flops", FLOPS, style.padded(points.flops), alt.X, label="power")
    frontier = pd.DataFrame({"flops": sweep.fit["frontier"]["flops"], **_triple(sweep.fit["frontier"]["loss"])})
    low, high = style.padded(points.flops)
    floor = known_floor(sweep)
    frontier = trusted(sweep, frontier)[(frontier.flops >= low) & (frontier.flops <= high)]
    losses = style.padded([*points.loss, *bands.predicted[bands.flops.between(low, high)], *frontier.predicted, *floor])
    chart = _banded(points, bands, x, shape_colour(sweep), "shape", losses, floor)
    y = style.log_axis("predicted", LOSS, losses, alt.Y, label="plain", most=9)
    base = alt.Chart(frontier).encode(x)
    layers = [base.mark_line(color=style.INK, strokeWidth=2, strokeDash=[6, 3], clip=True).encode(y)]
    if frontier.low.notna().all() and len(frontier):
        y_low = style.log_axis("low", LOSS, losses, alt.Y, label="plain", most=9)
        layers.insert(0, base.mark_area(color=style.INK, opacity=0.15, clip=True).encode(y_low, alt.Y2("high")))
    caption = (
        "The same cells against training compute, counted exactly (attention and head included); lines are the fitted "
        "law of each shape. The dashed black line is the loss L*(C) of the compute-optimal mix of parameters and "
        "tokens, with its 95 % band: no shape's line should pass clearly below it."
        + repeats_note(sweep)
        + floor_note(sweep)
        + warning(sweep)
    )
    return Figure("loss_by_flops", "Loss against training compute", caption, alt.layer(*layers, chart))


def _kind(sweep: SweepFiles) -> str:
    assert sweep.fit is not None
    return str(sweep.fit["bands"].get("kind") or "95 % interval")


def warning(sweep: SweepFiles) -> str:
    """What a caption adds where the law is of another loss, and where the fit it shows is not certified."""
    assert sweep.fit is not None
    other = "" if (column := loss_column(sweep)) == "loss" else f" The loss is the column {column}."
    if sweep.fit["fit"]["certificate"]["certified"]:
        return other
    return f"{other} The fit is not certified, so its intervals are not drawn: see its reasons above."


def known_floor(sweep: SweepFiles) -> list[float]:
    """The loss of the best predictor where the fit knows it, else nothing."""
    known = (sweep.fit or {}).get("floor")
    return [float(known["known"])] if known and known["known"] > 0 else []  # its axis is a log one


def floor_note(sweep: SweepFiles) -> str:
    return "".join(
        f" The dotted line is the loss of the best predictor of this text, {known:.4f} nats."
        for known in known_floor(sweep)
    )


def trusted(sweep: SweepFiles, curve: pd.DataFrame) -> pd.DataFrame:
    """A curve without its interval where the fit is not certified: such an interval means nothing."""
    assert sweep.fit is not None
    return curve if sweep.fit["fit"]["certificate"]["certified"] else curve.assign(low=np.nan, high=np.nan)


def _triple(curve: dict[str, Any]) -> dict[str, Any]:
    """A curve with its interval as columns; an interval that is missing is NaN."""
    many = len(curve["value"])
    columns = {"predicted": curve["value"], "low": curve.get("low"), "high": curve.get("high")}
    return {key: np.array([np.nan] * many if value is None else value, float) for key, value in columns.items()}


def _band_rows(bands: list[dict[str, Any]], along: str, key: str, names: list[str]) -> pd.DataFrame:
    """The curves of `bands`, each by its name in the column `key`; a law that has none gives no row."""
    if not bands:
        return pd.DataFrame({column: np.empty(0) for column in (along, "predicted", "low", "high", key)})
    parts = []
    for band, name in zip(bands, names, strict=True):
        curve = _triple({"value": band["predicted"], "low": band.get("low"), "high": band.get("high")})
        parts.append(pd.DataFrame({along: band[along], **curve, key: name}))
    return pd.concat(parts, ignore_index=True)


def _bands_of_shapes(sweep: SweepFiles, points: pd.DataFrame) -> pd.DataFrame:
    """The bands along tokens, each named by the shape whose params are nearest."""
    assert sweep.fit is not None
    params = points.groupby("shape").params.first()
    bands = sweep.fit["bands"]["by_tokens"]
    names = [str((np.log(params / band["params"])).abs().idxmin()) for band in bands]
    return trusted(sweep, _band_rows(bands, "tokens", "shape", names))


def _banded(
    points: pd.DataFrame,
    bands: pd.DataFrame,
    x: Any,
    colour: Any,
    key: str,
    domain: tuple[float, float] | None = None,
    floor: Sequence[float] = (),
) -> Any:
    """Cells with fitted lines and their interval bands, and a line at each `floor`."""
    field, (low, high) = x.to_dict()["field"], x.to_dict()["scale"]["domain"]
    bands = bands[(bands[field] >= low) & (bands[field] <= high)]
    domain = domain or style.padded([*points.loss, *bands.predicted, *floor])
    ys = {
        name: style.log_axis(name, LOSS, domain, alt.Y, label="plain", most=9)
        for name in ("loss", "predicted", "low", "floor")
    }
    base = alt.Chart(bands).encode(x, colour)
    layers = [
        base.mark_line(strokeWidth=1.5, clip=True).encode(ys["predicted"], tooltip=tooltip(key, field, "predicted"))
    ]
    if bands.low.notna().any():
        layers.insert(
            0, base.mark_area(opacity=0.25, clip=True).encode(ys["low"], alt.Y2("high"), tooltip=alt.value(None))
        )
    for known in floor:
        line = alt.Chart(pd.DataFrame({"floor": [known], "label": [f"known floor {known:.4f}"]})).encode(ys["floor"])
        label = line.mark_text(align="left", baseline="bottom", dx=4, color=style.INK)
        layers += [line.mark_rule(color=style.INK, strokeDash=[2, 3]), label.encode(x=alt.value(0), text="label:N")]
    layers.append(points_mark(points, x, ys["loss"], colour))
    return alt.layer(*layers).properties(width=PANEL + 150, height=PANEL + 20)
