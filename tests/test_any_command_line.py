"""Any command line of any script: a result or one sentence, nothing written but where it says, and of what lies in the
folders around it only checkpoints of the one sweep that make or scripts/clean.py was told to clean removed."""

import functools
import io
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import harness.laws.settings
import harness.report.settings  # noqa: F401  with the one above, the schemas of all scripts
import harness.sweep.run as run
from harness.commands import configuration, keys_of, run_script
from harness.errors import UserError
from harness.records import SweepFolder, write_sweep
from harness.sweep.target import command

SCRIPTS = ("train", "plan", "fit", "compare", "report", "status", "sync", "view", "clean", "tune")
CELL = {"cell": "c-1", "trunk": "a-1", "width": 32, "depth": 1, "heads": 2, "seed": 0, "tokens": 1000, "steps": 10,
        "branch_step": 8, "batch_tokens": 100, "learning_rate": 0.01, "params_total": 9, "params_non_embedding": 5,
        "params_with_head": 7, "flops": 42000}  # fmt: skip
CUT = "all that can be refused was accepted"
CHECKPOINTS = re.compile(r"trunks/[^/]*/step-\d+\.pt|runs/[^/]*/checkpoint\.pt")

PATHS = st.sampled_from(
    ["outputs/smoke", "outputs/smoke/", "./outputs//smoke", "outputs/../outputs/smoke", "~/outputs/smoke", "~", "~/",
     "~x", "$HOME/outputs/x", "${oc.env:HOME}/outputs/smoke", "..", "../..", ".", "", " ", "/", "a b/smoke", "a,b",
     "é/smoke", "數據", "link", "dangling", "loop", "none", "outputs", "outputs/smoke/runs", "outputs/smoke/sweep.yaml",
     "their.csv", "cut/smoke", "TOP/elsewhere/smoke", "TOP/home/outputs/smoke", "x" * 300, "\udce9", "a\tb", "a\nb",
     "a'b",
     'a"b', "[outputs/smoke,outputs/mine]", "outputs/smoke,outputs/mine", "{a}", "a=b", "*", "outputs/*", "out\\smoke",
     "their.csv,their.csv", "their.csv,none", "outputs/mine"]
)  # fmt: skip
NUMBERS = st.sampled_from(
    ["0", "1", "-1", "2", "1e6", "1E6", "1_000", "0x10", "0b1", "1e999", "inf", "-inf", "nan", "1.5", "1,5", "1e-400",
     "+1", "١٢", "²", "½", "1 000", "1e6,2e6", "[1e6,2e6]", "[2e6,1e6]", "[]", "[[1]]", "[1e6,]", "9" * 30, "9" * 99,
     "true", "null", "~", "1e6L", "1e", "--1", "0.0", "-0", "1e15", "10min", "2h", "1d", "-1min", "4090", "h100",
     "[1e6,null]"]
)  # fmt: skip
SUGAR = st.sampled_from(
    ["${name}", "${seed}", "${nothing}", "${", "$", "${oc.env:NOWHERE}", "${oc.env:NOWHERE,x}", "${now:%Y}", "${now:}",
     "${now:%Q%}", "${oc.decode:1}", "${hydra:job.name}", "${hydra:job.num}", "${oc.create:[1]}", "${oc.env:HOME}",
     "${name}${name}", "${..name}", "${model}", "${model.width}", "${eval:1}", "choice(1,2)", "range(1,3)",
     "range(1,1e9)", "interval(0,1)", "glob(*)", "sort(2,1)", "shuffle(1,2)", "int(1.5)", "float(x)", "str(1)",
     "json_str({a:1})", "extend_list(1)", "tag(a,choice(1,2))", "[1,2]", "[1,", "{a:1}", "{a:", "{1:2}", "{}", "()",
     "'x'", '"x"', "'x", '"x', "'${seed}'", "\\${seed}", "\\", "\\\\", "a:b", "a: b", "a,b", ",", ",,", "#x", "x #y",
     "=", "==", "%", "@", "*", "&&", "$(id)", "`id`", ";", "|", ">x", "<x", "null", "Null", "None", "~",
     "!!python/name:os.system", "- a", "? a", "é", "\u2028", "\u00a0", "a" * 200, "w64-d2", "w32-d1,w48-d1", "w0-d1",
     "w64-d2-s1,w64-d2", "64x2", "gpt2", "llama", "adamw", "muon"]
)  # fmt: skip
FIT_VALUES = st.sampled_from(
    ["chinchilla", "kaplan_joint", "chinchilla_coupled,chinchilla", "huber", "N", "loss>1",
     "width>=48 and schedule==wsd", "params", "bits", "perplexity", "billions", "pf-days", "holdout", "[1e15,1e18]",
     "fit.json", "outputs/mine/both.json", "nowhere/fit.json", "~/fit.json", "TOP/home/new.json", "their.csv", "..",
     "a b/x.json"]
)  # fmt: skip
LETTERS = st.characters(codec="utf-8", exclude_characters="/~\0")
TEXT = st.text(LETTERS, max_size=6).filter(lambda text: ".." not in text)
VALUES = st.one_of(PATHS, PATHS, NUMBERS, SUGAR, FIT_VALUES, TEXT)
ODD_KEYS = st.sampled_from(
    ["", ".", "..", "model", "model.", ".width", "model..width", "model.widht", "Model.width", "tokens_per_parm",
     "run", "runs ", " runs", "hydra", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.mode",
     "hydra.job.name", "hydra.output_subdir", "hydra.sweeper.params", "hydra/launcher", "hydra/sweeper",
     "hydra/job_logging", "hydra.searchpath", "hydra.verbose", "hydra.launcher.n_jobs", "hydra.launcher.timeout_min",
     "sweep", "sweep@x", "model@data", "model@_global_", "data@:x", "defaults", "_target_", "budget", "machine",
     "columns", "frontier", "units", "optimizer.learning_rate", "--multirun", "-m", "--help", "-h", "--config-name",
     "--cfg", "--x", "-x", "name@", "model:llama", "a b", "é", "1", "a-b", "a/b", "[a]", "$x"]
)  # fmt: skip


