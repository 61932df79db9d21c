"""The report of a sweep whose cells are variants."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from synthetic_sweep import hand_study, write_sweep

from harness.records import SweepFolder, read_sweep
from harness.records import write_sweep as write_plan
from harness.report.inputs import read
from harness.report.page import write_report
from harness.report.variants import paired


def as_variants(rows, axis="variant", values=("gpt", "muon")):
    """The rows of one seed twice, the second time with 1 % less loss and one step less of a batch of 1024 tokens."""
    found = []
    for value, ratio, less in zip(values, (1.0, 0.99), (0, 1024), strict=True):
        for row in (row for row in rows if row["seed"] == 0):
            named = {key: f"{row[key]}-{value}" for key in ("cell", "trunk")}
            found.append(row | named | {"loss": row["loss"] * ratio, "tokens": row["tokens"] - less, axis: value})
    return found


@pytest.fixture
def sweep(tmp_path, rows):
    def make(*more, **how):
        directory = write_sweep(tmp_path / "v", as_variants(rows, *more), **how)
        content = read_sweep(SweepFolder(directory))
        (axis,) = more[:1] or ("variant",)
        named = [cell | {axis: cell["cell"].rsplit("-", 1)[1]} for cell in content["cells"]]
        write_plan(SweepFolder(directory), content | {"axes": [axis], "cells": named})
        return directory

    return make


def test_without_a_fit_the_losses_of_each_are_drawn_and_a_command_said(sweep):
    directory = sweep()
    page = write_report(directory).read_text()
    assert {path.stem for path in (directory / "figures").iterdir()} == {"curves", "loss_by_variant"}
    assert "The cells are variants (gpt, muon), and no law is one of all: " in page
    assert f"python scripts/compare.py runs={directory} column=variant" in page
    assert f"python scripts/fit.py runs={directory} filter=variant==gpt" in page
    assert "<dt>Variants</dt><dd>gpt, muon</dd>" in page and "-muon muon</td>" in page


def test_an_axis_of_another_name_is_one_too(sweep):
    directory = sweep("optimizer.beta2", ("0.95", "0.99"))
    assert read(directory).variants == ["0.95", "0.99"]
    assert "filter=optimizer.beta2==0.95" in write_report(directory).read_text()


def test_every_cell_has_the_one_beside_it(sweep):
    cells = read(sweep()).finished
    pairs = paired(cells, "gpt")
    assert len(pairs) == 24 and set(pairs.variant) == {"muon"}
    assert np.allclose(pairs.percent, -1.0)
    alone = cells[(cells.variant == "gpt") | (cells["shape"] == "w48-d2")]
    assert len(paired(alone, "gpt")) == 4
    late = cells[(cells.variant == "gpt") | (cells.tokens > 3e6)]  # the others' smaller budgets have not ended
    assert len(paired(late, "gpt")) == 6
    assert len(paired(cells.assign(tokens=cells.tokens * np.where(cells.variant == "gpt", 1.0, 1.1)), "gpt")) == 0


def test_a_fit_of_one_variant_is_shown_beside_its_cells_alone(sweep, rows):
    first = [row for row in as_variants(rows) if row["variant"] == "gpt"]
    directory = sweep(study=hand_study(pd.DataFrame(first)))
    other = [row["cell"] for row in as_variants(rows) if row["variant"] == "muon"]
    fit = json.loads((directory / "fit.json").read_text())
    fit["source"]["excluded"] = [{"cell": cell, "why": "filter variant==gpt"} for cell in other]
    fit["source"]["sha256"] = hashlib.sha256((directory / "runs.csv").read_bytes()).hexdigest()
    (directory / "fit.json").write_text(json.dumps(fit))
    found = read(directory)
    assert len(found.finished) == 48 and set(found.fitted.variant) == {"gpt"}
    write_report(directory)
    svg = (directory / "figures" / "loss_by_tokens.svg").read_text()
    assert "-gpt" in svg and "-muon" not in svg
    assert "-muon" in (directory / "figures" / "curves.svg").read_text()
