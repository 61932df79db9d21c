"""What a sweep is going to train, and what it costs, before it does."""

from dataclasses import dataclass
from datetime import timedelta

from rich.table import Table

from harness.grid import Trunk, schedule_makespan, token_label


@dataclass(frozen=True)
class Plan:
    """The trunks of a sweep in the order of their jobs, and how many run at once.

    step_seconds: of each trunk, measured on this device, by name; None where nothing is left to train.
    """

    name: str
    trunks: tuple[Trunk, ...]
    slots: int
    finished: frozenset[str]  # cells that have ended for good
    step_seconds: dict[str, float]

    def seconds(self, trunk: Trunk) -> float:
        """Training time of what `trunk` has left: its trunk and the cooldowns of its unfinished cells."""
        left = [cell for cell in trunk.cells if cell.name not in self.finished]
        if not left:
            return 0.0
        steps = left[-1].branch_step + sum(cell.steps - cell.branch_step for cell in left)
        return steps * self.step_seconds[trunk.name]

    @property
    def wall_seconds(self) -> float:
        return schedule_makespan([self.seconds(trunk) for trunk in self.trunks], self.slots)

    @property
    def cells(self) -> int:
        return sum(len(trunk.cells) for trunk in self.trunks)

    @property
    def flops(self) -> int:
        return sum(trunk.flops_to_train for trunk in self.trunks)

    def table(self) -> Table:
        table = Table(title=f"plan of {self.name}", title_justify="left", box=None, header_style="bold")
        table.add_column("shape", no_wrap=True)
        table.add_column("seed", justify="right")
        table.add_column("params\nwith head", justify="right")
        table.add_column("tokens", no_wrap=True)
        table.add_column("steps", justify="right")
        table.add_column("batch\ntokens", justify="right")
        table.add_column("learning\nrate", justify="right")
        table.add_column("FLOPs", justify="right")
        table.add_column("time", justify="right")
        for trunk in self.trunks:
            model = trunk.job.model
            first, last = trunk.cells[0], trunk.cells[-1]
            budgets = " ".join(token_label(cell.tokens) for cell in trunk.cells)
            steps = f"{first.steps}" if first is last else f"{first.steps}-{last.steps}"
            table.add_row(
                f"w{model.width}-d{model.depth}", str(trunk.job.seed), token_label(trunk.params.with_head),
                budgets, steps, str(trunk.batch_tokens), f"{trunk.learning_rate:.3g}",
                f"{trunk.flops_to_train:.2e}", duration(self.seconds(trunk)),
            )  # fmt: skip
        return table

    def summary(self) -> str:
        done = f", {len(self.finished)} of them done" if self.finished else ""
        return (
            f"{self.cells} cells in {len(self.trunks)} trunks{done}, {self.flops:.2e} FLOPs, "
            f"{self.slots} at a time: about {duration(self.wall_seconds)}"
        )


def duration(seconds: float) -> str:
    """75 -> 1m15s, 8000 -> 2h13m."""
    whole = timedelta(seconds=round(seconds))
    hours, rest = divmod(int(whole.total_seconds()), 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{left:02d}s" if minutes else f"{left}s"
