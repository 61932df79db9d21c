"""report.html: one page that needs nothing but itself, and the figures as files beside it."""

from functools import cache, partial
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import vl_convert

from harness import __version__
from harness.files import make_folder, write_atomically
from harness.report import diagnostics, figures, style
from harness.report.figures import Figure
from harness.report.inputs import Sweep, read
from harness.report.prose import excluded, headline, methods, settings, trained, why_no_fit
from harness.report.tables import run_table, tables

FIGURES = (
    "curves", "loss_by_params", "loss_by_tokens", "loss_by_flops", "residuals", "holdout", "exponents", "frontier",
)  # fmt: skip


def write_report(path: Path) -> Path:
    """Writes report.html and figures/ of a sweep directory; returns the page's path.

    Raises UserError, before anything is written, where the directory is no sweep or cannot be written to.
    """
    sweep = read(path)
    drawn = draw(sweep)
    page = render(sweep, drawn)
    folder = make_folder(path / "figures")
    for figure in drawn:
        save = figure.chart.save
        write_atomically(folder / f"{figure.name}.svg", partial(save, format="svg"))
        write_atomically(folder / f"{figure.name}.png", partial(save, format="png", scale_factor=2))
    for name in set(FIGURES) - {figure.name for figure in drawn}:
        for kind in ("svg", "png"):
            (folder / f"{name}.{kind}").unlink(missing_ok=True)
    write_atomically(path / "report.html", page)
    return path / "report.html"


def draw(sweep: Sweep) -> list[Figure]:
    """The figures that the sweep's files allow, in the order of the page."""
    makers = [figures.curves] if len(sweep.curves) else []
    if sweep.fit and len(sweep.finished):
        makers += [figures.loss_by_params, figures.loss_by_tokens]
        makers += [figures.loss_by_flops] if sweep.fit["frontier"] else []
        makers += [diagnostics.residuals]
        makers += [diagnostics.holdout] if any(held["rows"] for held in sweep.fit["holdouts"]) else []
        makers += [diagnostics.exponents]
        makers += [diagnostics.frontier] if sweep.fit["frontier"] else []
    drawn = []
    with alt.data_transformers.enable("default", max_rows=None):
        for maker in makers:
            figure = maker(sweep)
            chart = style.finish(figure.chart, f"{figure.title}. {figure.caption}")
            drawn.append(Figure(figure.name, figure.title, figure.caption, chart))
    return drawn


def render(sweep: Sweep, drawn: list[Figure]) -> str:
    """The page as HTML text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    with alt.data_transformers.enable("default", max_rows=None):
        specs: dict[str, Any] = {figure.name: figure.chart.to_dict() for figure in drawn}
    return environment.get_template("page.html.j2").render(
        sweep=sweep,
        fit=sweep.fit,
        headline=headline(sweep),
        why_no_fit=why_no_fit(sweep),
        trained=trained(sweep),
        figures=drawn,
        specs=specs,
        tables=tables(sweep),
        runs=run_table(sweep),
        methods=methods(sweep),
        settings=settings(sweep),
        excluded=excluded(sweep),
        version=__version__,
        javascript=_javascript() if drawn else "",
    )


@cache
def _javascript() -> str:
    """Vega, Vega-Lite and Vega-Embed for altair's Vega-Lite version, as one script that loads nothing."""
    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    script: Any = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
    assert "</script" not in script and "<!--" not in script
    return str(script)
