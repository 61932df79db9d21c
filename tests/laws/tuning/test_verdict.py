"""Rules of settings that others published: judged as laws are, and set beside a table's minima."""

import math

import numpy as np
import pandas as pd
import pytest
from test_minima import frame

from harness.errors import UserError
from harness.laws import audit_settings
from harness.laws.tune import lines, tune
from harness.laws.tuning.published import D12_TOKENS, PUBLISHED

NAMES = ["lr", "batch"]
# lr = .004 (N / 282842.7)^-.3 (D / 2e6)^-.1, batch = 512 (N / 282842.7)^.1 (D / 2e6)^.3
TRUE = {
    "lr": (0.004 * 282842.7**0.3 * 2e6**0.1, -0.3, -0.1),
    "batch": (512 * 282842.7**-0.1 * 2e6**-0.3, 0.1, 0.3),
}


@pytest.fixture(scope="module")
def noisy():
    runs = frame()
    return runs.assign(loss=runs["loss"] * np.exp(0.001 * np.random.default_rng(1).standard_normal(len(runs))))


def test_nothing_speaks_against_the_true_rules(noisy):
    found = audit_settings(noisy, TRUE, settings=NAMES)
    assert found.sound and found.p > 0.05 and found.most.estimate < 2e-4
    assert str(found).startswith(f"Nothing speaks against them (p = {found.p:.2g}): they cost ")
    only = audit_settings(noisy, {"batch": TRUE["batch"]}, settings=NAMES)
    assert only.sound


def test_a_rule_that_misses_the_minimum_is_told_with_its_cost_and_exponents(noisy):
    found = audit_settings(noisy, {"lr": (0.004, 0, -0.1)}, settings=NAMES)
    assert not found.sound and found.p < 1e-6
    assert str(found).startswith(f"They are not at the minimum (p = {found.p:.2g} that they are): they cost ")
    # (2e6)^-.1 = .234: at N = 1e5, D = 4e6 the rule says .004 4e6^-.1, log 4.27 + .3 log 2.83 - ... below the best
    # by log(282842.7^.3 1e5^-.3 2e6^.1) = .3119 + 1.4509
    v = math.log(2.828427**0.3 * 2e6**0.1)
    assert found.most.estimate == pytest.approx(math.expm1(0.016 * v**2 / 2), rel=0.1)
    assert "The exponent of lr in params, 0, lies outside of -0.3" in str(found)
    assert "in tokens" not in str(found)


def test_a_verdict_needs_rules_and_is_in_the_file_and_the_lines(noisy):
    with pytest.raises(UserError, match="audit_settings judges nothing: give rules"):
        audit_settings(noisy, {})
    content = tune(noisy, NAMES, rules=TRUE).to_dict()
    assert content["verdict"]["sound"] is True
    assert [line for line in lines(content) if line.startswith("rules: Nothing speaks against them")]
    assert tune(noisy, NAMES).to_dict()["verdict"] is None


def test_published_rules_say_what_their_sources_do():
    at = {(rule.rule, rule.setting): math.exp(rule.at(np.array([1e8]), np.array([1e9]))[0]) for rule in PUBLISHED}
    # 1.797 10^(-8 x .713 + 9 x .307) = 1.797 10^-2.941 and .581 10^(9 x .571) = .581 10^5.139
    assert at["step_law", "learning_rate"] == pytest.approx(0.0020585, rel=1e-4)
    assert at["step_law", "batch_tokens"] == pytest.approx(80015, rel=1e-4)
    # 3.7 10^-2.88 and .7576 10^5.624
    assert at["porian", "learning_rate"] == pytest.approx(0.0048776, rel=1e-4)
    assert at["porian", "batch_tokens"] == pytest.approx(318744, rel=1e-4)
    # 12 x (84,934,656 + 25,165,824) tokens have a batch of 2^19, and 1e9 one of 2^19 .75688^.383
    assert D12_TOKENS == 1_321_205_760
    assert at["nanochat", "batch_tokens"] == pytest.approx(2**19 * 0.75688**0.383, rel=1e-4)
    # .0306 10^(9 x .383) = .0306 10^3.447 = 85.649 sequences of 2,048 tokens
    assert at["power_lines", "batch_tokens"] == pytest.approx(175409, rel=1e-4)
    # tau = 1.084 10^-.527 = .32213, and decay = batch / rate / (tau D)
    assert at["power_lines", "weight_decay"] == pytest.approx(3.1043e-9, rel=1e-4)


