"""The section and the page of claims, from a hand-made claim.json."""

import html
import json
import re

import pytest
from synthetic_sweep import write_sweep

from harness.report import page
from harness.report.claims import section, write_claims

CLAIM = {
    "schema": 1, "claim": "Width & depth do not <matter>.", "quantity": "aspect", "rule": {"low": None, "high": 0.01},
    "estimate": 0.004, "low": 0.001, "high": 0.0087, "verdict": "holds",
    "reason": "the whole interval lies inside the rule", "measures": "range of the loss", "method": "least squares",
    "rows": [
        {"label": "small", "estimate": 0.003, "low": None, "high": None, "decides": False},
        {"label": "hopeless", "estimate": None, "low": 0.1, "high": None, "decides": False},
        {"label": "the largest", "estimate": 0.004, "low": 0.001, "high": 0.0087, "decides": True},
    ],
    "panel": {"x": "width / depth", "y": "loss (%)", "series": "size", "points": [{"series": "s", "x": 4, "y": 0.2}],
              "lines": [{"series": "s", "x": 4, "y": 0.1}, {"series": "s", "x": 16, "y": 0.3}]},
    "sources": [], "versions": {},
}  # fmt: skip


def text_of(content):
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", content)).split())


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """A report draws no other figures here."""
    monkeypatch.setattr(page, "draw", lambda sweep: [])


@pytest.fixture
def claiming(rows, tmp_path):
    """A sweep with a claim, in an output directory of its own, and its report."""
    folder = write_sweep(tmp_path / "claims" / "shape", rows)
    (folder / "claim.json").write_text(json.dumps(CLAIM))
    page.write_report(folder)
    return folder


def test_the_report_tells_claim_number_rule_and_verdict(claiming):
    text = text_of((claiming / "report.html").read_text())
    assert "Width & depth do not <matter>." in text
    assert (
        "It holds: the whole interval lies inside the rule. Measured: range of the loss: 0.004 (0.001 to 0.0087); it "
        "holds if that is at most 0.01."
    ) in text
    assert {"claim.svg", "claim.png"} <= {file.name for file in (claiming / "figures").iterdir()}


def test_what_stands_beside_a_claim_is_told(claiming):
    (claiming / "claim.json").write_text(json.dumps(CLAIM | {"beside": "what repeats cost: P <0.02>"}))
    page.write_report(claiming)
    assert "Beside it, what repeats cost: P <0.02>." in text_of((claiming / "report.html").read_text())
    assert "Beside it" in text_of(write_claims(claiming.parent, ["shape"]).read_text())


def test_a_report_without_a_claim_has_no_such_figure(claiming):
    assert 'data-chart="claim"' in (claiming / "report.html").read_text()
    (claiming / "claim.json").unlink()
    page.write_report(claiming)
    assert not (claiming / "figures" / "claim.svg").exists()
    assert 'data-chart="claim"' not in (claiming / "report.html").read_text()


def test_the_page_of_all_claims_names_what_is_missing(claiming):
    found = write_claims(claiming.parent, ["isoflop", "shape"])
    text = text_of(found.read_text())
    assert found == claiming.parent / "claims.html"
    assert "1 of 2 measured" in text
    assert "Not measured yet: isoflop." in text
    assert found.read_text().count('data-chart="claim-shape"') == 1
    assert 'href="shape/report.html"' in found.read_text()


def test_numbers_of_very_different_size_stand_on_a_log_axis():
    """1,030 is 541 times the least, 1.904; .0087 is 8.7 times .001."""

    def scales(content):
        layers = section("x", content).figure.chart.to_dict()["hconcat"][-1]["layer"]
        return {layer["encoding"]["x"]["scale"].get("type", "linear") for layer in layers}

    rows = [{"label": "R", "estimate": 2.7, "low": 1.904, "high": 1030.0, "decides": True}]
    wide = CLAIM | {"rows": rows, "rule": {"low": 10, "high": None}}
    assert (scales(wide), scales(CLAIM)) == ({"log"}, {"linear"})


def test_the_figure_leaves_out_what_has_no_number():
    found = section("shape", CLAIM).figure
    assert found is not None
    labels = [row["label"] for rows in found.chart.to_dict()["datasets"].values() for row in rows if "label" in row]
    assert labels == ["small", "the largest"]


def test_what_was_not_measured_has_no_figure():
    empty = CLAIM | {"estimate": None, "low": None, "high": None, "verdict": "undecided", "rows": [], "panel": None}
    said = section("shape", empty)
    assert said.figure is None
    assert "range of the loss: not measured" in said.sentence


def test_a_second_panel_stands_beside_the_first_and_points_have_their_intervals():
    points = [{"series": "mup", "x": x, "y": 0.008, "low": 0.007, "high": 0.009} for x in (16, 32)]
    points[1] |= {"low": 0.0, "high": None}  # of one that may lie anywhere
    rates = {"x": "width, at depth 2", "y": "best rate", "series": "", "points": points, "lines": [], "log": True}
    found = section("coordinates", CLAIM | {"panel": rates, "panels": [rates | {"x": "depth, at width 64"}]}).figure
    assert found is not None
    above, below = found.chart.to_dict()["vconcat"]
    assert [panel["layer"][-1]["encoding"]["x"]["title"] for panel in above["hconcat"]] == [
        "width, at depth 2", "depth, at width 64"
    ]  # fmt: skip
    whiskers, marks = above["hconcat"][0]["layer"]
    assert (whiskers["encoding"]["y"]["field"], whiskers["encoding"]["y2"]["field"]) == ("low", "high")
    assert marks["encoding"]["y"]["scale"]["type"] == "log"
    drawn = [row for rows in found.chart.to_dict()["datasets"].values() for row in rows if row.get("x") == 32]
    assert {(row["low"], row["high"]) for row in drawn} == {(0.004, 0.016)}  # half and twice of what is shown
    assert "layer" in below