@pytest.fixture(scope="module")
def keys() -> dict[str, list[str]]:
    """The keys of each script."""
    with configuration():
        from hydra import compose

        found = {name: keys_of(compose("train" if name == "plan" else name)) for name in SCRIPTS}
    groups = ["model", "data", "tokenizer", "optimizer", "schedule", "tracking", "sweep"]
    # those that decide where something lies, or what is read, come up more often
    often = {"train": ["name", "output_directory", "data.path", "data.store_directory", "tokens", "shape", "seed"]}
    return {
        name: [*listed, *(often["train"] * 4 + groups * 2 if name in ("train", "plan") else ["runs"] * 8)]
        for name, listed in found.items()
    }


@st.composite
def command_lines(draw, keys):
    """A script, and its arguments or what make is given for them."""
    name = draw(st.sampled_from(SCRIPTS))
    of_script = st.sampled_from(keys[name])
    of_any = st.sampled_from(sorted({key for listed in keys.values() for key in listed}))
    key = st.one_of(of_script, of_script, of_script, of_any, ODD_KEYS, TEXT)
    prefix = st.sampled_from(["", "", "", "", "", "+", "++", "~", "-", "+~", " "])
    mark = st.sampled_from(["=", "=", "=", "=", "=", "", "==", "= ", ":"])
    word = st.builds("{}{}{}{}".format, prefix, key, mark, VALUES)
    flag = st.sampled_from(["-m", "--multirun", "--help"])
    words = draw(st.lists(st.one_of(word, word, word, word, flag, TEXT), max_size=4))
    if draw(st.booleans()):
        target = draw(st.sampled_from(["sweep", *SCRIPTS[1:3], *SCRIPTS[4:9]]))
        named = st.sampled_from(["smoke", "smoke", "mine", "cpu", "gpu", "none", "2", "x" * 300, "../x"])
        sweep = draw(st.one_of(named, named, VALUES.filter(lambda value: value != "\udce9")))
        launcher = draw(st.sampled_from(["local", "slurm", "basic", "cloud", ""]))
        text = draw(st.sampled_from([shlex.join(words), " ".join(words)]))
        return target, {"SWEEP": sweep, "LAUNCHER": launcher, "HARNESS_ARGS": text}
    start = {
        "train": draw(st.sampled_from([[], ["tokens=1e6"], ["-m", "+sweep=smoke"], ["-m", "tokens=1e6"]])),
        "plan": draw(st.sampled_from([["tokens=1e6"], ["-m", "+sweep=smoke"], ["budget=1e15"], ["machine=h100"]])),
    }.get(name, draw(st.sampled_from([[], ["runs=outputs/smoke"]])))
    return name, [*start, *words]


