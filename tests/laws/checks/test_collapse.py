"""Training curves at one D/N: what is compared, and which shape is said to leave."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from collapse_coverage import BUDGETS, SEEDS, curve, judged, law, write
from rich.console import Console

from harness.laws.checks.collapse import Design, Spread, at_one_ratio, between_seeds, by_curves, judge, line, sentence
from harness.laws.fit import fit_rows
from harness.laws.settings import FitConfig
from harness.laws.study import cells_of, write_study
from harness.laws.summary import show, show_briefly
from harness.laws.table.curves import read_curve, window_means
from harness.laws.table.rows import Columns, read_rows
from harness.laws.table.table import as_table

ROOT = Path(__file__).resolve().parents[3]
ROWS = pd.DataFrame({"tokens": [2, 4, 5], "train_loss": [4.0, 2.0, 1.0]})


def test_a_row_of_a_curve_is_the_mean_since_the_row_before():
    assert window_means(ROWS, np.array([0.0, 2.0, 4.0, 5.0])) == pytest.approx([4.0, 2.0, 1.0])
    # from 1 to 3: one token at 4 and one at 2; from 3 to 5: one at 2 and one at 1
    assert window_means(ROWS, np.array([1.0, 3.0, 5.0])) == pytest.approx([3.0, 1.5])
    assert window_means(ROWS, np.array([1.0, 3.0, 5.1])) is None
    assert window_means(pd.concat([ROWS[:1], ROWS]), np.array([1.0, 3.0, 5.0])) is None
    assert window_means(ROWS[:0], np.array([1.0, 2.0])) is None


def test_a_curve_is_read_up_to_a_torn_line(tmp_path):
    rows = [{"phase": "trunk", "tokens": 2, "train_loss": 4.0}, {"phase": "trunk", "tokens": 3, "train_loss": None}]
    (tmp_path / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"phase": "tr')
    assert read_curve(tmp_path / "curve.jsonl").to_numpy().tolist() == [["trunk", 2, 4.0]]
    assert len(read_curve(tmp_path / "none.jsonl")) == 0


def test_the_ratio_is_the_one_that_most_shapes_reach():
    # D/N of three shapes at two budgets; 4 is within a factor of 2 of a budget of each, and exactly one of the first
    ratio_R = np.array([4.0, 8.0, 2.5, 5.0, 0.7, 2.1])
    shape_R, budget_R = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 0, 1, 0, 1])
    known_R = np.ones(6, bool)
    # of the candidates 2.1, 2.5, 4 and 5, 4 reaches all but with distances of log 1.25 and log 1.9; 2.5 with log 1.6
    # and log 1.19, less in sum
    assert at_one_ratio(ratio_R, shape_R, budget_R, known_R).tolist() == [True, False, True, False, False, True]
    assert not at_one_ratio(ratio_R, shape_R, budget_R, ~known_R).any()
    known_R[2] = False
    assert at_one_ratio(ratio_R, shape_R, budget_R, known_R).tolist() == [True, False, False, True, False, True]


def test_the_spread_is_that_of_repeats_about_their_means():
    # two groups of two, 2 and 4 apart: (1 + 1 + 4 + 4) / 2 degrees of freedom; the fifth row repeats nothing
    level_R, labels_R = np.array([1.0, 3.0, 0.0, 4.0, 9.0]), np.array([0, 0, 1, 1, 2])
    found = between_seeds(level_R, labels_R, np.ones(5, bool), None)
    assert found is not None
    assert (found.sd, found.freedom) == (pytest.approx(5.0**0.5), pytest.approx(2.0))
    assert between_seeds(level_R, labels_R, np.array([True, False, True, False, True]), None) is None


def test_a_shape_is_judged_by_the_line_of_the_others():
    level_S, log_S, one_S = np.array([0.0, 0.1, 0.3, 0.3, 0.4]), np.arange(5.0) - 2, np.ones(5)
    design = Design(np.eye(5), np.zeros((5, 5)))
    found = judge(level_S, log_S, one_S, design, Spread(0.01, 10.0))
    # the others lie on .2 + .1 log N exactly; the middle is .1 above, known to sd times the root of 1 + 1/4
    assert found.off_S[2] == pytest.approx(0.1)
    assert found.half_S[2] == pytest.approx(0.01 * 1.25**0.5 * 3.1693, rel=1e-4)  # t of 10 degrees at .995
    assert found.on_S.tolist() == [True, True, False, True, True]
    assert found.off_S[[0, 1, 3, 4]] == pytest.approx(np.zeros(4), abs=1e-12)
    # t^2 = 80, so cos^2 = 10 / 90 in 1 - sin (1 + cos^2 / 2 + 3/8 cos^4 + 5/16 cos^6 + 35/128 cos^8) = 4.376e-6 of both
    # sides (Abramowitz and Stegun 26.7.4), and five shapes
    assert found.p_S[2] == pytest.approx(2.188e-5, rel=1e-3)
    # over the line of the four, .1 a unit of log N: exp(.1 log 10) - 1
    assert found.drift["per_decade"] == pytest.approx(0.2589254, abs=1e-6)

    # where the law takes up half of what is off, what is left of it counts double
    bent = Design(np.diag([1, 1, 0.5, 1, 1.0]), np.zeros((5, 5)))
    assert judge(level_S, log_S, one_S, bent, Spread(0.01, 10.0)).off_S[2] == pytest.approx(0.2)
    # noise of the law's own that is much larger lets nobody leave
    doubted = Design(np.eye(5), np.eye(5))
    assert judge(level_S, log_S, one_S, doubted, Spread(0.01, 10.0)).on_S.all()
    assert line(level_S[:, None], log_S, one_S, found.on_S) == pytest.approx([0.2])

    # shapes of one size say nothing of a line in log N, and the rest is judged all the same
    alike = judge(level_S * [0, 0, 1, 0, 0], np.zeros(5), one_S, design, Spread(0.01, 10.0))
    assert alike.drift == {"per_decade": 0.0, "p": 1.0}
    assert alike.on_S.tolist() == [True, True, False, True, True]
    # and one that the law follows wholly is never off
    followed = judge(level_S, log_S, one_S, Design(np.diag([1, 1, 0, 1, 1.0]), np.zeros((5, 5))), Spread(10.0, 10.0))
    assert (followed.off_S[2], followed.p_S[2], followed.of(2)["leaves"]) == (0.0, 1.0, False)
    assert np.isnan(followed.of(2)["low"]) and np.isnan(followed.of(2)["high"])

    unknown = judge(level_S, log_S, one_S, design, None)
    assert unknown.off_S[2] == pytest.approx(0.1)
    assert unknown.on_S.all() and np.isnan(unknown.p_S).all() and np.isnan(unknown.half_S).all()


@pytest.fixture(scope="module")
def mistuned(tmp_path_factory) -> Path:
    """A sweep like the cpu grid, w112-d2 of which has losses 2 % too high, with noise."""
    folder = tmp_path_factory.mktemp("mistuned")
    write(folder, 0, {"w112-d2": 0.02})
    plan = {"schema": 1, "sweep": "mistuned", "cells": [{"cell": path.name} for path in (folder / "runs").iterdir()]}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(plan | {"law": "chinchilla_coupled"}))
    return folder


def test_simulated_sweeps_have_the_grid_and_the_law_that_they_say():
    sweep = yaml.safe_load((ROOT / "conf" / "sweep" / "cpu.yaml").read_text())
    names = [f"w{width}-d{depth}" + f"-s{seed}" * (seed > 0)
             for (width, depth), seeds in SEEDS.items() for seed in range(seeds)]  # fmt: skip
    assert sorted(sweep["hydra"]["sweeper"]["params"]["shape"].split(",")) == sorted(names)
    assert [float(tokens) for tokens in sweep["tokens"]] == BUDGETS.tolist()
    # N = 1e5, D = 1e6: 3536 / 10^3.86 + 4604 / 10^3.846 = .48811 + .65633, to the power .666 1.09399
    assert law(1e5, np.array(1e6)) == pytest.approx(2.41 + 1.0940, abs=2e-4)
    rows = curve(1e5, 1e6, np.zeros(100))
    assert rows[-1]["tokens"] == 1e6
    assert rows[20]["train_loss"] == pytest.approx(float(law(1e5, np.array(20.5 * 17920))) * np.exp(0.037))


def test_the_shape_whose_losses_are_off_is_named(mistuned, tmp_path):
    found = judged(mistuned)
    assert [entry["shape"] for entry in found["shapes"] if entry["leaves"]] == ["w112-d2"]
    (entry,) = [entry for entry in found["shapes"] if entry["leaves"]]
    assert entry["low"] < 0.0202 < entry["high"] and entry["low"] > 0
    # the budgets nearest to D/N = 6: the smallest shape's smallest, the largest shape's largest
    tokens = {entry["shape"]: entry["tokens"] for entry in found["shapes"]}
    assert tokens["w48-d2"] == 1.0e6 and tokens["w176-d2"] == 3.6e6
    assert found["from"] == pytest.approx(0.3)  # three times a warmup of .1 M tokens, of 1 M
    write(tmp_path, 0, {})
    well = judged(tmp_path)
    assert not any(entry["leaves"] for entry in well["shapes"]) and sentence(well) == ""


def test_without_noise_curves_fall_on_one_that_is_known(tmp_path):
    write(tmp_path, 0, {}, noise=0.0)
    found = judged(tmp_path)
    # before the decay .037 above the law's own curve, up to the means over a part of a run
    assert found["curves"]["common"][:9] == pytest.approx(np.full(9, np.expm1(0.037)), abs=5e-4)
    assert [entry["deviation"] for entry in found["shapes"]] == pytest.approx(np.zeros(6), abs=2e-3)


def test_without_seeds_none_is_judged_and_too_few_shapes_are_said(tmp_path):
    single = {shape: 1 for shape in SEEDS}
    write(tmp_path / "single", 0, {}, seeds=single)
    found = judged(tmp_path / "single")
    assert found["noise"] is None
    assert all(np.isnan(entry["p"]) and not entry["leaves"] for entry in found["shapes"])
    table = pd.read_csv(tmp_path / "single" / "runs.csv")
    table.assign(warmup_tokens=2.5e5).to_csv(tmp_path / "single" / "runs.csv", index=False)
    # of the 1 M tokens of the smallest shape
    assert judged(tmp_path / "single") == {"left_out": "the warmup takes up to 25 % of a run"}
    table.to_csv(tmp_path / "single" / "runs.csv", index=False)
    for path in [*(tmp_path / "single" / "runs").glob("w48-*"), *(tmp_path / "single" / "runs").glob("w176-*")]:
        (path / "curve.jsonl").unlink()
    assert judged(tmp_path / "single") == {
        "left_out": "4 shapes have training curves that end within a factor of 2 of one D/N, where 5 are needed"
    }


def test_a_line_in_the_terminal_names_who_leaves(mistuned):
    study = write_study(FitConfig(runs=str(mistuned), bootstrap=0))
    assert study == json.loads((mistuned / "fit.json").read_text())
    gone = next(entry for entry in study["collapse"]["shapes"] if entry["leaves"])
    said = (
        f"w112-d2 by {100 * gone['deviation']:+.1f} % (p = {gone['p']:.2g}) leaves the common curve of training at D/N "
        "near 6: its settings, steps or the law may be why"
    )
    for shown in (lambda console: show(study, console), lambda console: show_briefly(study, console, "runs")):
        text = io.StringIO()
        shown(Console(file=text, width=300))
        assert text.getvalue().count(said) == 1
    two = {"tokens_per_param": 21.3, "shapes": [gone, gone | {"shape": "w8-d1", "deviation": -0.012, "p": 0.031}]}
    assert sentence(two).endswith(
        "and w8-d1 by -1.2 % (p = 0.031) leave the common curve of training at D/N near 21: their settings, steps or "
        "the law may be why"
    )
    assert sentence({"left_out": "no"}) == sentence(None) == ""


def test_other_peoples_tables_have_no_curves(simulated):
    table = as_table(simulated(noise=0.001))
    rows = read_rows(table, Columns(), "chinchilla")
    cells = cells_of(table, rows)
    fit = fit_rows(rows, Columns(), "chinchilla", "log_mse")
    assert by_curves(fit, cells, cells.shape_R, ["", "their.csv"]) is None
