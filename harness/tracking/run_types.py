"""What a mirror makes in W&B: a cell's run, those of a sweep's plan, fit, comparison and forecasts, a view of them."""

from collections.abc import Callable

from harness.tracking import comparisons, fits, forecasts, plans, view
from harness.tracking.cells import CellMirror
from harness.tracking.log import COMPARE, FIT, FORECAST, PLAN, VIEW
from harness.tracking.mirrors import MirrorTask


class AtOnce:
    """A run that is complete when its mirror begins."""

    def __init__(self, task: MirrorTask, name: str, log: Callable[[MirrorTask], None]) -> None:
        self.task, self.name, self._log = task, name, log

    def advance(self, last: bool) -> bool:
        self._log(self.task)
        return True


def mirror_of(task: MirrorTask, name: str) -> AtOnce | CellMirror:
    logs = {PLAN: plans.log, FIT: fits.log, COMPARE: comparisons.log, FORECAST: forecasts.log, VIEW: view.log}
    return AtOnce(task, name, logs[name]) if name in logs else CellMirror(task, name)
