"""Standard output that may run full or be closed without stopping what writes to it."""

import os
import sys
from typing import Any


class Output:
    """A stream that takes the rest in silence once its file takes no more, and keeps why in `error`."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        try:
            self.file.write(text)
        except OSError as error:
            self._lost(error)
        return len(text)

    def flush(self) -> None:
        try:
            self.file.flush()
        except OSError as error:
            self._lost(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def _lost(self, error: OSError) -> None:
        self.error = self.error or error
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.file.fileno())  # what is in its buffer goes there when the process ends
        os.close(null)


def guarded() -> Output:
    """Standard output of this process as an Output from now on."""
    if not isinstance(sys.stdout, Output):
        # One that was closed before the start is None.
        sys.stdout = Output(sys.stdout or open(os.devnull, "w"))  # noqa: SIM115
    assert isinstance(sys.stdout, Output)
    return sys.stdout
