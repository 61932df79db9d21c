"""What make hands to the scripts: which folder is meant, and what may be removed of it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.records import SweepFolder, remove_checkpoints, write_sweep
from harness.sweep import target
from harness.sweep.target import command

ROOT = Path(__file__).parents[2]
NO_SWEEPS = ["", ".", "..", "/", "../outputs", "a/b", "a b", "smoke tune", "*", "sm?ke", "-rf", "$(id)", "a;b", "~"]


@pytest.mark.parametrize("sweep", NO_SWEEPS)
def test_what_names_no_sweep_is_refused(sweep):
    with pytest.raises(UserError, match="^SWEEP=.* names no sweep: give one entry of conf/sweep"):
        command("clean", {"SWEEP": sweep})


@pytest.mark.parametrize(
    ("sweep", "args", "folder"),
    [
        ("smoke", "", "outputs/smoke"),
        ("cpu-s1", "", "outputs/cpu-s1"),  # no entry of conf/sweep: a sweep of that name
        ("smoke", "name=mine", "outputs/mine"),
        ("smoke", "++name=mine ++output_directory=o", "o/mine"),
        ("smoke", "'output_directory=/a b#/c'", "/a b#/c/smoke"),
        ("smoke", "seed=3 name=s-${seed}", "outputs/s-3"),
        ("smoke", "name=${model.family} model=llama", "outputs/llama"),
        # what was given to make sweep may be given again
        ("smoke", "name=x tokens=[1e3, 2e3] shape=w8-d1,w16-d1 hydra/launcher=basic detach=true", "outputs/x"),
    ],
)
@pytest.mark.parametrize("script", ["status", "fit"])
def test_each_script_is_given_the_folder_that_is_trained(script, sweep, args, folder):
    found, *rest = command(script, {"SWEEP": sweep, "HARNESS_ARGS": args})
    assert found == f"runs={folder}"
    assert rest == (["seed=3"] if script == "fit" and "seed=3" in args else [])  # fit has a seed of its own


def test_a_grid_s_file_may_name_its_folder(monkeypatch, tmp_path):
    """As a copy of smoke.yaml that kept its name does."""
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "smoke.yaml").touch()
    monkeypatch.setattr(target, "CONF", tmp_path)
    with target.configuration():
        assert target.folder_of("smoke", []) == Path("outputs/smoke")
        assert target.folder_of("other", ["output_directory=a"]) == Path("a/other")


def test_the_rest_of_args_is_the_script_s():
    args = "name=x law=kaplan_joint filter='width>=24 and depth==1' frontier.flops=[1e15, 1e18] typo=1"
    assert command("fit", {"SWEEP": "cpu", "HARNESS_ARGS": args}) == [
        "runs=outputs/x", "law=kaplan_joint", "filter=width>=24 and depth==1", "frontier.flops=[1e15, 1e18]", "typo=1",
    ]  # fmt: skip
    assert command("sync", {"SWEEP": "cpu", "HARNESS_ARGS": "project=p"}) == ["runs=outputs/cpu", "project=p"]
    assert command("sweep", {"SWEEP": "cpu", "LAUNCHER": "slurm", "HARNESS_ARGS": "tokens=[1e6, 2e6]"}) == [
        "-m", "+sweep=cpu", "hydra/launcher=slurm", "tokens=[1e6, 2e6]",
    ]  # fmt: skip
    assert command("plan", {"SWEEP": "gpu"}) == ["-m", "+sweep=gpu"]


def test_the_default_is_the_gpu_grid_where_a_gpu_is_seen(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command("plan", {}) == ["-m", "+sweep=cpu"]
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    assert command("plan", {}) == ["-m", "+sweep=cpu"]
    tool.write_text("#!/bin/sh\necho GPU 0\n")
    assert command("plan", {}) == ["-m", "+sweep=gpu"]


@pytest.mark.parametrize(
    "args", ["tokens=[20e3, 40e3]", "filter=a>=1 & 'b c' | \"d\" $(e) ${now:%H} `f` ~ * ? ; #g", "--help"]
)
def test_make_hands_on_what_was_typed(tmp_path, args):
    """No shell and no rule of make reads it; bash 3.2 and make 3.81 have all that the Makefile uses."""
    script = tmp_path / "python"
    script.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "$SWEEP" "$LAUNCHER" "$HARNESS_ARGS"\n')
    script.chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if key not in ("SWEEP", "LAUNCHER", "MAKEFLAGS")}
    for name in ("sweep", "plan", "fit", "report", "status", "sync", "clean"):
        done = subprocess.run(
            ["make", "-s", "-o", ".venv/installed", "-o", ".venv/slurm", name, f"PY={script}", "SWEEP=a b",
             "LAUNCHER=slurm", f"ARGS={args}"],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.splitlines() == ["scripts/make.py", name, "a b", "slurm", args]
    refused = subprocess.run(["make", "clean", "OUTPUTS=/"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert refused.returncode == 2 and "OUTPUTS is no variable of this Makefile" in refused.stderr


def test_nothing_but_checkpoints_of_one_sweep_is_removed(tmp_path):
    folder, elsewhere = SweepFolder(tmp_path / "s *" / "smoke"), tmp_path / "elsewhere"
    checkpoints = ["trunks/a/step-5.pt", "trunks/a/.step-9.pt.1-ab.tmp", "runs/c/checkpoint.pt"]
    kept = ["trunks/a/curve.jsonl", "trunks/a/error.txt", "runs/c/run.json", "runs/c/model.pt", "runs.csv", "step-1.pt",
            "figures/step-1.pt"]  # fmt: skip
    linked = [elsewhere / "a" / "step-5.pt", elsewhere / "checkpoint.pt"]
    for path in (*(folder.path / name for name in checkpoints + kept), *linked):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder.path / "trunks" / "b").symlink_to(elsewhere / "a")
    (folder.path / "runs" / "d").symlink_to(elsewhere)
    with pytest.raises(UserError, match="holds no sweep.yaml"):
        remove_checkpoints(folder.path)
    write_sweep(folder, {"sweep": "smoke", "cells": [{"cell": "c"}]})
    for path in (folder.path.parent, tmp_path, folder.path / "runs", elsewhere):
        with pytest.raises(UserError, match="holds no sweep.yaml"):
            remove_checkpoints(path)
    assert all((folder.path / name).exists() for name in checkpoints)
    (tmp_path / "link").symlink_to(folder.path)  # a sweep on another disk, say
    remove_checkpoints(tmp_path / "link")
    assert not any((folder.path / name).exists() for name in checkpoints)
    assert all((folder.path / name).exists() for name in kept) and all(path.exists() for path in linked)


def test_clean_says_what_it_did_not_do(tmp_path):
    environment = os.environ | {"SWEEP": "smoke", "HARNESS_ARGS": f"output_directory={tmp_path}"}
    done = subprocess.run(
        [sys.executable, "scripts/make.py", "clean"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path}/smoke holds no sweep.yaml: give the folder of a sweep\n"


def test_a_sweep_is_fitted_or_its_variants_are_compared(tmp_path):
    folder = SweepFolder(tmp_path)
    cell = {"cell": "c", "variant": "gpt", "optimizer.beta2": 0.95, "model": "gpt"}
    for axes, scripts in (([], ["fit", "report"]), (["variant"], ["compare", "report"]),
                          (["variant", "model"], ["report"])):  # fmt: skip
        write_sweep(folder, {"sweep": "v", **({"axes": axes} if axes else {}), "cells": [cell]})
        found, lines = target.after_training(tmp_path)
        assert [name for name, _ in found] == scripts
        assert all(arguments[0] == f"runs={tmp_path}" for _, arguments in found)
        assert [line.partition(": ")[0] for line in lines] == ["variant and model vary"] * (len(axes) > 1)
        if len(axes) == 1:
            assert found[0][1][1:] == ["column=variant"]
    assert lines[0].endswith(f"python scripts/compare.py runs={tmp_path} column=variant filter=model==gpt")


@pytest.mark.parametrize(
    ("quantity", "axes", "scripts"),
    [
        ("fit.a", [], ["fit", "claim", "report"]),
        ("compare.drift", ["variant"], ["compare", "claim", "report"]),
        ("aspect", [], ["claim", "report"]),  # of one budget, to which no law can be fitted
    ],
)
def test_a_claim_is_decided_between_its_fit_and_the_report(tmp_path, quantity, axes, scripts):
    stated = {"text": "x", "quantity": quantity, "rule": {"low": None, "high": 1.0}}
    cells = [{"cell": "c", "variant": "gpt"}]
    write_sweep(SweepFolder(tmp_path), {"sweep": "v", "claim": stated, "axes": axes, "cells": cells})
    found, lines = target.after_training(tmp_path)
    assert ([name for name, _ in found], lines) == (scripts, [])


def test_the_sweeps_of_all_claims_share_a_folder(tmp_path):
    assert target.folder_of_claims([f"output_directory={tmp_path}", "tracking=none"]) == tmp_path
    with pytest.raises(UserError, match="^name=x would give the sweeps of all claims one folder: leave it out"):
        target.folder_of_claims(["name=x"])


def test_every_claim_is_trained_and_a_stop_ends_them(tmp_path, monkeypatch):
    """A failed sweep (2) does not keep the others from being trained, and what interrupts one (130) ends all."""
    specification = importlib.util.spec_from_file_location("make", ROOT / "scripts" / "make.py")
    make = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(make)
    asked = []

    def called(statuses):
        left = iter(statuses)

        def call(command, env):
            asked.append((Path(command[-2]).name, command[-1], env["SWEEP"]))
            return next(left)

        return call

    monkeypatch.setattr(make, "claims", lambda: ["isoflop", "shape"])
    monkeypatch.setattr(make.subprocess, "call", called([2, 0]))
    assert make.every_claim([f"output_directory={tmp_path}"]) == 2
    assert asked == [("make.py", "sweep", "isoflop"), ("make.py", "sweep", "shape")]
    assert "0 of 2 measured" in (tmp_path / "claims.html").read_text()
    monkeypatch.setattr(make.subprocess, "call", called([130]))
    assert make.every_claim([f"output_directory={tmp_path}"]) == 130
    monkeypatch.setattr(make.subprocess, "call", called([-15]))
    assert make.every_claim([f"output_directory={tmp_path}"]) == 143


def test_axes_of_numbers_beside_one_of_names_are_settled_for_each(tmp_path):
    """Each optimizer at its best rate; two axes of numbers are compared as two of names are."""
    cells = [{"cell": f"{name}{rate}", "optimizer": name, "optimizer.learning_rate.value": rate, "optimizer.beta2": 0.9}
             for name in ("adamw", "muon") for rate in (0.01, 0.02)]  # fmt: skip
    rate = "optimizer.learning_rate.value"
    for axes in (["optimizer", rate], [rate, "optimizer"]):
        write_sweep(SweepFolder(tmp_path), {"sweep": "v", "axes": axes, "cells": cells})
        found, lines = target.after_training(tmp_path)
        assert [name for name, _ in found] == ["compare", "report"] and lines == []
        assert found[0][1] == [f"runs={tmp_path}", "column=optimizer"]
    write_sweep(SweepFolder(tmp_path), {"sweep": "v", "axes": [rate, "optimizer.beta2"], "cells": cells})
    assert [name for name, _ in target.after_training(tmp_path)[0]] == ["report"]


def test_settings_alone_are_tuned_where_each_has_three_values(tmp_path):
    axes = ["optimizer.learning_rate.value", "optimizer.weight_decay.value"]
    cells = [{"cell": f"c{number}", axes[0]: 0.001 * number, axes[1]: 0.01 * number**2} for number in (1, 2, 3)]
    for own, scripts in ((cells, ["tune", "report"]), (cells[:2], ["report"])):
        write_sweep(SweepFolder(tmp_path), {"sweep": "v", "axes": axes, "cells": own})
        found, lines = target.after_training(tmp_path)
        assert [name for name, _ in found] == scripts and bool(lines) == (scripts == ["report"])
        assert {tuple(arguments) for _, arguments in found} == {(f"runs={tmp_path}",)}


def test_the_model_that_writes_a_sweep_s_text_is_trained_before(tmp_path):
    where = f"output_directory={tmp_path}"
    line = ["-m", "+sweep=synthetic_data", "hydra/launcher=basic", "shape=w32-d2,w48-d2", where]
    of_model = ["-m", "+sweep=generator", where, "hydra/launcher=basic"]
    assert target.before_training(line) == of_model
    assert target.before_training([*line, "+size=gpu"]) == [*of_model, "+size=gpu"]
    # a model of somebody's own says itself how it is trained, and other sweeps have none
    assert target.before_training([*line, f"data.generator={tmp_path}/mine"]) is None
    assert target.before_training(["-m", "+sweep=cpu"]) is None
    kept = tmp_path / "generator" / "runs" / "w48-d2-t2M-s0-1" / "model.pt"
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert target.before_training(line) is None
