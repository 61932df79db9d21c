"""What a sweep states before it is trained, and what may not change after."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from harness.config import TrainConfig
from harness.errors import UserError
from harness.records import SweepFolder, write_sweep
from harness.sweep import stated
from harness.sweep.compose import compose_sweep
from harness.sweep.stated import check_stated, check_statement, statement
from harness.sweep.target import claims

ROOT = Path(__file__).parents[2]
CLAIM = {"text": "a is one half.", "quantity": "fit.a", "rule": {"low": 0.45, "high": 0.55}}


def job(**given):
    return TrainConfig(name="x", tokens=1e6, **given)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A folder whose cells have ended, with a law and a claim."""
    folder = SweepFolder(tmp_path)
    (tmp_path / "runs" / "cell").mkdir(parents=True)
    monkeypatch.setattr(stated, "is_final", lambda run: True)
    write_sweep(folder, {"sweep": "x", **statement(job(claim=CLAIM)), "cells": []})
    return folder


def test_sweep_yaml_holds_law_and_claim(trained):
    content = yaml.safe_load(trained.sweep_yaml.read_text())
    assert (content["law"], content["claim"]) == ("chinchilla", CLAIM)
    assert statement(job()) == {"law": "chinchilla"}


def test_neither_changes_after_results(trained):
    check_stated(trained, job(claim=CLAIM))
    check_stated(trained, job(claim={**CLAIM, "text": " a is  one half."}))
    with pytest.raises(UserError, match=r"^law=chinchilla_tied is not chinchilla, which .* stated before it was train"):
        check_stated(trained, job(law="chinchilla_tied", claim=CLAIM))
    for other in (None, {**CLAIM, "rule": {"low": 0.4, "high": 0.6}}):
        with pytest.raises(UserError, match=r"^claim is not that which .* stated before it was trained \(a is one ha"):
            check_stated(trained, job(claim=other))


def test_a_claim_is_not_stated_after_results(trained):
    write_sweep(trained, {"sweep": "x", "law": "chinchilla", "cells": []})
    check_stated(trained, job())
    with pytest.raises(UserError, match=r"stated before it was trained \(none\): keep that, or train another sweep"):
        check_stated(trained, job(claim=CLAIM))


def test_what_decides_nothing_is_refused_before_training():
    with pytest.raises(UserError, match="^claim.quantity=fit.R is no estimate of law=chinchilla"):
        check_statement(job(claim={**CLAIM, "quantity": "fit.R"}))
    with pytest.raises(UserError, match="^law=chinchila is not known"):
        check_statement(job(law="chinchila"))


@pytest.mark.parametrize("name", claims())
def test_every_sweep_with_a_claim_can_decide_it(name):
    """At both sizes, by the law that it states; without its variants, which others of these tests compose."""
    for more in ([], ["+size=gpu"]):
        first = compose_sweep(["-m", f"+sweep={name}", "variants=null", *more]).jobs[0]
        check_statement(first)
        assert first.name == name


def test_the_claims_are_entries_of_conf():
    assert {"architecture", "early", "isoflop", "kaplan", "overtrain", "shape"} <= set(claims())
    assert {f"{name}.yaml" for name in claims()} <= {file.name for file in (ROOT / "conf" / "sweep").iterdir()}


def test_a_plan_tells_of_no_fit_where_the_claim_needs_none():
    """Of one budget no law can be fitted, and the range over aspect ratios asks for none."""
    from_script = runpy.run_path(str(ROOT / "scripts" / "plan.py"))
    given = SimpleNamespace(job=job(claim={**CLAIM, "quantity": "aspect"}))
    assert from_script["what_it_could_tell"](SimpleNamespace(variants={}, trunks=[given])) == []
