import json
import os

import pandas as pd
import pytest
import yaml

from harness.errors import UserError
from harness.records import (
    COLUMNS,
    SweepFolder,
    check_schema,
    is_final,
    read_record,
    read_sweep,
    renew_table,
    write_record,
    write_sweep,
    write_table,
)


def record(**changes):
    row = dict.fromkeys(COLUMNS, 1) | {"cell": "a", "status": "finished", "loss": 3.25, "error": None}
    return row | changes


def test_a_record_comes_back_and_is_final(tmp_path):
    assert read_record(tmp_path) is None
    assert not is_final(tmp_path)
    write_record(tmp_path, record(loss=0.1 + 0.2))
    assert read_record(tmp_path)["loss"] == 0.1 + 0.2
    assert is_final(tmp_path)


@pytest.mark.parametrize(("status", "final"), [("finished", True), ("diverged", True), ("failed", False)])
def test_only_a_failed_cell_is_tried_again(tmp_path, status, final):
    write_record(tmp_path, record(status=status))
    assert is_final(tmp_path) is final


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"schema": 1}', '{"schema": 1, "status": "finished"}'])
def test_a_damaged_record_counts_as_not_done(tmp_path, damage):
    (tmp_path / "run.json").write_text(damage)
    assert read_record(tmp_path) is None


def test_a_record_from_before_losses_had_parts_is_done(tmp_path):
    old = {key: value for key, value in record().items() if key != "loss_parts"}
    (tmp_path / "run.json").write_text(json.dumps({"schema": 1} | old))
    assert is_final(tmp_path)
    assert read_record(tmp_path)["loss_parts"] is None


def test_a_finished_record_without_a_loss_counts_as_not_done(tmp_path):
    write_record(tmp_path, record(loss=float("nan")))
    assert json.loads((tmp_path / "run.json").read_text())["loss"] is None
    assert read_record(tmp_path) is None


CONTENT = {
    "sweep": "x",
    "overrides": ["shape=w48-d1", "cells:"],
    "cells": [
        {"cell": "a", "trunk": "t", "tokens": 520192, "learning_rate": 1e-05, "flops": 10**18},
        {"cell": "b: [é]", "trunk": "t", "tokens": 2, "learning_rate": 0.0078125, "flops": 1},
    ],
}


def test_a_plan_comes_back_from_one_line_a_cell_and_is_yaml(tmp_path):
    folder = SweepFolder(tmp_path)
    write_sweep(folder, CONTENT)
    assert read_sweep(folder) == {"schema": 1} | CONTENT
    assert yaml.safe_load(folder.sweep_yaml.read_text()) == {"schema": 1} | CONTENT
    assert len(folder.sweep_yaml.read_text().partition("\ncells:\n")[2].splitlines()) == 2


@pytest.mark.parametrize("style", [None, True, False])
def test_a_plan_in_any_form_of_yaml_is_read(tmp_path, style):
    folder = SweepFolder(tmp_path)
    folder.sweep_yaml.write_text(yaml.safe_dump({"schema": 1} | CONTENT, default_flow_style=style, sort_keys=False))
    assert read_sweep(folder) == {"schema": 1} | CONTENT
    write_sweep(folder, CONTENT)
    folder.sweep_yaml.write_text(folder.sweep_yaml.read_text() + "note: by hand\n")
    assert read_sweep(folder) == {"schema": 1} | CONTENT | {"note": "by hand"}


def test_another_schema_is_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"schema": 0}')
    with pytest.raises(UserError, match="has schema 0, this version reads 1"):
        read_record(tmp_path)
    (tmp_path / "sweep.yaml").write_text("schema: 0")
    with pytest.raises(UserError, match="has schema 0, this version reads 1"):
        read_sweep(SweepFolder(tmp_path))


def test_a_folder_that_is_no_sweep_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no sweep.yaml"):
        read_sweep(SweepFolder(tmp_path))
    (tmp_path / "sweep.yaml").write_text("{")
    with pytest.raises(UserError, match="is not YAML"):
        read_sweep(SweepFolder(tmp_path))
    (tmp_path / "sweep.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is not YAML"):
        read_sweep(SweepFolder(tmp_path))
    (tmp_path / "sweep.yaml").write_text("schema: 1")
    with pytest.raises(UserError, match="names no cells"):
        read_sweep(SweepFolder(tmp_path))
    with pytest.raises(UserError, match="holds no sweep.yaml"):
        read_sweep(SweepFolder(tmp_path / "sweep.yaml"))


def test_a_sweep_of_another_schema_is_not_written_over_and_a_broken_one_may_be(tmp_path):
    check_schema(SweepFolder(tmp_path))
    (tmp_path / "sweep.yaml").write_text("{")
    check_schema(SweepFolder(tmp_path))
    (tmp_path / "sweep.yaml").write_text("schema: 0")
    with pytest.raises(UserError, match="has schema 0, this version reads 1: train into another name="):
        check_schema(SweepFolder(tmp_path))


def test_no_record_lies_below_a_file(tmp_path):
    (tmp_path / "outputs").write_text("")
    assert read_record(tmp_path / "outputs" / "sweep") is None


def test_the_table_has_the_cells_of_the_grid_in_its_order(tmp_path):
    folder = SweepFolder(tmp_path)
    write_sweep(folder, {"sweep": "x", "cells": [{"cell": "b"}, {"cell": "a"}, {"cell": "missing"}]})
    for name in ("a", "b", "stray"):
        folder.run(name).mkdir(parents=True)
        write_record(folder.run(name), record(cell=name, loss=1 / 3))
    assert [row["cell"] for row in write_table(folder)] == ["b", "a"]
    table = pd.read_csv(folder.table)
    assert list(table.columns) == list(COLUMNS)
    assert table["cell"].tolist() == ["b", "a"]
    assert table["loss"].tolist() == [1 / 3, 1 / 3]


def test_a_table_is_renewed_for_records_younger_than_it(tmp_path):
    folder = SweepFolder(tmp_path)
    renew_table(tmp_path)
    assert not folder.table.exists()
    write_sweep(folder, {"sweep": "x", "cells": [{"cell": "a"}, {"cell": "b"}]})
    for name in ("a", "b"):
        folder.run(name).mkdir(parents=True)
    write_record(folder.run("a"), record(cell="a"))
    renew_table(tmp_path)
    assert pd.read_csv(folder.table)["cell"].tolist() == ["a"]
    kept = folder.table.read_text().replace("3.25", "3.5")
    folder.table.write_text(kept)
    renew_table(tmp_path)
    assert folder.table.read_text() == kept
    write_record(folder.run("b"), record(cell="b"))
    os.utime(folder.table, (1, 1))
    renew_table(tmp_path)
    assert pd.read_csv(folder.table)["cell"].tolist() == ["a", "b"]
