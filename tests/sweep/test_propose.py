"""Grids proposed for a budget."""

import math

import numpy as np
import pytest
import yaml

from harness.errors import UserError
from harness.grid import make_trunks
from harness.laws.design import expect
from harness.sweep import propose
from harness.sweep.compose import compose_sweep
from harness.sweep.pace import Pace
from harness.sweep.propose import CENTRE, Budget, Candidate, Costs, as_yaml, curvature_sd, make_shape, parse_budget

VOCAB = 1024


@pytest.fixture(scope="module")
def job():
    return compose_sweep(["tokens=1e6", "tracking=none"]).jobs[0]


@pytest.fixture(scope="module")
def grid():
    shapes = "w144-d3,w112-d2,w96-d2,w80-d2,w64-d2,w64-d2-s1,w48-d2,w48-d2-s1"
    jobs = compose_sweep(["-m", "+sweep=cpu", f"shape={shapes}", "tracking=none"]).jobs
    return [trunk for job in jobs for trunk in make_trunks(job, VOCAB, "", "float32")]


def test_budgets():
    assert parse_budget("1e15") == Budget("1e15", flops=1e15)
    assert parse_budget("90s").seconds == 90
    assert parse_budget("10min").seconds == 600
    assert parse_budget("1.5h").seconds == 5400
    for text in ("", "min", "1e15flops", "-1", "0", "10 min", "1e999"):
        with pytest.raises(UserError, match=f"^budget={text} is no budget"):
            parse_budget(text)


def like_grid(job, tokens=(1.0e6, 1.55e6, 2.35e6, 3.6e6)):
    shapes = [make_shape(job, VOCAB, width, 48) for width in (48, 64, 80, 96, 112, 144)]
    return Candidate(tuple(shapes), tokens, 1)


def test_a_candidate_costs_what_its_plan_says(job, grid):
    candidate = like_grid(job)
    assert [shape.depth for shape in candidate.shapes] == [2, 2, 2, 2, 2, 3]
    assert [f"w{shape.width}-d{shape.depth}-s{seed}" for shape, seed in candidate.trunks] == [
        trunk.name.rsplit("-", 1)[0] for trunk in grid
    ]
    assert Costs(job).flops(candidate) == pytest.approx(sum(trunk.flops_to_train for trunk in grid), rel=2e-3)
    # 900 steps of 512 tokens are fewer than the 100 k of warmup over .2
    assert candidate.shapes[0].least_tokens == 500_000


def test_seconds_are_those_of_the_measured_pace(job):
    shapes = like_grid(job).shapes[:1]
    # .01 s a step of 512 tokens and an evaluation as long as 100 steps, for the one shape that was measured
    costs = propose.paced(job, shapes, [Pace(0.01, 1.0, 0.0)], [512], slots=2)
    candidate = Candidate(shapes, (512_000.0, 1_024_000.0), 1)
    # trunk .8 * 2000 steps, cooldowns 200 + 400, two evaluations; two seeds side by side
    assert costs.seconds(candidate) == pytest.approx((1600 + 600 + 200) * 0.01)


def test_the_curvature_is_what_the_simulation_finds(job):
    for tokens in [(0.52e6, 0.8e6, 1.22e6, 1.85e6), (1e6, 2e6, 4e6, 8e6)]:
        candidate = like_grid(job, tokens)
        found = propose.standard_errors(expect(*candidate.cells(), centre=CENTRE))
        # 500 draws tell a standard error to 5 %
        assert curvature_sd(candidate) == pytest.approx(found["a"], rel=0.15)


def test_four_times_the_seeds_halve_the_error(job):
    one, four = (Candidate(like_grid(job).shapes, (1e6, 2e6, 4e6), seeds) for seeds in (2, 8))
    assert curvature_sd(four) / curvature_sd(one) == pytest.approx(0.5)


def test_a_proposal_stays_within_every_bound(job):
    costs = Costs(job)
    chosen, found, warnings = propose.propose(job, VOCAB, 4e6, Budget("1e14", flops=1e14), costs)
    assert 0.9e14 < costs.flops(chosen) <= 1e14
    assert len(chosen.shapes) >= 6 and len(chosen.tokens) >= 4 and warnings == []
    assert all(shape.width % job.model.head_size == 0 and shape.width >= 48 for shape in chosen.shapes)
    assert chosen.tokens[0] >= max(900 * 512, 100_000 / 0.2, 0.5 * chosen.shapes[-1].params)
    assert chosen.tokens[-1] <= 4e6
    low, high = found.ranges["a"]
    assert high - low < 0.1


def test_a_proposal_for_the_cost_of_a_grid_by_hand_is_no_worse(job, grid):
    # the simulation that has the last word tells an error to 5 %
    flops = sum(trunk.flops_to_train for trunk in grid)
    chosen, _, _ = propose.propose(job, VOCAB, 4e6, Budget("", flops=flops), Costs(job))
    assert curvature_sd(chosen) <= 1.05 * curvature_sd(like_grid(job))


def test_too_little_for_six_shapes_is_warned_of_and_for_any_refused(job):
    _, _, warnings = propose.propose(job, VOCAB, math.inf, Budget("1e13", flops=1e13), Costs(job))
    assert warnings[0] == "6 shapes by 4 budgets cannot be had for budget=1e13"
    with pytest.raises(UserError, match=r"budget=1e11 is below what the smallest grid costs: give \d\.\de\+12 FLOPs"):
        propose.propose(job, VOCAB, math.inf, Budget("1e11", flops=1e11), Costs(job))
    with pytest.raises(UserError, match="6e[+]05 tokens are too few for a grid"):
        propose.propose(job, VOCAB, 6e5, Budget("1e14", flops=1e14), Costs(job))


def test_the_yaml_is_a_sweep(job):
    text = as_yaml(like_grid(job), "mine", "gpu", "a comment")
    assert text.startswith("# @package _global_\n# a comment\n")
    assert yaml.safe_load(text) == {
        "defaults": ["gpu", "_self_"],
        "name": "mine",
        "tokens": ["1e6", "1.55e6", "2.35e6", "3.6e6"],  # YAML 1.1; OmegaConf reads numbers, as in conf/sweep
        "hydra": {
            "mode": "MULTIRUN",
            "sweeper": {"params": {"shape": "w144-d3,w112-d2,w96-d2,w80-d2,w64-d2,w64-d2-s1,w48-d2,w48-d2-s1"}},
        },
    }
    assert np.isinf(propose.standard_errors(propose.Expectation({}, []))["a"])
