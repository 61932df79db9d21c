"""What of a sweep a process trains: a lock on the folder of a trunk or a cell, and a mark that only a kill leaves."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from harness.files import make_folder, process_mark, write_atomically


@contextlib.contextmanager
def claimed(folder: Path, lock_name: str = "lock", mark: bool = True) -> Iterator[bool]:
    """Whether this process, and no other, may train what `folder` holds until the end; never waits.

    Meanwhile a file `running` names it, which only a killed process does not remove; unless that is another's `mark`.
    """
    lock = FileLock((folder if folder.exists() else make_folder(folder)) / lock_name)
    with contextlib.suppress(Timeout):
        lock.acquire(timeout=0)
    if not lock.is_locked:
        yield False
        return
    file = folder / "running"
    try:
        if mark:
            write_atomically(file, process_mark(), durable=False)  # a full disk is told in a sentence
        yield True
    finally:
        if mark:
            file.unlink(missing_ok=True)
        lock.release()


def was_claimed(folder: Path, since: float) -> bool:
    """Whether a process has claimed `folder` after `since` and still does, or was killed meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return (folder / "running").stat().st_mtime >= since
    return False
