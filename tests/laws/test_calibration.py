"""A shorter run of make calibrate: intervals from the curvature on 300 simulated sweeps."""

import pytest
from calibration import TRUTH, calibrate


@pytest.mark.parametrize("noise", ["rows, by rows", "half trunks'"])
def test_intervals_cover_what_they_promise_and_are_no_wider_than_they_must(noise):
    """95 % of 300, within what chance allows: .95 +- .044 is three and a half standard deviations."""
    found = calibrate("24 cells in 6 trunks", noise, sweeps=300, draws=0)
    for name in TRUTH:
        assert 0.906 <= found.coverage[name] <= 0.994, (name, found)
        assert found.width[name] <= 1.3, (name, found)
    assert found.certified > 0.99
