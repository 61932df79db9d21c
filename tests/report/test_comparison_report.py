"""A comparison in the report of its sweep: its lines, a table, a figure, and what a paper quotes."""

import copy
import csv
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from markupsafe import escape
from synthetic_sweep import hand_study, write_sweep
from test_page import render_page
from test_variant_figures import as_variants

from harness.errors import UserError
from harness.laws.compare import write_comparison
from harness.laws.settings import compare_config
from harness.records import SweepFolder, read_sweep
from harness.records import write_sweep as write_plan
from harness.report.comparison import by_compute, compared, paper
from harness.report.inputs import read
from harness.report.page import write_report


@pytest.fixture(scope="module")
def whole(tmp_path_factory, rows) -> Path:
    """A sweep of two variants, compared and reported."""
    directory = write_sweep(tmp_path_factory.mktemp("outputs") / "v", as_variants(rows))
    content = read_sweep(SweepFolder(directory))
    named = [cell | {"variant": cell["cell"].rsplit("-", 1)[1]} for cell in content["cells"]]
    write_plan(SweepFolder(directory), content | {"axes": ["variant"], "cells": named})
    write_comparison(compare_config([f"runs={directory}", "bootstrap=200", "column=variant"]))
    write_report(directory)
    return directory


@pytest.fixture
def sweep(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "v")


def changed(directory: Path, **parts) -> dict:
    """compare.json with some of its parts changed."""
    content = json.loads((directory / "compare.json").read_text()) | parts
    (directory / "compare.json").write_text(json.dumps(content))
    return content


def test_the_page_says_what_the_script_says(whole):
    page = (whole / "report.html").read_text()
    content = json.loads((whole / "compare.json").read_text())
    sentence = content["variants"]["muon"]["sentence"]
    assert sentence.startswith("muon: 1.") and "x the compute of gpt (1." in sentence
    assert f"<p>{escape(sentence)}</p>" in page
    assert "By one law for all variants: L = E + A / N^alpha + B / D^beta; L = loss, N = params_with_head" in page
    assert "E, alpha, beta shared by all; certified: gradient" in page
    assert "and no law is one of all: `python scripts/fit.py runs=" in page and "sets them side by side" not in page
    assert "L_v(N, D) = L(f_v N, g_v D) with L = E" in page and "percentiles of 200 refitted" in page


def test_the_table_has_a_row_a_variant(whole):
    page = (whole / "report.html").read_text()
    row = page[page.index("<td>muon</td>") : page.index("</tr>", page.index("<td>muon</td>"))]
    m = json.loads((whole / "compare.json").read_text())["variants"]["muon"]["multiplier"]["equal_tokens"]
    assert f"<td>{m['estimate']:.2f}" in row and row.count('class="interval"') == 6 and row.count("<td") == 9
    assert "D = 3.6M" in page and 'id="table-multipliers"' in page


def test_the_figure_draws_both_multipliers_with_their_bands(whole):
    figure = by_compute(read(whole))
    left, right = figure.chart.to_dict()["hconcat"]
    assert [layer["mark"]["type"] for layer in left["layer"]] == ["rule", "area", "line"]
    assert left["layer"][2]["encoding"]["color"]["scale"]["domain"] == ["gpt", "muon"]
    assert left["title"] == "a  at equal training FLOPs" and right["title"] == "b  at equal N and D"
    assert "The exponents are shared" in figure.caption
    assert (whole / "figures" / "multipliers.svg").read_text().count("<path") > 20


def test_own_exponents_are_said_where_one_is_not_shared(sweep):
    changed(sweep, shared=["E", "alpha"])
    assert "Each variant has exponents of its own, so m moves with size." in by_compute(read(sweep)).caption


