"""What a sweep is going to train, and what it costs, before it does."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table
from rich.text import Text

from harness.config import rules_file
from harness.grid import Trunk
from harness.sweep.pace import Pace
from harness.sweep.sharing import Sharing
from harness.sweep.variants import Label, by_variant, costs, pairing
from harness.training.trainer import CHECKPOINT_SECONDS
from harness.training.turns import TrunkTime, makespan
from harness.units import count_label, counted, data_size, duration, machine_hours

# What a job and a cell take besides: opening the tokens, checkpoints, curves and records (benchmarks/cells.py).
JOB_SECONDS, CELL_SECONDS = 0.1, 0.1
# A parameter with AdamW's two moments in a checkpoint; a cell's curve, record and W&B run.
CHECKPOINT_BYTES, CELL_BYTES = 12, 150_000
# Sizes that rules were measured at reach so much farther.
SAME_SIZE = 1.1


@dataclass(frozen=True)
class Plan:
    """The trunks of each job of a sweep, and how many jobs run at once.

    pace: of each trunk, measured on this device, by name; missing where nothing is left to train or nothing tells.
    """

    name: str
    jobs: tuple[tuple[Trunk, ...], ...]
    slots: int
    device: str  # its kind
    gpus: int
    finished: frozenset[str]  # cells that have ended for good
    resumed: dict[str, int]  # steps of each trunk that a checkpoint holds, by name
    pace: dict[str, Pace]
    shared: bool = True  # whether another process than the trunk's may train a cooldown
    sharing: Sharing | None = None  # of GPUs, where that was measured
    labels: tuple[Label, ...] = ()  # of each job: what tells it from others of its shape, seed and budgets
    memory: Mapping[str, int] = field(default_factory=dict)  # of a process, by trunk, where variants are told apart

    @property
    def trunks(self) -> list[Trunk]:
        return [trunk for job in self.jobs for trunk in job]

    def seconds(self, trunk: Trunk) -> float | None:
        """What `trunk` has left to train and evaluate, as one process; None where its pace is not known."""
        if self._ended(trunk):
            return 0.0
        return self._time(trunk).alone if trunk.name in self.pace else None

    def _ended(self, trunk: Trunk) -> bool:
        return all(cell.name in self.finished for cell in trunk.cells)

    def _time(self, trunk: Trunk) -> TrunkTime:
        pace, trained = self.pace[trunk.name], self.resumed.get(trunk.name, 0)
        besides = CELL_SECONDS + pace.evaluation
        left = [cell for cell in trunk.cells if cell.name not in self.finished]
        time = TrunkTime(JOB_SECONDS + pace.start, [
            (max(0, cell.branch_step - trained) * pace.step, (cell.steps - cell.branch_step) * pace.step + besides)
            for cell in left
        ])  # fmt: skip
        return time if self.shared and trunk.job.gpus == 1 else time.unshared

    @property
    def process_seconds(self) -> float:
        """Of all processes, of which a job on several GPUs has one on each, as far as their paces are known, without
        what those take besides that go on with another's trunk."""
        return sum(trunk.job.gpus * (self.seconds(trunk) or 0.0) for trunk in self.trunks)

    @property
    def wall_seconds(self) -> float | None:
        """Longest trunk first, as harness.training.worker trains them."""
        left = [trunk for trunk in self.trunks if not self._ended(trunk)]
        if any(trunk.name not in self.pace for trunk in left):
            return None
        left.sort(key=lambda trunk: -trunk.flops_to_train)
        return makespan([self._time(trunk) for trunk in left], self.slots)

    @property
    def cells(self) -> int:
        return sum(len(trunk.cells) for trunk in self.trunks)

    @property
    def flops(self) -> int:
        return sum(trunk.flops_to_train for trunk in self.trunks)

    @property
    def disk_bytes(self) -> int:
        """With the checkpoints at every branch, which a sweep keeps, and the last two of a trunk of some minutes."""
        total = 0
        for trunk in self.trunks:
            passing = 0 if (self.seconds(trunk) or 0.0) < CHECKPOINT_SECONDS else 2
            models = len(trunk.cells) * 4 if trunk.job.save_model else 0
            total += (CHECKPOINT_BYTES * (len(trunk.cells) + passing) + models) * trunk.params.total
        return total + CELL_BYTES * self.cells

    @property
    def machine(self) -> dict[str, Any]:
        """What turns a process's seconds into hours of the machine, and these into their price where one is given."""
        job = self.trunks[0].job
        found = {"device": self.device, "slots": self.slots, "gpus": self.gpus, "threads": job.threads}
        if (ranks := max(trunk.job.gpus for trunk in self.trunks)) > 1:
            found["ranks"] = ranks
        return found | ({} if job.price_per_hour is None else {"price_per_hour": job.price_per_hour})

    @property
    def notes(self) -> list[str]:
        """What the device did not do while it was measured, each once, and what keeps cells from being pairs."""
        said = list(dict.fromkeys(note for pace in self.pace.values() for note in pace.notes))
        return said + pairing(self.variants)

    @property
    def variants(self) -> dict[str, list[Trunk]]:
        """The trunks of each variant by its words; empty where nothing varies."""
        return by_variant(self.jobs, self.labels) if self.labels else {}

    def table(self) -> Table:
        table = Table(title=f"plan of {self.name}", title_justify="left", box=None, padding=(0, 1, 0, 0))
        # the words of a variant give way to numbers where a terminal is too narrow for both
        table.add_column("trunk")
        for name in ("params", "tokens", "steps", "batch", "rate", "FLOPs", "time"):
            table.add_column(name, no_wrap=True, justify="left" if name == "tokens" else "right")
        named = {trunk.name: f" {name}" for name, trunks in self.variants.items() for trunk in trunks}
        for trunk in self.trunks:
            first, last = trunk.cells[0], trunk.cells[-1]
            seconds = self.seconds(trunk)
            table.add_row(
                Text(trunk.name.rsplit("-", 1)[0] + named.get(trunk.name, ""), no_wrap=True, overflow="ellipsis"),
                count_label(trunk.params.with_head, 3),
                " ".join(count_label(cell.tokens, 3) for cell in trunk.cells),
                str(first.steps) if first is last else f"{first.steps}-{last.steps}",
                str(trunk.batch_tokens),
                f"{trunk.learning_rate:.3g}",
                f"{trunk.flops_to_train:.1e}",
                "?" if seconds is None else duration(seconds),
            )
        return table

    def summary(self) -> str:
        done = f", {len(self.finished)} of them done" if self.finished else ""
        wall, cost = self.wall_seconds, ""
        if wall is not None:
            cost = f"about {duration(wall)} and {machine_hours(self.process_seconds, self.machine)}, "
        return (
            "params count the head, batch is in tokens, rate is the learning rate\n"
            f"{counted(self.cells, 'cell')} in {counted(len(self.trunks), 'trunk')}{done}, {self.flops:.2e} FLOPs, "
            f"{self.slots} at a time: {cost}{data_size(self.disk_bytes)} of disk"
            + (f"\n{self.sharing.said}" if self.sharing else "")
            + "".join(f"\n{line}" for line in of_rules(self.trunks))
            + "".join(f"\n  {line}" for line in self._by_variant())
        )

    def _by_variant(self) -> list[str]:
        seconds = {trunk.name: self.seconds(trunk) for trunk in self.trunks} if self.labels else {}
        return costs(self.variants, seconds, self.memory)


