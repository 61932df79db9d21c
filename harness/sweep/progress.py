"""The live view of a sweep: a panel in a terminal, plain lines elsewhere."""

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.errors import UserError
from harness.sweep.snapshot import ENDED, CellState, Snapshot, SweepReader, snapshot
from harness.units import data_size, duration, machine_hours

__all__ = ["Progress", "Snapshot", "heartbeat", "outcome", "render", "snapshot"]

POLL_SECONDS = 1.0
HEARTBEAT_SECONDS = 60.0
# What fits in 25 lines of 80 columns.
MOST_ROWS, MOST_BUDGETS, MOST_RUNNING, MOST_FAILURES, MOST_FINISHED = 10, 7, 4, 3, 8
STYLES = {"finished": "default", "diverged": "magenta", "failed": "red", "running": "cyan", "quiet": "yellow"}


class Progress:
    """Shows a sweep while the context lasts, from a thread of its own that reads the sweep's files."""

    def __init__(self, sweep_dir: Path, console: Console | None = None) -> None:
        self.console = console or Console()
        self._reader = SweepReader(sweep_dir)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self._started = time.time()
        self._ended: dict[str, str] | None = None  # how each cell had ended when last looked at
        self._said, self._line = 0.0, ""

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._show(last=True)
        if self._live:
            self._live.stop()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._show()
            self._stop.wait(POLL_SECONDS)

    def _show(self, last: bool = False) -> None:
        try:
            now = self._reader.snapshot()
        except (OSError, UserError):
            # No sweep.yaml yet, or one of another schema: the sweep itself says so, the view only waits.
            return
        if self._live:
            self._live.update(render(now, now.time - self._started), refresh=True)
        else:
            self._say(now, last)

    def _say(self, now: Snapshot, last: bool) -> None:
        known, self._ended = self._ended, {cell.cell: cell.status for cell in now.of(*ENDED)}
        lines = []
        if known is not None:
            for cell in now.of(*ENDED):
                if known.get(cell.cell) != cell.status:
                    lines.append(_ended_line(cell, now))
        if not lines and (last or now.time - self._said >= HEARTBEAT_SECONDS):
            lines = [line for line in [heartbeat(now)] if line != self._line or not last]
        for line in lines:
            clock = time.strftime("%H:%M:%S", time.localtime(now.time))
            self.console.print(f"{clock}  {line}", markup=False, highlight=False, soft_wrap=True)
            self._said, self._line = now.time, line


def render(now: Snapshot, elapsed: float | None = None) -> RenderableType:
    """The panel: counts, a bar over training FLOPs, losses by shape and budget, what runs, what failed."""
    parts: list[RenderableType] = [_counts(now), _bar(now), _pace(now, elapsed), ""]
    matrix = _matrix(now)
    if matrix is not None:
        parts += [matrix, ""]
    elif now.of("finished"):
        parts += [_latest(now), ""]
    begun = sorted(now.of("running", "quiet"), key=lambda cell: (cell.status == "quiet", -cell.changed))
    if begun:
        parts += [_running(begun[:MOST_RUNNING], now), *_more(begun, MOST_RUNNING), ""]
    lost = sorted(now.of("failed", "diverged"), key=lambda cell: -cell.changed)
    for cell in lost[:MOST_FAILURES]:
        why = " ".join((cell.error or "").split())
        what = f" {cell.label} {cell.status}" + (f" in SLURM job {cell.job}" if cell.job else "")
        line = Text(what, style=STYLES[cell.status], no_wrap=True, overflow="ellipsis")
        parts.append(line.append(f"  {why}", style="default") if why else line)
    parts += _more(lost, MOST_FAILURES)
    if any(cell.job for cell in now.cells):
        parts.append(Text(" logs: slurm/JOB/ in the sweep's folder", style="dim"))
    return Group(*(parts if parts[-1] != "" else parts[:-1]))


