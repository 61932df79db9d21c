"""Minima over settings: known ones found again, with intervals that hold, and refusals where there is none."""

import json
import math
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from harness.errors import UserError
from harness.laws.noise.intervals import TAILS
from harness.laws.tune import tune
from harness.laws.tuning.basin import Bowl, Design, fit_basin
from harness.laws.tuning.penalty import noncentrality, penalties
from harness.laws.tuning.rules import Sizes, fitted_rules, misfit
from harness.laws.tuning.shape import cubic, curvature_shared
from harness.laws.tuning.window import settle

ROOT = Path(__file__).parents[3]
PARAMS, TOKENS = (1e5, 2e5, 4e5, 8e5), (1e6, 4e6)
H = np.array([[0.016, -0.005], [-0.005, 0.014]])
# lr = .004 (N/R)^-.3 (D/S)^-.1 and batch = 512 (N/R)^.1 (D/S)^.3, R and S the geometric means
RULE = np.array([[math.log(0.004), math.log(512)], [-0.3, 0.1], [-0.1, 0.3]])
SIZES = Sizes(np.repeat(PARAMS, 2), np.tile(TOKENS, 4))
BEST_CK = SIZES.factors(("params", "tokens")) @ RULE
STEPS = math.log(2) * np.arange(-2, 3)


def frame(cubed: float = 0.0, **more) -> pd.DataFrame:
    """25 runs at each of 8 sizes, without noise."""
    rows = []
    for cell, (params, tokens) in enumerate(zip(SIZES.params_C, SIZES.tokens_C, strict=True)):
        for lr in 0.004 * np.exp(STEPS):
            for batch in 512 * np.exp(STEPS):
                v = np.log([lr, batch]) - BEST_CK[cell]
                height = v @ H @ v / 2 + cubed * v[0] ** 3
                floor = 2 + (params**-0.5 * 300 + tokens**-0.5 * 900)
                rows.append({"N": params, "D": tokens, "lr": lr, "batch": batch, "loss": floor * math.exp(height)})
    return pd.DataFrame(rows).assign(**more)


def test_known_minima_and_rules_are_found():
    found = tune(frame(), ["lr", "batch"], rules={"lr": (0.004, 0, 0)}).to_dict()
    lr, batch = found["settings"]["lr"], found["settings"]["batch"]
    # geometric means of the sizes: 1e5 sqrt(8) and 2e6
    assert lr["rule"]["reference_params"] == pytest.approx(282842.7)
    assert lr["rule"]["reference_tokens"] == pytest.approx(2e6)
    for rule, value, params, tokens in ((lr["rule"], 0.004, -0.3, -0.1), (batch["rule"], 512, 0.1, 0.3)):
        assert rule["value"]["estimate"] == pytest.approx(value, rel=1e-6)
        assert rule["params_exponent"]["estimate"] == pytest.approx(params, abs=1e-6)
        assert rule["tokens_exponent"]["estimate"] == pytest.approx(tokens, abs=1e-6)
    # 0.004 (1/282842.7)^-0.3 (1/2e6)^-0.1 = 0.004 * 43.195 * 4.267
    assert lr["rule"]["coefficient"]["estimate"] == pytest.approx(0.73727, rel=1e-4)
    assert found["bowl"]["curvature"] == pytest.approx({"lr lr": 0.016, "lr batch": -0.005, "batch batch": 0.014})
    # the rule in params alone is the one at the mean of log D
    assert lr["rule_in_params"]["params_exponent"]["estimate"] == pytest.approx(-0.3, abs=1e-6)
    assert lr["rule_in_params"]["tokens_exponent"] == {"estimate": None, "low": None, "high": None}
    # At N = 8e5, D = 4e6 the best lr is .004 2^-.45 2^-.1, so .004 lies .55 log 2 above it; the batch of the rule in
    # params alone lies .3 log 2 below its best.
    v = np.array([0.55, -0.3]) * math.log(2)
    (last,) = [cell for cell in found["penalties"]["cells"] if cell["params"] == 8e5 and cell["tokens"] == 4e6]
    assert last["estimate"] == pytest.approx(math.expm1(v @ H @ v / 2), rel=1e-4)
    cell = lr["cells"][-1]
    assert cell["best"] == pytest.approx(0.004 * 2**-0.55) and cell["bracketed"]
    # alone, the batch following: H of the lr less what the batch takes up, .016 - .005^2 / .014
    alone = math.expm1((0.016 - 0.005**2 / 0.014) * v[0] ** 2 / 2)
    assert cell["penalty"]["estimate"] == pytest.approx(alone, rel=1e-4)
    assert found["certificate"]["certified"]


