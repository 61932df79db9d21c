import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from harness.data.documents import DataConfig
from harness.data.language import ASIDE, TRAINING
from harness.data.manifold import ANSWERS, BLOCK, LEVELS, Manifold
from harness.data.tokenizer import TokenizerConfig
from harness.data.tokens import prepare, recipe_of
from harness.errors import UserError
from harness.sweep.compose import compose_sweep, open_stores
from harness.sweep.floor import floors_by_dimension, known_floor
from harness.training.device import Device
from harness.training.evaluation import evaluate

CPU = Device(torch.device("cpu"), "float32", False)
# 16 answers, 16 levels of each of 4 coordinates, the end of text
SMALL = {"symbols": 81, "dimension": 3, "seed": 5}


@pytest.fixture
def windows(monkeypatch):
    """Small ones, and so small stores."""
    monkeypatch.setattr("harness.data.tokens.WINDOW_TOKENS", 2**13)
    monkeypatch.setattr("harness.data.tokens.LONGEST_SEQUENCE", 2**8)


def config(tmp_path, **changes):
    # 80 tokens a point: 5 in each document, and 16 answers
    given = {"source": "manifold", "validation_tokens": 50 * 80 + 1, "store_directory": str(tmp_path)} | SMALL
    return DataConfig(**given | changes), TokenizerConfig(kind="identity", vocab_size=81)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_over_all_points_the_field_has_mean_0_and_deviation_1(dimension):
    points = np.array(list(itertools.product(range(LEVELS), repeat=dimension)))
    values = Manifold(273, dimension, 0).field((points + 0.5) / LEVELS)
    assert len(values) == 16**dimension
    assert (values.mean(), values.std()) == (pytest.approx(0.0, abs=1e-12), pytest.approx(1.0, abs=1e-12))


@pytest.mark.parametrize("dimension", [4, 6, 10, 16])
def test_every_coordinate_counts(dimension):
    """Another level of one coordinate changes the field by 2/d, squared, in the mean of all where nothing is shared by
    several; what several share adds to each."""
    task = Manifold(273, dimension, 0)
    generator = np.random.default_rng(0)
    points = generator.integers(LEVELS, size=(4000, dimension))
    moved = []
    for j in range(dimension):
        other = points.copy()
        other[:, j] = generator.integers(LEVELS, size=len(points))
        moved.append(np.mean((task.field((other + 0.5) / LEVELS) - task.field((points + 0.5) / LEVELS)) ** 2))
    assert 2 / dimension <= np.mean(moved) <= 2 * 2 / dimension
    assert min(moved) > 0.1 * 2 / dimension  # by chance some count less


def test_answers_are_the_field_in_thirds_with_noise_of_a_half():
    task = Manifold(**SMALL)
    points = np.array([[0, 3, 15], [8, 8, 8]])
    z = task.field((points + 0.5) / 16)
    for each, p in zip(z, task.probabilities(points), strict=True):
        weights = [math.exp(-(((answer - 7.5) / 3 - each) ** 2) / (2 * 0.5**2)) for answer in range(16)]
        np.testing.assert_allclose(p, np.array(weights) / sum(weights), rtol=1e-12)


def test_what_trains_is_drawn_by_the_probabilities():
    task = Manifold(**SMALL)
    ids = np.concatenate([task.documents(TRAINING, block) for block in range(4)])
    points, answers = ids[:, :3] - ANSWERS - LEVELS * np.arange(3), ids[:, 3]
    assert points.min() == 0 and points.max() == 15 and answers.max() <= 15
    # 16384 points: each level of a coordinate 1024 times, with a standard deviation of 31
    for j in range(3):
        assert np.abs(np.bincount(points[:, j]) - 1024).max() < 4 * 31
    p = task.probabilities(points)
    expected = p.sum(0)
    assert np.all(np.abs(np.bincount(answers, minlength=16) - expected) < 4 * np.sqrt((p * (1 - p)).sum(0)))
    # and drawn at each point, not only all together
    assert -np.log(p[np.arange(len(p)), answers]).mean() == pytest.approx(task.entropy(points), abs=4 * 0.8 / 128)
    assert not np.array_equal(ids[:100], Manifold(81, 3, 6).documents(TRAINING, 0)[:100])
    assert np.array_equal(ids[BLOCK : 2 * BLOCK], Manifold(**SMALL).documents(TRAINING, 1))


class Known(nn.Module):
    """Knows the probabilities of `task`, and of what is no answer nothing."""

    def __init__(self, task):
        super().__init__()
        self.task = task

    def token_losses(self, inputs_BT, targets_BT):
        losses_BT = torch.full(targets_BT.shape, 99.0)
        p = self.task.probabilities((inputs_BT[:, :3] - ANSWERS - LEVELS * torch.arange(3)).numpy())
        losses_BT[:, 2] = -torch.from_numpy(np.log(p)).gather(1, targets_BT[:, 2:3])[:, 0]
        return losses_BT


