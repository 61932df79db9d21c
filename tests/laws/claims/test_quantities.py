"""The numbers that claims hang on, against arithmetic and brute force at a known truth."""

import numpy as np
import pandas as pd
import pytest
from known_sweep import TRUTH, cell, law, write_cells, written
from scipy import optimize

from harness.errors import UserError
from harness.laws.claims.measured import Evidence
from harness.laws.claims.quantities import measure, needed

SHAPES_BY_SIZE = ((128, 2), (96, 4), (64, 9), (48, 16), (128, 1), (64, 4), (32, 16), (96, 1), (48, 4), (32, 9))


def best(product):
    """N* and D* of TRUTH at N D, by a search."""
    found = optimize.minimize_scalar(
        lambda log: law(np.exp(log), product / np.exp(log)), bounds=(np.log(1e3), np.log(1e8)), method="bounded",
        options={"xatol": 1e-10},
    )  # fmt: skip
    return np.exp(found.x), product / np.exp(found.x)


def middle(evidence):
    rows = evidence.ready.rows
    return np.exp(np.log(rows.flops).mean()) / 6


def test_convergence_is_the_loss_over_that_of_endless_training(grid):
    evidence = Evidence(grid)
    found = measure("convergence", evidence)
    params, tokens = best(middle(evidence))
    expected = law(params, tokens) / law(params, np.inf) - 1
    assert found.estimate == pytest.approx(expected, rel=0.05)
    assert found.low < expected < found.high
    longer = law(params, tokens) / law(params, 4 * tokens) - 1
    assert found.rows[1].label == "trained 4 times as long"
    assert found.rows[1].low < longer < found.rows[1].high
    assert not found.doubts


def test_half_size_is_the_compute_of_half_the_params_at_the_same_loss(grid):
    evidence = Evidence(grid)
    found = measure("half_size", evidence)
    params, tokens = best(middle(evidence))
    needed = optimize.brentq(lambda log: law(params / 2, np.exp(log)) - law(params, tokens), 5, 30)
    expected = np.exp(needed) / tokens / 2 - 1
    assert found.low < expected < found.high
    assert found.estimate == pytest.approx(expected, rel=0.05)
    (decisive,) = (row for row in found.rows if row.decides)
    assert decisive.label == "0.5 of N*"


def test_counting_is_nothing_where_nothing_is_left_out(grid):
    """Of params that are the same by both counts, a is too."""
    table = grid / "runs.csv"
    rows = pd.read_csv(table)
    rows.assign(params_non_embedding=rows.params_with_head).to_csv(table, index=False)
    found = measure("counting", Evidence(grid))
    assert (found.estimate, found.low, found.high) == pytest.approx((0, 0, 0), abs=1e-9)


