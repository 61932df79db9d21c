"""The multiplier over compute: constant, or as the law of each variant has it."""

import numpy as np
import pytest
from test_compare import WIDTHS, two_ways

from harness.laws import compare

SMALLEST, LARGEST = (24 * width**2 + 1024 * width for width in (WIDTHS[0], WIDTHS[-1]))


def test_shared_exponents_give_one_multiplier_and_costs_move_it():
    """b takes 1.1 times the FLOPs a token of a at the smallest width and 1.5 times at the largest."""
    frame = two_ways(f=1.5, g=0.8, noise=0.0).frame
    second = (frame["way"] == "b").to_numpy()
    dearer = np.where(second, 1.1 + 0.4 * (frame["width"] - WIDTHS[0]) / (WIDTHS[-1] - WIDTHS[0]), 1.0)
    flops = 6 * dearer * frame["params_with_head"] * frame["tokens"]
    curve = compare(frame.assign(flops=flops), bootstrap=0).to_dict()["variants"]["b"]["by_flops"]
    assert curve["equal_tokens"]["estimate"] == pytest.approx([1.2] * 25, rel=1e-4)
    assert curve["equal_flops"]["estimate"][::24] == pytest.approx([1.2 / 1.1, 1.2 / 1.5], rel=1e-4)
    assert (curve["params"][0], curve["params"][-1]) == pytest.approx((SMALLEST, LARGEST))
    assert (curve["tokens"][0], curve["tokens"][12], curve["tokens"][-1]) == pytest.approx((1e6, 2e6, 4e6))
    assert (curve["flops"][0], curve["flops"][-1]) == pytest.approx((6e6 * SMALLEST, 24e6 * LARGEST))


def test_own_exponents_let_it_drift_as_they_say():
    """g D = (D / 1e6)^2 1e6 where beta is .9 instead of .45 and the terms meet at 1e6 tokens: m is D / 1e6."""
    curve = compare(two_ways(beta=0.9, noise=0.0), shared=["E", "alpha"], bootstrap=0)
    curve = curve.to_dict()["variants"]["b"]["by_flops"]
    assert curve["equal_tokens"]["estimate"] == pytest.approx([each / 1e6 for each in curve["tokens"]], rel=1e-3)


@pytest.mark.parametrize("draws", [0, 200])
def test_its_end_is_the_multiplier_that_is_printed(draws):
    entry = compare(two_ways(g=1.3), shared=["E"], bootstrap=draws).to_dict()["variants"]["b"]
    for key in ("equal_tokens", "equal_flops"):
        curve = entry["by_flops"][key]
        assert {name: curve[name][-1] for name in curve} == pytest.approx(entry["multiplier"][key], rel=1e-6)
        assert all(low < high for low, high in zip(curve["low"], curve["high"], strict=True))


def test_budgets_of_equal_compute_have_ends_among_their_cells():
    """IsoFLOP profiles: the ends are the means, in logs, of the profiles of least and of most compute."""
    frame = two_ways(noise=0.0).frame
    frame["tokens"] = frame["tokens"] * 24e4 / frame["params_with_head"]
    params = 24 * np.array(WIDTHS) ** 2 + 1024 * np.array(WIDTHS)
    frame["loss"] = 1.8 + 90 / frame["params_with_head"] ** 0.4 + 300 / frame["tokens"] ** 0.45
    curve = compare(frame, bootstrap=0).to_dict()["variants"]["b"]["by_flops"]
    assert (curve["params"][0], curve["params"][-1]) == pytest.approx((np.exp(np.log(params).mean()),) * 2)
    assert (curve["flops"][0], curve["flops"][-1]) == pytest.approx((6 * 24e10, 24 * 24e10), rel=1e-6)