def build(top: Path) -> None:
    """Sweeps that have ended, in outputs, in a home, in folders of many names, and folders that are no sweep."""
    work = top / "a" / "b" / "work"
    named = ("outputs/smoke", "outputs/mine", "outputs/cpu", "a b/smoke", "é/smoke", "a,b", "數據", "$HOME/outputs/x")
    sweeps = [*(work / name for name in named), top / "home/outputs/smoke", top / "elsewhere/smoke", work / "cut/smoke"]
    files = "trunks/a-1/step-5.pt trunks/a-1/curve.jsonl runs/c-1/checkpoint.pt runs/c-1/model.pt step-1.pt"
    for place in (*sweeps, top / "elsewhere/none", work / "outputs"):
        for name in files.split():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(name)
    for place in sweeps:
        write_sweep(SweepFolder(place), {"sweep": place.name, "cells": [CELL]})
    (work / "cut/smoke/sweep.yaml").write_text("schema: 1\nsweep: smo")
    (work / "outputs/smoke/trunks/b-1").symlink_to(top / "elsewhere/none/trunks/a-1")
    (work / "link").symlink_to("outputs/mine")
    (work / "dangling").symlink_to("nowhere")
    (work / "loop").symlink_to("loop")
    pd.DataFrame({"N": [1e6], "D": [1e7], "loss": [3.0]}).to_csv(work / "their.csv", index=False)


def inventory(top: Path) -> dict[str, bytes | str | None]:
    """Every file under `top` by its path; a link as what it points to, and a folder as None."""
    found: dict[str, bytes | str | None] = {}
    for folder, names, files in os.walk(top):
        for path in (Path(folder) / name for name in (*names, *files)):
            link = os.readlink(path) if path.is_symlink() else None
            found[str(path.relative_to(top))] = link or (path.read_bytes() if path.is_file() else None)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder that holds all; `work`, below it, is where commands run."""
    top = tmp_path_factory.mktemp("place") / "top"
    build(top)
    return top


@pytest.fixture(scope="module")
def mains(tmp_path_factory):
    """The main of every script, cut off where it would begin to work for seconds or to ask a server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "check_environment", type(sys)("check_environment"))
        patch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
        import importlib

        scripts = {name: importlib.import_module(name) for name in SCRIPTS[1:]}

        def cut(*given, **more):
            raise UserError(CUT)

        def cut_training(sweep, console):
            """When the folder of a sweep is there, and all that can be refused without its corpus was accepted."""
            trained.append(sweep.folder.path.resolve(strict=True))
            raise UserError(CUT)

        import harness.laws.study as study
        import harness.tracking.sync as sync
        import harness.tracking.table as table

        patch.setattr(run, "prepare_trunks", cut_training)
        patch.setattr(scripts["plan"], "prepare_plan", cut)
        for name in ("measured_costs", "unique_tokens", "prepare"):
            patch.setattr(scripts["plan"].propose, name, cut)
        patch.setattr(study, "study", lambda found, config: {"law": config.law_of(found)})
        patch.setattr(scripts["fit"], "show", cut)
        patch.setattr(scripts["fit"], "show_briefly", cut)
        patch.setattr(importlib.import_module("harness.laws.compare"), "compare_table", cut)
        patch.setattr(importlib.import_module("harness.laws.tune"), "tune_table", cut)
        patch.setattr(scripts["report"], "log_fit", lambda runs: [])
        patch.setattr(table, "probe", lambda: "cut")
        patch.setattr(sync, "_send", cut)
        yield {"train": run.train} | {name: module.main for name, module in scripts.items()}
        for name in SCRIPTS[1:]:
            del sys.modules[name]


trained: list[Path] = []


def meant(words, top):
    return [word.replace("TOP", str(top)) for word in words]


def arguments_of(line, top):
    """The script and the arguments that a command line, or make, comes to."""
    name, given = line
    if isinstance(given, list):
        return name, meant(given, top)
    given = dict(zip(given, meant(given.values(), top), strict=True))
    return ("train" if name == "sweep" else name), command(name, given)


@pytest.fixture
def tried(place, mains, monkeypatch, capsys):
    """Runs a command line as its script would; the status, what it said, and the files that changed."""
    monkeypatch.setenv("HOME", str(place / "home"))
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    before = inventory(place)

    def tried(line):
        monkeypatch.chdir(place / "a" / "b" / "work")
        words = []
        trained.clear()

        def main(asked):
            name, arguments = arguments_of(line, place)
            words[:] = [name, *arguments]
            return mains[name](arguments)

        with pytest.raises(SystemExit) as ended, monkeypatch.context() as patch:
            asked = line[1] if isinstance(line[1], list) else []
            patch.setattr(sys, "argv", [line[0], *meant(asked, place)])
            run_script(main, "train" if line[0] in ("plan", "sweep") else line[0])
        output, error = capsys.readouterr()
        after = inventory(place)
        gone = {name for name in before if name not in after}
        new = {name for name, content in after.items() if before.get(name, 0) != content}
        if gone or new:
            shutil.rmtree(place)
            build(place)
        return words, ended.value.code, output, error, gone, new

    tried.top = place
    return tried