def of_rules(trunks: Sequence[Trunk]) -> list[str]:
    """Where the rules of optimizer=tuned were measured, and whether shapes and budgets lie beyond."""
    lines = []
    for path in dict.fromkeys(trunk.job.optimizer.rules for trunk in trunks):
        if path is None:
            continue
        content, own = rules_file(path), [trunk for trunk in trunks if trunk.job.optimizer.rules == path]
        sizes = {
            "params": [trunk.params.with_head for trunk in own],
            "tokens": [cell.tokens for trunk in own for cell in trunk.cells],
        }
        shown, beyond = [], []
        for key, values in sizes.items():
            low, high = content["measured"][key]
            shown.append(f"{count_label(low, 3)} to {count_label(high, 3)} {key}")
            if min(values) < low / SAME_SIZE or max(values) > high * SAME_SIZE:
                beyond.append(key)
        certified = "" if content["certified"] else ", and not certified"
        given = [name for trunk in own for name, rule in trunk.job.optimizer.by_size().items()
                 if asdict(rule) != content["optimizer"][name]]  # fmt: skip
        but = f", but for {' and '.join(dict.fromkeys(given))}, which is given" if given else ""
        lines.append(f"rules: {path}, measured at {' and '.join(shown)}{certified}{but}")
        if beyond:
            lines.append(f"warning: {' and '.join(beyond)} of this grid lie beyond that, where rules are extrapolated")
    return lines
