"""Local corpus files: which of a folder are its documents, and a hash of them."""

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

from harness.errors import UserError

# What each extension is read as, with or without one of COMPRESSED behind it.
KINDS = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".zip": "archive",
    ".tar": "archive",
    ".tgz": "archive",
}
COMPRESSED = (".gz", ".zst", ".xz", ".bz2", ".lz4")
# Beside others, a .json file is about them, and an archive a copy of them.
BESIDE = (".json", ".zip", ".tar", ".tgz")
# Text that lies beside data of another kind, and JSON that lies beside other JSON.
ABOUT_DATA = re.compile(
    r"(readme|licen[cs]e|copying|notice|citation|change(log|s)|authors|contribut(ing|ors)|datasheet|dataset_card|"
    r"(sha\d+|md5)sums?|checksums?|requirements|vocab|merges|dataset_infos?|dataset_dict|state|config|metadata)\b.*",
    re.IGNORECASE,
)
# Hashing a gigabyte takes about a second; of a larger corpus the sizes and the ends of its files are hashed.
FULL_HASH_BYTES = 2**30
END_BYTES = 2**20
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class Found(NamedTuple):
    """`skipped` counts, in words, what lies there and is no document."""

    files: list[Path]
    kind: str
    skipped: Counter[str]


def extension_of(name: PurePath) -> tuple[str, str]:
    """Its extension in lower case, and that of its compression or ""."""
    last = name.suffix.lower()
    return (PurePath(name.stem).suffix.lower(), last) if last in COMPRESSED else (last, "")


def kind_of(name: PurePath) -> str | None:
    return KINDS.get(extension_of(name)[0])


def find_files(path: str) -> Found:
    """The documents behind `path`: a file, a glob, or a folder with everything readable below it, sorted.

    Raises UserError where there is none, where their kinds differ, and for a file that holds a Git LFS pointer.
    """
    skipped: Counter[str] = Counter()
    try:
        names = _behind(Path(path).expanduser(), skipped)
        whole = [name for name in names if name.stat().st_size > 0]
    except (OSError, RuntimeError) as error:  # the second is of a ~ without a home
        raise _unreadable(getattr(error, "filename", None) or path, error) from error
    skipped["empty file"] += len(names) - len(whole)
    kind, files = choose(whole, str(path), skipped)
    if not files:
        if names and not whole:
            raise UserError(f"data.path={path} holds no text, its files are empty: choose a corpus with documents")
        hint = "; data=disk reads what save_to_disk wrote" if any(name.suffix == ".arrow" for name in names) else ""
        raise UserError(f"data.path={path} matches no {_extensions()} file: give a file, a glob or a folder{hint}")
    return Found(sorted(files), kind, +skipped)


def _behind(root: Path, skipped: Counter[str]) -> list[Path]:
    if root.is_dir():
        return list(_walk(root, skipped))
    if root.is_file():
        if kind_of(root) is None:
            raise UserError(f"data.path: {root} is of no known kind: rename it to one of {_extensions()}")
        return [root]
    return [Path(name) for name in glob.glob(str(root), recursive=True) if Path(name).is_file()]


def _unreadable(path: str | Path, error: Exception) -> UserError:
    return UserError(f"data.path: {path} cannot be read ({getattr(error, 'strerror', None) or error})")


def choose(names: list[Path], where: str, skipped: Counter[str]) -> tuple[str, list[Path]]:
    """The kind of the documents among `names` and those that are documents; the others are counted in `skipped`.

    What is of no known kind is none. Text about data, such as a README, is none beside data of another kind, nor are
    .json files and archives beside anything else, nor a compressed copy beside its original. Raises UserError.
    """
    known = [name for name in names if kind_of(name)]
    skipped["file of another kind"] += len(names) - len(known)
    main = [name for name in known if extension_of(name)[0] not in BESIDE and not _is_about_data(name)]
    plain = [name for name in main if not extension_of(name)[1]]
    kinds = sorted({str(kind_of(name)) for name in plain or main or _weaker(known)})
    if len(kinds) > 1:
        raise UserError(f"data.path={where} mixes {' and '.join(kinds)} files: give files of one kind, as by a glob")
    if not kinds:
        return "", []
    same = [name for name in known if kind_of(name) == kinds[0]]
    if plain or main:
        beside = [name for name in same if extension_of(name)[0] in BESIDE]
    else:
        beside = [name for name in same if name not in _weaker(known)]
    originals = {str(name) for name in same}
    copies = [name for name in same if extension_of(name)[1] and str(name.with_suffix("")) in originals]
    chosen = [name for name in same if name not in set(beside) | set(copies)]
    skipped["compressed copy"] += len(set(copies) - set(beside))
    skipped["file beside the documents"] += len(known) - len(same) + len(beside)
    return kinds[0], chosen


