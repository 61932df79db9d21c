"""In which order the processes of a sweep train its trunks and cooldowns, and how long that takes."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from harness.grid import Trunk


def trunks_first(waiting: int, slots: int) -> bool:
    """Whether a process that has trained a trunk takes another one before the cooldowns, of `waiting` ones.

    The last trunks would else begin late, and end long after all that could be trained beside them. Before there are so
    few, cells end as early as they can, by the process that has their model: another one has to load it.
    """
    return 0 < waiting < slots


@dataclass(frozen=True)
class TrunkTime:
    """Seconds that a trunk has left.

    start: of a process before its first step. cells: of each the seconds from the trunk's first step to its branch, 0
    where that is trained, ascending; and those of its cooldown and evaluation.
    """

    start: float
    cells: Sequence[tuple[float, float]]

    @property
    def alone(self) -> float:
        """Of one process."""
        return self.start + max(branch for branch, _ in self.cells) + sum(cooldown for _, cooldown in self.cells)

    @property
    def unshared(self) -> "TrunkTime":
        """Where no other process takes a cooldown."""
        return TrunkTime(self.start, [(self.alone - self.start, 0.0)])


def most_workers(trunks: Sequence[Trunk]) -> int:
    """How many processes can have something to train at once: a job on several GPUs trains its own cooldowns."""
    return sum(len(trunk.cells) if trunk.job.gpus == 1 else 1 for trunk in trunks)


def makespan(trunks: Sequence[TrunkTime], slots: int) -> float:
    """Wall seconds of trunks that begin in the given order and their cooldowns, as `slots` workers train them."""
    waiting = [number for number, trunk in enumerate(trunks) if any(branch > 0 for branch, _ in trunk.cells)]
    offered = [(cooldown, number) for number, trunk in enumerate(trunks)
               for branch, cooldown in trunk.cells if branch <= 0]  # fmt: skip
    # When, whether a process is free then, whose model it holds, what cooldown is offered then.
    events: list[tuple[float, bool, int, float]] = []
    now, idle = 0.0, max(1, slots)
    while True:
        while idle and (waiting or offered):
            idle -= 1
            if waiting:
                number = waiting.pop(0)
                begun, cells = now + trunks[number].start, [cell for cell in trunks[number].cells if cell[0] > 0]
                for branch, cooldown in cells:
                    heapq.heappush(events, (begun + branch, branch == cells[-1][0], number, cooldown))
            else:
                cooldown, number = max(offered)
                offered.remove((cooldown, number))
                heapq.heappush(events, (now + trunks[number].start + cooldown, True, number, 0.0))
        if not events:
            return now
        now, free, number, cooldown = heapq.heappop(events)
        if cooldown:
            offered.append((cooldown, number))
        if not free:
            continue
        own = max((pair for pair in offered if pair[1] == number), default=None)
        if own is None or trunks_first(len(waiting), slots):
            idle += 1
        else:  # the model is there
            offered.remove(own)
            heapq.heappush(events, (now + own[0], True, number, 0.0))