def outcome(now: Snapshot, disk_bytes: int, ended: bool = False) -> list[str]:
    """What the sweep took, what it cost, what was lost and why, and how to train what is left once nothing runs.

    ended: that nothing runs is known, however young the last row of a process that was killed.
    """
    wall, estimate = now.launch.get("wall_seconds"), now.launch.get("estimated_seconds")
    lines = []
    if wall and estimate:
        lines.append(f"took {duration(wall)}, {wall / estimate:.2f} of the {duration(estimate)} that were estimated")
    rate = f", at {_percent(now.utilization)} of the device's rate of matrix products" if now.utilization else ""
    lines.append(f"cost {machine_hours(now.process_seconds, now.machine)}{rate}, and {data_size(disk_bytes)} of disk")
    if now.joules is not None:
        lines.append(f"its GPUs took {now.joules / 3.6e6:.3g} kWh while its jobs ran, other programs on them included")
    for cell in now.of("failed", "diverged"):
        lines.append(f"{cell.status}: {cell.cell}: {' '.join((cell.error or '').split())}")
    missing = len(now.cells) - now.count(*ENDED)
    if now.count("running") and not ended:
        return lines
    if missing:
        lines.append(f"{missing} cells have no record: they were not begun, or their process was killed")
    if now.command and (missing or now.count("failed")):
        lines.append(f"what is left, and no other cell: {now.command}")
    return lines


def heartbeat(now: Snapshot) -> str:
    """The sweep in one plain line."""
    parts = [f"{now.count('finished')}/{len(now.cells)} cells"]
    for status in ("running", "quiet", "failed", "diverged"):
        if now.count(status):
            parts.append(f"{now.count(status)} {status}")
    parts.append(f"{_percent(now.done)} of the FLOPs")
    return ", ".join(parts + _speed(now) + _left(now))


def _ended_line(cell: CellState, now: Snapshot) -> str:
    what = f"loss {_loss(cell)}" if cell.status == "finished" else cell.status
    if cell.status != "finished" and cell.error:
        what += f" ({' '.join(cell.error.split())})"
    sweep = [f"{now.count('finished')}/{len(now.cells)} cells", *_left(now)]
    return f"{cell.label}  {what}  {', '.join(sweep)}"


def _counts(now: Snapshot) -> Text:
    text = Text(f" {now.name}", style="bold").append("   ")
    text.append(f"{now.count('finished')} of {len(now.cells)} cells", style="not bold")
    for status in ("running", "quiet", "waiting", "failed", "diverged"):
        if now.count(status):
            text.append(f"   {now.count(status)} {status}", style=f"not bold {STYLES.get(status, 'dim')}")
    return text


def _bar(now: Snapshot) -> Table:
    grid = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=1.0, completed=now.done, width=46, complete_style="cyan", finished_style="green")
    grid.add_row("", bar, f"{_percent(now.done)}  {', '.join(_left(now))}")
    return grid


def _pace(now: Snapshot, elapsed: float | None) -> Text:
    parts = [f"{_power(now.flops_done)} of {_power(now.flops_total)} FLOPs"]
    parts += _speed(now)
    if elapsed is not None:
        parts.append(f"{duration(elapsed)} so far")
    return Text(" " + " · ".join(parts), style="dim", no_wrap=True, overflow="ellipsis")


def _speed(now: Snapshot) -> list[str]:
    """Tokens a second of what runs, and its FLOPs as a share of what the device does in a large matrix product."""
    if not now.tokens_per_second:
        return []
    share = [f"{_percent(now.utilization)} of its rate"] if now.utilization else []
    return [f"{short(now.tokens_per_second)} tokens/s", *share]


