"""The coordinate check of our own families: what theory says of widths and depths, and what the rules are for."""

import json
import math

import pytest
import torch

from harness.grid import make_trunks
from harness.sweep.coordinates import write_coordinates
from harness.training.coordinates import coordinates, sizes_and_movements, slope

VOCAB = 256


@pytest.fixture
def rows_of(compose):
    def one(parametrization: str, shapes: list[str], *arguments: str) -> dict[str, dict[str, list[float]]]:
        """`size` and `moved` of each part, a value a shape."""
        given = ["tokens=1e6", f"model.parametrization={parametrization}", *arguments]
        trunks = [trunk for shape in shapes for trunk in make_trunks(compose(*given, f"shape={shape}"), VOCAB, "", "x")]
        found: dict[str, dict[str, list[float]]] = {}
        for row in coordinates(trunks, 0.004):
            for of in ("size", "moved"):
                found.setdefault(row["part"], {}).setdefault(of, []).append(row[of])
        return found

    return one


WIDTHS = ["w32-d2", "w64-d2", "w128-d2", "w256-d2"]


def power(values: list[float], sizes: tuple[int, ...] = (32, 64, 128, 256)) -> float:
    return slope(list(sizes), values)


def test_logits_begin_with_the_powers_of_their_rules(rows_of):
    """A head of width w sums w terms of one size, so that its outputs grow as w^.5: sp's do, mup's are divided by w."""
    for name, expected in (("sp", 0.5), ("mup", -0.5)):
        found = rows_of(name, WIDTHS)
        assert power(found["logits"]["size"]) == pytest.approx(expected, abs=0.03)
        assert power(found["embedding"]["size"]) == pytest.approx(0.0, abs=0.03)
        # two matrices in a row: attention's values and its output, each of w terms; no power with mup's init
        assert power(found["blocks.*.attention"]["size"]) == pytest.approx(1.0 if name == "sp" else 0.0, abs=0.05)
        assert sorted(found) == ["blocks.*", "blocks.*.attention", "blocks.*.feed_forward", "embedding", "logits"]


def test_mup_moves_all_parts_alike_at_all_widths_and_sp_does_not(rows_of):
    for part, of in rows_of("mup", WIDTHS).items():
        assert -0.4 < power(of["moved"]) < 0.1, part
    found = rows_of("sp", WIDTHS)
    assert power(found["logits"]["moved"]) > 0.6
    assert power(found["blocks.*.attention"]["moved"]) > 0.8


def test_completep_holds_the_residual_stream_of_all_depths(rows_of):
    """Each branch is a k-th: at the start a stream of k branches of variance 1/k^2 grows towards the embedding alone,
    where mup's, with k times as much variance, grows."""
    depths = (2, 4, 8)
    of = {name: rows_of(name, [f"w32-d{depth}" for depth in depths])["blocks.*"] for name in ("mup", "completep")}
    assert power(of["mup"]["moved"], depths) > 0.2
    assert power(of["completep"]["moved"], depths) < 0.05
    assert of["completep"]["size"][2] < of["completep"]["size"][0] < of["mup"]["size"][2]
    # at the base depth, 2, they are one
    assert (of["completep"]["size"][0], of["completep"]["moved"][0]) == (of["mup"]["size"][0], of["mup"]["moved"][0])


def test_a_part_of_several_blocks_is_their_root_mean_square(compose):
    (trunk,) = make_trunks(compose("tokens=1e6", "shape=w32-d2"), VOCAB, "", "x")
    single = sizes_and_movements(trunk)
    pairs = zip(single["blocks.0.attention"], single["blocks.1.attention"], strict=True)
    size, moved = (math.sqrt((first**2 + second**2) / 2) for first, second in pairs)
    (row,) = (row for row in coordinates([trunk], trunk.learning_rate) if row["part"] == "blocks.*.attention")
    assert (row["size"], row["moved"]) == pytest.approx((size, moved))


def test_a_check_draws_nothing_that_is_drawn_later(rows_of):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    rows_of("mup", ["w32-d1"])
    assert torch.equal(torch.rand(3), expected)


def test_it_is_written_for_the_claim_that_asks_for_it(tmp_path, compose):
    given = ["tokens=1e6", "shape=w32-d1"]
    job = compose(*given)
    jobs = [compose(*given, f"optimizer.learning_rate.value={rate}") for rate in (0.002, 0.008, 0.008)]
    trunks = [make_trunks(each, VOCAB, "", "x")[0] for each in jobs]
    write_coordinates(tmp_path, job, trunks)
    assert not list(tmp_path.iterdir())
    job.claim = {"text": "x", "quantity": "transfer", "rule": {"low": None, "high": 1.5}}
    write_coordinates(tmp_path, job, trunks)
    found = json.loads((tmp_path / "coordinates.json").read_text())
    assert (found["learning_rate"], found["steps"], found["tokens"]) == (0.008, 3, 256)  # the median
    assert {(row["parametrization"], row["width"], row["depth"]) for row in found["rows"]} == {("mup", 32, 1)}
    assert all(math.isfinite(row[of]) for row in found["rows"] for of in ("size", "moved"))