def _is_about_data(name: PurePath) -> bool:
    return kind_of(name) == "text" and ABOUT_DATA.fullmatch(name.name) is not None


def _weaker(known: list[Path]) -> list[Path]:
    """What is taken where nothing else is there: .json files, then archives, then text about data."""
    json = [name for name in known if kind_of(name) == "json"]
    archives = [name for name in known if kind_of(name) == "archive"]
    return [name for name in json if not ABOUT_DATA.fullmatch(name.name)] or archives or json or known


def _walk(root: Path, skipped: Counter[str]) -> Iterator[Path]:
    """The files below `root`, links followed, less hidden ones and what systems put beside them; each folder once."""

    def refuse(error: OSError) -> None:
        raise error

    seen = {os.path.realpath(root)}
    for folder, below, names in os.walk(root, followlinks=True, onerror=refuse):
        visible = [name for name in below if not is_hidden(name)]
        skipped["hidden file or folder"] += len(below) - len(visible)
        below.clear()
        for name in sorted(visible):
            if (real := os.path.realpath(os.path.join(folder, name))) not in seen:
                seen.add(real)
                below.append(name)
        for name in names:
            if is_hidden(name):
                skipped["hidden file or folder"] += 1
            elif (file := Path(folder, name)).is_file():
                yield file
            elif file.is_symlink():
                skipped["broken link"] += 1


def is_hidden(name: str) -> bool:
    """A dot file, as git, editors, macOS and the hub's cache have them, a lock of Office's, or a folder of systems."""
    return name.startswith((".", "~$")) or name in ("__MACOSX", "__pycache__", "$RECYCLE.BIN")


def _extensions() -> str:
    return ", ".join(KINDS) + f" (or these with {', '.join(COMPRESSED)})"


def in_words(skipped: Counter[str]) -> str:
    """As in "3 hidden files or folders, 1 empty file"."""
    plural = {"hidden file or folder": "hidden files or folders", "compressed copy": "compressed copies"}
    plural |= {name: name.replace("file ", "files ") for name in skipped if name.startswith("file ")}
    plural |= {name: name.replace("document ", "documents ") for name in skipped if name.startswith("document ")}
    return ", ".join(
        f"{count} {name if count == 1 else plural.get(name, name + 's')}" for name, count in skipped.items() if count
    )


def fingerprint(files: Iterable[Path]) -> str:
    """A hash of the files' contents, whatever their names and folder."""
    files = list(files)
    whole = sum(file.stat().st_size for file in files) <= FULL_HASH_BYTES
    return hashlib.sha256(b"".join(sorted(_file_hash(file, whole) for file in files))).hexdigest()


def _file_hash(file: Path, whole: bool) -> bytes:
    size = file.stat().st_size
    digest = hashlib.sha256(b"%d" % size)
    try:
        with open(file, "rb") as content:
            block = content.read(END_BYTES)
            if block.startswith(LFS_POINTER):
                raise UserError(f"data.path: {file} is a Git LFS pointer, not the data: run `git lfs pull` there")
            if whole or size <= 2 * END_BYTES:
                while block:
                    digest.update(block)
                    block = content.read(END_BYTES)
            else:
                digest.update(block)
                content.seek(size - END_BYTES)
                digest.update(content.read(END_BYTES))
    except OSError as error:
        raise _unreadable(file, error) from error
    return digest.digest()
