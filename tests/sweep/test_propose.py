"""Grids proposed for a budget."""

import math

import numpy as np
import pytest
import yaml

from harness.errors import UserError
from harness.grid import make_trunks
from harness.laws.design import Expectation, expect
from harness.sweep import propose
from harness.sweep.candidates import CENTRE, Candidate, Costs, make_shape, paced, standard_error
from harness.sweep.compose import compose_sweep
from harness.sweep.pace import Pace
from harness.sweep.propose import Budget, as_yaml, expected, parse_budget, standard_errors
from harness.sweep.search import Bounds, neighbours, seeded

VOCAB = 1024
WIDTHS = [(48, 2), (64, 2), (80, 2), (96, 2), (112, 2), (144, 3)]


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
    shapes = [make_shape(job, VOCAB, width, depth) for width, depth in WIDTHS]
    return Candidate(tuple(shapes), tokens, (2, 2, 1, 1, 1, 1))


def test_a_candidate_costs_what_its_plan_says(job, grid):
    candidate = like_grid(job)
    assert [f"w{shape.width}-d{shape.depth}-s{seed}" for shape, seed in candidate.trunks] == [
        trunk.name.rsplit("-", 1)[0] for trunk in grid
    ]
    assert Costs(job).flops(candidate) == pytest.approx(sum(trunk.flops_to_train for trunk in grid), rel=2e-3)
    # 900 steps of 512 tokens are fewer than the 100 k of warmup over .2
    assert candidate.shapes[0].least_tokens == 500_000


def test_seconds_are_those_of_the_measured_pace(job):
    shapes = like_grid(job).shapes[:1]
    # .01 s a step of 512 tokens and an evaluation as long as 100 steps, for the one shape that was measured
    costs = paced(job, shapes, [Pace(0.01, 1.0, 0.0)], [512], slots=2)
    candidate = Candidate(shapes, (512_000.0, 1_024_000.0), (2,))
    # trunk .8 * 2000 steps, cooldowns 200 + 400, two evaluations; two seeds side by side
    assert costs.seconds(candidate) == pytest.approx((1600 + 600 + 200) * 0.01)


def test_the_curvature_is_what_the_simulation_finds(job):
    for tokens in [(0.52e6, 0.8e6, 1.22e6, 1.85e6), (1e6, 2e6, 4e6, 8e6)]:
        candidate = like_grid(job, tokens)
        found = standard_errors(expect(*candidate.cells(), centre=CENTRE))
        # 500 draws tell a standard error to 5 %
        assert standard_error(candidate) == pytest.approx(found["a"], rel=0.15)


def test_four_times_the_seeds_halve_the_error(job):
    one, four = (Candidate(like_grid(job).shapes, (1e6, 2e6, 4e6), (seeds,) * 6) for seeds in (2, 8))
    assert standard_error(four) / standard_error(one) == pytest.approx(0.5)


def test_seeds_go_where_they_tell_most_for_their_cost(job):
    grid = like_grid(job)
    costs = Costs(job)
    limit = 1.35 * costs.flops(grid)
    found = seeded(Bounds(job, VOCAB, math.inf, costs.flops, limit), grid)
    assert found.shapes == grid.shapes and found.tokens == grid.tokens
    assert sum(found.seeds) - 6 >= 2 and costs.flops(found) <= limit
    # every other way to spend as much: one seed moved from a shape to others of no more cost
    for place, seeds in enumerate(found.seeds):
        for other in range(6):
            moved = list(found.seeds)
            moved[place], moved[other] = seeds - 1, moved[other] + (other != place)
            moved = Candidate(found.shapes, found.tokens, tuple(moved))
            if seeds > 1 and costs.flops(moved) <= limit:
                assert standard_error(moved) > 0.99 * standard_error(found)


