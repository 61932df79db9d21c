"""What --help says of every script, made from the configuration that it reads."""

import ast
import re
from pathlib import Path

import pytest
from hydra import compose
from omegaconf import OmegaConf

import harness.config
import harness.laws.claims.settings
import harness.laws.forecast
import harness.laws.settings
import harness.report.settings  # noqa: F401  with those above, the schemas of all scripts
from harness.commands import configuration, run_script
from harness.errors import UserError
from harness.help import print_help

ROOT = Path(__file__).parents[1]
OF_MAKE = ("check_environment", "check_python", "make", "set_up")  # which nobody calls by hand
SCRIPTS = sorted(path for path in (ROOT / "scripts").glob("*.py") if path.stem not in OF_MAKE)
CONFIGS = sorted(path.stem for path in (ROOT / "conf").glob("*.yaml"))


@pytest.fixture
def helped(capsys, monkeypatch):
    """What is printed for a configuration, as on a terminal that nothing is known of."""
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def printed(name: str, *arguments: str) -> str:
        with configuration():
            print_help(name, "About.", arguments)
        return capsys.readouterr().out

    return printed


def same(shown: str, value) -> bool:
    """Whether what is shown is the value, written independently of the code that shows it."""
    if value is None or isinstance(value, bool):
        return shown == {None: "null", True: "true", False: "false"}[value]
    if OmegaConf.is_list(value):
        return shown == "[]" and not len(value)
    return float(shown) == value if isinstance(value, float | int) else shown == (value or "''")


def keys(config, prefix: str = "") -> list[str]:
    found = []
    for key in config:
        nested = OmegaConf.is_dict(config[key])
        found += keys(config[key], f"{prefix}{key}.") if nested else [f"{prefix}{key}"]
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_every_key_has_its_default_and_its_comment(name, helped):
    lines = [line.split() for line in helped(name).partition("\n+sweep=")[0].splitlines() if re.match(r"  \S", line)]
    with configuration():
        config = compose(name)
    assert keys(config), name
    for key in keys(config):
        (found,) = (words for words in lines if words and words[0] == key)
        assert same(found[1], OmegaConf.select(config, key)), found
        assert len(found) >= 3, f"{key} has no comment in its dataclass or in conf/{name}.yaml"


def test_every_entry_and_every_node_has_its_comment(helped):
    lines = [line.split() for line in helped("train").splitlines() if line.startswith("  ")]
    entries = [path.stem for path in (ROOT / "conf").glob("*/*.yaml")] + ["local", "slurm"]
    nodes = [f"optimizer.{name}" for name in ("learning_rate", "batch_tokens", "warmup_tokens", "weight_decay")]
    for name in (*entries, *nodes):
        assert any(words and words[0] == name and len(words) > 2 - (name == "openwebtext") for words in lines), name
    assert all(len(words) > 2 for words in lines if words and words[0].startswith("hydra.launcher."))


def test_the_entries_that_are_asked_for_give_the_defaults(helped, tmp_path):
    words = " ".join(helped("train", "-m", "model=gpt2", "optimizer=adamw,muon", "shape=a,b", "+sweep=smoke").split())
    assert " gpt2 (chosen) GPT-2 (Radford et al. 2019); " in words and " adamw (chosen) " in words
    assert (
        " model.tied true " in words
        and " optimizer.warmup_tokens.value 8000 " in words
        and " model.seq_len 64 " in words
    )


@pytest.mark.parametrize("argument", ["model=null", "model=[1]", "model=int(1)", "model={a: 1}", "+sweep=a,b"])
def test_what_names_no_entry_is_no_matter_of_the_help(helped, argument):
    assert helped("train", argument) == helped("train")
    with pytest.raises(UserError, match="model=2 is not there: choose custom, gpt, gpt2, llama"):
        helped("train", "model=2")


def test_defaults_are_shown_as_the_command_line_takes_them(helped):
    words = " ".join(helped("train").split())
    for shown in (
        "tokens null a number or a list: the token budgets",
        "save_model false keep the weights of every cell, as model.pt",
        "model.width 64 features",
        "model.norm_eps 1e-06 of the norms",
        "data.sample_by document text files: what a document is, the whole document, a paragraph or a line",
        "optimizer.learning_rate of the trunk; cosine peaks at a multiple of it",
        "optimizer.learning_rate.value 0.004 of a model of reference_params",
        # a comment above its line
        "optimizer.micro_batch_tokens 65536 the most tokens that pass through the model at once; a larger "
        "batch is accumulated",
        # entries of the groups
        "gpt (the default) Our own: RMSNorm before each branch, rotary positions, normed queries and keys, squared "
        "ReLU, no biases, untied head",
        "llama Llama (Touvron et al. 2023), with its feed-forward width as TinyLlama's: 2.75 widths, whole "
        "at every multiple of 4",
        "smoke A minute: the whole line on a grid too small to mean anything",
        "hydra.launcher.timeout_min 240 of one job; what is not done by then goes on in the next, from its checkpoint",
    ):
        assert f" {shown} " in words, shown
    assert "filter ''" in " ".join(helped("fit").split())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_names_its_most_used_calls(script):
    about = ast.get_docstring(ast.parse(script.read_text())) or ""
    calls = [line.split()[:2] for line in about.splitlines() if line.startswith("    ")]
    assert len(calls) == 3 and calls[0] == ["python", f"scripts/{script.name}"]
    assert {tuple(call) for call in calls} <= {("python", f"scripts/{script.name}"), ("make", script.stem)}


def test_a_script_prints_its_help_and_does_nothing_else(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["scripts/fit.py", "runs=nowhere", "--help"])
    with pytest.raises(SystemExit) as ended:
        run_script(lambda arguments: pytest.fail("it ran"), "fit")
    out, error = capsys.readouterr()
    assert ended.value.code == 0 and error == "" and "columns.params" in out