def _matrix(now: Snapshot) -> Table | None:
    """Losses, a line a shape and seed, a column a budget; None where they do not fit or share a place."""
    budgets = sorted({_budget(cell) for cell in now.cells}, key=lambda budget: budget[0])
    rows = list(dict.fromkeys(cell.row for cell in now.cells))
    at = {(cell.row, _budget(cell)): cell for cell in now.cells}
    if len(rows) > MOST_ROWS or len(budgets) > MOST_BUDGETS or len(at) < len(now.cells):
        return None
    table = Table.grid(padding=(0, 1), pad_edge=True)
    table.add_column(no_wrap=True)
    for _ in budgets:
        table.add_column(width=7, justify="right", no_wrap=True)
    table.add_row("loss after", *(budget[1] for budget in budgets), style="dim")
    for row in rows:
        table.add_row(row, *(_entry(at.get((row, budget))) for budget in budgets))
    return table


def _budget(cell: CellState) -> tuple[float, str]:
    """A budget to two digits, so that rounding to whole steps of different batches does not tell it apart."""
    rounded = float(f"{cell.tokens:.1e}")
    return rounded, short(rounded)


def _entry(cell: CellState | None) -> Text:
    if cell is None:
        return Text("")
    if cell.status == "finished":
        return Text("done" if cell.loss is None else f"{cell.loss:.4f}")
    if cell.status in ("running", "quiet"):
        return Text(_percent(cell.done), style=STYLES[cell.status])
    return Text(*{"waiting": ("·", "dim"), "failed": ("failed", "red")}.get(cell.status, ("div.", "magenta")))


def _latest(now: Snapshot) -> Table:
    table = Table.grid(padding=(0, 2), pad_edge=True)
    table.add_row("last finished", "loss", "tokens/s", style="dim")
    latest = sorted(now.of("finished"), key=lambda cell: -cell.changed)[:MOST_FINISHED]
    for cell in latest:
        table.add_row(cell.label, _loss(cell), short(cell.tokens_per_second))
    return table


def _running(cells: list[CellState], now: Snapshot) -> Table:
    table = Table.grid(padding=(0, 1), pad_edge=True)
    for column in range(6):
        table.add_column(no_wrap=True, justify="right" if column > 1 else "left")
    jobs = "SLURM job" if any(cell.job for cell in cells) else ""
    table.add_row("training", "", "", "train loss", "tokens/s", jobs, style="dim")
    for cell in cells:
        bar = ProgressBar(total=1.0, completed=cell.done, width=16, complete_style=STYLES[cell.status])
        quiet = cell.status == "quiet"
        pace = f"quiet {duration(now.time - cell.changed)}" if quiet else short(cell.tokens_per_second)
        loss = "" if cell.loss is None else f"{cell.loss:.3f}"
        table.add_row(Text(cell.label, STYLES[cell.status]), bar, _percent(cell.done), loss, pace, cell.job or "")
    return table


def _more(cells: Iterable[CellState], shown: int) -> list[Text]:
    rest = len(list(cells)) - shown
    return [Text(f" and {rest} more", style="dim")] if rest > 0 else []


def _left(now: Snapshot) -> list[str]:
    ended = now.count(*ENDED) == len(now.cells)
    return [] if ended or now.seconds_left is None else [f"about {duration(now.seconds_left)} left"]


def _loss(cell: CellState) -> str:
    if cell.loss is None:  # on the text that corpora are compared on, which is evaluated from kept weights
        return ""
    se = "" if cell.loss_se is None else f" ± {cell.loss_se:.4f}".replace("0.", ".")
    return f"{cell.loss:.4f}{se}"


def _percent(share: float) -> str:
    """Rounded down: 100 % means all of it."""
    return f"{int(100 * share + 1e-9)} %"


def _power(flops: float) -> str:
    return f"{flops:.1e}".replace("e+0", "e").replace("e+", "e") if flops else "0"


def short(number: float | None) -> str:
    """31250 -> 31k, 1920000 -> 1.9M: at most three characters and a unit."""
    if number is None:
        return ""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            value = number / size
            return (f"{value:.1f}".removesuffix(".0") if value < 10 else f"{value:.0f}") + unit
    return f"{number:.0f}"