@pytest.fixture
def check(tried, place):
    def check(line):
        words, status, output, error, gone, new = tried(line)
        assert status in (0, 1, 2), (line, output, error)
        assert error.count("\n") == (status == 2) and len(error) < 20_000, (line, error)
        assert error == "" or error.startswith("error: "), (line, error)
        if gone:
            assert words[0] == "clean" and status == 0, (line, gone)
            check_removed(output, gone, place)
        for folder in trained:
            assert gone == new == set(), (line, gone, new)
            check_trained(words, folder)
        files = {name for name in new if not name.endswith(("/figures", "/paper"))}
        if words[:1] == ["fit"]:
            named = [word.partition("=")[2] for word in words if "out=" in word]
            assert len(files) <= 1 and (named or all(name.endswith("fit.json") for name in files)), (line, new)
        elif words[:1] == ["report"] and files:
            folder = Path(output.removeprefix("report: ").removesuffix("\n")).resolve().parent
            assert all((place / name).is_relative_to(folder) for name in files), (line, new)
        else:
            assert not new, (line, new)

    return check


def check_removed(output: str, gone: set[str], place: Path) -> None:
    """Checkpoints of one sweep, which is the one that is told."""
    (folder,) = {re.split(r"/(?=trunks/|runs/)", name)[0] for name in gone}
    said = re.fullmatch(r"(.*): checkpoints removed\n", output, re.DOTALL)
    assert said and (place / folder).resolve() == (place / "a/b/work" / said[1]).resolve()
    assert all(CHECKPOINTS.fullmatch(name.removeprefix(f"{folder}/")) for name in gone)
    assert Path(folder).name not in ("none", "outputs") and "cut" not in folder


def check_trained(words: list[str], folder: Path) -> None:
    """In the folder that is asked for, where that is a path without anything that Hydra or quotes change."""
    plain = re.compile(r"\+*output_directory=([\w./~ -]*)")
    asked = [word for word in words if "output_directory" in word]
    if asked and all(map(plain.fullmatch, asked)):
        assert folder.parent == Path(os.path.expanduser(plain.fullmatch(asked[-1])[1])).resolve()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("clean", {"SWEEP": "x" * 300, "HARNESS_ARGS": ""}), "x.yaml cannot be used (File name too long): correct"),
        (("status", ["runs=" + "x" * 300]), " cannot be used (File name too long)"),
        (("status", ["runs=TOP/secret/smoke"]), "TOP/secret/smoke cannot be used (Permission denied)"),
        (("clean", ["runs=TOP/secret/smoke"]), "/secret/smoke/sweep.yaml cannot be used (Permission denied)"),
        (("fit", ["runs=TOP/secret/x.csv"]), "(Permission denied): "),
        (("train", ["tokens=1e6", "output_directory=TOP/secret"]), "TOP/secret/single cannot be used (Permission den"),
        (("train", ["tokens=1e6", "model=null"]), "model=null names no entry of conf/model"),
        (("sweep", {"SWEEP": "2", "LAUNCHER": "local", "HARNESS_ARGS": ""}), "sweep=2 is not there: choose archit"),
        (("clean", {"SWEEP": "smoke", "HARNESS_ARGS": "'+model= 0'"}), "+model= 0 names no entry of conf/model"),
        (("clean", ["runs=${model}"]), "Interpolation key 'model' not found"),
        (("clean", {"SWEEP": "smoke", "HARNESS_ARGS": "name=TOP/elsewhere/smoke"}), "/elsewhere/smoke cannot name"),
        (("clean", {"SWEEP": "smoke", "HARNESS_ARGS": "name=../../../elsewhere/x"}), "/elsewhere/x cannot name"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(tried, line, said, monkeypatch):
    def refusing(path, *more, real, **others):
        if "/secret" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *more, **others)

    for module, name in ((os, "stat"), (os, "mkdir"), (io, "open")):
        monkeypatch.setattr(module, name, functools.partial(refusing, real=getattr(module, name)))
    _, status, output, error, gone, new = tried(line)
    assert (status, gone, new) == (2, set(), set())
    assert error.startswith("error: ") and said in error.replace(str(tried.top), "TOP"), error


def test_any_command_line_is_a_result_or_one_sentence(keys, check):
    @settings(
        max_examples=max(300, settings().max_examples), deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
    )  # fmt: skip
    @given(command_lines(keys))
    def any_command_line(line):
        check(line)

    any_command_line()
