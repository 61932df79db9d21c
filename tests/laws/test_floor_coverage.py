"""A shorter run of tests/laws/floor_coverage.py: intervals from the curvature."""

from pathlib import Path

import pytest
import yaml
from floor_coverage import BUDGETS, SEEDS, excess, one, table

ROOT = Path(__file__).resolve().parents[2]


def test_its_grid_is_that_of_the_sweep():
    sweep = yaml.safe_load((ROOT / "conf" / "sweep" / "floor.yaml").read_text())
    names = [f"w{width}-d2" + f"-s{seed}" * (seed > 0) for width, seeds in SEEDS.items() for seed in range(seeds)]
    assert sorted(sweep["hydra"]["sweeper"]["params"]["shape"].split(",")) == sorted(names)
    assert [float(tokens) for tokens in sweep["tokens"]] == BUDGETS.tolist()


def test_its_tables_have_the_excess_of_their_law():
    # at 1e5 params and 1e6 tokens: .02 + .03, and (.02^2 + .03^2)^.5 of a coupled law of that power
    assert excess(1e5, 1e6, 1.0) == pytest.approx(0.05, abs=1e-12)
    assert excess(1e5, 1e6, 0.5) == pytest.approx(0.0360555, abs=1e-7)
    quiet = table("chinchilla", 0.0, 0)
    assert len(quiet) == 14 * 5
    assert quiet["loss"].min() == pytest.approx(1.9 + excess(24 * 128**2 + 1024 * 128, 4e6, 1.0), abs=1e-12)


def test_intervals_hold_the_floor():
    """Of 12 at 95 %, fewer than 9 in one of 400; at a noise of .5 % some 5 % of the smallest excess wide."""
    found = [one("chinchilla_coupled", 0.005, seed, 0) for seed in range(12)]
    assert sum(inside for inside, _, _ in found) >= 9
    assert all(certified for _, _, certified in found)
    assert 0.01 < sorted(half for _, half, _ in found)[6] < 0.08