def test_two_repeats_are_the_least(job):
    grid = like_grid(job)
    costs = Costs(job)
    single = costs.flops(Candidate(grid.shapes, grid.tokens, (1,) * 6))
    for limit in (0.99 * single, 1.01 * single):
        assert seeded(Bounds(job, VOCAB, math.inf, costs.flops, limit), grid) is None


@pytest.mark.parametrize("flops", [4e13, 1e14, 1e15])
def test_a_proposal_stays_within_every_bound_and_no_grid_shown_beside_it_is_better(job, flops):
    costs = Costs(job)
    chosen, known, warnings = propose.propose(job, VOCAB, 4e6, Budget("", flops=flops), costs)
    assert 0.9 * flops < costs.flops(chosen) <= flops
    assert len(chosen.shapes) >= 6 and len(chosen.tokens) >= 4 and warnings == []
    assert all(shape.width % job.model.head_size == 0 and shape.width >= 48 for shape in chosen.shapes)
    assert chosen.tokens[0] >= max(900 * 512, 100_000 / 0.2, 0.5 * chosen.shapes[-1].params)
    assert chosen.tokens[-1] <= 4e6
    assert sum(chosen.seeds) - len(chosen.seeds) >= 2
    # the cpu grid costs 8.4e13
    names = {4e13: set(), 1e14: {"scaled to as much"}, 1e15: {"scaled to as much", "with more seeds"}}
    assert set(known) == names[flops]
    # simulations that did not choose; each tells an error to 5 %
    errors = [standard_errors(expected(grid, seed=7))["a"] for grid in (chosen, *known.values())]
    assert all(errors[0] < 1.05 * other for other in errors)
    assert all(costs.flops(grid) <= flops for grid in known.values())


def test_a_proposal_for_a_time_is_no_worse_than_the_cpu_grid_in_that_time(job):
    shapes = [make_shape(job, VOCAB, width, 2) for width in (48, 96, 192)]
    # w96 at twice the FLOPs a second of w48, w192 at three times; a step of w48 in 1 ms
    rate = shapes[0].flops_per_token / 1e-3
    times = [shape.flops_per_token / rate / faster for shape, faster in zip(shapes, (1, 2, 3), strict=True)]
    paces = [Pace(step, 0.1, 0.0) for step in times]
    costs = paced(job, shapes, paces, [512, 512, 512], slots=2)
    chosen, known, _ = propose.propose(job, VOCAB, 4e6, Budget("", seconds=300), costs)
    assert 255 < costs.seconds(chosen) <= 300
    assert known
    for grid in known.values():
        assert costs.seconds(grid) <= 300
        assert standard_error(chosen) < standard_error(grid)


def test_a_proposal_for_the_cost_of_a_grid_by_hand_is_better(job, grid):
    flops = sum(trunk.flops_to_train for trunk in grid)
    chosen, _, _ = propose.propose(job, VOCAB, 4e6, Budget("", flops=flops), Costs(job))
    assert standard_error(chosen) < standard_error(like_grid(job))


def test_neighbours_hold_one_change(job):
    grid = like_grid(job, (0.55e6, 1e6, 2e6, 3e6))
    near = list(neighbours(Bounds(job, VOCAB, math.inf, Costs(job).flops, math.inf), grid))
    assert {len(one.shapes) - 6 for one in near} == {-1, 0, 1} and {len(one.tokens) for one in near} == {3, 4, 5}
    for one in near:
        assert len(set(one.shapes) - set(grid.shapes)) <= 1
        assert one.tokens[0] >= 500_000


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
    assert np.isinf(standard_errors(Expectation({}, []))["a"])


@pytest.mark.parametrize("more", [["optimizer=adamw,muon"], ['variants={optimizer: [], b: ["optimizer=muon"]}']])
def test_a_grid_is_proposed_for_one_way_of_training(more):
    said = "^budget: a grid is proposed for one way of training, and (optimizer|variant) varies: leave it out"
    with pytest.raises(UserError, match=said):
        propose.proposal("1e14", more)
