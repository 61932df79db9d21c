"""What a launcher does before anything trains, told to whoever looks at the sweep's folder."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.files import is_alive, process_mark
from harness.units import duration


@contextmanager
def preparing(folder: Path) -> Iterator[Callable[[str], None]]:
    """Within it the result says in a file what is being done; only a killed process does not remove that."""
    for left in folder.glob(".preparing-*"):
        if not is_alive(left):
            left.unlink(missing_ok=True)
    pid, host = process_mark().split(" ", 1)
    file = folder / f".preparing-{host}-{pid}"

    def say(what: str) -> None:
        with suppress(OSError):
            file.write_text(f"{process_mark()}\n{what}\n")

    try:
        yield say
    finally:
        file.unlink(missing_ok=True)


def stages(folder: Path) -> list[str]:
    """A line for each launcher that prepares the sweep in `folder`, or was killed while it did."""
    lines = []
    for file in sorted(folder.glob(".preparing-*")):
        with suppress(OSError, IndexError):
            what, since = file.read_text().splitlines()[1], time.time() - file.stat().st_mtime
            if is_alive(file):
                lines.append(f"{folder}: {what}, for {duration(since)} now; nothing trains before that is done")
            else:
                lines.append(f"{folder}: {what}, when the process was killed; the same command goes on from here")
    return lines
