import pytest

from harness.training.schedule import cooldown_factor, cosine_factor, trunk_factor


def test_trunk_warms_up_linearly_then_stays():
    # four warmup steps: 1/4, 2/4, 3/4, 4/4, then 1
    assert [trunk_factor(step, 4) for step in (0, 1, 2, 3, 4, 1000)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert trunk_factor(0, 0) == 1.0


def test_cooldown_is_one_minus_root_of_the_way():
    # of a cooldown from step 80 to 100: t = 0, .05, .2, .45, .8
    factors = [cooldown_factor(step, 80, 100) for step in (80, 81, 84, 89, 96)]
    expected = [1.0, 1 - 0.2236068, 1 - 0.4472136, 1 - 0.6708204, 1 - 0.8944272]
    assert factors == pytest.approx(expected, abs=1e-7)


def test_cosine_ends_at_its_final_fraction():
    # halfway between warmup and end the cosine stands midway between 1 and the final fraction
    assert cosine_factor(0, 10, 110, 0.1) == 0.1
    assert cosine_factor(10, 10, 110, 0.1) == 1.0
    assert cosine_factor(60, 10, 110, 0.1) == pytest.approx(0.55)
    assert cosine_factor(110, 10, 110, 0.1) == pytest.approx(0.1)
