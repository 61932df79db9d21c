"""What a sweep may claim, and what its numbers make of it."""

import json
import math

import pytest
from known_sweep import written

from harness.errors import UserError
from harness.laws.claims.claim import Claim, claim_of, decide, judge, read_claim, write_claim
from harness.laws.claims.measured import Measured

GIVEN = {"text": "a is one half.", "quantity": "fit.a", "rule": {"low": 0.45, "high": 0.55}}
CERTIFIED = {"certified": True, "reasons": []}


def found(estimate, low, high, doubts=()):
    return Measured("a", "by hand", estimate, low, high, doubts=list(doubts))


@pytest.mark.parametrize(
    ("rule", "estimate", "low", "high", "verdict", "reason"),
    [
        ((0.45, 0.55), 0.5, 0.46, 0.54, "holds", "inside"),
        ((0.45, 0.55), 0.5, 0.45, 0.55, "holds", "inside"),  # ends belong to the rule
        ((0.45, 0.55), 0.6, 0.56, 0.64, "fails", "outside"),
        ((0.45, 0.55), 0.4, 0.36, 0.4499, "fails", "outside"),
        ((None, 0.01), 0.004, 0.001, 0.009, "holds", "inside"),
        ((0.05, None), 0.11, 0.09, 0.14, "holds", "inside"),
        ((0.05, None), 0.02, 0.01, 0.03, "fails", "outside"),
        # .5 - .40 = .10 must become .05, .58 - .5 = .08 likewise .05: twice as narrow, four times the runs
        ((0.45, 0.55), 0.5, 0.40, 0.58, "undecided", "an interval 2 times narrower about the same estimate would "
         "decide it: about 4 times as many runs"),
        # .57 lies outside; below it .57 - .51 = .06 must become .57 - .55 = .02
        ((0.45, 0.55), 0.57, 0.51, 0.63, "undecided", "an interval 3 times narrower"),
        ((0.45, 0.55), 0.65, 0.54, 0.76, "undecided", "an interval 1.1 times narrower"),
        ((0.45, 0.55), 0.65, 0.545, 0.76, "undecided", "an interval a little narrower about the same estimate would"),
        ((None, 0.01), 0.01, 0.005, 0.015, "undecided", "the estimate lies at an end of the rule"),
    ],
)  # fmt: skip
def test_a_verdict_is_by_the_whole_interval(rule, estimate, low, high, verdict, reason):
    said = judge(Claim("", "fit.a", *rule), found(estimate, low, high))
    assert said.verdict == verdict
    assert reason in said.reason


def test_what_is_not_certified_decides_nothing():
    said = judge(Claim("", "fit.a", 0.4, 0.6), found(0.5, 0.49, 0.51, ["the fit is not certified: no floor"]))
    assert (said.verdict, said.reason) == ("undecided", "the fit is not certified: no floor")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text": " "}, "claim.text is empty"),
        ({"rule": {}}, "claim.rule has neither low nor high"),
        ({"rule": {"low": None, "high": None}}, "claim.rule has neither low nor high"),
        ({"rule": {"low": 0.6, "high": 0.5}}, r"claim.rule.low=0.6 is not below claim.rule.high=0.5: swap them"),
        ({"rule": {"low": "x"}}, "claim.rule.low=x is no number"),
        ({"rule": {"low": math.nan}}, "claim.rule.low=nan is no number"),
        ({"rule": {"least": 1}}, "claim.rule={'least': 1} has other keys than low and high"),
        ({"quantity": "fit.R"}, "claim.quantity=fit.R is no estimate of law=chinchilla: choose fit.E, fit.A, fit.B, "),
        ({"quantity": "aspekt"}, "claim.quantity=aspekt is not known: did you mean aspect"),
        ({"quantity": "compare.llama.speed"}, "claim.quantity=compare.llama.speed is not known: .*per_decade"),
        ({"why": 1}, "claim={.* has not the keys text, quantity and rule: write claim: "),
    ],
)
def test_a_claim_that_decides_nothing_is_refused(change, said):
    with pytest.raises(UserError, match=f"^{said}"):
        claim_of(GIVEN | change, "chinchilla")


def test_a_claim_of_an_optimum_needs_a_law_that_has_one():
    with pytest.raises(UserError, match="^claim.quantity=counting is of a compute optimum, which law=width_depth has"):
        claim_of(GIVEN | {"quantity": "counting"}, "width_depth")


@pytest.mark.parametrize(
    ("law", "names"),
    [
        ("chinchilla_coupled", ["E", "A", "B", "alpha", "beta", "gamma", "a"]),
        ("kaplan_params", ["Nc", "alpha"]),
        ("chinchilla_repeated", ["E", "A", "B", "alpha", "beta", "a", "R"]),
        ("chinchilla_penalized", ["E", "A", "B", "alpha", "beta", "a", "P"]),
    ],
)
def test_every_estimate_of_a_law_may_decide(law, names):
    for name in names:
        assert claim_of(GIVEN | {"quantity": f"fit.{name}"}, law).quantity == f"fit.{name}"
    with pytest.raises(UserError, match="is no estimate of law"):
        claim_of(GIVEN | {"quantity": "fit.break"}, law)


def content(estimate, low, high, certified=CERTIFIED):
    def fit(params, loss, value):
        return {"params": params, "loss": loss, "estimates": {"a": value}, "intervals": {"a": [low, high]},
                "predicts": "L = ...", "interval_method": "curvature", "certificate": certified}  # fmt: skip

    head = fit("params_with_head", "log_mse", estimate)
    return {"fit": head, "by_params": [head, fit("params_total", "log_mse", 0.42)], "by_loss": [head]}


