"""Writing files so that a reader sees the old content or the new, never a part."""

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.errors import UserError


def write_atomically(path: Path, content: bytes | str | Callable[[Path], object], durable: bool = True) -> None:
    """Replaces `path` by `content`; a callable is given the temporary path and writes it itself.

    durable: whether it is there after a loss of power too. Raises UserError where the disk is full or the folder cannot
    be written to.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        if durable:
            _sync(temporary)
        os.replace(temporary, path)
        if durable:
            _sync(path.parent)
    except OSError as error:
        raise file_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # on a read-only disk even what is not there cannot be removed
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporary(folder: Path) -> None:
    """Removes what killed writers of write_atomically left in `folder`, which no other process may be writing to."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def file_error(path: Path, error: OSError) -> UserError:
    """The one sentence that a failed write deserves."""
    if is_full(error):
        return UserError(f"no space left to write {path}: free some, or choose another output_directory")
    return UserError(f"cannot write {path} ({error.strerror}): choose an output_directory that you can write to")


def is_full(error: OSError) -> bool:
    """Of a disk, a quota or the size that a file may have."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


def homeless() -> bool:
    """Whether ~ stands for no folder: HOME is empty, or neither that nor an entry in passwd is there."""
    return os.environ.get("HOME") == "" or os.path.expanduser("~") == "~"


def process_mark() -> str:
    """What names this process in a file that is there while it works."""
    return f"{os.getpid()} {os.uname().nodename}"


def is_alive(mark: Path) -> bool:
    """Whether the process of a mark may still work: one of another machine, or of an older version, may."""
    try:
        pid, _, host = mark.read_text().partition("\n")[0].partition(" ")
    except OSError:
        return False
    if host == os.uname().nodename and pid.isdigit():
        with contextlib.suppress(PermissionError):
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                return False
    return True


def check_locks(folder: Path, key: str) -> None:
    """Raises UserError where a file in `folder`, which `key` names, cannot be locked: two jobs would share one work."""
    probe = folder / f".probe-{os.getpid()}-{secrets.token_hex(4)}"
    descriptor = os.open(probe, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise UserError(
            f"{folder} lies on a file system without file locks ({error.strerror}), and two jobs would do one work: "
            f"choose another {key}, or mount it with them (Lustre: -o flock)"
        ) from error
    finally:
        os.close(descriptor)
        probe.unlink()


@contextlib.contextmanager
def folder_unless_refused(path: Path) -> Iterator[None]:
    """make_folder(path) that locks; where the body raises, the folders made for it are removed while still empty."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    make_folder(path)
    try:
        check_locks(path, "output_directory")
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()
        raise
