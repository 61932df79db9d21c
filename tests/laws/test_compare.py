"""Two ways of training the same cells: known differences are found again."""

import numpy as np
import pandas as pd
import pytest

from harness.errors import UserError
from harness.laws.compare import compare
from harness.laws.settings import FitConfig
from harness.laws.table.table import as_table


def two_ways(ratio, beta=0.45, noise=1e-3):
    """24 cells of L = 1.8 + 90 / N^.4 + 300 / D^.45 under a; under b with another beta, all losses times `ratio`."""
    generator = np.random.default_rng(3)
    rows = []
    for way in ("a", "b"):
        for width in (48, 64, 80, 96, 112, 144):
            for tokens in (1e6, 1.6e6, 2.5e6, 4e6):
                params = 24 * width**2 + 1024 * width
                scale = 1e6 ** (beta - 0.45) if way == "b" else 1.0  # the same loss at 1e6 tokens
                exponent = beta if way == "b" else 0.45
                loss = 1.8 + 90 / params**0.4 + 300 * scale / tokens**exponent
                loss *= np.exp(noise * generator.standard_normal()) * (ratio if way == "b" else 1.0)
                rows.append({
                    "way": way, "width": width, "depth": 2, "seed": 0, "trunk": f"{way}{width}",
                    "params_with_head": params, "tokens": tokens, "loss": loss,
                })  # fmt: skip
    return as_table(pd.DataFrame(rows))


CONFIG = FitConfig(runs="table", bootstrap=400)


def test_a_constant_ratio_is_found_and_moves_no_exponent():
    found = compare(two_ways(1.01), CONFIG, "way")
    mean, low, high = found.mean()
    assert low < np.log(1.01) < high and high - low < 0.002
    assert mean == pytest.approx(0.00995, abs=6e-4)
    assert len(found.cells) == 24 and found.ways == ("a", "b")
    for _, low, high in found.exponents.values():
        assert low < 0 < high


def test_another_beta_lies_outside():
    found = compare(two_ways(1.0, beta=0.9, noise=3e-4), CONFIG, "way")
    move, low, high = found.exponents["beta"]
    assert 0.3 < low < move < high
    assert [tokens for tokens, _, _ in found.by_budget()] == [1e6, 1.6e6, 2.5e6, 4e6]
    by_budget = [mean for _, mean, _ in found.by_budget()]
    # at 1e6 tokens the two laws agree; at 4e6 the second term is 300 e6^-.45 (4^-.45 - 4^-.9) = .150 nats lower
    assert abs(by_budget[0]) < 5e-4 and by_budget[3] == pytest.approx(-0.057, abs=0.012)


def test_what_cannot_be_compared():
    table = two_ways(1.0)
    with pytest.raises(UserError, match="no column 'schedule': name the one"):
        compare(table, CONFIG, "schedule")
    with pytest.raises(UserError, match="column width has 6 values"):
        compare(table, CONFIG, "width")
    with pytest.raises(UserError, match="column depth is 2 in every row, and two ways are compared: name both"):
        compare(table, CONFIG, "depth")
    with pytest.raises(UserError, match="bootstrap=0"):
        compare(table, FitConfig(runs="table", bootstrap=0), "way")
    apart = table.frame.assign(seed=(table.frame["way"] == "b").astype(int))
    with pytest.raises(UserError, match="no cell of .* is in both"):
        compare(as_table(apart), CONFIG, "way")
