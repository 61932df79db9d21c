"""report.html: one page that needs nothing but itself, the figures as files beside it, and what a paper quotes."""

from functools import cache
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import vl_convert

from harness import __version__
from harness.files import make_folder, write_atomically
from harness.report import comparison, diagnostics, figures, variants
from harness.report.figures import Figure
from harness.report.forecasts import forecasts
from harness.report.inputs import SweepFiles, read
from harness.report.paper import FILES, paper
from harness.report.prose import excluded, headline, methods, settings, trained, why_no_fit
from harness.report.style import specification
from harness.report.tables import run_table, tables

# The version that altair writes, as vl-convert names it.
VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
FIGURES = (
    "curves", "loss_by_params", "loss_by_tokens", "loss_by_flops", "residuals", "holdout", "exponents", "frontier",
)  # fmt: skip
OF_VARIANTS = ("loss_by_variant", "multipliers")


def write_report(path: Path) -> Path:
    """Writes report.html, figures/ and paper/ of a sweep directory; returns the page's path.

    Raises UserError, before anything is written, where the directory is no sweep or cannot be written to.
    """
    sweep = read(path)
    drawn = draw(sweep)
    specs = specifications(drawn)
    page = render(sweep, drawn, specs)
    quoted = paper(sweep) | comparison.paper(sweep)
    folder = make_folder(path / "figures")
    if quoted:
        make_folder(path / "paper")
    for name, spec in specs.items():
        write_atomically(folder / f"{name}.svg", vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE))
        write_atomically(folder / f"{name}.png", vl_convert.vegalite_to_png(spec, vl_version=VEGA_LITE, scale=2))
    for name in {*FIGURES, *OF_VARIANTS} - set(specs):
        for kind in ("svg", "png"):
            (folder / f"{name}.{kind}").unlink(missing_ok=True)
    for name, text in quoted.items():
        write_atomically(path / "paper" / name, text)
    for name in {*FILES, *comparison.FILES} - set(quoted):
        (path / "paper" / name).unlink(missing_ok=True)
    write_atomically(path / "report.html", page)
    return path / "report.html"


def draw(sweep: SweepFiles) -> list[Figure]:
    """The figures that the sweep's files allow, in the order of the page."""
    makers = [figures.curves] if len(sweep.curves) else []
    makers += [variants.loss_by_variant] if len(sweep.variants) > 1 and len(sweep.finished) else []
    makers += [comparison.by_compute] if sweep.comparison else []
    if sweep.fit and len(sweep.finished):
        makers += [figures.loss_by_params, figures.loss_by_tokens]
        makers += [figures.loss_by_flops] if sweep.fit["frontier"] else []
        makers += [diagnostics.residuals]
        makers += [diagnostics.holdout] if any(split["rows"] for split in sweep.fit["holdouts"]) else []
        makers += [diagnostics.exponents]
        makers += [diagnostics.frontier] if sweep.fit["frontier"] else []
    return [maker(sweep) for maker in makers]


def specifications(drawn: list[Figure]) -> dict[str, dict[str, Any]]:
    """Vega-Lite by figure name."""
    return {figure.name: specification(figure.chart, f"{figure.title}. {figure.caption}") for figure in drawn}


def render(sweep: SweepFiles, drawn: list[Figure], specs: dict[str, dict[str, Any]]) -> str:
    """The page as HTML text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html.j2").render(
        sweep=sweep,
        fit=sweep.fit,
        headline=headline(sweep),
        why_no_fit=why_no_fit(sweep),
        compared=comparison.compared(sweep),
        trained=trained(sweep),
        figures=drawn,
        specs=specs,
        tables=[table for table in (comparison.multipliers(sweep), *tables(sweep)) if table is not None],
        runs=run_table(sweep),
        forecasts=forecasts(sweep),
        methods=methods(sweep) + comparison.methods(sweep),
        settings=settings(sweep),
        excluded=excluded(sweep),
        version=__version__,
        javascript=_javascript() if drawn else "",
    )


@cache
def _javascript() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that loads nothing."""
    script: Any = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    assert "</script" not in script and "<!--" not in script
    return str(script)
