"""The loss of the best predictor in the figures of the loss."""

import pandas as pd
import pytest
from synthetic_sweep import hand_study, write_sweep

from harness.report.figures import loss_by_flops, loss_by_params, loss_by_tokens
from harness.report.inputs import read

KNOWN = {"known": 2.05, "expected": 2.04, "estimate": 2.1, "low": 2.0, "high": 2.2, "inside": True, "certified": True}


def layers_of(spec: dict) -> list[dict]:
    return [inner for layer in spec["layer"] for inner in (layers_of(layer) if "layer" in layer else [layer])]


@pytest.mark.parametrize("draw", [loss_by_tokens, loss_by_params, loss_by_flops])
def test_a_known_floor_is_a_line_within_each_figure(tmp_path, rows, draw):
    study = hand_study(pd.DataFrame(rows)) | {"floor": KNOWN}
    figure = draw(read(write_sweep(tmp_path / "known", rows, study=study)))
    spec = figure.chart.to_dict()
    (rule,) = [layer for layer in layers_of(spec) if layer["mark"]["type"] == "rule"]
    assert spec["datasets"][rule["data"]["name"]] == [{"floor": 2.05, "label": "known floor 2.0500"}]
    assert rule["encoding"]["y"]["field"] == "floor"
    # the smallest loss of the table is 3.44: the axis reaches down to the line
    low, high = rule["encoding"]["y"]["scale"]["domain"]
    assert low < 2.05 < high
    assert "The dotted line is the loss of the best predictor of this text, 2.0500 nats." in figure.caption

    other = draw(read(write_sweep(tmp_path / "other", rows, study=hand_study(pd.DataFrame(rows)))))
    assert not [layer for layer in layers_of(other.chart.to_dict()) if layer["mark"]["type"] == "rule"]
    assert "dotted" not in other.caption
