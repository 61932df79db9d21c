"""Variants with known multipliers: they are found again, and what cannot be compared is refused."""

import json

import numpy as np
import pandas as pd
import pytest

from harness.errors import UserError
from harness.laws import compare
from harness.laws.compare import write_comparison
from harness.laws.settings import compare_config
from harness.laws.table.table import as_table

WIDTHS, BUDGETS = (48, 64, 80, 96, 112, 144), (1e6, 1.6e6, 2.5e6, 4e6)


def two_ways(ratio=1.0, f=1.0, g=1.0, beta=0.45, noise=1e-3, seed=0, **columns):
    """24 cells of L = 1.8 + 90 / N^.4 + 300 / D^.45 under a; under b at (f N, g D), with another beta that gives the
    same loss at 1e6 tokens, times `ratio`."""
    generator = np.random.default_rng(3)
    rows = []
    for way in ("a", "b"):
        for width in WIDTHS:
            for tokens in BUDGETS:
                params = 24 * width**2 + 1024 * width
                alike = 1.8 + 90 / params**0.4 + 300 / tokens**0.45
                other = 1.8 + 90 / (f * params) ** 0.4 + 300 * 1e6 ** (beta - 0.45) / (g * tokens) ** beta
                loss = (ratio * other if way == "b" else alike) * np.exp(noise * generator.standard_normal())
                rows.append({
                    "way": way, "width": width, "depth": 2, "seed": seed if way == "b" else 0, "trunk": f"{way}{width}",
                    "params_with_head": params, "tokens": tokens, "loss": loss,
                } | {name: values[way == "b"] for name, values in columns.items()})  # fmt: skip
    return as_table(pd.DataFrame(rows))


def ends(found):
    return found["low"], found["estimate"], found["high"]


