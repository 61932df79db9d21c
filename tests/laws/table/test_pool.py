"""Several run tables as one."""

import json
from hashlib import sha256

import pytest
import yaml

from harness.errors import UserError
from harness.laws.settings import FitConfig, fit_config
from harness.laws.study import write_study
from harness.laws.table.pool import read_sources, sources
from harness.laws.table.rows import Columns, read_rows
from harness.laws.table.table import check_comparable, filtered


def write(folder, frame):
    """A sweep directory of some rows."""
    folder.mkdir()
    frame.to_csv(folder / "runs.csv", index=False)
    plan = {"schema": 1, "sweep": folder.name, "cells": [{"cell": cell} for cell in frame["cell"]]}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(plan))
    return folder


@pytest.fixture
def halves(tmp_path, simulated):
    """Widths 48 to 64 and 64 to 128 of one table of 32 rows: the 4 cells of width 64 stand in both."""
    frame = simulated(noise=0.001)
    small, large = frame[frame["width"] <= 64], frame[frame["width"] >= 64]
    return write(tmp_path / "small", small), write(tmp_path / "large", large)


def pooled(*paths):
    return read_sources(",".join(map(str, paths)))


def test_the_law_that_all_sweeps_state(halves):
    for folder in halves:
        plan = yaml.safe_load((folder / "sweep.yaml").read_text())
        (folder / "sweep.yaml").write_text(yaml.safe_dump(plan | {"law": "chinchilla_coupled"}))
    assert FitConfig().law_of(pooled(*halves)) == "chinchilla_coupled"
    (halves[0] / "sweep.yaml").write_text((halves[0] / "sweep.yaml").read_text().replace("_coupled", "_tied"))
    table = pooled(*halves)
    assert FitConfig().law_of(table) == "chinchilla"
    (said,) = (note for note in table.notes if "different laws" in note)
    assert said.startswith("They state different laws (chinchilla_coupled, chinchilla_tied), so the headline is ")
    assert FitConfig(law="kaplan_joint").law_of(pooled(*halves)) == "kaplan_joint"


def test_the_parts_of_a_sweep_make_the_whole(halves, simulated, tmp_path):
    small, large = halves
    config = fit_config([f"runs=[{small},{large}]", f"out={tmp_path / 'fit.json'}", "bootstrap=0"])
    report = write_study(config)
    write(tmp_path / "whole", simulated(noise=0.001))
    whole = write_study(FitConfig(runs=str(tmp_path / "whole"), bootstrap=0))
    assert json.loads((tmp_path / "fit.json").read_text()) == report
    # 20 rows and 16, of which 4 are the same cells.
    assert (report["source"]["rows"], report["source"]["rows_used"]) == (36, 32)
    assert report["fit"]["estimates"] == pytest.approx(whole["fit"]["estimates"], rel=1e-6)
    assert report["fit"]["intervals"]["a"] == pytest.approx(whole["fit"]["intervals"]["a"], rel=1e-4)
    assert report["source"]["sources"] == [
        {"path": str(path / "runs.csv"), "sha256": sha256((path / "runs.csv").read_bytes()).hexdigest(), "rows": rows}
        for path, rows in ((small, 20), (large, 16))
    ]
    assert whole["source"]["sources"][0]["rows"] == 32 and len(whole["source"]["sources"]) == 1
    again = [entry for entry in report["source"]["excluded"] if "the same cell as in" in entry["why"]]
    assert len(again) == 4 and again[0]["why"].endswith("small/runs.csv")
    assert again[0]["source"] == str(large / "runs.csv")
    assert [row["source"] for row in report["residuals"]] == [str(small / "runs.csv")] * 20 + [
        str(large / "runs.csv")
    ] * 12
    assert "source" not in whole["residuals"][0]
    assert "The rows come from 2 tables, named under source.sources." in report["notes"]


def test_every_row_names_its_source(halves):
    table = pooled(*halves)
    assert table.frame["source"].value_counts().to_dict() == {
        str(halves[0] / "runs.csv"): 20,
        str(halves[1] / "runs.csv"): 12,
    }
    assert table.row(0) == f"row 2 of {halves[0] / 'runs.csv'}"
    assert len(filtered(table, f"source=={halves[1] / 'runs.csv'}").frame) == 12