def test_published_rules_stand_beside_the_minima_where_they_can_be_compared():
    # a sweep of 1e8 params and more, whose best rates are Step Law's at half its size
    runs = frame().rename(columns={"batch": "batch_tokens"})
    runs["N"] *= 1e3
    runs["D"] *= 1e3
    found = tune(runs.assign(parametrization="sp"), ["lr", "batch_tokens"]).to_dict()["published"]
    assert [(each["rule"], each["setting"]) for each in found] == [
        ("step_law", "lr"), ("porian", "lr"), ("step_law", "batch_tokens"), ("porian", "batch_tokens"),
        ("nanochat", "batch_tokens"), ("power_lines", "batch_tokens"),
    ]  # fmt: skip
    assert found[0]["comparable"] and found[0]["params_counted_as"] == "the table's own count"
    first = found[0]["cells"][0]
    # 1.797 10^(-5.704 + 2.763)
    assert (first["params"], first["published"]) == (1e8, pytest.approx(0.0020585, rel=1e-4))
    # a factor of 2.8 below the best, .004 2.83^.3 2^.1 = .005857: H without the batch's part
    v = math.log(0.005857 / 0.0020585)
    assert first["penalty"]["estimate"] == pytest.approx(math.expm1((0.016 - 0.005**2 / 0.014) * v**2 / 2), rel=1e-3)
    # batches of 80,000 lie beyond a factor 6 of 416
    assert all(cell["penalty"] is None for each in found[2:] for cell in each["cells"])
    scaled = tune(runs.assign(parametrization="mup"), ["lr", "batch_tokens"])
    assert scaled.to_dict()["published"][0]["why_not"] == "under mup the rate is that of the base width"
    said = lines(scaled.to_dict(), verbose=True)
    assert any("step_law says lr " in line and "not compared: under mup" in line for line in said)
    assert any(line.endswith("no cost is told; beyond a factor 6 of the best at 8 of 8 sizes") for line in said)


def test_a_published_decay_is_that_of_the_best_rate_and_batch():
    """Without a batch among the settings it is no number."""
    rows = []
    for params in (1e8, 4e8):
        for step in np.ndindex(3, 3, 3):
            rate, batch, decay = np.log([1e-3, 1e5, 0.2]) + math.log(2) * (np.array(step) - 1)
            v = np.array([rate, batch, decay]) - np.log([1e-3, 1e5, 0.25])
            height = 0.01 * (v**2).sum() / 2
            row = dict(zip(("lr", "batch_tokens", "weight_decay"), np.exp([rate, batch, decay]), strict=True))
            rows.append(row | {"N": params, "D": 1e9, "loss": 3 * math.exp(height) * params**-0.05})
    table = pd.DataFrame(rows)
    found = tune(table, ["lr", "batch_tokens", "weight_decay"]).to_dict()["published"]
    (decay,) = [each for each in found if each["setting"] == "weight_decay"]
    # 3.1043e-9 x 1e5 / 1e-3 at N = 1e8, and 4^-.527 of it at 4e8
    assert [cell["published"] for cell in decay["cells"]] == pytest.approx([0.31043, 0.31043 * 0.48164], rel=1e-4)
    assert decay["cells"][0]["penalty"]["estimate"] == pytest.approx(0.005 * math.log(0.31043 / 0.25) ** 2, rel=1e-3)
    alone = table[np.isclose(table["batch_tokens"], 1e5)]
    without = tune(alone, ["lr", "weight_decay"]).to_dict()["published"]
    assert not any(each["setting"] == "weight_decay" for each in without)
