"""report.html: one page that needs nothing but itself, the figures as files beside it, and what a paper quotes."""

from pathlib import Path
from typing import Any

import vl_convert

from harness import __version__
from harness.files import make_folder, write_atomically
from harness.report import collapse, comparison, diagnostics, figures, variants
from harness.report.claims import NAME as CLAIM
from harness.report.claims import Section, section
from harness.report.coordinates import NAME as COORDINATES
from harness.report.coordinates import coordinates
from harness.report.figures import Figure
from harness.report.forecasts import forecasts
from harness.report.inputs import SweepFiles, read
from harness.report.paper import FILES, paper
from harness.report.prose import excluded, headline, methods, settings, trained, why_no_fit
from harness.report.render import VEGA_LITE, javascript, rendered
from harness.report.style import specification
from harness.report.tables import run_table, tables

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
    claim = sweep.claim and section(path.name, sweep.claim)
    curves = collapse.section(sweep)
    beside = [each.figure for each in (claim, curves) if each and each.figure]
    specs = specifications([*drawn, *beside])
    page = render(sweep, drawn, specs, claim or None, curves)
    quoted = paper(sweep) | comparison.paper(sweep)
    folder = make_folder(path / "figures")
    if quoted:
        make_folder(path / "paper")
    for name, spec in specs.items():
        svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE)
        write_atomically(folder / f"{name}.svg", svg)
        write_atomically(folder / f"{name}.png", vl_convert.svg_to_png(svg, scale=2))
    for name in {*FIGURES, *OF_VARIANTS, CLAIM, COORDINATES, collapse.NAME} - set(specs):
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
    return [*filter(None, [coordinates(sweep)]), *(maker(sweep) for maker in makers)]


def specifications(drawn: list[Figure]) -> dict[str, dict[str, Any]]:
    """Vega-Lite by figure name."""
    return {figure.name: specification(figure.chart, f"{figure.title}. {figure.caption}") for figure in drawn}


def render(
    sweep: SweepFiles,
    drawn: list[Figure],
    specs: dict[str, dict[str, Any]],
    claim: Section | None = None,
    curves: collapse.Section | None = None,
) -> str:
    """The page as HTML text."""
    return rendered(
        "page.html.j2",
        sweep=sweep,
        fit=sweep.fit,
        headline=headline(sweep),
        why_no_fit=why_no_fit(sweep),
        compared=comparison.compared(sweep),
        claim=claim,
        trained=trained(sweep),
        figures=drawn,
        specs=specs,
        tables=[table for table in (comparison.multipliers(sweep), *tables(sweep)) if table is not None],
        runs=run_table(sweep),
        forecasts=forecasts(sweep),
        collapse=curves,
        methods=methods(sweep) + comparison.methods(sweep),
        settings=settings(sweep),
        excluded=excluded(sweep),
        version=__version__,
        javascript=javascript() if specs else "",
    )
