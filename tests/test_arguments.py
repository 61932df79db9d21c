"""What a command line stands for, however a shell has cut it and whatever letters its paths have."""

import os
from pathlib import Path

import pytest
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser

from harness.arguments import GROUPS, joined, quoted, settled, split
from harness.commands import compose_config, configuration
from harness.errors import UserError
from harness.laws.settings import fit_config
from harness.report.settings import report_config
from harness.sweep.compose import compose_sweep
from harness.sweep.target import command

ROOT = Path(__file__).parents[1]

# Folders that people have: a home, spaces, and what Hydra, YAML, globs and shells read something into.
PATHS = [
    "~", "~/x", "a b", "a=b", "a#b", "a[1]", "a[1", "a]1", "{a", "a,b", "a:b", "a'b", 'a"b', "a$b", "a%b", "a&b;c",
    "a|b", "(a)", "a\\b", "@a", "+a", "-a", "1e5", "0x10", "true", "nan", "ä/ß", "數據", "a*b", "a?b", "!a", "`a`",
]  # fmt: skip


@pytest.fixture(autouse=True)
def home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")


def meant(path: str) -> str:
    return path.replace("~", "/home/me")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("key", ["runs", "out", "data.path", "data.store_directory", "++output_directory"])
def test_a_path_is_read_as_that_path(key, path):
    override = OverridesParser.create().parse_override(quoted(f"{key}={path}"))
    assert (override.key_or_group, override.value()) == (key.lstrip("+"), meant(path))
    assert not override.is_sweep_override()


def test_every_script_reads_its_paths_so():
    path, there = "~/a b,#=[1'ß", "/home/me/a b,#=[1'ß"
    assert fit_config([f"runs={path}", f"out={path}"]).runs == there
    assert report_config([f"runs={path}"]) == Path(there)
    assert {compose_config(name, [f"runs={path}"]).runs for name in ("status", "sync", "clean")} == {there}
    keys = [f"data.path={path}", f"++output_directory={path}", f"data.store_directory={path}"]
    sweep = compose_sweep(["-m", "tokens=1e6", "seed=0,1", "data=files", *keys])
    for job in sweep.jobs:
        assert [job.data.path, job.output_directory, job.data.store_directory] == [there] * 3
    with configuration():  # as a launcher composes what it hands to a worker
        for lines in (sweep.overrides, sweep.job_overrides[0]):
            (line,) = (line for line in lines if "output_directory" in line)
            assert compose("train", [line]).output_directory == there


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("'~/a b'", "/home/me/a b"),
        ('"~/a b"', "/home/me/a b"),
        ("~/a,~/b c", "/home/me/a,/home/me/b c"),
        ("[~/a, ~/b]", "[/home/me/a, /home/me/b]"),
        ("wandb://me/p/g", "wandb://me/p/g"),
        ("null", None),
    ],
)
def test_quotes_are_no_part_of_a_path_and_each_of_several_may_begin_at_home(written, read):
    assert OverridesParser.create().parse_override(quoted(f"runs={written}")).value() == read


def test_a_home_that_nobody_knows_is_one_sentence(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 987654321)
    with pytest.raises(UserError, match="^~/x: ~ stands for no folder, since HOME is not set"):
        quoted("runs=~/x")


def test_an_empty_home_is_none(monkeypatch):
    monkeypatch.setenv("HOME", "")  # where ~/x would be /x
    with pytest.raises(UserError, match="^~/x: ~ stands for no folder, since HOME is not set"):
        quoted("out=~/x")
    assert quoted("out=x") == "out='x'"


def test_letters_that_no_file_of_a_sweep_can_hold_are_refused():
    """As a shell hands over a folder that another system named in Latin-1."""
    for ways in (joined, lambda words: command("fit", {"SWEEP": "smoke", "HARNESS_ARGS": words[0]})):
        with pytest.raises(UserError, match=r"^out=caf\?/x has letters that are not in UTF-8: rename what it names"):
            ways([os.fsdecode(b"out=caf\xe9/x")])


def test_an_entry_may_be_named_as_a_number_is():
    parser = OverridesParser.create()
    for entry in ("2", "007", "1e3", "2026.1", "true", "inf"):
        assert parser.parse_override(quoted(f"+sweep={entry}")).value() == entry
    assert quoted("+sweep=cpu") == "+sweep=cpu" and quoted("seed=2") == "seed=2"
    folders = {str(path.parent.relative_to(ROOT / "conf")) for path in (ROOT / "conf").glob("*/**/*.yaml")}
    assert folders == set(GROUPS)


@pytest.mark.parametrize("runs", ["${nothing}", "${model}", "${oc.env:NOWHERE_AT_ALL}"])
@pytest.mark.parametrize("name", ["fit", "report", "status", "clean"])
def test_what_stands_for_nothing_is_one_sentence_in_every_script(name, runs):
    with pytest.raises(UserError, match="nothing|model|NOWHERE_AT_ALL"):
        compose_config(name, [f"runs={runs}"])


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        (["tokens=[20e3,", "40e3]"], ["tokens=[20e3, 40e3]"]),
        (["-m", "tokens=[1e6,", "2e6", "]", "seed=1"], ["-m", "tokens=[1e6, 2e6 ]", "seed=1"]),
        (["shape=w32-d1,", "w48-d1", "name=x"], ["shape=w32-d1, w48-d1", "name=x"]),
        (["a={b:", "1}"], ["a={b: 1}"]),
        (["x=choice(1,", "2)"], ["x=choice(1, 2)"]),
        (["runs=a[1", "out=b"], ["runs=a[1", "out=b"]),  # never closed
        (["filter='a [1,'", "b"], ["filter='a [1,'", "b"]),
        (["tokens=[1e6,", "-m"], ["tokens=[1e6,", "-m"]),
    ],
)
def test_a_list_with_spaces_is_made_whole(cut, whole):
    assert joined(cut) == whole


def test_a_list_with_spaces_trains_its_budgets():
    (job,) = compose_sweep(joined(["tokens=[20e3,", "40e3]"])).jobs
    assert job.budgets() == ("tokens", [20e3, 40e3])


def test_the_words_of_args_are_those_of_a_shell_and_nothing_of_it_is_run():
    assert split("a=1 'b=x y' c=\"p q\" d=\\~ e=$HOME f=`id` g>h i* #j") == [
        "a=1", "b=x y", "c=p q", "d=~", "e=$HOME", "f=`id`", "g>h", "i*", "#j",
    ]  # fmt: skip
    with pytest.raises(UserError, match="^ARGS=a='b has a quote that is not closed"):
        split("a='b")


def test_times_and_variables_have_one_value(monkeypatch):
    monkeypatch.setenv("PLACE", "here")
    with configuration():
        assert settled("o-${oc.env:PLACE}-${oc.env:NONE,${oc.env:PLACE}}") == "o-here-here"
        year = settled("${now:%Y}")
        assert year.isdigit() and len(year) == 4
        assert settled("x-${seed}") == "x-${seed}"  # of the job