def test_store_has_each_answer_of_what_validates_and_the_floor_is_what_the_best_predictor_loses(tmp_path, windows):
    data, tokenizer = config(tmp_path)
    small = prepare(data, tokenizer, 5_000)
    first, validation = np.array(small.train), np.array(small.validation)
    task = Manifold(**SMALL)
    documents = validation[:4000].reshape(50, 16, 5)
    assert np.all(documents[:, :, :3] == documents[:, :1, :3]) and np.all(documents[:, :, 4] == 80)
    assert np.array_equal(documents[:, :, 3], np.tile(np.arange(16), (50, 1)))
    assert np.array_equal(first[:5], [*task.documents(TRAINING, 0)[0], 80])
    assert np.array_equal(validation[:4], task.documents(ASIDE, 0)[0])
    weights = small.weights
    assert len(weights) == len(validation) and weights.sum() == pytest.approx(50.0)
    assert set(np.flatnonzero(weights) % 5) == {3}

    found = evaluate(Known(task), small.evaluated(5), 5, small.bytes_per_token, CPU, weights)
    p = task.probabilities(documents[:, 0, :3].astype(int) - ANSWERS - LEVELS * np.arange(3))
    assert found.loss == pytest.approx(-(p * np.log(p)).sum() / 50, abs=1e-6)  # of float32
    assert found.loss == pytest.approx(task.entropy(task.points_aside(data.validation_tokens)), abs=1e-6)

    grown = prepare(data, tokenizer, 40_000)
    assert len(first) < 40_000 <= len(grown.train)
    assert np.array_equal(grown.train[: len(first)], first) and np.array_equal(grown.validation, validation)


def interpolated(task, places, pieces):
    """The field at places (n, d) by multilinear interpolation between the corners of `pieces` cells a side."""
    low = np.floor(places * pieces)
    part, total = places * pieces - low, np.zeros(len(places))
    for corner in itertools.product((0, 1), repeat=task.dimension):
        total += np.where(corner, part, 1 - part).prod(1) * task.field((low + corner) / pieces)
    return total


@pytest.mark.parametrize(("dimension", "sides"), [(4, (4, 6, 9, 12)), (6, (4, 6, 8)), (8, (3, 4))])
def test_piecewise_linear_learner_falls_by_the_known_exponent(dimension, sides):
    """N pieces, of equal sides: a squared error of N^-4/d."""
    task = Manifold(273, dimension, 0)
    places = np.random.default_rng(0).random((600, dimension))
    field = task.field(places)
    errors = [np.mean((interpolated(task, places, pieces) - field) ** 2) for pieces in sides]
    slope = -np.polyfit(dimension * np.log(sides), np.log(errors), 1)[0]
    assert task.exponent == 4 / dimension
    assert slope == pytest.approx(4 / dimension, rel=0.08)


def test_recipe_names_the_task(tmp_path):
    assert recipe_of(*config(tmp_path))[0]["data"] == {
        "source": "manifold", "symbols": 81, "dimension": 3, "seed": 5, "language": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.dimension=17"], "data.dimension=17 must be 1 to 16, for which data.symbols=273 has 16 levels each: "
         "correct it, or raise data.symbols"),
        (["data.symbols=32"], "data.symbols=32 must be 33 to 20000: correct it"),
        (["tokenizer=bytes"], "tokenizer.kind=bytes with tokenizer.vocab_size=1024 takes data.source=manifold apart "
         "otherwise than into its 273 symbols: set tokenizer=identity"),
        (["data.dimension=5"], "model.seq_len=6 is not that of a point of data.dimension=5, which is to be alone in "
         "its sequence: set it to 7"),
        (["data.validation_tokens=200"], "data.validation_tokens=200 is not whole points of data.dimension=4, each "
         "with all its answers, and a target more: set it to 193"),
        (["validation={seen: {source: manifold}}"], "validation.seen is of points, whose losses count by weights: "
         "train on data=manifold"),
    ],
)  # fmt: skip
def test_points_that_tell_no_exponent_are_refused(tmp_path, overrides, message):
    with pytest.raises(UserError) as error:
        given = ["data=manifold", "model.seq_len=6", "tokens=1000", "tracking=none", f"output_directory={tmp_path}"]
        compose_sweep([*given, *overrides])
    assert str(error.value) == message


def in_dimensions(tmp_path, *overrides):
    each = '["data.dimension={}","model.seq_len={}","shape=w8-d1"]'
    grids = f"grids=[{each.format(4, 6)},{each.format(6, 8)}]"
    given = ["-m", "data=manifold", "model.head_size=4", "tokens=1e5", "tracking=none", f"output_directory={tmp_path}"]
    return compose_sweep([*given, grids, *overrides]).jobs


def test_each_dimension_has_a_floor_of_its_own(tmp_path):
    jobs = in_dimensions(tmp_path)
    floors = floors_by_dimension(jobs)
    assert list(floors) == [4, 6] and [floor["exponent"] for floor in floors.values()] == [1.0, 4 / 6]
    for job in jobs:
        # 460,800 tokens are 4,800 points of 6 * 16 tokens, or 3,600 of 8 * 16
        task = Manifold(273, job.data.dimension, 0)
        points = task.points_aside(460_801)
        assert len(points) == {4: 4800, 6: 3600}[task.dimension]
        floor = known_floor([job], None)
        assert floor == floors[task.dimension]
        assert floor["nats"] == task.entropy(points)
        # points differ by about .1 in the entropy of their answers
        assert floor["nats"] == pytest.approx(floor["expected"], abs=4 * 0.15 / math.sqrt(len(points)))
    assert known_floor(jobs, None) is None
    assert floors_by_dimension(jobs[:1]) == {}


def test_other_points_are_another_text(tmp_path):
    with pytest.raises(UserError, match="data differs within the grid, and losses on different texts cannot be"):
        open_stores(in_dimensions(tmp_path, "data.seed=0,1"))
