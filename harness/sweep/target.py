"""What a target of the Makefile stands for: the folder of its sweep, and the command line of its script."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import yaml
from hydra import compose
from omegaconf import OmegaConf

from harness.arguments import expanded, joined, quoted, settled, split
from harness.commands import configuration, keys_of, keys_of_script, known_keys
from harness.config import NAME, check_name
from harness.errors import UserError
from harness.records import TUNED, SweepFolder, axes_of, read_sweep

CONF = files("harness.conf")


def command(target: str, environment: Mapping[str, str]) -> list[str]:
    """The arguments of scripts/<target>.py, or of train.py for sweep, by what make was given: SWEEP, LAUNCHER, ARGS.

    Raises UserError where SWEEP cannot name one sweep.
    """
    sweep = environment["SWEEP"] if "SWEEP" in environment else default_sweep()
    if not NAME.fullmatch(sweep):
        raise UserError(
            f"SWEEP={sweep} names no sweep: give one entry of conf/sweep, or the name of one folder in outputs"
        )
    arguments = joined(split(environment.get("HARNESS_ARGS", "")))
    if target == "claims":
        return arguments
    if target == "plan":
        return ["-m", f"+sweep={sweep}", *arguments]
    if target in ("sweep", "tune"):
        grid = [f"+sweep={sweep}"] if target == "sweep" else grid_of(sweep, arguments)
        return ["-m", *grid, f"hydra/launcher={environment.get('LAUNCHER', 'local')}", *arguments]
    with configuration():
        own = keys_of(OmegaConf.create(CONF.joinpath(f"{target}.yaml").read_text()))
        of_training = keys_of_script("train")
        known = [word for word in arguments if of_train_py(key_of(word), of_training)]
        decides = [word for word in known if not key_of(word).startswith("hydra") and not is_axis(word)]
        folder = folder_of(sweep, decides)
    of_script = [word for word in arguments if key_of(word) in own or word not in known]
    return [f"runs={folder}", *of_script]


def before_training(arguments: Sequence[str]) -> list[str] | None:
    """The arguments of train.py for the model that writes a sweep's text, where that is an entry of conf/sweep of which
    no weights are there yet; None where nothing is to be trained before. Raises UserError."""
    plain = [word for word in arguments if word not in ("-m", "--multirun") and not is_axis(word)]
    with configuration():
        config = compose("train", known_keys("train", [quoted(settled(word)) for word in plain]))
        generator = config.data.generator
    folder = Path(expanded(str(generator)))
    known = generator is not None and CONF.joinpath("sweep", f"{folder.name}.yaml").is_file()
    if not known or any(folder.glob("runs/*/model.pt")):
        return None
    alike = [word for word in plain if key_of(word) in ("size", "hydra/launcher", "device", "precision", "tracking")]
    return ["-m", f"+sweep={folder.name}", f"output_directory={folder.parent}", *alike]


def after_training(folder: Path) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """The scripts that follow a sweep's training, each with its arguments, and lines to say before.

    One law is fitted to all cells; variants are compared, where one axis tells them apart, or one and settings of which
    each variant has its best. Of settings alone, several with three values or more each, the best are fitted. A claim
    is decided by what was fitted or compared, or by the run table alone.
    """
    content = read_sweep(SweepFolder(folder))
    axes, runs = axes_of(content), f"runs={folder}"
    last = [("report", [runs])]
    if claim := content.get("claim"):
        from harness.laws.claims.quantities import needed  # half a second, which most targets do not need

        last = [("claim", [runs]), *last]
        if needed(claim["quantity"]) is None:
            return last, []
    if not axes:
        return [("fit", [runs]), *last], []
    others = [axis for axis in axes if not _is_setting(axis, [cell.get(axis) for cell in content["cells"]])]
    if len(axes) == 1 or len(others) == 1:
        return [("compare", [runs, f"column={(others or axes)[0]}"]), *last], []
    if not others and all(len({cell.get(axis) for cell in content["cells"]}) > 2 for axis in axes):
        return [("tune", [runs]), *last], []
    fixed = " and ".join(f"{axis}=={content['cells'][0][axis]}" for axis in axes[1:])
    command = shlex.join(["python", "scripts/compare.py", runs, f"column={axes[0]}", f"filter={fixed}"])
    return last, [f"{' and '.join(axes)} vary: compare one with the others fixed, as in {command}"]


def claims() -> list[str]:
    """The entries of conf/sweep that state a claim."""
    files = sorted(Path(str(CONF.joinpath("sweep"))).glob("*.yaml"))
    return [file.stem for file in files if "claim" in (yaml.load(file.read_text(), Loader=yaml.CSafeLoader) or {})]


def folder_of_claims(arguments: Sequence[str]) -> Path:
    """The folder that holds the sweeps of all claims, trained with these overrides; raises UserError."""
    named = [word for word in arguments if key_of(word) == "name"]
    if named:
        raise UserError(f"{named[0]} would give the sweeps of all claims one folder: leave it out")
    with configuration():
        return folder_of("claims", [word for word in arguments if key_of(word) == "output_directory"]).parent


def _is_setting(axis: str, values: Sequence[object]) -> bool:
    """Whether compare.py chooses the best value of an axis for each variant."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return TUNED.fullmatch(axis) is not None and numbers


def grid_of(sweep: str, arguments: Sequence[str]) -> list[str]:
    """The overrides of an entry of conf/sweep, or of a sweep that was trained into a folder of that name."""
    if CONF.joinpath("sweep", f"{sweep}.yaml").is_file():
        return [f"+sweep={sweep}"]
    where = [word for word in arguments if key_of(word) == "output_directory"]
    with configuration():
        folder = folder_of(sweep, where)
    overrides = read_sweep(SweepFolder(folder)).get("overrides") or []
    return [str(line) for line in overrides if key_of(str(line)) != "hydra/launcher"]


def default_sweep() -> str:
    """gpu where a GPU is seen, else cpu."""
    found = shutil.which("nvidia-smi")
    listed = subprocess.run([found, "-L"], capture_output=True, text=True).stdout if found else ""
    return "gpu" if listed.strip() else "cpu"


def folder_of(sweep: str, arguments: Sequence[str]) -> Path:
    """Where train.py trains the entry `sweep` of conf/sweep with these overrides, or a sweep of that name.

    Within a context in which Hydra composes.
    """
    grid = f"+sweep={sweep}" if CONF.joinpath("sweep", f"{sweep}.yaml").is_file() else f"name={sweep}"
    fixed = [quoted(settled(argument)) for argument in arguments]
    config = compose("train", known_keys("train", [grid, *fixed]))
    check_name(str(config.name))
    return Path(expanded(str(config.output_directory))) / str(config.name)


def of_train_py(key: str, keys_of_training: Sequence[str]) -> bool:
    """Whether it is a key or a group of conf/train.yaml."""
    return key in keys_of_training or key.startswith("hydra") or CONF.joinpath(key).is_dir() and key != ""


def is_axis(argument: str) -> bool:
    """Whether it is key=a,b,c."""
    value = re.sub(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\{[^}]*\}", "", quoted(argument).partition("=")[2])
    return "," in value


def key_of(argument: str) -> str:
    return argument.partition("=")[0].lstrip("+~")