@pytest.fixture
def claiming(grid):
    """The grid with a claim of a, in place of one that was trained under it."""
    text = (grid / "sweep.yaml").read_text()
    (grid / "sweep.yaml").write_text(text.replace("cells:", f"claim: {json.dumps(GIVEN)}\ncells:", 1))
    return grid


def test_claim_json_says_what_was_claimed_and_what_came(claiming):
    written(claiming, "fit", content(0.5, 0.46, 0.54))
    lines = write_claim(claiming).lines()
    assert lines == [
        "claim: a is one half.",
        "holds: a 0.5 (0.46 to 0.54), rule 0.45 to 0.55: the whole interval lies inside the rule",
    ]
    said = read_claim(claiming / "claim.json")
    named = {key: said[key] for key in ("claim", "quantity", "rule", "estimate", "low", "high", "verdict")}
    assert named == {
        "claim": "a is one half.", "quantity": "fit.a", "rule": {"low": 0.45, "high": 0.55}, "estimate": 0.5,
        "low": 0.46, "high": 0.54, "verdict": "holds",
    }  # fmt: skip
    assert [(row["label"], row["decides"]) for row in said["rows"]] == [
        ("a, N = params_with_head", True), ("a, N = params_total", False)
    ]  # fmt: skip


def test_a_claim_of_repeats_says_what_the_other_laws_make_of_them(grid):
    """P beside R: of another quantity of the same law nothing is said."""
    law = {"law": "chinchilla_repeated"}
    text = (grid / "sweep.yaml").read_text().replace("chinchilla_coupled", "chinchilla_repeated")
    fits = json.loads(json.dumps(content(2.7, 2.0, 6.1)).replace('"a"', '"R"'))
    entry = {"law": "chinchilla_penalized", "costs": {"P": {"value": 0.02, "low": 0.01, "high": 0.03}}, "errors": {},
             "rms_residual": 0.005, "errors_certified": True, "certified": True, "reasons": []}  # fmt: skip
    written(grid, "fit", fits | {"epochs": [entry]}, **law)
    stated = GIVEN | {"quantity": "fit.R", "rule": {"low": 10, "high": None}}
    (grid / "sweep.yaml").write_text(text.replace("cells:", f"claim: {json.dumps(stated)}\ncells:", 1))
    said = "what repeats cost: chinchilla_penalized P 0.020 (0.010 to 0.030), residuals 0.50%"
    assert decide(grid).lines()[1:] == [
        "fails: R 2.7 (2 to 6.1), rule at least 10: the whole interval lies outside the rule", said
    ]  # fmt: skip
    assert decide(grid).content["beside"] == said
    written(grid, "fit", content(0.5, 0.46, 0.54) | {"epochs": [entry]}, **law)
    (grid / "sweep.yaml").write_text(text.replace("cells:", f"claim: {json.dumps(GIVEN)}\ncells:", 1))
    assert "beside" not in decide(grid).content


def test_a_fit_of_other_cells_decides_nothing(claiming):
    written(claiming, "fit", content(0.5, 0.46, 0.54))
    with open(claiming / "runs.csv", "a") as file:
        file.write("\n")
    with pytest.raises(UserError, match="fit.json is of other cells than .*runs.csv: run scripts/fit.py runs=.* again"):
        decide(claiming)
    (claiming / "fit.json").unlink()
    with pytest.raises(UserError, match="fit.json is missing or damaged: run scripts/fit.py runs=.* first"):
        decide(claiming)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"law": "chinchilla"}, "law=chinchilla"),
        ({"loss": "huber"}, "loss=huber"),
        ({"target": "loss_code"}, "target=loss_code"),
        ({"filter": "width>48"}, "filter=width>48"),
    ],
)
def test_what_was_chosen_after_the_cells_decides_nothing(claiming, choice, said):
    written(claiming, "fit", content(0.5, 0.46, 0.54), **choice)
    with pytest.raises(UserError, match=f"fit.json is by {said}, which the sweep did not state: run scripts/fit.py "):
        decide(claiming)


def test_an_uncertified_fit_leaves_its_claim_undecided(claiming):
    written(claiming, "fit", content(0.5, 0.46, 0.54, {"certified": False, "reasons": ["E is not identified"]}))
    said = decide(claiming).content
    assert (said["verdict"], said["reason"]) == ("undecided", "the fit is not certified: E is not identified")


def test_an_estimate_without_an_interval_leaves_it_undecided(claiming):
    written(claiming, "fit", content(0.5, None, None) | {})
    path = claiming / "fit.json"
    found = json.loads(path.read_text())
    found["fit"]["intervals"]["a"] = None
    path.write_text(json.dumps(found))
    said = decide(claiming).content
    assert (said["verdict"], said["reason"], said["low"]) == ("undecided", "it has no finite interval", None)


def test_a_sweep_without_a_claim_is_refused(grid):
    with pytest.raises(UserError, match="grid states no claim: give its sweep one before it is trained"):
        decide(grid)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 99}'])
def test_a_damaged_claim_json_is_refused(tmp_path, text):
    (tmp_path / "claim.json").write_text(text)
    with pytest.raises(UserError, match="claim.json is .*scripts/claim.py runs=.* writes it anew"):
        read_claim(tmp_path / "claim.json")
    assert read_claim(tmp_path / "other.json") is None
