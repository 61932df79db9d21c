"""What a user wrote, found by its name in the working folder or an installed package, and the sources behind it."""

import ast
import hashlib
import importlib
import importlib.metadata
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.machinery import FileFinder, ModuleSpec
from pathlib import Path
from typing import Any

from harness.errors import UserError

PATH = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
TARGET = re.compile(rf"{PATH}:{PATH}")
INSTALLED = ("site-packages", "dist-packages")
OURS = "harness"  # whose changes are told by grid.TRAINING_REVISION
SAID = 300  # letters of other people's errors


@dataclass(frozen=True)
class Loaded:
    """code: the SHA-256 of each module that it is made of, by name, or the version of an installed package."""

    value: Callable[..., Any]
    code: dict[str, str]


def check_target(group: str, name: str, target: str | None, args: dict[str, Any]) -> None:
    """Raises UserError where target and args do not go with the entry `name` of model= or optimizer= (`group`)."""
    if name != "custom":
        key = "target" if target is not None else "args"
        if target is not None or args:
            raise UserError(f"{group}.{key} goes with {group}=custom alone: add that, or leave {group}.{key} out")
    elif target is None:
        raise UserError(f"{group}.target has no value: name what you wrote, as in {group}.target=package.module:Name")
    elif not TARGET.fullmatch(target):
        raise UserError(f"{group}.target={target} names nothing: write package.module:Name")


@cache
def load(group: str, target: str) -> Loaded:
    """What `target` (package.module:name) names, with its sources as they are now. Raises UserError."""
    module, _, name = target.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        where = f": run from the folder that holds {module}" if _is_missing(module, error) else ""
        raise UserError(f"{group}.target={target} cannot be imported ({said(error)}){where}") from error
    code = sources(module)
    for part in name.split("."):
        if not hasattr(found, part):
            raise UserError(f"{group}.target={target}: {module} has no {name}: correct the name")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"{group}.target={target} is a {type(found).__name__}: name a class or a function")
    return Loaded(found, code)


def _is_missing(module: str, error: BaseException) -> bool:
    return isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")


def said(error: BaseException) -> str:
    """An error in its own words, and the last line of the user's that it went through."""
    words = " ".join(str(error).split())[:SAID]
    files = ((frame, Path(frame.filename)) for frame in traceback.extract_tb(error.__traceback__))
    lines = [frame for frame, file in files if file.is_file() and _is_own(file)]
    where = f", in {Path(lines[-1].filename).name} line {lines[-1].lineno}" if lines else ""
    return f"{type(error).__name__}: {words}{where}"


@contextmanager
def refused(what: str, advice: str = "") -> Iterator[None]:
    """Within it what a user wrote runs: an error of its own becomes one sentence, `what` it does and the error."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what} ({said(error)}){advice}") from error


def sources(module: str) -> dict[str, str]:
    """The SHA-256 of `module` and of all that it imports, itself or by others, by name: of its own package, and of what
    else lies below the working folder; of a package that is installed its version alone. It is read from the sources,
    so that every process finds the same."""
    found: dict[str, str] = {}
    seen, rest = set[str](), [module]
    package = module.split(".")[0]
    file = _file(module)
    if file is not None and set(INSTALLED) & set(file.parts) and not _is_own(file):
        names = importlib.metadata.packages_distributions().get(package, [])
        return {name: importlib.metadata.version(name) for name in sorted(set(names))}
    while rest:
        parts = rest.pop().split(".")
        for name in (".".join(parts[: end + 1]) for end in range(len(parts))):
            if name in seen:
                continue
            seen.add(name)
            file = None if parts[0] == OURS else _file(name)
            if file is None or not (parts[0] == package or _is_own(file)):
                continue
            content = file.read_bytes()
            found[name] = hashlib.sha256(content).hexdigest()
            rest += _imported(name, file, content)
    return dict(sorted(found.items()))


def _is_own(file: Path) -> bool:
    """Whether a file lies below the working folder, outside of environments there and of this package."""
    here, ours = Path.cwd().resolve(), Path(__file__).resolve().parents[1]
    file = file.resolve()
    if not file.is_relative_to(here) or file.is_relative_to(ours):
        return False
    return not set(INSTALLED) & set(file.relative_to(here).parts)


def _file(name: str) -> Path | None:
    spec, _ = _found(name)
    file = Path(spec.origin) if spec is not None and spec.origin and spec.has_location else None
    return file if file is not None and file.is_file() else None


def _found(name: str) -> tuple[ModuleSpec | None, list[str]]:
    """A module's spec, and the folders of its submodules; nothing is imported for it."""
    parent = name.rpartition(".")[0]
    if not parent:
        specs = (finder.find_spec(name, None) for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((spec for spec in specs if spec is not None), None)
        return spec, list(spec.submodule_search_locations or []) if spec is not None else []
    parts: list[str] = []  # of a package without __init__.py, which may lie in several folders
    for folder in _found(parent)[1]:
        finder = pkgutil.get_importer(folder)
        spec = finder.find_spec(name) if isinstance(finder, FileFinder) else None
        if spec is not None and spec.loader is not None:
            return spec, list(spec.submodule_search_locations or [])
        parts += (spec.submodule_search_locations or []) if spec is not None else []
    return None, parts


def _imported(name: str, file: Path, content: bytes) -> Iterator[str]:
    """The names that a module imports, anywhere in it; some may be no modules."""
    if file.suffix != ".py":
        return
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    try:
        tree = ast.parse(content)
    except SyntaxError:  # of one that is imported later, if ever
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            values = (part.value for part in node.args if isinstance(part, ast.Constant))
            yield from (value for value in values if isinstance(value, str) and re.fullmatch(PATH, value))
