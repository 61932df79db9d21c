"""The way of the data: who may import whom, as docs/architecture.md says it, and how large a part may be."""

import ast
import importlib
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST_ROOMS, MOST_LINES, MOST_LINES_OF_A_FUNCTION = 20, 405, 62


def sources(*folders: str) -> dict[str, str]:
    """The text of every Python file of the folders, by its path from the project's root."""
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}


HARNESS = sources("harness")


def orders(text: str) -> dict[str, list[str]]:
    """The rooms of each folder in their order, as architecture.md lists them: `folder/: first | second third`."""
    blocks = re.findall(r"^    ([\w/]+)/: ((?:.*\n)(?:     .*\n)*)", text, re.MULTILINE)
    return {folder: re.findall(r"\w+", rooms) for folder, rooms in blocks}


def file_of(module: str, among: dict[str, str]) -> str | None:
    """The file of a module, or of the package that it is."""
    path = module.replace(".", "/")
    return next((file for file in (f"{path}.py", f"{path}/__init__.py") if file in among), None)


def imports(files: dict[str, str]) -> dict[str, set[str]]:
    """The files that each file imports, within functions and by importlib too."""
    found: dict[str, set[str]] = {}
    for file, text in files.items():
        modules: set[str] = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                modules |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.module and node.level == 0, f"{file}: imports are written from the top, harness"
                parts = {f"{node.module}.{name.name}" for name in node.names}
                modules |= {part if file_of(part, files) else node.module for part in parts}
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                modules |= {part.value for part in node.args if isinstance(part, ast.Constant)}
        found[file] = {path for module in modules if (path := file_of(module, files))} - {file}
    return found


def room(file: str, folder: str) -> str | None:
    """The room of a file in a folder; the folder's own __init__.py is none."""
    if not file.startswith(f"{folder}/") or file == f"{folder}/__init__.py":
        return None
    return file.removeprefix(f"{folder}/").split("/")[0].removesuffix(".py")


def backward(files: dict[str, str], order: dict[str, list[str]]) -> list[str]:
    """A sentence for each import from a room that does not lie before that of its importer."""
    found = []
    for folder, rooms in order.items():
        place = {name: index for index, name in enumerate(rooms)}
        for file, targets in imports(files).items():
            for target in sorted(targets):
                own, other = room(file, folder), room(target, folder)
                if own and other and own != other and place[other] > place[own]:
                    found.append(f"{file} imports {target}, and {own} lies before {other}")
    return found


def test_every_import_runs_with_the_data():
    order = orders((ROOT / "docs" / "architecture.md").read_text())
    assert set(order) == {"harness", "harness/laws"}
    for folder, rooms in order.items():
        assert sorted(rooms) == sorted({name for file in HARNESS if (name := room(file, folder))})
    assert backward(HARNESS, order) == []


def test_what_stands_behind_the_run_table_knows_nothing_of_what_made_it():
    allowed = {"laws": {"errors", "files", "arguments", "commands", "records", "laws"}}
    allowed["report"] = allowed["laws"] | {"tracking", "report"}
    for file, targets in imports(HARNESS).items():
        own = room(file, "harness")
        if own in allowed:
            assert {room(target, "harness") for target in targets} - {None} <= allowed[own], file


def test_the_documents_import_what_is_there():
    pages = {page.name: page.read_text() for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]}
    found = [(page, *line) for page, text in pages.items()
             for line in re.findall(r"from (harness[\w.]*) import ([\w, ]+)", text)]  # fmt: skip
    assert len(found) >= 3
    for page, module, names in found:
        for name in names.split(","):
            assert hasattr(importlib.import_module(module), name.strip()), f"{page}: {module} has no {name}"


def test_no_files_import_each_other():
    try:
        TopologicalSorter(imports(HARNESS)).prepare()
    except CycleError as error:
        pytest.fail(f"these import each other: {' <- '.join(error.args[1])}")


def test_an_import_that_runs_back_is_named():
    files = {
        "a/__init__.py": "", "a/low.py": "def late():\n    from a.high import deep", "a/high/__init__.py": "",
        "a/high/deep.py": "from a import low\nimport importlib\nimportlib.import_module('a.last')", "a/last.py": "",
    }  # fmt: skip
    order = orders("    a/: low | high\n     last\n")
    assert order == {"a": ["low", "high", "last"]}
    assert imports(files)["a/high/deep.py"] == {"a/low.py", "a/last.py"}
    assert backward(files, order) == [
        "a/low.py imports a/high/deep.py, and low lies before high",
        "a/high/deep.py imports a/last.py, and high lies before last",
    ]


def test_parts_are_small_enough_to_read():
    folders = [f"harness/{path.name}" for path in (ROOT / "harness").iterdir() if path.suffix == ".py" or path.is_dir()]
    rooms = [name for name in folders if not name.endswith(("__init__.py", "__pycache__"))]
    assert len(rooms) <= MOST_ROOMS
    for file, text in sources("harness", "scripts", "tests", "benchmarks").items():
        assert len(text.splitlines()) <= MOST_LINES, f"{file} has {len(text.splitlines())} lines: split it by meaning"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                assert lines <= MOST_LINES_OF_A_FUNCTION, f"{file}: {node.name} has {lines} lines: split it by meaning"


def test_every_folder_of_code_is_a_package():
    """Else the wheel would lack it."""
    folders = {Path(file).parent.as_posix() for file in HARNESS}
    assert {folder for folder in folders if f"{folder}/__init__.py" not in HARNESS} == set()
