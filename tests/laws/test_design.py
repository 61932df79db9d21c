"""What a grid could tell, before it is trained."""

import numpy as np
import pytest
from multipliers import BUDGETS as TOKENS
from multipliers import GRIDS, table

from harness.laws import compare, design
from harness.laws.design import detectable, expect


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


def of_grid(name):
    """The cells of a variant on a grid of multipliers.py: params, tokens, shape and seed."""
    params = [12 * width**2 * depth + 1026 * width for width, depth, _ in GRIDS[name]]
    return np.repeat(params, 4).astype(float), np.tile(TOKENS, len(params)), np.repeat(np.arange(len(params)), 4)


def test_the_difference_that_a_comparison_could_tell(monkeypatch):
    """.0344 and .0490 by the information of noise of known size and shares, .25 % and half of it the trunks'."""
    E, A, alpha, B, beta, gamma = 2.3128, 1028.4, 0.6584, 4458.9, 0.6280, 0.6882
    truth = {"E": E, "A": A, "alpha": alpha, "B": B, "beta": beta, "gamma": gamma}
    monkeypatch.setattr(design, "_truth", lambda *given: truth)
    for name, expected in (("36 cells in 9 trunks", 0.0344), ("24 cells in 6 trunks", 0.0490)):
        half = detectable([of_grid(name)] * 2, "chinchilla_coupled")
        assert 0.98 * expected < half * 0.0025 / design.NOISE < 1.1 * expected


def test_a_comparison_is_as_good_as_was_said():
    halves = []
    for seed in range(8):
        found = compare(table("36 cells in 9 trunks", "chinchilla_coupled", 0.0, 1.0, 1.0, seed), bootstrap=0,
                        law="chinchilla_coupled").content["variants"]["b"]["multiplier"]["equal_tokens"]  # fmt: skip
        halves.append(np.log(found["high"] / found["low"]) / 2)
    said = detectable([of_grid("36 cells in 9 trunks")] * 2, "chinchilla_coupled") * 0.0025 / design.NOISE
    assert said == pytest.approx(np.median(halves), rel=0.2)


@pytest.mark.parametrize("law", ["chinchilla", "chinchilla_tied", "chinchilla_coupled"])
def test_more_seeds_tell_smaller_differences(law):
    one, four = (detectable([grid(SHAPES, BUDGETS, seeds)] * 2, law) for seeds in (1, 4))
    assert 0.4 < four / one < 0.55


def test_no_difference_is_told_without_a_law_for_it():
    assert detectable([grid(SHAPES, BUDGETS)] * 2, "kaplan_joint") is None
    assert detectable([grid(SHAPES[:2], BUDGETS)] * 2, "chinchilla") is None
