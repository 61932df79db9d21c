"""The kinds of runs: a cell, the plan of a sweep, its fit."""

from collections.abc import Callable

from harness.tracking import fits, plans
from harness.tracking.cells import CellMirror
from harness.tracking.log import FIT, PLAN
from harness.tracking.mirrors import MirrorJob


class AtOnce:
    """A run that is complete when its mirror begins."""

    def __init__(self, job: MirrorJob, name: str, log: Callable[[MirrorJob], None]) -> None:
        self.job, self.name, self._log = job, name, log

    def advance(self, last: bool) -> bool:
        self._log(self.job)
        return True


def mirror_of(job: MirrorJob, name: str) -> AtOnce | CellMirror:
    if name == PLAN:
        return AtOnce(job, name, plans.log)
    return AtOnce(job, name, fits.log) if name == FIT else CellMirror(job, name)
