"""tune.yaml: fitted rules in the terms of conf/optimizer, out of tables whose best settings are known."""

import math

import numpy as np
import pandas as pd
import pytest
import yaml

from harness.errors import UserError
from harness.laws.tune import tune
from harness.laws.tuning.rule_file import rules_of

KEYS = ("value", "params_exponent", "reference_params", "tokens_exponent", "reference_tokens")
PRESENT = dict(zip(KEYS, (0.004, 0.0, 1e6, 0.0, 1e6), strict=True))
RATE, DECAY = "optimizer.learning_rate.value", "optimizer.weight_decay.value"


def job(schedule: str = "wsd", **rate) -> dict:
    """The configuration of a cell."""
    rules = {name: dict(PRESENT) for name in ("batch_tokens", "warmup_tokens", "weight_decay")}
    plain = {"name": "adamw", "target": None, "args": {}, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8}
    plain["gradient_clip"] = 1.0
    model = {"parametrization": "mup", "base_width": 32, "base_depth": 2, "family": "gpt"}
    return {"optimizer": plain | rules | {"learning_rate": PRESENT | rate}, "schedule": {"name": schedule},
            "model": model, "vocab_size": 1024}  # fmt: skip


def content(by_tokens: float = 0.0) -> dict:
    """Of a table whose best rate is .003 (N/4e5)^-.25 (D/2e6)^by_tokens, and the best decay .02 everywhere."""
    rows = []
    for params in (1e5, 4e5, 16e5):
        for tokens in (1e6, 4e6):
            for rate in 0.003 * 2.0 ** np.arange(-2, 3):
                for decay in (0.005, 0.01, 0.02, 0.04):
                    v = math.log(rate / 0.003) + 0.25 * math.log(params / 4e5) - by_tokens * math.log(tokens / 2e6)
                    height = 0.02 * v**2 / 2 + 0.005 * math.log(decay / 0.02) ** 2 / 2
                    rows.append({"N": params, "D": tokens, RATE: rate, DECAY: decay, "loss": 3 * math.exp(height)})
    return tune(pd.DataFrame(rows), [RATE, DECAY]).to_dict()


@pytest.fixture(scope="module")
def told() -> dict:
    return content(by_tokens=-0.1)


def test_a_trunk_gets_rules_in_params_with_what_they_cost(told):
    found = rules_of(told, job())
    # the geometric means of the sizes are 4e5 and 2e6
    rate = dict(zip(KEYS, (0.003, -0.25, 4e5, 0.0, 2e6), strict=True))
    assert found["optimizer"]["learning_rate"] == pytest.approx(rate, abs=1e-9)
    assert found["optimizer"]["weight_decay"]["value"] == pytest.approx(0.02)
    assert found["optimizer"]["weight_decay"]["params_exponent"] == pytest.approx(0, abs=1e-6)
    assert found["optimizer"]["batch_tokens"] == PRESENT  # not tried
    # the best rate lies a tenth of log 2 off at every cell: .02 (.1 log 2)^2 / 2
    assert found["costs_at_most"]["estimate"] == pytest.approx(0.01 * (0.1 * math.log(2)) ** 2, rel=1e-3)
    assert found["measured"] == {
        "optimizer.name": "adamw", "optimizer.target": None, "schedule.name": "wsd", "model.parametrization": "mup",
        "model.base_width": 32, "model.base_depth": 2, "model.family": "gpt", "vocab_size": 1024,
        "settings": ["learning_rate", "weight_decay"], "params": [1e5, 16e5], "tokens": [1e6, 4e6],
    }  # fmt: skip
    assert found["certified"] is True and found["optimizer"]["beta2"] == 0.95
    assert yaml.safe_load(yaml.dump(found)) == found


def test_one_run_a_budget_gets_rules_in_tokens_too(told):
    found = rules_of(told, job("cosine"))
    assert found["optimizer"]["learning_rate"]["tokens_exponent"] == pytest.approx(-0.1, abs=1e-6)
    assert "costs_at_most" not in found


def test_the_present_rule_is_part_of_the_new_one(told):
    """What was tried is the value of a rule (N/1e6)^.5: at 4e5 its rate is .003 (.4)^.5 = .00189737."""
    rate = rules_of(told, job(params_exponent=0.5))["optimizer"]["learning_rate"]
    assert rate["value"] == pytest.approx(0.00189737, rel=1e-5)
    assert rate["params_exponent"] == pytest.approx(0.25, abs=1e-6)


def test_what_is_no_rule_is_refused(told):
    other = told | {"settings": {"optimizer.beta2": told["settings"][RATE]}}
    with pytest.raises(UserError, match="optimizer.beta2 is no setting of a rule"):
        rules_of(other, job())
    nothing = {"estimate": None, "low": None, "high": None}
    rule = told["settings"][RATE]["rule_in_params"] | {"params_exponent": nothing}
    untold = told["settings"][RATE] | {"rule_in_params": rule}
    with pytest.raises(UserError, match="the runs tell no rule of learning_rate in params: try it at two sizes"):
        rules_of(told | {"settings": {RATE: untold}}, job())


def test_a_setting_that_too_few_sizes_tell_has_no_rule():
    """Of two sizes one has four rates left: the other diverged at two of them."""
    rates = 0.003 * 2.0 ** np.arange(-2, 2)
    rows = [{"N": 1e5, "D": 1e6, "lr": rate, "loss": 3 + 0.1 * math.log(rate / 0.002) ** 2} for rate in rates]
    rows += [{"N": 4e5, "D": 1e6, "lr": rate, "loss": 2 + 0.01 * rate} for rate in rates[:2]]
    found = tune(pd.DataFrame(rows), ["lr"])
    assert str(found).startswith("best lr is told at 1 of 2 sizes, too few for a rule")
    (cell,) = found.to_dict()["settings"]["lr"]["cells"]
    assert cell["penalty"] == {"estimate": None, "low": None, "high": None}
    assert cell["best"] == pytest.approx(0.002, rel=0.1)
