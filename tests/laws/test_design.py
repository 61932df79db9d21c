"""What a grid could tell, before it is trained."""

import numpy as np
import pytest

from harness.laws.design import expect


def grid(shapes, budgets, seeds=1):
    params, tokens = (np.tile(part.ravel(), seeds) for part in np.meshgrid(shapes, budgets, indexing="ij"))
    trunks = np.repeat(np.arange(len(shapes) * seeds), len(budgets))
    return params, tokens, trunks


def width(found, name="a"):
    low, high = found.ranges[name]
    return high - low


SHAPES, BUDGETS = np.geomspace(5e4, 9e5, 6), np.geomspace(1e6, 4e6, 5)


def test_the_ranges_hold_the_truth():
    found = expect(*grid(SHAPES, BUDGETS))
    for name, truth in (("alpha", 0.40), ("beta", 0.45), ("a", 0.45 / 0.85)):
        low, high = found.ranges[name]
        assert low < truth < high
    assert found.warnings == []
    assert found.sentence.startswith(
        "with 0.2% noise, half of it the trunks', this grid would find alpha = 0.40 as 0.3"
    )


def test_four_seeds_halve_the_ranges():
    one, four = expect(*grid(SHAPES, BUDGETS)), expect(*grid(SHAPES, BUDGETS, seeds=4))
    for name in ("alpha", "beta", "a"):
        assert width(four, name) / width(one, name) == pytest.approx(0.5, abs=0.1)


def test_a_wider_range_of_tokens_a_parameter_tells_more():
    narrow = expect(*grid(SHAPES, np.geomspace(1e6, 2e6, 5)))
    assert width(narrow, "beta") > 1.5 * width(expect(*grid(SHAPES, BUDGETS)), "beta")


def test_tokens_in_a_fixed_ratio_to_params_are_warned_of():
    params = np.geomspace(1e5, 1e7, 12)
    found = expect(params, 20 * params, np.arange(12))
    assert found.warnings == [
        "every cell has 20 to 20 tokens a parameter, so alpha and beta cannot be told apart: train each shape on "
        "several budgets"
    ]


def test_a_grid_that_tells_little_is_warned_of():
    found = expect(*grid(np.array([1e5, 1.2e5, 1.4e5]), np.array([1e6, 1.3e6, 1.6e6])))
    assert found.warnings == ["a stays open: widen the range of params or of tokens, or add seeds"]


def test_two_levels_carry_no_law():
    found = expect(*grid(np.array([1e5, 1e6]), BUDGETS))
    assert found.ranges == {}
    assert found.warnings == [
        "no law of params and tokens can be fitted: the grid, column params_with_head has 2 distinct levels, and "
        "chinchilla needs at least 3: add runs"
    ]
