from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report.style import count, even_ticks, log_ticks, padded, ramp, scientific


@pytest.mark.parametrize(
    ("value", "text"),
    [(917504, "918k"), (3.6e6, "3.6M"), (999_999, "1M"), (512, "512"), (1.5e9, "1.5B"), (2e13, "20T"), (0, "0")],
)
def test_count(value, text):
    assert count(value) == text


def test_count_of_few_digits_stays_positional():
    assert [count(value, 2) for value in (100_352, 200_704, 1.04e6, 250)] == ["100k", "200k", "1M", "250"]


@pytest.mark.parametrize(("value", "text"), [(2e12, "2e12"), (1.234e-7, "1.23e-7"), (1e13, "1e13"), (9.999e9, "1e10")])
def test_scientific(value, text):
    assert scientific(value) == text


def test_ticks():
    assert log_ticks(90e3, 1e6) == [100e3, 200e3, 300e3, 500e3, 1e6]
    assert log_ticks(3.4, 4.8, most=9) == [3.4, 3.6, 3.8, 4.0, 4.2, 4.4, 4.6, 4.8]
    assert log_ticks(8e11, 3e14) == [1e12, 3e12, 1e13, 3e13, 1e14, 3e14]
    assert even_ticks(0.94e6, 1.8e6, 7) == [1e6, 1.2e6, 1.4e6, 1.6e6, 1.8e6]


@given(st.floats(1e-3, 1e15), st.floats(1.05, 1e9), st.integers(5, 9))
def test_ticks_are_few_ascending_and_inside(low, factor, most):
    high = low * factor
    ticks = log_ticks(low, high, most)
    assert 2 <= len(ticks) <= most
    assert ticks == sorted(set(ticks))
    assert low * (1 - 1e-6) <= ticks[0] and ticks[-1] <= high * (1 + 1e-6)


def test_padding_is_even_in_log_and_leaves_out_what_no_log_axis_holds():
    # log10 spans 1 to 3: a tenth of it is .2 on either side.
    low, high = padded([10.0, 1000.0, 0.0, float("nan")], 0.1)
    assert (low, high) == (pytest.approx(10**0.8), pytest.approx(10**3.2))


def test_a_ramp_keeps_its_ends_and_mixes_between():
    assert ramp(("#000000", "#ffffff"), 3) == ["#000000", "#808080", "#ffffff"]
    assert ramp(("#000000", "#ffffff"), 1) == ["#808080"]