def test_a_cubic_is_added_where_the_loss_has_one():
    noisy = frame(cubed=0.004)
    noisy["loss"] *= np.exp(0.001 * np.random.default_rng(0).standard_normal(len(noisy)))
    found = tune(noisy, ["lr", "batch"]).to_dict()
    assert list(found["bowl"]["cubic"]) == ["lr"]
    assert found["bowl"]["cubic"]["lr"] == pytest.approx(0.004, abs=0.001)
    exponent = found["settings"]["lr"]["rule"]["params_exponent"]
    assert exponent["low"] < -0.3 < exponent["high"]


def test_gradients_are_those_of_differences():
    design = simulated(0, 0.0)
    for bowl in (
        Bowl(design, ((0, 0), (0, 1), (1, 1)), (0,)),
        Bowl(design, ((0, 0), (0, 1), (1, 1)), (0, 1), SIZES.factors(("params",))),
    ):
        theta_P = bowl.start() + 0.01
        step_P = np.eye(len(theta_P)) * 1e-6
        by_hand = [(bowl.residuals(theta_P + s) - bowl.residuals(theta_P - s)) / 2e-6 for s in step_P]
        assert bowl.gradient(theta_P) == pytest.approx(np.array(by_hand).T, abs=1e-8)


def simulated(seed: int, noise: float) -> Design:
    """The table above with noise, half of it common to the budgets of a trunk."""
    rows = [
        (2 * shape + budget, 100 * shape + 10 * i + j, math.log(0.004) + STEPS[i], math.log(512) + STEPS[j])
        for shape in range(4)
        for budget in range(2)
        for i in range(5)
        for j in range(5)
    ]
    cell_R, trunk_R = (np.array([row[each] for row in rows]) for each in (0, 1))
    trunk_R = np.unique(trunk_R, return_inverse=True)[1]
    setting_RK = np.array([row[2:] for row in rows])
    v_RK = setting_RK - BEST_CK[cell_R]
    generator = np.random.default_rng(seed)
    shared_R = generator.standard_normal(trunk_R.max() + 1)[trunk_R]
    noise_R = noise * math.sqrt(0.5) * (shared_R + generator.standard_normal(len(cell_R)))
    loss_R = ((v_RK @ H) * v_RK).sum(1) / 2 + noise_R
    return Design(loss_R, setting_RK, cell_R, cell_R, trunk_R, np.ones((8, 2), bool), np.ones(len(cell_R)))


def chances(design: Design) -> dict[str, list[bool]]:
    """Which intervals of a table hold what they were simulated with, and which true hypotheses are rejected at 5 %."""
    basin = settle(design, 6.0)
    own = fitted_rules(basin, SIZES, ("params", "tokens"))
    sd_P, freedom_P = basin.curvature.spread(np.eye(len(basin.theta_P))[:16])
    half_P = sd_P * special.stdtrit(freedom_P, TAILS[1])
    rules, costs = [], []
    for setting in (0, 1):
        rule = own.rule(setting)
        truths = (math.exp(RULE[0, setting]), RULE[1, setting], RULE[2, setting])
        for key, truth in zip(("value", "params_exponent", "tokens_exponent"), truths, strict=True):
            rules.append(bool(rule[key]["low"] < truth < rule[key]["high"]))
    for away in (0.0, 0.5):
        away_CK = np.log([0.004, 512]) + away - BEST_CK
        cost_C = np.expm1(((away_CK @ H) * away_CK).sum(1) / 2)
        found = zip(cost_C, penalties(basin, away_CK + BEST_CK), strict=True)
        costs += [bool(penalty.low < cost < penalty.high) for cost, penalty in found]
    return {
        "minima inside": (np.abs(basin.best_CK.ravel() - BEST_CK.ravel()) < half_P).tolist(),
        "values and exponents of rules inside": rules,
        "penalties inside": costs,
        "one curvature rejected": [curvature_shared(basin, SIZES) < 0.05],
        "no cubic rejected": [bool(p < 0.05) for p in cubic(basin)],
        "the rule rejected": [bool(p < 0.05) for p in misfit(basin, ("params", "tokens"), SIZES)],
    }


