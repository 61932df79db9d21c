"""Work of other packages in which no line of ours runs, for which coverage looks away: it would be called back at each
of their functions."""

import functools
import sys
from collections.abc import Callable
from typing import Any


def untrace(owner: type, name: str) -> None:
    """Has this method of a class of another package run without what traces lines, if anything does."""
    method: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(method)
    def call(*arguments: Any, **more: Any) -> Any:
        tracer = sys.gettrace()
        if not hasattr(tracer, "stop"):  # there is none, or it is a debugger's
            return method(*arguments, **more)
        tracer.stop()
        try:
            return method(*arguments, **more)
        finally:
            tracer.start()

    setattr(owner, name, call)
