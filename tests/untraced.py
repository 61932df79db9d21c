"""Work for which coverage looks away: it would be called back at each function, and nothing runs as fast meanwhile. Of
other packages, in which no line of ours runs, and what our loops repeat once its lines were seen."""

import functools
import sys
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

SEEN = 5  # of one kind


def untrace(owner: Any, name: str, kind: Callable[..., Hashable] | None = None) -> None:
    """Has this function of a class or module run without what traces lines, if anything does.

    With a `kind`, which its arguments give, the first of each kind are traced.
    """
    function: Callable[..., Any] = getattr(owner, name)
    seen: Counter[Hashable] = Counter()

    @functools.wraps(function)
    def call(*arguments: Any, **more: Any) -> Any:
        tracer = sys.gettrace()
        if not hasattr(tracer, "stop"):  # there is none, or it is a debugger's
            return function(*arguments, **more)
        if kind is not None:
            seen[of := kind(*arguments, **more)] += 1
            if seen[of] <= SEEN:
                return function(*arguments, **more)
        tracer.stop()
        try:
            return function(*arguments, **more)
        finally:
            tracer.start()

    setattr(owner, name, call)
