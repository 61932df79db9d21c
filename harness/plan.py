"""What a sweep is going to train, and what it costs, before it does."""

from dataclasses import dataclass

from rich.table import Table

from harness.grid import Trunk, schedule_makespan
from harness.units import count_label, counted, duration


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
        table = Table(title=f"plan of {self.name}", title_justify="left", box=None, padding=(0, 1, 0, 0))
        for name in ("trunk", "params", "tokens", "steps", "batch", "rate", "FLOPs", "time"):
            table.add_column(name, no_wrap=True, justify="left" if name in ("trunk", "tokens") else "right")
        for trunk in self.trunks:
            first, last = trunk.cells[0], trunk.cells[-1]
            table.add_row(
                trunk.name.rsplit("-", 1)[0],
                count_label(trunk.params.with_head, 3),
                " ".join(count_label(cell.tokens, 3) for cell in trunk.cells),
                str(first.steps) if first is last else f"{first.steps}-{last.steps}",
                str(trunk.batch_tokens),
                f"{trunk.learning_rate:.3g}",
                f"{trunk.flops_to_train:.1e}",
                duration(self.seconds(trunk)),
            )
        return table

    def summary(self) -> str:
        done = f", {len(self.finished)} of them done" if self.finished else ""
        return (
            "params count the head, batch is in tokens, rate is the learning rate\n"
            f"{counted(self.cells, 'cell')} in {counted(len(self.trunks), 'trunk')}{done}, {self.flops:.2e} FLOPs, "
            f"{self.slots} at a time: about {duration(self.wall_seconds)}"
        )
