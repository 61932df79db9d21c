from __future__ import annotations

import json

import pytest
import yaml
from synthetic_sweep import BATCH_TOKENS, write_sweep

from harness.errors import UserError
from harness.report.inputs import read, read_curve


@pytest.fixture
def sweep(tmp_path, rows):
    return write_sweep(tmp_path / "small", rows[:4])


def test_a_trunk_is_drawn_once_and_each_cooldown_from_its_branch(finished):
    curves = read(finished).curves
    # 8 trunks, each with a line of its own and one cooldown a budget.
    assert curves.line.nunique() == 8 * (1 + 4)
    trunk = curves[curves.line == "w48-d2-s0"]
    assert set(trunk.phase) == {"trunk"}
    # The longest budget is 3515 steps; the trunk ends at four fifths of it, in a bin of 3 %.
    assert trunk.tokens.max() == pytest.approx(0.8 * 3515 * BATCH_TOKENS, rel=0.03)
    cooldown = curves[(curves.cell.str.startswith("w48-d2-t1M-s0")) & (curves.phase == "cooldown")]
    assert cooldown.tokens.min() == pytest.approx(0.8 * 976 * BATCH_TOKENS, rel=0.04)
    assert cooldown.tokens.max() == pytest.approx(976 * BATCH_TOKENS, rel=0.02)


def test_bins_are_means(tmp_path):
    path = tmp_path / "curve.jsonl"
    rows = [{"phase": "trunk", "tokens": tokens, "train_loss": loss} for tokens, loss in ((1000, 4.0), (5000, 3.0))]
    rows.insert(1, {"phase": "trunk", "tokens": 2000, "train_loss": float("nan")})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"phase": "tru')
    curve = read_curve(path)
    assert curve.tokens.tolist() == [1000, 5000]
    assert curve.train_loss.tolist() == [4.0, 3.0]


def test_shapes_ascend_in_params_and_repeats_are_known(finished):
    sweep = read(finished)
    assert sweep.shapes == ["w48-d2", "w64-d2", "w64-d4", "w96-d3", "w112-d4", "w128-d4"]
    assert sweep.cells[sweep.cells.repeat].trunk.unique().tolist() == ["w48-d2-s1", "w64-d2-s1"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "sweep.yaml").unlink(), "holds no sweep.yaml"),
        (lambda path: (path / "runs.csv").unlink(), "runs.csv is missing: train the sweep first"),
        (lambda path: (path / "runs.csv").write_text("cell,trunk\n"), "has no column status"),
        (lambda path: (path / "runs.csv").write_bytes(b"\xff\xfe\x00"), "is not UTF-8"),
        (lambda path: (path / "fit.json").write_text("{"), "fit.json is not JSON"),
        (lambda path: (path / "fit.json").write_text('{"schema": 0}'), "has schema 0, this version reads 1"),
        (lambda path: (path / "sweep.yaml").write_text("schema: 0"), "has schema 0, this version reads 1"),
        (lambda path: _rewrite(path, cells=[]), "names no cells"),
        (lambda path: _loss_as_text(path), "has text in its column loss"),
    ],
)
def test_damaged_sweeps_get_one_sentence(sweep, damage, message):
    damage(sweep)
    with pytest.raises(UserError, match=message) as error:
        read(sweep)
    assert "\n" not in str(error.value)


def _rewrite(path, **changed):
    plan = yaml.safe_load((path / "sweep.yaml").read_text())
    (path / "sweep.yaml").write_text(yaml.safe_dump(plan | changed))


def _loss_as_text(path):
    lines = (path / "runs.csv").read_text().splitlines()
    column = lines[0].split(",").index("loss")
    first = lines[1].split(",")
    first[column] = "low"
    (path / "runs.csv").write_text("\n".join([lines[0], ",".join(first), *lines[2:]]) + "\n")


def test_a_job_without_its_configuration_has_none(sweep):
    assert read(sweep).job == {}
    run = next((sweep / "runs").iterdir())
    (run / "config.yaml").write_text(yaml.safe_dump({"job": {"threads": 1}}))
    assert read(sweep).job == {"threads": 1}