def test_intervals_cover_what_they_promise():
    """120 tables with noise of .25 %; the intervals of one table are not independent. settings_coverage.py has more."""
    found = [chances(simulated(seed, 0.0025)) for seed in range(120)]
    share = {name: np.mean([each for table in found for each in table[name]]) for name in found[0]}
    assert 0.92 < share["minima inside"] < 0.97
    assert 0.92 < share["values and exponents of rules inside"] < 0.98
    assert 0.92 < share["penalties inside"] < 0.98
    assert share["one curvature rejected"] < 0.1 and share["no cubic rejected"] < 0.1
    assert 0.01 < share["the rule rejected"] < 0.11


def test_the_interval_of_a_noncentrality_is_that_of_a_noncentral_chi_square():
    # The ends are those under which the squares are a 97.5 % and a 2.5 % quantile.
    low, high = noncentrality(16.0, 2, 1e9)
    assert stats.ncx2.cdf(16.0, 2, low) == pytest.approx(0.975, abs=1e-6)
    assert stats.ncx2.cdf(16.0, 2, high) == pytest.approx(0.025, abs=1e-6)
    assert noncentrality(2.0, 2, 30.0)[0] == 0.0
    # of one number 5 with 10 degrees of freedom, (5 -+ 2.228)^2
    assert noncentrality(25.0, 1, 10.0) == pytest.approx((2.772**2, 7.228**2), rel=1e-3)
    assert noncentrality(1e6, 3, 10.0) == pytest.approx((997.772**2, 1002.228**2), rel=1e-6)


def test_settings_tried_one_at_a_time_have_no_cross_term():
    star = frame()
    at = np.isclose(star["lr"], 0.004) | np.isclose(star["batch"], 512)
    found = tune(star[at], ["lr", "batch"]).to_dict()
    assert set(found["bowl"]["curvature"]) == {"lr lr", "batch batch"}


def test_a_design_without_a_minimum_has_no_basin():
    design = simulated(0, 0.0)
    upside_down = Design(-design.loss_R, *(getattr(design, name) for name in
                         ("setting_RK", "cell_R", "group_R", "cluster_R", "active_CK", "weight_R")))  # fmt: skip
    assert settle(upside_down, 6.0) is None


def test_an_optimiser_of_another_library_finds_the_same_minimum():
    design = simulated(3, 0.0025)
    bowl = Bowl(design, ((0, 0), (0, 1), (1, 1)))
    basin = fit_basin(bowl)
    other = optimize.minimize(lambda theta_P: (bowl.residuals(theta_P) ** 2).sum(), bowl.start() + 0.05, method="BFGS",
                              options={"gtol": 1e-12, "maxiter": 2000})  # fmt: skip
    assert other.x == pytest.approx(basin.theta_P, abs=1e-3)
    assert (bowl.residuals(basin.theta_P) ** 2).sum() <= other.fun * (1 + 1e-9)


