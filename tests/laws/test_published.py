"""Fits that other groups published, reproduced from their own tables."""

import pytest
from reproduce import cases, quantities

from harness.laws import fit

CASES = [
    "epoch_huber",
    "epoch_lad",
    "epoch_linmse217",
    "gem_hot",
    "gem_cool_end",
    "gem_cool_end_d4",
    "gem_lr",
    "gem_100b",
    "gadre_rpj",
    "porian",
]
# Listed exponents that lie beside the minimum, by less than this; their objectives agree to all digits but one.
BESIDE = {"alpha": 1e-4, "beta": 2e-4, "B": 3e-3, "obj": 3e-10}


@pytest.fixture(scope="module")
def epoch(published):
    return published / "chinchilla_epoch" / "runs.csv"


def test_every_listed_case_is_tried(published):
    listed = [case["id"] for case in cases(published)]
    assert sum(name.startswith("porian") for name in listed) == 10
    assert sorted({name.split("_")[0] if "porian" in name else name for name in listed}) == sorted(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_published_fit_is_reproduced(published, name):
    """To 1 in the last digit, or the listed point is not the minimum: the law held there lies above our objective."""
    for case in cases(published):
        if not case["id"].startswith(name) or (name == "gem_cool_end" and case["id"] != name):
            continue
        for found in quantities(case, published):
            if not found.within:
                assert found.beaten, found
                assert abs(found.ours - float(found.listed)) < BESIDE[found.name], found


def test_all_245_points_give_another_exponent(epoch):
    """`.514` with 240 points and `.565` with all, as the folder's notes say."""
    assert fit(epoch, params="N", tokens="D").estimates["a"] == pytest.approx(0.565, abs=1e-3)


def test_a_published_value_that_had_not_converged_is_beaten(published):
    table = published / "gemstones" / "runs_cool_end.csv"
    result = fit(table, delta=1e-4, params="params_active_precise", target="final_loss")
    assert result.objective < 2.05941e-4
    assert result.objective == pytest.approx(2.0478e-4, abs=1e-8)