def test_a_cell_with_two_results_is_refused(halves, tmp_path, simulated):
    frame = simulated(noise=0.001)
    frame.loc[frame["cell"] == "w64-d3-t1e+06-s0", "loss"] = 4.5
    other = write(tmp_path / "other", frame[frame["width"] >= 64])
    with pytest.raises(
        UserError, match=r"the cell w64-d3-t1e\+06-s0 has loss .*small/runs\.csv and 4\.5 in .*once only"
    ):
        pooled(halves[0], other)


def test_settings_that_differ_are_refused_by_name(halves, tmp_path, simulated):
    frame = simulated()
    cosine = frame[frame["width"] > 64].assign(schedule="cosine")
    with pytest.raises(UserError, match=r"column schedule varies \(cosine, wsd\)"):
        check_comparable(pooled(halves[0], write(tmp_path / "cosine", cosine)))
    silent = write(tmp_path / "silent", frame[frame["width"] > 64].drop(columns="schedule"))
    with pytest.raises(UserError, match=r"column schedule varies \(not named, wsd\)"):
        check_comparable(pooled(halves[0], silent))


def clusters(table):
    rows = read_rows(table, Columns(), "chinchilla")
    return len(set(rows.cluster.tolist()))


def test_labels_of_two_tables_are_different_runs_and_trunks_of_two_sweeps_the_same(tmp_path, simulated):
    frame = simulated()
    early, late = frame[frame["tokens"] < 2e6], frame[frame["tokens"] > 2e6]
    # 8 trunks in both: in sweeps the same ones, in tables nobody knows.
    assert clusters(pooled(write(tmp_path / "a", early), write(tmp_path / "b", late))) == 8
    for name, part in (("a.csv", early), ("b.csv", late)):
        part.to_csv(tmp_path / name, index=False)
    assert clusters(pooled(tmp_path / "a.csv", tmp_path / "b.csv")) == 16
    # A name that stands for another seed there is another trunk.
    changed = late.assign(seed=late["seed"].where(late["width"] != 128, 7), cell=late["cell"] + "x")
    assert clusters(pooled(tmp_path / "a", write(tmp_path / "c", changed))) == 9


def test_columns_of_one_source_only_are_left_out_and_named(tmp_path, simulated):
    frame = simulated()
    first = write(tmp_path / "first", frame[frame["width"] < 64].assign(extra=1.0))
    table = pooled(first, write(tmp_path / "second", frame[frame["width"] >= 64].drop(columns="flops")))
    assert not {"extra", "flops"} & set(table.frame.columns)
    assert "Columns that not all of them have are left out: flops, extra." in table.notes


def test_the_value_of_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "a,b"):
        (tmp_path / name).mkdir()
    assert sources("a,b") == ["a,b"]  # a folder of that name
    assert sources("[a,b]") == sources("[a, 'b']") == ["a", "b"]
    (tmp_path / "a,b").rmdir()
    assert sources("a,b") == ["a", "b"]
    assert sources("[a]") == ["a"]
    assert sources("/a b/it's,=(1).csv") == ["/a b/it's,=(1).csv"]
    with pytest.raises(UserError, match=r"runs=\[a,\] has an empty entry"):
        sources("[a,]")
    with pytest.raises(UserError, match="runs=a,b,./a names a twice"):
        sources("a,b,./a")
    with pytest.raises(UserError, match="runs=c does not exist"):
        read_sources("[c,d]")


def test_where_the_fit_of_several_goes_must_be_said(halves):
    with pytest.raises(UserError, match="names 2 tables: name the file of their fit with out=PATH"):
        write_study(FitConfig(runs=f"{halves[0]},{halves[1]}"))
    taken = halves[0] / "taken.csv"
    taken.write_text("source,loss\nx,3\n")
    with pytest.raises(UserError, match="taken.csv has a column 'source', which pooling fills: rename it"):
        pooled(halves[0], taken)