def test_a_paper_quotes_every_number(whole):
    entry = json.loads((whole / "compare.json").read_text())["variants"]["muon"]
    (row,) = csv.DictReader((whole / "paper" / "variants.csv").open())
    for key in ("equal_tokens", "equal_flops", "equal_time"):
        ends = [float(row[name]) for name in (key, f"{key}_low", f"{key}_high")]
        assert ends == [entry["multiplier"][key][end] for end in ("estimate", "low", "high")]
    assert (row["variant"], row["baseline"], row["certified"], row["stale"]) == ("muon", "gpt", "True", "False")
    assert float(row["neutral_p"]) == entry["neutral"]["p"] and float(row["at_tokens"]) == entry["at"]["tokens"]
    lines = (whole / "paper" / "variants.tex").read_text().splitlines()
    header, (body,) = lines[-4].removeprefix("% "), [line for line in lines if not line.startswith("%")]
    assert header == r"\midrule" and body.startswith("muon & gpt & chinchilla & 48 & ${1.") and body.endswith(r"yes \\")
    names = next(line for line in lines if line.startswith("% Variant"))
    assert names.count("&") == body.count("&") == 12


def test_doubt_stands_beside_every_number(sweep):
    certificate = json.loads((sweep / "compare.json").read_text())["certificate"]
    content = changed(sweep, certificate=certificate | {"certified": False, "reasons": ["no minimum"]})
    page = render_page(sweep)
    assert "NOT certified: no minimum" in page and 'class="headline uncertified" id="compared"' in page
    row = page[page.index("<td>muon</td>") : page.index("</tr>", page.index("<td>muon</td>"))]
    assert row.count("not certified") == 8
    marks = [layer["mark"]["type"] for layer in by_compute(read(sweep)).chart.to_dict()["hconcat"][0]["layer"]]
    assert marks == ["rule", "line"]
    tex = paper(read(sweep))["variants.tex"]
    assert r"{\dagger}" in tex and "% NOT certified, do not quote: no minimum." in tex
    assert compared(read(sweep)).sentences == [content["variants"]["muon"]["sentence"]]


def test_what_is_not_there_is_a_dash_and_settings_are_named(sweep):
    content = json.loads((sweep / "compare.json").read_text())
    entry = copy.deepcopy(content["variants"]["muon"])
    entry["multiplier"]["equal_time"], entry["per_decade"], entry["exponents_shared"]["p"] = None, None, None
    best = {"optimizer.learning_rate.value": {"best": 0.02, "at_end": "high", "tried": [0.01, 0.02]}}
    settings = {"gpt": {key: each | {"at_end": None} for key, each in best.items()}, "muon": best}
    changed(sweep, variants={"muon": entry}, settings=settings)
    page = render_page(sweep)
    row = page[page.index("<td>muon</td>") : page.index("</tr>", page.index("<td>muon</td>"))]
    assert row.count('<td class="muted">–</td>') == 3
    assert "<td>learning_rate 0.02 (largest tried)</td>" in row
    assert "gpt at its best learning_rate 0.02." in page
    assert "& -- &" in paper(read(sweep))["variants.tex"]
    (record,) = csv.DictReader(paper(read(sweep))["variants.csv"].splitlines())
    assert record["equal_time"] == "" and record["settings"] == "learning_rate 0.02 (largest tried)"


def test_a_table_that_has_changed_makes_it_stale(sweep):
    with open(sweep / "runs.csv", "a") as file:
        file.write("\n")
    assert "runs.csv has changed since compare.json was made" in render_page(sweep)
    assert "STALE" in paper(read(sweep))["variants.tex"]


def test_without_one_nothing_of_it_is_left(sweep):
    (sweep / "compare.json").unlink()
    page = write_report(sweep).read_text()
    assert 'id="compared"' not in page and "sets them side by side" in page
    assert not (sweep / "figures" / "multipliers.svg").exists() and list((sweep / "paper").iterdir()) == []


def test_a_comparison_of_another_version_is_refused(sweep):
    (sweep / "compare.json").write_text('{"schema": 1}')
    with pytest.raises(UserError, match="compare.json has schema 1, this version reads 2: compare the sweep again"):
        read(sweep)


def test_a_fit_of_one_variant_stands_beside_it(sweep, rows):
    study = hand_study(pd.DataFrame([row for row in as_variants(rows) if row["variant"] == "gpt"]))
    (sweep / "fit.json").write_text(json.dumps(study))
    page = render_page(sweep)
    assert page.index("Compute-optimal parameters grow") < page.index('id="compared"')
