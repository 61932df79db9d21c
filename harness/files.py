"""Writing files so that a reader sees the old content or the new, never a part."""

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.errors import UserError


def write_atomically(path: Path, content: bytes | str | Callable[[Path], object]) -> None:
    """Replaces `path` by `content`; a callable is given the temporary path and writes it itself.

    Raises UserError where the disk is full or the folder cannot be written to.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise file_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # on a read-only disk even what is not there cannot be removed
            temporary.unlink(missing_ok=True)


def remove_temporary(folder: Path) -> None:
    """Removes what killed writers of write_atomically left in `folder`, which no other process may be writing to."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def file_error(path: Path, error: OSError) -> UserError:
    """The one sentence that a failed write deserves."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UserError(f"no space left to write {path}: free some, or choose another output_directory")
    return UserError(f"cannot write {path} ({error.strerror}): choose an output_directory that you can write to")


def make_folder(path: Path) -> Path:
    """`path` as an existing folder that can be written to; UserError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{os.getpid()}-{secrets.token_hex(4)}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise file_error(path, error) from error
    return path


@contextlib.contextmanager
def folder_unless_refused(path: Path) -> Iterator[None]:
    """make_folder(path); where the body raises, the folders that were made for it are removed while still empty."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    make_folder(path)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()
        raise
