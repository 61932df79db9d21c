"""What repeats cost, by each law of them: of cells that follow one, and of a hand-made section."""

import numpy as np
import pytest

from harness.laws.checks.epochs import mean_error, sentence
from harness.laws.settings import FitConfig
from harness.laws.study import study
from harness.laws.table.table import as_table


def repeated(frame, cost):
    """The cells of a corpus of 1.6e6 tokens, of which 2.5e6 and 4e6 see some again; `cost` in nats a repeat."""
    unique = np.minimum(frame["tokens"], 1.6e6)
    penalty = cost * (frame["tokens"] / unique - 1) * frame["params_with_head"] / unique
    return frame.assign(unique_tokens=unique, loss=frame["loss"] + penalty)


@pytest.fixture(scope="module")
def found(simulated):
    frame = repeated(simulated(noise=0.001), 0.2)
    return study(as_table(frame), FitConfig(runs="the table", law="chinchilla_penalized", bootstrap=200))


def test_the_law_that_made_the_losses_fits_and_predicts_best(found):
    own, other, fresh = found["epochs"]
    assert [own["law"], other["law"], fresh["law"]] == ["chinchilla_penalized", "chinchilla_repeated", "chinchilla"]
    assert own["costs"]["P"]["low"] < 0.2 < own["costs"]["P"]["high"]
    assert own["costs"]["P"]["value"] == found["fit"]["estimates"]["P"]
    assert (list(other["costs"]), fresh["costs"]) == (["R"], {})
    assert own["rms_residual"] == pytest.approx(0.001, rel=0.3)
    assert own["rms_residual"] < 0.5 * min(other["rms_residual"], fresh["rms_residual"])
    assert list(own["errors"]) == list(fresh["errors"]) == ["largest_shape", "largest_budget", "most_compute"]
    assert mean_error(own) < 0.5 * min(mean_error(other), mean_error(fresh))
    assert own["errors"]["largest_shape"] == found["holdouts"][0]["mean_relative_error"]
    assert own["objective"] == found["fit"]["objective"]


def test_laws_of_repeats_are_ranked_beside_each_other(found):
    laws = {entry["law"] for entry in found["ranking"]}
    assert {"chinchilla_penalized", "chinchilla_repeated", "data_constrained", "chinchilla"} <= laws


def test_a_law_that_takes_all_tokens_for_fresh_has_no_such_section(simulated):
    frame = repeated(simulated(noise=0.001), 0.2)
    assert "epochs" not in study(as_table(frame), FitConfig(runs="the table", law="chinchilla", bootstrap=0))


def entry(law, certified=True, errors=None, **costs):
    costs = {name: dict(zip(("value", "low", "high"), ends, strict=True)) for name, ends in costs.items()}
    return {"law": law, "costs": costs, "objective": 0.001, "rms_residual": 0.006, "errors": errors or {},
            "errors_certified": False, "certified": certified, "reasons": []}  # fmt: skip


def test_one_line_says_all_of_it():
    """The mean of 1 and 2 % is 1.5 %."""
    laws = [
        entry("chinchilla_repeated", errors={"a": 0.01, "b": 0.02}, R=(2.6912, 1.9888, 6.1163)),
        entry("chinchilla_penalized", False, P=(0.01258, None, None)),
        entry("chinchilla"),
    ]
    assert sentence(laws) == (
        "what repeats cost: chinchilla_repeated R 2.69 (1.99 to 6.12), residuals 0.60%, held-out cells 1.50% "
        "(NOT certified); chinchilla_penalized P 0.01258 (no interval) (NOT certified), residuals 0.60%; chinchilla "
        "repeats as fresh text, residuals 0.60%"
    )
    assert sentence(None) == ""
