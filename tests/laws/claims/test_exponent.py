"""The fitted exponent of the tokens against the known one."""

import numpy as np
import pytest
from known_sweep import SHAPES, cell, write_cells, written

from harness.errors import UserError
from harness.laws.claims.measured import Evidence
from harness.laws.claims.quantities import measure
from harness.laws.fit import fit_rows

FACTS = {"floor": {"nats": 0.0, "expected": 0.0, "exponent": 1 / 3}}
BUDGETS = (64e3, 128e3, 256e3, 512e3)


def facts(folder, **stated):
    """Losses of D^-.35 at every shape, but for what params lack, with noise of .1 %."""
    noise = iter(np.random.default_rng(2).normal(0, 1e-3, 100))

    def loss(row):
        inner = 1e3 / row["params_with_head"] + (row["tokens"] / 1e5) ** -0.7
        return inner**0.5 * np.exp(next(noise))

    rows = [cell(*shape, tokens, loss, seed) for shape in SHAPES for tokens in BUDGETS for seed in (0, 1)]
    return write_cells(folder / "facts", rows, **stated)


def test_exponent_is_that_of_the_largest_shape_less_the_known(tmp_path):
    folder = facts(tmp_path, **FACTS)
    evidence = Evidence(folder)
    rows = evidence.ready.rows
    largest = rows.keep(rows.params == rows.params.max())
    fitted = fit_rows(largest, evidence.ready.columns, "kaplan_tokens", "log_mse").to_dict()
    written(folder, "fit", {"kaplan": {"tokens": fitted | {"rows_used": "the largest shape"}}})
    found = measure("exponent", evidence)
    # noise of .1 % over 8 cells whose log D has a standard deviation of .775: .0005
    assert found.estimate == pytest.approx(0.35 - 1 / 3, abs=0.002)
    assert found.low < 0.35 - 1 / 3 < found.high and found.high - found.low < 0.01
    assert not found.doubts and "less the known 0.3333" in found.words
    assert [row.decides for row in found.rows] == [True, False]
    # .7 times .5, of all shapes
    assert found.rows[1].label == "beta gamma of all cells"
    assert found.rows[1].low < 0.35 - 1 / 3 < found.rows[1].high
    # the line of the figure goes by the known exponent: a factor of 8 in tokens halves the loss
    first, last = found.panel.lines[0], found.panel.lines[-1]
    assert (last["x"] / first["x"], last["y"] / first["y"]) == pytest.approx((8.0, 0.5))


def test_a_fit_that_is_not_certified_decides_nothing(tmp_path):
    folder = facts(tmp_path, **FACTS)
    tokens = {"estimates": {"alpha": 0.4}, "intervals": {"alpha": None}, "predicts": "L = ...", "rows_used": "cells",
              "interval_method": "none", "certificate": {"certified": False, "reasons": ["at a bound"]}}  # fmt: skip
    written(folder, "fit", {"kaplan": {"tokens": tokens}})
    found = measure("exponent", Evidence(folder))
    assert found.estimate == pytest.approx(0.4 - 1 / 3) and (found.low, found.high) == (None, None)
    assert found.doubts == ["the fit is not certified: at a bound"]
    written(folder, "fit", {"kaplan": {"tokens": None}})
    with pytest.raises(UserError, match="has too few budgets at its largest shape for an exponent: add tokens"):
        measure("exponent", Evidence(folder))


def test_a_text_without_a_known_exponent_has_no_such_quantity(tmp_path):
    with pytest.raises(UserError, match="knows no data exponent of its text: train it on data=facts"):
        measure("exponent", Evidence(facts(tmp_path, floor={"nats": 1.0, "expected": 1.0})))
