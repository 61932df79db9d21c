"""The types of W&B runs: a cell, the plan of a sweep, its fit."""

from collections.abc import Callable

from harness.tracking import fits, plans
from harness.tracking.cells import CellMirror
from harness.tracking.log import FIT, PLAN
from harness.tracking.mirrors import MirrorTask


class AtOnce:
    """A run that is complete when its mirror begins."""

    def __init__(self, task: MirrorTask, name: str, log: Callable[[MirrorTask], None]) -> None:
        self.task, self.name, self._log = task, name, log

    def advance(self, last: bool) -> bool:
        self._log(self.task)
        return True


def mirror_of(task: MirrorTask, name: str) -> AtOnce | CellMirror:
    if name == PLAN:
        return AtOnce(task, name, plans.log)
    return AtOnce(task, name, fits.log) if name == FIT else CellMirror(task, name)
