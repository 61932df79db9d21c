"""How far a token store has come: a bar in a terminal, a plain line at times elsewhere, nothing where it is quick."""

import contextlib
import threading
import time
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from harness.units import duration

QUIET_SECONDS = 3.0
LINE_SECONDS = 30.0
BAR_SECONDS = 0.2


class Meter:
    """Shows `update` while the context lasts; `doing` begins its lines."""

    def __init__(self, console: Console | None = None, doing: str = "tokenizing") -> None:
        self.doing = doing
        self.console = console or Console()
        self.bar: Progress | None = None
        self.began = time.monotonic()
        self.due = self.began + QUIET_SECONDS
        self.shown = False

    def __enter__(self) -> "Meter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()

    def update(self, done: float, tokens: int | None, text_bytes: int) -> None:
        """`done` is the share of what is to do, the counts are since the meter began."""
        now = time.monotonic()
        if now < self.due:
            return
        seconds = now - self.began
        said = "" if tokens is None else f"{tokens / 1e6:.1f}M tokens, "
        said += f"{text_bytes / seconds / 1e6:.1f} MB/s"
        if 0 < done < 1:
            said += f", about {duration(seconds * (1 - done) / done)} left"
        if self.console.is_terminal:
            self.due = now + BAR_SECONDS
            self._draw(done, said)
        else:
            self.due = now + LINE_SECONDS
            line = f"{self.doing}: {100 * done:.0f} %, {said}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _draw(self, done: float, said: str) -> None:
        if self.bar is None:
            columns = TextColumn(self.doing), BarColumn(), TextColumn("{task.percentage:.0f} %  {task.description}")
            self.bar = Progress(*columns, console=self.console, transient=True)
            self.bar.add_task("", total=1.0)
            self.bar.start()
        self.bar.update(self.bar.task_ids[0], completed=done, description=said)


@contextlib.contextmanager
def told_once_slow(line: str) -> Iterator[None]:
    """Prints `line` where what is done within it takes longer than QUIET_SECONDS."""
    timer = threading.Timer(QUIET_SECONDS, lambda: Console().print(line, markup=False, highlight=False, soft_wrap=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
