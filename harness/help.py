"""What --help prints: a script's calls, then every key with its default and its comment, grouped as in conf/."""

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from importlib.resources import files
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.arguments import quoted

CONF = files("harness.conf")
# Groups of conf/ that add no keys of their own, and how they are chosen.
CHOICES = {"sweep": "+sweep=", "hydra/launcher": "hydra/launcher="}
WIDTH = 120


def print_help(name: str, about: str, arguments: Sequence[str] = ()) -> None:
    """Prints `about` and the keys of conf/<name>.yaml with the entries of its groups that are asked for.

    Within a context in which Hydra composes.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    with console.capture() as written:
        console.print(Text(about.strip()), end="\n\n")
        console.print(page(name, [quoted(argument) for argument in arguments if _chooses(argument)]))
    print("\n".join(line.rstrip() for line in written.get().splitlines()))


def _chooses(argument: str) -> bool:
    """Whether it is one entry of a group of conf/, as in model=llama."""
    group, equals, entry = argument.partition("=")
    named = re.fullmatch(r"\w[\w.-]*", entry) and entry.lower() != "null"
    return bool(equals and named) and CONF.joinpath(group.lstrip("+")).is_dir()


def page(name: str, overrides: list[str]) -> RenderableType:
    """The keys of conf/<name>.yaml as it is composed."""
    config = compose(name, overrides, return_hydra_config=True)
    chosen = config.hydra.runtime.choices
    mark = " (chosen)" if overrides else " (the default)"
    about = _schema_comments(config) or {key: comment for key, _, comment in _file_rows(name)}
    keys = [str(key) for key in config if key != "hydra"]
    plain = [key for key in keys if not OmegaConf.is_dict(config[key])]
    parts = _section(f"conf/{name}.yaml", _rows(config, plain, "", about))
    for key in (key for key in keys if key not in plain):
        rows = _rows(config[key], list(config[key]), f"{key}.", _schema_comments(config[key]))
        if CONF.joinpath(key).is_dir():
            parts += _section(f"{key}=", _options(key, chosen[key], mark), rows)
        else:
            parts += _section(key, rows)
    if name == "train":
        for group, written in CHOICES.items():
            parts += _section(written, _options(group, chosen.get(group), mark))
        for entry in ("local", "slurm"):
            rows_of_entry = _file_rows(f"hydra/launcher/{entry}")
            parts += _section(
                f"hydra/launcher={entry}", [(f"hydra.launcher.{key}", *rest) for key, *rest in rows_of_entry]
            )
    return Group(*parts[:-1])


def _section(title: str, *tables: Iterable[tuple[str, ...]]) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(title, style="bold")]
    for rows in tables:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        for row in rows:
            table.add_row(*map(Text, row))
        parts += [Padding(table, (0, 0, 0, 2)), Text()]
    return parts


def _rows(
    config: DictConfig, keys: Iterable[Any], prefix: str, comments: dict[str, str]
) -> Iterator[tuple[str, str, str]]:
    """Key, default and comment of each key; those of a node follow its own."""
    for key in map(str, keys):
        comment = comments.get(key, "")
        if OmegaConf.is_dict(config[key]):
            yield f"{prefix}{key}", "", comment
            yield from _rows(config[key], list(config[key]), f"{prefix}{key}.", _schema_comments(config[key]))
        else:
            yield f"{prefix}{key}", _shown(config[key]), comment


def _shown(value: Any) -> str:
    """A value as the command line takes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if OmegaConf.is_list(value):
        return f"[{','.join(map(_shown, value))}]"
    return f"{value:.12g}" if isinstance(value, float) else str(value) or "''"


def _options(group: str, chosen: str | None, mark: str) -> Iterator[tuple[str, str]]:
    """The entries of a group of conf/, the chosen one with a mark, each with the first sentence of its file."""
    files_of_group = (path.name for path in CONF.joinpath(group).iterdir())
    for name in sorted(name.removesuffix(".yaml") for name in files_of_group if name.endswith(".yaml")):
        yield name + mark * (name == chosen), _first_sentence(f"{group}/{name}")


def _first_sentence(entry: str) -> str:
    lines = CONF.joinpath(f"{entry}.yaml").read_text().splitlines()
    lines = [line for line in lines if not line.startswith("# @package")]
    head = next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return re.split(r"\.(?:\s+(?=[A-Z])|$)", " ".join(line.removeprefix("# ") for line in lines[:head]))[0]


def _schema_comments(config: DictConfig) -> dict[str, str]:
    """The comments of a node's fields: at the end of the line of each in its dataclass, or above that line."""
    schema, comments = OmegaConf.get_type(config), {}
    for kind in reversed(schema.__mro__) if schema and is_dataclass(schema) else ():
        above: list[str] = []
        for line in inspect.getsource(kind).splitlines() if is_dataclass(kind) else ():
            if field := re.fullmatch(r"    (\w+): .*?(?:  # (.*))?", line):
                comments[field[1]] = field[2] or " ".join(above)
            above = [*above, line[6:]] if line.startswith("    # ") else []
    return comments


def _file_rows(entry: str) -> list[tuple[str, str, str]]:
    """Key, default and comment of each key of a file of conf/ that has no schema."""
    rows, above = [], ""
    text = CONF.joinpath(f"{entry}.yaml").read_text().replace("defaults:\n", "")
    for indent, key, default, comment in re.findall(r"^( *)(\w+): ?([^#\n]*?)(?:  # (.*))?$", text, re.MULTILINE):
        above = above if indent else key
        rows.append((f"{above}.{key}" if indent else key, default, comment))
    return rows
