import pytest

from harness.units import count_label, duration


@pytest.mark.parametrize(
    ("number", "label"), [(2e6, "2M"), (1.5e6, "1.5M"), (5e5, "500k"), (2.5e9, "2.5B"), (999, "999"), (3e12, "3T")]
)
def test_count_labels(number, label):
    assert count_label(number) == label


def test_fewer_digits():
    assert count_label(1_234_567, 3) == "1.23M"
    assert count_label(999_936, 3) == "1M"


@pytest.mark.parametrize(
    ("seconds", "label"),
    [(45, "45 s"), (59.6, "1 min"), (360, "6 min"), (11_400, "3 h 10 min"), (187_200, "2 d 4 h")],
)
def test_durations(seconds, label):
    assert duration(seconds) == label
