"""The figure of coordinates.json, from rows of known powers."""

import json

import pytest
from synthetic_sweep import write_sweep

from harness.report.coordinates import coordinates, powers
from harness.report.inputs import read

POWERS = {("sp", "logits"): (0.5, 1.0), ("mup", "logits"): (-0.5, 0.0), ("mup", "blocks.*"): (0.0, -0.1)}
SHAPES = ((32, 2), (64, 2), (128, 2), (64, 1), (64, 4))
CONTENT = {
    "schema": 1, "learning_rate": 0.0057, "steps": 3, "tokens": 256,
    "rows": [
        {"parametrization": name, "part": part, "width": width, "depth": depth,
         "size": 0.1 * (width / 32) ** of_size, "moved": 0.2 * (width / 32) ** of_moved * depth}
        for (name, part), (of_size, of_moved) in POWERS.items() for width, depth in SHAPES
    ],
}  # fmt: skip


def test_powers_are_those_of_the_rows():
    keys = ("along", "of", "parametrization", "part")
    found = {tuple(each[key] for key in keys): each["power"] for each in powers(CONTENT)}
    assert len(found) == 12
    for (name, part), (of_size, of_moved) in POWERS.items():
        assert found["width", "size", name, part] == pytest.approx(of_size)
        assert found["width", "moved", name, part] == pytest.approx(of_moved)
        assert found["depth", "size", name, part] == pytest.approx(0.0)
        assert found["depth", "moved", name, part] == pytest.approx(1.0)


def test_two_sizes_tell_no_power_and_what_does_not_move_has_none():
    widths = [row for row in CONTENT["rows"] if row["width"] != 128]
    assert {each["along"] for each in powers(CONTENT | {"rows": widths})} == {"depth"}
    still = [row | {"moved": 0.0} for row in CONTENT["rows"]]
    assert {each["of"] for each in powers(CONTENT | {"rows": still})} == {"size"}


def test_a_report_draws_them_where_they_are(rows, tmp_path):
    folder = write_sweep(tmp_path / "coordinates", rows)
    assert coordinates(read(folder)) is None
    (folder / "coordinates.json").write_text("{")
    assert coordinates(read(folder)) is None
    (folder / "coordinates.json").write_text(json.dumps(CONTENT))
    figure = coordinates(read(folder))
    assert "its change by 3 steps at a learning rate of 0.0057 on one batch of 256 random tokens" in figure.caption
    titles = [panel["layer"][1]["encoding"]["x"]["title"]
              for row in figure.chart.to_dict()["vconcat"] for panel in row["hconcat"]]  # fmt: skip
    assert titles == [
        "at initialisation: power of the width", "the change by 3 steps: power of the width",
        "at initialisation: power of the depth", "the change by 3 steps: power of the depth",
    ]  # fmt: skip
