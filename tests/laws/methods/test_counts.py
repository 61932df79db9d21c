"""One set of runs has an exponent for each way of counting params and FLOPs."""

import pytest

from harness.laws.fit import fit
from harness.laws.methods.counts import accounting, by_params
from harness.laws.table.table import as_table


def rows_of(frame, **choices):
    result = fit(frame, loss="log_mse", **choices)
    return accounting(as_table(frame), by_params(as_table(frame), result, 0, 0))


def test_flops_that_grow_faster_than_params_make_another_exponent(simulated):
    """alpha .4, beta .45: a = .45 / .85 = .5294 for 6 N D, and 1 / (1.2 + .4 / .45) = .4787 for C ~ N^1.2 D."""
    frame = simulated()
    frame = frame.assign(flops=7 * frame["params_with_head"] ** 1.2 * frame["tokens"])
    entries = {(row["params"], row["flops"]): row for row in rows_of(frame)}
    assert entries["params_with_head", "6 N D"]["a"]["value"] == pytest.approx(0.52941, abs=1e-5)
    own = entries["params_with_head", "flops"]
    assert own["flops_exponents"] == pytest.approx({"params": 1.2, "tokens": 1.0})
    assert own["a"]["value"] == pytest.approx(0.47872, abs=1e-5)


def test_every_count_of_the_table_has_its_rows(simulated):
    frame = simulated(noise=1e-3)
    frame = frame.assign(flops_6nd=6 * frame["params_total"] * frame["tokens"])
    entries = rows_of(frame)
    assert [(row["params"], row["flops"]) for row in entries] == [
        (params, flops)
        for params in ("params_with_head", "params_total", "params_non_embedding")
        for flops in ("flops", "flops_6nd", "6 N D")
    ]
    assert all(row["a"]["low"] < row["a"]["value"] < row["a"]["high"] for row in entries)


def test_a_law_of_one_variable_has_no_optimum(simulated):
    assert rows_of(simulated(noise=1e-3), law="kaplan_tokens") == []
