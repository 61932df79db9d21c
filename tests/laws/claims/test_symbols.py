"""What symbols raise a fitted floor by, where it is known."""

import pytest
from known_sweep import SHAPES, cell, write_cells
from known_symbols import sweep

from harness.errors import UserError
from harness.laws.claims.claim import write_claim
from harness.laws.claims.measured import Evidence
from harness.laws.claims.quantities import measure, needed

CLAIM = {"text": "Symbols raise E.", "quantity": "insertion", "rule": {"low": 0.97, "high": 1.03}}


@pytest.fixture(scope="module", params=[1.0, 0.9])
def found(request, tmp_path_factory):
    folder = sweep(tmp_path_factory.mktemp("symbols") / "sweep", request.param, noise=1e-4)
    return request.param, measure("insertion", Evidence(folder))


def test_the_floor_rises_by_what_the_symbols_add(found):
    part, measured = found
    assert measured.estimate == pytest.approx(part, abs=2e-3)
    assert measured.low < part < measured.high and measured.high - measured.low < 0.01
    assert not measured.doubts
    assert measured.words == "floor of symbols above (1 - q) E of plain, over the 1.2555 nats of its symbols"
    # one set of exponents is not rejected, and tells more
    own, shared = measured.rows
    assert (own.label, own.decides) == ("symbols, exponents of its own", False)
    assert (shared.label, shared.decides) == ("symbols, exponents of all", True)
    assert own.estimate == pytest.approx(part, abs=0.01)
    assert own.high - own.low > 1.5 * (shared.high - shared.low)
    assert "an E of each, exponents of all; " in measured.method


def test_less_its_symbols_a_text_has_one_curve(found):
    """At w48-d2 and T M tokens of text 1 + (.25 (55296 / 1e5)^-.66 + .35 T^-.63)^.69."""
    part, measured = found
    if part != 1.0:
        return
    points = {(each["series"], each["line"], round(each["x"])): each["y"] for each in measured.panel.lines}
    at = lambda text: 1 + (0.25 * 0.55296**-0.66 + 0.35 * text**-0.63) ** 0.69  # noqa: E731
    assert points["plain", "w48-d2-s0", 1_200_000] == pytest.approx(at(1.2), rel=1e-3)
    assert points["symbols", "w48-d2-s0", 900_000] == pytest.approx(at(0.9), rel=1e-3)
    assert len(measured.panel.points) == 48


def test_of_several_shares_the_most_decides(tmp_path):
    shares = {"plain": 0.0, "third": 0.3, "tenth": 0.1}
    measured = measure("insertion", Evidence(sweep(tmp_path / "sweep", noise=1e-4, shares=shares)))
    names = ["third, exponents of its own", "tenth, exponents of its own", "third, exponents of all",
             "tenth, exponents of all"]  # fmt: skip
    assert [(row.label, row.decides) for row in measured.rows] == list(zip(names, (0, 0, 1, 0), strict=True))
    assert [row.estimate for row in measured.rows[2:]] == [pytest.approx(1, abs=5e-3)] * 2
    assert needed("insertion") == "compare"


def test_exponents_that_differ_are_not_shared(tmp_path):
    """Where wider models gain more from text with symbols, one set of exponents puts its floor elsewhere."""
    measured = measure("insertion", Evidence(sweep(tmp_path / "sweep", noise=1e-4, alpha=0.9)))
    own, shared = measured.rows
    assert own.decides and own.estimate == pytest.approx(1, abs=0.01)
    assert not shared.decides and abs(shared.estimate - 1) > 0.03
    assert "an E of each, exponents of its own; " in measured.method


def test_a_claim_is_decided_by_it(tmp_path):
    folder = sweep(tmp_path / "sweep", noise=1e-4)
    content = (folder / "sweep.yaml").read_text()
    (folder / "sweep.yaml").write_text(f"claim: {CLAIM}\n{content}".replace("None", "null"))
    assert write_claim(folder).content["verdict"] == "holds"


def test_what_has_no_shares_is_refused(tmp_path):
    rows = [cell(width, depth, 1e6, lambda row: 2.0) for width, depth in SHAPES]
    with pytest.raises(UserError, match="has no shares of symbols: train data.inserted=0.2 beside plain text$"):
        measure("insertion", Evidence(write_cells(tmp_path / "a", rows)))
    folder = sweep(tmp_path / "b", noise=1e-4, shares={"tenth": 0.1, "third": 0.3})
    with pytest.raises(UserError, match="b: the baseline tenth has symbols too: list the plain text first$"):
        measure("insertion", Evidence(folder))