def test_counting_shows_what_a_head_hides(grid):
    """N + 1024 w grows slower than N, so that a law in N alone has the smaller alpha, and the larger a."""
    found = measure("counting", Evidence(grid))
    head, inner = (next(row for row in found.rows if name in row.label and "6 N D" in row.label)
                   for name in ("with_head", "non_embedding"))  # fmt: skip
    assert head.estimate == pytest.approx(TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"]), abs=0.02)
    assert found.estimate == pytest.approx(inner.estimate - head.estimate)
    assert 0.03 < found.low < found.estimate < found.high < 0.2


def surface(bend, centre=16.0):
    """A loss that is 4 - .1 log C, and worse by the square of log (aspect / centre)."""
    return lambda row: np.exp(
        np.log(4) - 0.1 * np.log(row["flops"] / 1e12) + bend * np.log(row["width"] / row["depth"] / centre) ** 2
    )


def aspects(folder, bend, noise=0.0):
    rng = np.random.default_rng(3)
    clean = surface(bend)
    rows = [
        cell(width, depth, 1e6, lambda row: clean(row) * np.exp(noise * rng.standard_normal()), seed)
        for width, depth in SHAPES_BY_SIZE
        for seed in (0, 1)
    ]
    return Evidence(write_cells(folder, rows))


def test_aspect_is_the_range_over_what_was_tried(tmp_path):
    """Of the largest size from 48 / 16 = 3 to 128 / 2 = 64: log(64 / 16)^2 = 1.922, log(3 / 16)^2 = 2.802; of 196,608
    from 32 / 16 = 2 to 128: log(8)^2 = 4.324, the largest, since its best, 16, lies within."""
    found = measure("aspect", aspects(tmp_path / "a", 0.002))
    assert found.estimate == pytest.approx(np.expm1(0.002 * np.log(8) ** 2), rel=1e-6)
    assert (found.low, found.high) == pytest.approx((found.estimate, found.estimate), rel=1e-3)
    assert [row.decides for row in found.rows] == [False, False, False, True]
    assert found.rows[1].estimate == pytest.approx(found.estimate)
    points = [point["y"] for point in found.panel.points if point["x"] == 16.0]
    assert points == pytest.approx([0.0] * len(points), abs=1e-8)


def test_aspect_has_an_interval_of_the_noise(tmp_path):
    found = measure("aspect", aspects(tmp_path / "a", 0.002, noise=0.001))
    expected = np.expm1(0.002 * np.log(8) ** 2)
    assert found.low < expected < found.high
    assert 0.001 < found.high - found.low < 0.008


def test_noise_alone_makes_no_range(tmp_path):
    found = measure("aspect", aspects(tmp_path / "a", 0.0, noise=0.001))
    assert found.low == 0
    assert found.high < 0.006


def test_aspect_needs_one_budget_and_three_shapes_a_size(tmp_path):
    rows = [cell(64, depth, 1e6, lambda row: 3.0 + row["depth"]) for depth in (2, 4, 8)]
    with pytest.raises(UserError, match="has not three aspect ratios at three sizes: add shapes"):
        measure("aspect", Evidence(write_cells(tmp_path / "few", rows)))
    rows = [cell(64, 2, tokens, lambda row: 3.0 + row["tokens"] / 1e6) for tokens in (1e6, 2e6)]
    with pytest.raises(UserError, match="has several budgets, and aspect ratios are compared at one"):
        measure("aspect", Evidence(write_cells(tmp_path / "several", rows)))


def compared(**of_variants):
    variants = {
        name: {"multiplier": {"equal_tokens": ends(0.8), "equal_flops": ends(0.7), "equal_time": None}}
        | {"per_decade": drift, "params": ends(1.0), "tokens": ends(0.8)}
        for name, drift in of_variants.items()
    }
    certificate = {"certified": True, "reasons": []}
    return {"variants": variants, "baseline": "gpt", "predicts": "L = ...", "certificate": certificate,
            "choices": {"interval_method": "curvature"}}  # fmt: skip


def ends(value, low=None, high=None):
    return {"estimate": value, "low": low or value / 1.1, "high": high or value * 1.1}


def test_drift_is_of_the_variant_that_changes_most_either_way(grid):
    """.8 (.75 to .9) is 1.25 (1.111 to 1.333) upside down; 1.02 (.98 to 1.06) is 1 at least.

    Of two, an arm is 2.2414 / 1.9600 = 1.1436 times as long: log .8 + 1.1436 (log .9 - log .8) = -.08845.
    """
    rows = pd.read_csv(grid / "runs.csv")
    rows.assign(variant=["gpt", "muon"] * (len(rows) // 2), config_hash="x").to_csv(grid / "runs.csv", index=False)
    content = compared(llama=ends(0.8, 0.75, 0.9), muon=ends(1.02, 0.98, 1.06))
    written(grid, "compare", content)
    found = measure("compare.drift", Evidence(grid))
    assert (found.estimate, found.low, found.high) == pytest.approx((1.25, np.exp(0.08845), 1 / 0.75), rel=1e-4)
    written(grid, "compare", compared(muon=ends(1.02, 0.98, 1.06)))
    found = measure("compare.drift", Evidence(grid))
    assert (found.estimate, found.low, found.high) == pytest.approx((1.02, 1.0, 1.06))


def test_one_number_of_one_variant(grid):
    written(grid, "compare", compared(llama=ends(1.0), muon=ends(1.0)))
    found = measure("compare.llama.equal_flops", Evidence(grid))
    assert (found.estimate, found.low, found.high) == pytest.approx((0.7, 0.7 / 1.1, 0.77))
    assert [row.decides for row in found.rows] == [True, False]
    missing = measure("compare.llama.equal_time", Evidence(grid))
    assert (missing.estimate, missing.doubts) == (None, ["llama has no multiplier at equal time"])
    with pytest.raises(UserError, match="compare.gpt9.tokens names no variant: compare.json has llama, muon"):
        measure("compare.gpt9.tokens", Evidence(grid))


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("aspect", None),
        ("counting", "fit"),
        ("fit.a", "fit"),
        ("compare.drift", "compare"),
        ("compare.x.tokens", "compare"),
    ],
)
def test_what_runs_before(name, script):
    assert needed(name) == script


def test_extrapolation_is_the_mean_error_beyond_an_eighth(tmp_path):
    """Every cell beyond an eighth lies 1 % or, of the largest shape, 3 % below the law that the others follow."""
    shapes = ((24, 2), (32, 2), (48, 2), (64, 2), (112, 2), (176, 2))
    budgets = (0.5e6, 1e6, 2e6, 4e6)
    most = cell(176, 2, 4e6, lambda row: 1.0)["flops"]

    def loss(row):
        off = 0.0 if row["flops"] <= most / 8 else 0.03 if row["width"] == 176 else 0.01
        return law(row["params_with_head"], row["tokens"]) / (1 + off)

    rows = [cell(width, depth, tokens, loss) for width, depth in shapes for tokens in budgets]
    beyond = {row["width"] for row in rows if row["flops"] > most / 8}
    assert beyond == {64, 112, 176}
    found = measure("extrapolation", Evidence(write_cells(tmp_path / "grid", rows)))
    assert found.estimate == pytest.approx((0.01 + 0.01 + 0.03) / 3, rel=1e-3)
    # Student's t with 2 degrees of freedom: 4.303 sd / sqrt(3), and no error is below 0
    assert found.high == pytest.approx(found.estimate + 4.302653 * np.std([1, 1, 3], ddof=1) / 100 / 3**0.5, rel=1e-3)
    assert found.low == 0
    assert {round(point["y"], 3) for point in found.panel.points} == {1.0, 3.0}


def test_extrapolation_needs_cells_that_carry_the_law(tmp_path):
    rows = [cell(width, 2, tokens, lambda row: law(row["params_with_head"], row["tokens"])) for width in (48, 64, 80)
            for tokens in (1e6, 2e6, 3e6)]  # fmt: skip
    with pytest.raises(UserError, match="the cells of 1/8 of the compute cannot carry the law: .* needs at least 7"):
        measure("extrapolation", Evidence(write_cells(tmp_path / "few", rows)))


def of_floor(known, estimate, low, high, certified=True):
    certificate = {"certified": certified, "reasons": [] if certified else ["no floor"]}
    fits = [
        {
            "loss": loss,
            "estimates": {"E": estimate + off},
            "intervals": {"E": [low, high]},
            "predicts": "L = ...",
            "interval_method": "curvature",
            "certificate": certificate,
        }
        for loss, off in (("log_mse", 0.0), ("lad", 0.1))
    ]
    return {"fit": fits[0], "by_loss": fits, "floor": {"known": known}}  # fmt: skip


def test_floor_is_in_parts_of_the_smallest_excess(grid):
    """The lowest loss is 1.9 and more; of a floor .5 below it, E .01 above the floor is 2 % of the excess."""
    evidence = Evidence(grid)
    known = evidence.ready.rows.loss.min() - 0.5
    written(grid, "fit", of_floor(known, known + 0.01, known - 0.005, known + 0.02))
    found = measure("floor", evidence)
    assert (found.estimate, found.low, found.high) == pytest.approx((0.02, -0.01, 0.04))
    assert found.rows[1].estimate == pytest.approx(0.22)
    assert [row.decides for row in found.rows] == [True, False]


def test_a_text_without_a_known_floor_has_no_such_quantity(grid):
    written(grid, "fit", of_floor(1.0, 1.0, 0.9, 1.1) | {"floor": None})
    with pytest.raises(UserError, match="knows no floor of its text: train it on data=synthetic"):
        measure("floor", Evidence(grid))
    written(grid, "fit", of_floor(9.0, 1.0, 0.9, 1.1))
    with pytest.raises(UserError, match="has a cell at or below the known floor 9.0000: that cannot be"):
        measure("floor", Evidence(grid))
