from __future__ import annotations

import copy
import json
import re
import struct
import xml.etree.ElementTree as ET
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from synthetic_sweep import diverge, hand_study, make_rows, write_sweep

from harness.errors import UserError
from harness.laws.settings import FitConfig
from harness.laws.study import write_study
from harness.report.inputs import read
from harness.report.page import FIGURES, draw, render, specifications, write_report
from harness.report.prose import training


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text of each script."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1] += data


def render_page(directory: Path) -> str:
    sweep = read(directory)
    drawn = draw(sweep)
    return render(sweep, drawn, specifications(drawn))


def text_of(page: str, start: str, end: str) -> str:
    return page[page.index(start) : page.index(end, page.index(start))]


@pytest.fixture(scope="module")
def page(finished) -> str:
    return (finished / "report.html").read_text()


def test_page_loads_nothing_from_anywhere(page):
    elements = Elements(page)
    assert not {tag for tag, _ in elements.tags} & {"link", "img", "iframe", "object", "embed", "base", "video"}
    assert not [attrs for _, attrs in elements.tags if "src" in attrs or "href" in attrs or "srcset" in attrs]
    policy = next(attrs["content"] for tag, attrs in elements.tags if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'; ")
    assert not re.search(r"https?:|//[a-z]", policy)
    library = max(elements.scripts, key=len)
    rest = page.replace(library, "")
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", rest)
    schema = "https://vega.github.io/schema/vega-lite/v"
    assert {found for found in re.findall(r"https?://[^\d\"]*", rest)} == {schema}


def test_javascript_stands_in_the_page_once(page):
    scripts = Elements(page).scripts
    assert len([script for script in scripts if "window.vegaEmbed" in script]) == 1
    assert len(scripts) == len(FIGURES) + 2
    assert len(page) < 3_000_000


@pytest.mark.parametrize("key", ["floors", "inserted"])
def test_texts_apart_are_not_said_to_validate_on_the_same_tokens(finished, key):
    sweep = read(finished)
    alike, apart = training(sweep), training(replace(sweep, content=sweep.content | {key: {"a": {}}}))
    assert any("one fixed set of tokens that is the same for all cells. FLOPs" in said for said in alike)
    assert any("the same for all cells that train on the same text. FLOPs" in said for said in apart)


def test_every_headline_number_is_in_the_page(page):
    head = text_of(page, '<div class="headline', "</div>")
    for number, interval in (
        ("α = 0.380", "[0.345, 0.415]"),
        ("β = 0.460", "[0.432, 0.488]"),
        ("a = 0.548", "[0.517, 0.579]"),
        ("E = 2.10", "[1.99, 2.21]"),
    ):
        assert f'{number} <span class="interval">{interval}</span></span>' in head
    assert "L = E + A / N<sup>α</sup> + B / D<sup>β</sup>" in head
    assert "The fit is <b>certified</b>" in page


def test_a_certified_fit_is_doubted_only_where_its_variants_are_not(page):
    # params_total, as the one uncertified count: E, A, B, alpha, beta, a and the objective.
    assert page.count('class="doubt"') == 7
    row = text_of(page, "<td>params_total</td>", "</tr>")
    assert row.count("not certified") == 7
    assert "NO: the exponents are not identified by these cells" in row


def test_not_certified_is_said_at_every_number(tmp_path, rows):
    study = hand_study(pd.DataFrame(rows), certified=False)
    page = render_page(write_sweep(tmp_path / "doubtful", rows, study=study))
    head = text_of(page, '<div class="headline uncertified', "</div>")
    assert head.count('class="number"') == head.count("not certified") == 4
    # Headline 4; 3 counts and 4 losses with 6 estimates and an objective each; 3 single laws with 2 estimates;
    # 2 hold-outs with an error and a ratio; 2 moves of 3 exponents.
    assert page.count('class="doubt"') == 4 + (3 + 4) * 7 + 3 * 2 + 2 * 2 + 2 * 3
    assert "<b>This fit is not certified</b>" in page
    for figure in ("loss_by_params", "loss_by_tokens", "loss_by_flops", "residuals", "frontier"):
        assert "The fit is not certified" in text_of(page, f'id="figure-{figure}"', "</figcaption>"), figure


def test_a_diverged_cell_is_shown_with_its_error_and_left_out_by_name(page, finished):
    cells = read(finished).cells
    cell = cells[cells.status == "diverged"].cell.item()
    row = text_of(page, f"<td>{cell}</td>", "</tr>")
    assert '<td class="bad">diverged</td>' in row
    assert "the loss was NaN at step 412" in row
    assert page.count("<td>finished</td>") == 31
    assert "31 finished, 1 diverged" in page


def test_every_figure_is_a_png_and_an_svg_with_content(finished):
    found = {path.name for path in (finished / "figures").iterdir()}
    assert found == {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    for name in FIGURES:
        width, height, rows = png_rows((finished / "figures" / f"{name}.png").read_bytes())
        assert width > 900 and height > 300, name
        assert len(set(rows)) > 100, f"{name} is blank"
        svg = ET.parse(finished / "figures" / f"{name}.svg").getroot()
        assert svg.tag.endswith("svg")
        assert len([part for part in svg.iter() if part.tag.endswith("path") and len(part.get("d", "")) > 5]) > 20, name


def png_rows(data: bytes) -> tuple[int, int, list[bytes]]:
    """Width, height and filtered scan lines; a blank picture has at most a few distinct ones."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, packed, width, height = 8, b"", 0, 0
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack(">I", data[place + 8 + length : place + 12 + length])[0]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
            assert (depth, colour) == (8, 6)
        packed += body if kind == b"IDAT" else b""
        place += 12 + length
    raw, line = zlib.decompress(packed), 1 + 4 * width
    assert len(raw) == line * height
    return width, height, [raw[start + 1 : start + line] for start in range(0, len(raw), line)]


def test_hostile_text_stays_text(tmp_path):
    hostile = "<script>alert(1)</script>"
    rows = make_rows()
    rows[0] = diverge(rows[0], error=f"{hostile} & \"quotes'")
    rows[1] = rows[1] | {"cell": f"w48{hostile}"}
    study = hand_study(pd.DataFrame(rows))
    study["notes"] = [hostile]
    study["fit"]["predicts"] = f"L = E^alpha {hostile}"
    page = render_page(write_sweep(tmp_path / "hostile", rows, name=hostile, study=study))
    elements = Elements(page)
    assert "<script>alert" not in page
    assert len(elements.scripts) == len(FIGURES) + 2
    assert not [script for script in elements.scripts if script.strip() == "alert(1)"]
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5
    specs = [json.loads(script) for script in elements.scripts if script.startswith("{")]
    assert len(specs) == len(FIGURES)
    assert f"w48{hostile}" in json.dumps(specs)


def test_without_a_fit_there_are_curves_and_the_table_and_the_reason(tmp_path, rows):
    directory = write_sweep(tmp_path / "smoke", [row for row in rows if row["width"] == 48 and row["seed"] == 0][:2])
    (directory / "figures").mkdir()
    (directory / "figures" / "frontier.png").write_text("of an earlier fit")
    page = write_report(directory).read_text()
    assert "There is no fit.json in this sweep" in page
    assert "2 cells finished, over 1 parameter count and 2 token budgets" in page
    assert sorted(path.name for path in (directory / "figures").iterdir()) == ["curves.png", "curves.svg"]
    assert 'id="table-runs"' in page and 'id="table-by-params"' not in page


def test_nothing_finished_is_still_a_page(tmp_path, rows):
    page = render_page(write_sweep(tmp_path / "early", [diverge(row) for row in rows[:4]]))
    assert "0 of 4 cells finished" in page


def test_missing_intervals_noise_and_moves_are_said_or_left_out(tmp_path, rows):
    study = hand_study(pd.DataFrame(rows))
    study["seed_noise"], study["moves"], study["holdouts"] = None, [], []
    for fit in (study["fit"], *study["by_loss"], *study["by_params"]):
        fit["intervals"] = {key: None for key in fit["intervals"]}
    for fit in study["kaplan"].values():
        fit["intervals"] = None
    for curve in (*study["bands"]["by_tokens"], *study["bands"]["by_params"]):
        curve["low"] = curve["high"] = None
    for key in ("params", "tokens", "loss"):
        study["frontier"][key]["low"] = study["frontier"][key]["high"] = None
    page = render_page(write_sweep(tmp_path / "bare", rows, study=study))
    assert text_of(page, '<div class="headline', "</div>").count("(no interval)") == 4
    assert "run-to-run noise was not measured" in page
    assert 'id="figure-holdout"' not in page and 'id="table-moves"' not in page


def test_intervals_wider_than_a_figure_stay_inside_it(tmp_path, rows):
    study = hand_study(pd.DataFrame(rows))
    for curve in (*study["bands"]["by_tokens"], *study["bands"]["by_params"]):
        curve["low"], curve["high"] = [0.01] * 30, [900.0] * 30
    drawn = draw(read(write_sweep(tmp_path / "wide", rows, study=study)))
    for name, spec in specifications(drawn).items():
        bands = [layer for layer in layers_of(spec) if layer["mark"].get("type") == "area"]
        assert all(layer["mark"]["clip"] for layer in bands)
        for layer in bands:
            low, high = layer["encoding"]["y"]["scale"]["domain"]
            assert name == "frontier" or 3 < low < high < 6


def test_no_interval_is_drawn_of_a_fit_that_is_not_certified(tmp_path, rows):
    study = hand_study(pd.DataFrame(rows), certified=False)
    drawn = draw(read(write_sweep(tmp_path / "doubtful", rows, study=study)))
    frontier = json.dumps(specifications(drawn)["frontier"])
    assert frontier.count("(not certified)") == 2
    marks = [layer["mark"]["type"] for spec in specifications(drawn).values() for layer in layers_of(spec)]
    assert "line" in marks and "area" not in marks


def layers_of(spec: dict) -> list[dict]:
    if "mark" in spec:
        return [spec]
    parts = [part for key in ("layer", "hconcat", "vconcat") for part in spec.get(key, [])]
    return [layer for part in parts for layer in layers_of(part)]


def test_a_fit_of_another_table_is_called_stale(tmp_path, rows, page):
    directory = write_sweep(tmp_path / "stale", rows, study=hand_study(pd.DataFrame(rows)))
    with open(directory / "runs.csv", "a") as file:
        file.write("\n")
    assert "runs.csv has changed since fit.json was made" in render_page(directory)
    assert "runs.csv has changed" not in page


def test_planned_cells_without_a_record_are_shown(tmp_path, rows):
    directory = write_sweep(tmp_path / "running", rows)
    pd.DataFrame(rows[:3]).to_csv(directory / "runs.csv", index=False)
    page = render_page(directory)
    assert page.count('<td class="bad">not done</td>') == 29
    assert "3 of 32 cells finished" in page


def test_the_study_of_the_laws_gives_a_whole_report(tmp_path, rows):
    directory = write_sweep(tmp_path / "whole", rows)
    study = write_study(FitConfig(runs=str(directory), bootstrap=200))
    sweep = read(directory)
    drawn = draw(sweep)
    page = render(sweep, drawn, specifications(drawn))
    assert tuple(figure.name for figure in drawn) == FIGURES
    assert not sweep.fit_is_stale
    fit = study["fit"]
    low, high = fit["intervals"]["a"]
    head = text_of(page, '<div class="headline', "</div>")
    assert f'a = {fit["estimates"]["a"]:.3f} <span class="interval">[{low:.3f}, {high:.3f}]</span>' in head
    assert page.count("inside</span>") == sum(
        move[key]["inside"] for move in study["moves"] for key in ("alpha", "beta", "a")
    )


def ranked(law: str, error: float | None, why: str | None = None) -> dict:
    a = {"value": 0.491, "low": 0.462, "high": 0.519} if why is None else None
    return {"law": law, "a": a, "mean_relative_error": error, "rms_residual": error, "left_out": why}


def approach(name: str, a: float | None, **more) -> dict:
    values = None if a is None else {"value": a, "low": a - 0.02, "high": a + 0.02}
    return {"name": name, "a": values, "b": values, "bias": -0.012 if a else None, "points": 5, "left_out": None} | more


def test_laws_are_ranked_and_those_left_out_say_why(tmp_path, rows):
    entries = [ranked("chinchilla_coupled", 0.0031), ranked("chinchilla", 0.006), ranked("x", None, "<why>")]
    entries[0] |= {"inside": 17, "n_test": 18}
    advice = {"law": "chinchilla_coupled", "reason": "It predicts <best>."}
    study = hand_study(pd.DataFrame(rows)) | {"ranking": [*entries, {"law": "bare"}], "recommended": advice}
    page = render_page(write_sweep(tmp_path / "ranked", rows, study=study))
    table = text_of(page, 'id="table-ranking"', "</table>")
    assert re.findall(r"<tr><td>([^<]*)</td>", table) == [
        "chinchilla_coupled",
        "chinchilla (the headline)",
        "x",
        "bare",
    ]
    first = text_of(table, "<td>chinchilla_coupled</td>", "</tr>")
    assert '<td>0.491 <span class="interval">[0.462, 0.519]</span></td><td>0.31 %</td>' in first
    assert "<td>17\u00a0of\u00a018</td>" in first
    assert "Recommended: chinchilla_coupled. It predicts &lt;best&gt;." in page
    assert '<td class="bad">left out: &lt;why&gt;</td>' in table


def test_exponents_by_count_and_intervals_by_noise(tmp_path, rows):
    a = {"value": 0.4787, "low": 0.45, "high": 0.51}
    count = {"params": "params_total", "flops": "6 N D", "flops_exponents": {"params": 1.2, "tokens": 1.0}, "a": a}
    test = {"f": 9.99, "degrees_of_freedom": [19, 8], "p": 0.0012, "noise_sd": 0.0009, "misfit_sd": 0.0027}
    study = hand_study(pd.DataFrame(rows)) | {
        "accounting": [count | {"certified": True}],
        "by_noise": [{"noise": "rows", "intervals": {"a": [0.41, 0.49], "E": None, "A": [101.518, 1270.828]}}],
        "lack_of_fit": test,
        "validation_text": {"parts": 10, "half_width": {"a": 0.07}},
    }
    estimate = study["fit"]["estimates"]["a"]
    page = render_page(write_sweep(tmp_path / "counts", rows, study=study))
    table = text_of(page, 'id="table-accounting"', "</table>")
    assert "<td>6 N D</td><td>1.200</td><td>1.000</td><td>0.479 " in table
    table = text_of(page, 'id="table-by-noise"', "</table>")
    assert "<td>0.410 to 0.490</td>" in table
    assert "<td>102 to 1270</td>" in table
    assert f"<td>{estimate - 0.07:.3f} to {estimate + 0.07:.3f}</td>" in text_of(table, "the validation text<", "</tr>")
    assert "misfits by 0.27 % beside it (F = 10.0, 19 and 8 degrees of freedom, p = 0.0012)" in page


def test_approaches_that_disagree_are_flagged_on_both_sides(tmp_path, rows):
    budgets = ["1e+12 FLOPs: the minimum is outside", "3e+12 FLOPs: the minimum is outside"]
    entries = [approach("envelope", None, left_out="2 compute budgets have an optimum, 3 are needed", points=2)]
    entries += [approach("isoflop_parabola", 0.449, dropped=budgets), approach("parametric", 0.548)]
    told = "The approaches isoflop_parabola (a 0.449) and parametric (a 0.548) disagree beyond their intervals."
    section = {"source": "the table's own IsoFLOP budgets", "approaches": entries, "disagree": [told]}
    study = hand_study(pd.DataFrame(rows)) | {"approaches": section}
    page = render_page(write_sweep(tmp_path / "approaches", rows, study=study))
    table = text_of(page, 'id="table-approaches"', "</table>")
    parabola = text_of(table, "<td>isoflop parabola</td>", "</tr>")
    assert '<td>0.449 <span class="interval">[0.429, 0.469]</span></td>' in parabola
    assert '<td>−0.012</td><td>5</td><td class="bad">parametric</td>' in parabola
    assert "2 left out: the minimum is outside" in parabola
    assert '<td class="bad">isoflop parabola</td>' in text_of(table, "<td>parametric</td>", "</tr>")
    whole = told.replace("parametric (a 0.548)", "isoflop_parabola_whole (a 0.405)")
    section |= {"approaches": [*entries, approach("isoflop_parabola_whole", 0.405)], "disagree": [told, whole]}
    page = render_page(write_sweep(tmp_path / "both", rows, study=study))
    both = text_of(page, 'id="table-approaches"', "</table>")
    near = text_of(both, "<td>isoflop parabola</td>", "</tr>")
    assert '<td class="bad">parametric, isoflop parabola whole</td>' in near
    assert '<td class="bad">isoflop parabola</td>' in text_of(both, "<td>isoflop parabola whole</td>", "</tr>")
    assert '<td class="bad">isoflop parabola</td>' in text_of(both, "<td>parametric</td>", "</tr>")
    envelope = text_of(table, "<td>envelope</td>", "</tr>")
    assert '<td class="muted">–</td><td class="bad">left out: 2 compute budgets' in envelope


def test_points_of_the_frontier_are_shown_where_they_were_asked_for(tmp_path, rows, page):
    assert 'id="table-frontier"' not in page
    point = {"value": 1.59e8, "low": 1.204e8, "high": 2.1e8}
    at = dict.fromkeys(("params", "tokens", "tokens_per_param"), point) | {
        "loss": {"value": 2.3, "low": 2.2, "high": None}
    }
    study = hand_study(pd.DataFrame(rows), certified=False)
    study["frontier"]["at"] = [at | {"flops": 1e18, "beyond": 44200.0}]
    study["frontier"]["serving"] = at | {"loss": 3.0, "served_tokens": 1e9, "beyond": 0.5}
    page = render_page(write_sweep(tmp_path / "points", rows, study=study))
    table = text_of(page, 'id="table-frontier"', "</table>")
    assert '<td>C = 1e18</td><td>1.59e8 <span class="interval">[1.2e8, 2.1e8]</span>' in table
    assert (
        '2.3 <span class="interval">[2.2, no upper end]</span> <b class="doubt">not certified</b></td><td>4.42e+04 ×'
        in table
    )
    assert "<td>L = 3, 1B tokens served</td>" in table and "<td>3</td><td>0.5 ×</td>" in table
    assert table.count("not certified") == 4 + 3


def test_cost_counts_a_trunk_once(tmp_path, rows):
    # 3600 s for the longest cell, and of the other one the cooldown only: 0.2 x 1800 s; together 1.1 hours.
    cells = [copy.copy(rows[0]) | {"wall_seconds": 1800.0}, copy.copy(rows[1]) | {"wall_seconds": 3600.0}]
    page = render_page(write_sweep(tmp_path / "cost", cells))
    assert "about 1.1 core-hours" in page


def test_a_report_that_cannot_be_written_leaves_no_part(tmp_path, rows):
    directory = write_sweep(tmp_path / "blocked", rows[:2])
    (directory / "figures").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="figures"):
        write_report(directory)
    assert not (directory / "report.html").exists()


def test_a_coupled_headline_has_its_gamma(tmp_path, rows):
    study = hand_study(pd.DataFrame(rows))
    study["fit"] |= {
        "law": "chinchilla_coupled",
        "predicts": "L = E + (A / N^alpha + B / D^beta)^gamma",
        "estimates": study["fit"]["estimates"] | {"gamma": 0.7},
        "intervals": study["fit"]["intervals"] | {"gamma": [0.61, 0.79]},
    }
    directory = write_sweep(tmp_path / "sweep", rows, study=study)
    write_report(directory)
    page = (directory / "report.html").read_text()
    assert "B / D<sup>β</sup>)<sup>γ</sup>" in page
    assert "0.700" in page and "0.610" in page
