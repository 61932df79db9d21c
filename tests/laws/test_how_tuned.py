"""How far the best of k settings lies from the minimum: known bowls, and a few draws of Step Law's runs."""

import io

import numpy as np
import pytest
from how_tuned import effective, main
from rich.console import Console


def test_the_best_of_k_settings_of_a_bowl_tells_how_many_they_are():
    # Of k points that fill a ball evenly the least square distance is k B(k, 1 + 2/p), about Gamma(1 + 2/p) k^(-2/p).
    generator = np.random.default_rng(0)
    for settings in (1, 2, 4):
        gaps = {}
        for count in (1, 2, 4, 8, 16):
            radius = generator.random((20_000, count)) ** (1 / settings)
            gaps[count] = float((radius**2).min(1).mean())
        # k^(-2/p) holds from k = 4 or so: Gamma(k + 1) / Gamma(k + 1 + 2/p) is nearer to (k + 1/2 + 1/p)^(-2/p)
        shifted = {count + 0.5 + 1 / settings: gap for count, gap in gaps.items()}
        assert effective(shifted) == pytest.approx(settings, rel=0.05)


def test_more_settings_come_nearer_to_the_minimum(published):
    text = io.StringIO()
    found = main(4, published, Console(file=text, width=130), (1, 4, 16, 47))
    gaps = [found[count]["gap"].mean() for count in (1, 4, 16, 47)]
    assert gaps[0] > 0.02 and gaps[0] > 3 * gaps[1] > 9 * gaps[2] and 0 < gaps[3] < 0.001
    # the best of all lies below the fitted minimum: its noise was chosen too
    assert "│" not in text.getvalue() and " all " in text.getvalue()
    assert "the gap falls as k^(-2/p) with p = " in text.getvalue()