def test_known_multipliers_are_found_to_the_last_digit_of_exact_losses():
    entry = compare(two_ways(f=1.25, g=0.8, noise=0.0), bootstrap=0).to_dict()["variants"]["b"]
    assert entry["params"]["estimate"] == pytest.approx(1.25, rel=1e-5)
    assert entry["tokens"]["estimate"] == pytest.approx(0.8, rel=1e-5)
    assert entry["multiplier"]["equal_tokens"]["estimate"] == pytest.approx(1.0, rel=1e-5)
    assert entry["per_decade"]["estimate"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("law", ["chinchilla", "chinchilla_tied", "chinchilla_coupled"])
def test_each_law_gives_the_multiplier_within_its_interval(law):
    found = compare(two_ways(g=1.3), law=law, bootstrap=400)
    entry = found.to_dict()["variants"]["b"]
    low, estimate, high = ends(entry["multiplier"]["equal_tokens"])
    assert low < 1.3 < high and high / low < 1.12 and estimate == pytest.approx(1.3, rel=0.04)
    assert entry["exponents_shared"]["p"] > 0.05 > entry["neutral"]["p"]
    assert "saves tokens rather than params" in found.lines()[0]
    assert not any("differ from the others'" in note for note in found.content["notes"])
    other_way = compare(two_ways(g=1.3), law=law, bootstrap=0, baseline="b").lines()[0]
    assert other_way.startswith("a: 0.") and "costs tokens rather than params" in other_way


def test_cost_and_speed_at_equal_compute_and_time():
    """b takes 1.25 times the FLOPs a token and half the tokens a second: m = 1.5 is 1.2 of compute and .75 of time."""
    table = two_ways(g=1.5, noise=0.0)
    second = (table.frame["way"] == "b").to_numpy()
    product = table.frame["params_with_head"] * table.frame["tokens"]
    frame = table.frame.assign(flops=np.where(second, 7.5, 6.0) * product, tokens_per_second=np.where(second, 1e4, 2e4))
    entry = compare(frame, bootstrap=0).to_dict()["variants"]["b"]
    found = {name: each["estimate"] for name, each in entry["multiplier"].items()}
    assert found == pytest.approx({"equal_tokens": 1.5, "equal_flops": 1.2, "equal_time": 0.75}, rel=1e-4)
    params = 24 * 144**2 + 1024 * 144
    assert entry["at"] == {"params": params, "tokens": 4e6, "flops": 6 * params * 4e6}
    mixed = frame.assign(device=np.where(second, "cpu", "cuda"))
    assert compare(mixed, bootstrap=0).to_dict()["variants"]["b"]["multiplier"]["equal_time"] is None


def test_another_beta_is_no_shared_exponent_and_shows_as_drift():
    found = compare(two_ways(beta=0.9, noise=3e-4), shared=["E", "alpha"], bootstrap=400)
    entry = found.to_dict()["variants"]["b"]
    assert entry["exponents_shared"]["p"] < 1e-3
    assert "exponents not a's (p < .001)" in found.lines()[0] and "a decade of compute" in found.lines()[0]
    # g D = (300 / (300 1e6^.45))^(-1 / .45) D^2, so g is D / 1e6: 4 at the largest cell, 10^.5 more a decade of compute
    low, _, high = ends(entry["tokens"])
    assert low < 4 < high
    low, _, high = ends(entry["per_decade"])
    assert low < 10**0.5 < high
    assert found.fit.estimates["beta of b"] == pytest.approx(0.9, abs=0.05)
    notes = compare(two_ways(beta=0.9, noise=3e-4), bootstrap=0).content["notes"]
    (moving,) = (note for note in notes if note.startswith("The exponents of b differ from the others'"))
    assert "`shared=[E]` gives each variant its own" in moving


def test_a_constant_ratio_is_in_the_differences_by_budget():
    found = compare(two_ways(1.01), bootstrap=0).differences["b"]
    mean, low, high = found.mean()
    assert low < np.log(1.01) < high and high - low < 0.002
    assert mean == pytest.approx(0.00995, abs=6e-4) and len(found.cells) == 24
    assert [tokens for tokens, _, _ in found.by_budget()] == [1e6, 1.6e6, 2.5e6, 4e6]
    moved = compare(two_ways(beta=0.9, noise=3e-4), bootstrap=0).differences["b"]
    by_budget = [mean for _, mean, _ in moved.by_budget()]
    # at 1e6 tokens the two laws agree; at 4e6 the second term is 300 e6^-.45 (4^-.45 - 4^-.9) = .150 nats lower
    assert abs(by_budget[0]) < 5e-4 and by_budget[3] == pytest.approx(-0.057, abs=0.012)


def test_any_number_of_variants_and_any_baseline():
    frame = two_ways(g=1.3, noise=1e-4).frame
    third = frame[frame["way"] == "b"].assign(way="c", trunk=lambda part: "c" + part["trunk"])
    found = compare(pd.concat([frame, third]), baseline="b", bootstrap=0)
    entries = found.to_dict()["variants"]
    assert list(entries) == ["a", "c"]
    assert entries["a"]["multiplier"]["equal_tokens"]["estimate"] == pytest.approx(1 / 1.3, rel=0.01)
    assert entries["c"]["multiplier"]["equal_tokens"]["estimate"] == pytest.approx(1.0, rel=1e-6)


def test_other_seeds_are_not_paired():
    found = compare(two_ways(seed=1), bootstrap=0)
    assert found.differences == {} and found.pairs is None
    assert "no cell of one shape, seed and budget in common, so nothing is paired" in found.to_dict()["notes"][0]


def test_another_text_has_a_floor_of_its_own():
    found = compare(two_ways(data=("x", "y")), column="way", bootstrap=0)
    assert found.shared == ("alpha", "beta") and "E of b" in found.fit.estimates
    assert "an E of its own" in " ".join(found.to_dict()["notes"])
    assert all(", each above an E of its own" in each["sentence"] for each in found.to_dict()["variants"].values())


def test_the_column_is_found():
    assert compare(two_ways(), bootstrap=0).column == "way"
    assert compare(two_ways(optimizer=("adamw", "muon"), variant=("x", "y")), bootstrap=0).column == "variant"
    # columns that split the rows alike are one
    assert compare(two_ways(optimizer=("adamw", "muon")), bootstrap=0).column == "optimizer"


def test_two_tables_are_compared_under_source(tmp_path):
    frame = two_ways(g=1.3, noise=1e-4).frame.drop(columns="way")
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path, part in zip(paths, (frame[:24], frame[24:]), strict=True):
        part.to_csv(path, index=False)
    found = compare([str(path) for path in paths], bootstrap=0)
    assert found.column == "source" and found.baseline == str(paths[0])
    entry = found.to_dict()["variants"][str(paths[1])]
    assert entry["multiplier"]["equal_tokens"]["estimate"] == pytest.approx(1.3, rel=0.01)


def test_compare_json_has_every_key(tmp_path):
    two_ways(g=1.3).frame.to_csv(tmp_path / "runs.csv", index=False)
    config = compare_config([f"runs={tmp_path}/runs.csv", "bootstrap=200", "column=way"])
    found = write_comparison(config)
    content = json.loads((tmp_path / "runs.compare.json").read_text())
    assert content == found.to_dict()
    assert content["baseline"] == "a" and content["law"] == "chinchilla" and content["certificate"]["certified"]
    (entry,) = content["variants"].values()
    assert set(entry) == {
        "multiplier", "at", "per_decade", "params", "tokens", "exponents_shared", "neutral", "sentence", "by_flops",
    }  # fmt: skip
    assert content["schema"] == 2 and content["settings"] == {} and entry["sentence"] == found.lines()[0]
    assert set(entry["multiplier"]) == {"equal_tokens", "equal_flops", "equal_time"}
    assert entry["multiplier"]["equal_time"] is None
    for each in (entry["multiplier"]["equal_tokens"], entry["per_decade"], entry["params"], entry["tokens"]):
        assert set(each) == {"estimate", "low", "high"} and each["low"] < each["estimate"] < each["high"]
    assert set(content["source"]) >= {"path", "sha256", "rows", "columns"} and content["versions"]["harness"]
    assert content["choices"]["bootstrap"] == 200 and "percentiles of 200" in content["choices"]["interval_method"]


def test_a_line_that_is_not_certified_says_so_itself():
    """Noise of 20 % hides the law."""
    frame = two_ways(noise=0.2).frame
    found = compare(frame, bootstrap=0)
    assert not found.content["certificate"]["certified"]
    assert found.lines()[0].endswith(", NOT certified") and "NOT certified: " in found.lines()[1]


def test_what_cannot_be_compared():
    table = two_ways()
    for choices, words in (
        ({"column": "schedule"}, "no column 'schedule': name the one"),
        ({"column": "depth"}, "column depth is 2 in every row, and variants are compared"),
        ({"baseline": "c"}, "baseline=c is no value of way in the table: choose a or b"),
        ({"target": "loss_code"}, "no column 'loss_code'"),
        ({"law": "kaplan_joint"}, "law=kaplan_joint has no multipliers: choose chinchilla, "),
        ({"shared": ["gamma"]}, "shared: chinchilla has no gamma to share: give some of E, alpha, beta"),
        ({"bootstrap": 10}, "bootstrap=10 gives no 95 % interval"),
        ({"filter": "way==a"}, "no setting varies in the table"),
    ):
        with pytest.raises(UserError, match=words):
            compare(table, **choices)
    with pytest.raises(UserError, match="varies in optimizer, arch: name one, as in column=optimizer"):
        several = table.frame.assign(optimizer=["x", "y"] * 24, arch=["p"] * 12 + ["q"] * 36)
        compare(several.drop(columns="way"))
    small, large = (table.frame["width"] < 90), (table.frame["width"] > 90)
    apart = table.frame[((table.frame["way"] == "a") & small) | ((table.frame["way"] == "b") & large)]
    with pytest.raises(UserError, match=r"the params of way a \(.*\) and b \(.*\) do not overlap"):
        compare(apart)
    with pytest.raises(UserError, match="way b has 2 rows, and a multiplier needs 3"):
        compare(table.frame[:26])
    with pytest.raises(UserError, match="runs has no value"):
        compare_config([])
