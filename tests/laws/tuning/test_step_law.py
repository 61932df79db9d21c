"""Step Law's 1,911 runs over rate and batch (Li et al. 2025), and the two rules that were published of them."""

import pytest

from harness.laws.tune import tune

# batch in tokens = .581 D^.571; the table's is in sequences of 2,048
PUBLISHED = {"lr": (1.797, -0.713, 0.307), "batch_sequences": (0.581 / 2048, 0.0, 0.571)}


@pytest.fixture(scope="module")
def near(published):
    runs = published / "step_law" / "runs.csv"
    return tune(runs, ["lr", "batch_sequences"], rules=PUBLISHED, within=4.0).to_dict()


def test_the_rate_is_that_of_the_paper_and_the_batch_moves_with_params_too(near):
    lr, batch = (near["settings"][name]["rule"] for name in PUBLISHED)
    for key, value, low, high in (
        ("params_exponent", -0.706, -0.750, -0.663), ("tokens_exponent", 0.331, 0.302, 0.359),
    ):  # fmt: skip
        found = lr[key]
        assert [found["estimate"], found["low"], found["high"]] == pytest.approx([value, low, high], abs=2e-3)
    assert lr["params_exponent"]["low"] < -0.713 < lr["params_exponent"]["high"]
    assert lr["tokens_exponent"]["low"] < 0.307 < lr["tokens_exponent"]["high"]
    assert batch["params_exponent"]["high"] < -0.2  # of which the paper has none
    assert batch["tokens_exponent"]["estimate"] == pytest.approx(0.687, abs=2e-3)
    # 17 sizes, of which some lack three batches beside the minimum
    assert all(cell["bracketed"] for cell in near["settings"]["lr"]["cells"])


def test_the_published_rules_cost_less_than_a_thousandth_at_each_size(near):
    cells = near["penalties"]["cells"]
    assert len(cells) == 17
    assert max(cell["estimate"] for cell in cells) == pytest.approx(0.0009, abs=1e-4)
    assert max(cell["high"] for cell in cells) < 0.002


def test_misfit_is_told(near):
    assert not near["certificate"]["certified"]
    assert near["certificate"]["tests"]["curvature_shared"] < 1e-6
    exponents = [window["rules"]["lr"]["params_exponent"]["estimate"] for window in near["windows"]]
    assert exponents == pytest.approx([-0.739, -0.670], abs=2e-3)