@pytest.mark.parametrize(
    ("change", "settings", "said"),
    [
        (lambda t: t, ["lr", "wd"], "has no column 'wd': name the settings"),
        (lambda t: t.assign(lr=0.004), ["lr", "batch"], "column lr is 0.004 in every row"),
        (lambda t: t.assign(batch=t["lr"] ** 2), ["lr", "batch"], "lr and batch vary together"),
        (lambda t: t[t["lr"] < 0.0015 * 2], ["lr", "batch"], "no params and tokens have 3 values"),
        (lambda t: t.drop_duplicates(["N", "D"]), [], "no setting varies between the runs"),
        (lambda t: t.assign(loss=5 - t["loss"] / 10), ["lr", "batch"], "the losses have no minimum along lr and batch"),
        (lambda t: t.assign(lr=-t["lr"]), ["lr", "batch"], "column lr has negative values"),
        (lambda t: t.assign(optimizer=np.where(t["lr"] < 0.01, "adam", "muon")), ["lr", "batch"], "optimizer varies"),
    ],
)
def test_what_has_no_minimum_is_refused(change, settings, said):
    with pytest.raises(UserError, match=said) as caught:
        tune(change(frame()), settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"wd": (1, 0, 0)}, "wd is none of the settings lr, batch"),
        ({"lr": (1, 0)}, "is no rule: give"),
        ({"lr": (-1, 0, 0)}, "is no rule: give"),
    ],
)
def test_a_rule_that_is_none_is_refused(rules, said):
    with pytest.raises(UserError, match=said):
        tune(frame(), ["lr", "batch"], rules=rules)


SIZE, SETTING = st.sampled_from([1e6, 2e6, 9e6]), st.sampled_from([0, 0.001, 0.002, 0.004, 0.008])
ROW = st.tuples(SIZE, SIZE, SETTING, SETTING, st.sampled_from([2.0, 2.01, 2.5, 3.0, 9.0]), st.integers(0, 2))


@settings(max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ROW, min_size=1, max_size=40))
def test_any_table_gives_a_result_or_a_sentence(rows):
    table = pd.DataFrame(rows, columns=["N", "D", "lr", "wd", "loss", "seed"])
    for names in ([], ["lr"], ["lr", "wd"], ["seed"]):
        with suppress(UserError):
            json.dumps(tune(table, names).to_dict(), allow_nan=False)


def test_another_setting_that_varies_is_told():
    found = tune(frame(), ["lr"]).to_dict()
    assert found["notes"] == ["Runs of one size differ in batch too: name them in settings=, or filter one value."]


def test_a_setting_of_0_is_left_out_and_told():
    zero = frame().query("batch == 512").assign(batch=0)
    found = tune(pd.concat([frame(), zero]), ["lr", "batch"]).to_dict()
    assert "40 rows at batch of 0 are no part of the bowl: logs do not reach there." in found["notes"]
    assert found["settings"]["lr"]["rule"]["params_exponent"]["estimate"] == pytest.approx(-0.3, abs=1e-6)


def test_the_script_finds_the_settings_and_writes_all_keys(tmp_path):
    frame().to_csv(tmp_path / "their.csv", index=False)
    done = subprocess.run(
        [sys.executable, "scripts/tune.py", f"runs={tmp_path}/their.csv", "rules={lr: [0.004,0,0]}"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    first, *_, cost, runs, _ = done.stdout.splitlines()
    assert first.startswith("best lr = 0.004 [0.004 to 0.004] (N/2.83e+05)^-0.3") and "(D/2e+06)^-0.1" in first
    assert cost.startswith("rules={lr: [0.004,0,0]} costs at most 0.19% of the loss")
    # grids a factor 2 apart leave the best at most half a factor away
    assert runs.startswith("the settings of the best run of each size cost 0.0")
    content = json.loads((tmp_path / "their.tune.json").read_text())
    about = {"estimate", "low", "high"}
    for setting in content["settings"].values():
        assert set(setting["rule"]) == {
            "value", "params_exponent", "tokens_exponent", "coefficient", "reference_params", "reference_tokens",
        }  # fmt: skip
        for cell in setting["cells"]:
            assert set(cell) == {"params", "tokens", "best", "low", "high", "penalty", "bracketed"}
            assert set(cell["penalty"]) == about
    assert content["certificate"]["certified"] is True
