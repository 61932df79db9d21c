"""One process of a sweep: it trains what no other does, the longest trunk first, then the longest cooldown.

Who trains what stands in the sweep's folder alone: in claims, checkpoints and records.
"""

import contextlib
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness import tracking
from harness.data.tokens import TokenStore
from harness.errors import UserError
from harness.files import write_atomically
from harness.grid import Cell, Trunk
from harness.records import FINAL, SweepFolder, read_record
from harness.stop import stop
from harness.tracking.mirrors import Mirror
from harness.training.claim import claimed, was_claimed
from harness.training.device import Device, uuid_of
from harness.training.energy import metered
from harness.training.gpus import devices_of
from harness.training.job import CLAIM_SECONDS, TrunkRun, is_offered
from harness.training.ranks import Ranks
from harness.training.stores import Stores, store_of
from harness.training.trainer import Diverged, out_of_memory
from harness.training.turns import trunks_first

Running = tuple[TrunkRun, Mirror]
# Trains all cells of a trunk by a process on each of several devices.
OnRanks = Callable[[Trunk, TokenStore, Sequence[Device], SweepFolder, str], None]


def run_trunk(
    trunk: Trunk,
    store: TokenStore,
    device: Device,
    folder: SweepFolder,
    code_version: str,
    ranks: Ranks | None = None,
) -> None:
    """Trains every cell of `trunk` that has not ended for good, and writes their records.

    Among ranks all errors but divergence leave it, for the job's own process to act on.
    """
    Worker([trunk], store, folder, code_version, device=device, ranks=ranks).work()


class Worker:
    """on_ranks: what trains trunks whose jobs ask for several GPUs, or None where there are none.

    device: where it is None, that of each trunk's job, on GPUs a slot for as long as there is something to train.
    ranks: in rank 0 of a trunk on several GPUs.
    since: when the sweep was launched, in seconds since the epoch: what fails after that is not tried again. slots: how
    many processes the sweep has.
    """

    def __init__(
        self,
        trunks: Sequence[Trunk],
        store: TokenStore | Stores,
        folder: SweepFolder,
        code_version: str,
        on_ranks: OnRanks | None = None,
        device: Device | None = None,
        ranks: Ranks | None = None,
        since: float | None = None,
        slots: int = 1,
    ) -> None:
        self.left = sorted(trunks, key=lambda trunk: -trunk.flops_to_train)
        self.store, self.folder, self.code_version = store, folder, code_version
        self.on_ranks, self.device, self.ranks, self.slots = on_ranks, device, ranks, slots
        self.since = time.time() if since is None else since
        self._ended: set[str] = set(ranks.failed) if ranks else set()  # cells

    def work(self) -> None:
        """Returns when every cell has ended; waits, without a GPU, for those that other processes train.

        A cell that fails or diverges gets a record that says so; only an interrupt leaves this function as an
        exception: Stopped, with a checkpoint written.
        """
        while True:
            stop.check()
            self.left = [trunk for trunk in self.left if not all(map(self.ended, trunk.cells))]
            if not self.left:
                return
            if not self._train_one():
                time.sleep(CLAIM_SECONDS)

    def ended(self, cell: Cell) -> bool:
        """Whether it has ended for good, or failed in this launch."""
        folder = self.folder.run(cell.name)
        if cell.name not in self._ended and (record := read_record(folder)) is not None:
            with contextlib.suppress(FileNotFoundError):  # another process has begun to try it again
                if record["status"] in FINAL or (folder / "run.json").stat().st_mtime >= self.since:
                    self._ended.add(cell.name)
        return cell.name in self._ended

    def missing(self, trunk: Trunk) -> list[Cell]:
        """The cells that wait for the trunk."""
        return [cell for cell in trunk.cells if not self.ended(cell) and not is_offered(trunk, cell, self.folder)]

    def cooldowns(self, trunks: Sequence[Trunk]) -> list[tuple[Trunk, Cell]]:
        """Those that can begin or go on, the longest first."""
        found = [(trunk, cell) for trunk in trunks for cell in trunk.cells
                 if not self.ended(cell) and is_offered(trunk, cell, self.folder)]  # fmt: skip
        return sorted(found, key=lambda pair: -pair[0].cooldown_flops(pair[1]))

    def _train_one(self) -> bool:
        """Whether there was something that no other process trains."""
        if any(self._train_trunk(trunk) for trunk in self.left if self._needs_ranks(trunk) or self.missing(trunk)):
            return True
        shared = [trunk for trunk in self.left if not self._needs_ranks(trunk)]
        return any(self._take_cooldown(trunk, cell) for trunk, cell in self.cooldowns(shared))

    def _needs_ranks(self, trunk: Trunk) -> bool:
        return trunk.job.gpus > 1 and self.ranks is None

    def _train_on_ranks(self, trunk: Trunk) -> bool:
        """Trains all that is left of the trunk by ranks, of which the first one claims it for as long as it lives."""
        assert self.on_ranks is not None
        folder = self.folder.trunk(trunk.name)
        with claimed(folder, "ranks.lock") as mine:
            with claimed(folder, mark=False) if mine else contextlib.nullcontext(False) as nobody:
                pass  # no rank is left of a process that was killed
            if not nobody or all(map(self.ended, trunk.cells)):
                return False
            with self._devices(trunk) as devices:
                self.on_ranks(trunk, store_of(self.store, trunk.job), devices, self.folder, self.code_version)
        return True

    def _train_trunk(self, trunk: Trunk) -> bool:
        """Trains the trunk, and its cooldowns as far as no other process takes them; False where another has it."""
        if self._needs_ranks(trunk):
            return self._train_on_ranks(trunk)
        folder = self.folder.trunk(trunk.name)
        with contextlib.ExitStack() as claims, contextlib.ExitStack() as of_live:
            mine = claims.enter_context(claimed(folder, mark=self.ranks is None))
            if not mine or not (missing := self.missing(trunk)):
                return False
            live = missing[-1]
            if not of_live.enter_context(claimed(self.folder.run(live.name))) or self.ended(live):
                return False
            with self._running(trunk, live) as running:
                run, _ = running
                if (error := self._error(lambda: run.train_trunk(missing), folder)) is not None:
                    self._lose(run, live, *error)
                    for cell in self.missing(trunk):
                        run.lost(cell, *error)
                    return True
                claims.close()
                if self._trunks_first(trunk):
                    return True
                if self.ranks is None:  # which take the longest first, so that their job knows what one failed in
                    self._finish(run, live)
                of_live.close()
                self._go_on(trunk, running)
        return True

    def _take_cooldown(self, trunk: Trunk, cell: Cell) -> bool:
        """Trains a cell from its branch on, and others of its trunk; False where another process has it."""
        with contextlib.ExitStack() as of_cell:
            if not self._claim(of_cell, trunk, cell):
                return False
            with self._running(trunk, cell) as running:
                self._finish(running[0], cell)
                of_cell.close()
                self._go_on(trunk, running)
        return True

    def _go_on(self, trunk: Trunk, running: Running) -> None:
        """Trains the cooldowns of a trunk whose model is here, as far as no other process takes them."""
        while not self._trunks_first(trunk):
            if not any(self._cool_down(trunk, cell, running) for _, cell in self.cooldowns([trunk])):
                return

    def _cool_down(self, trunk: Trunk, cell: Cell, running: Running) -> bool:
        with contextlib.ExitStack() as of_cell:
            if not self._claim(of_cell, trunk, cell):
                return False
            run, mirror = running
            mirror.follow(cell.name)
            self._finish(run, cell)
        return True

    def _claim(self, of_cell: contextlib.ExitStack, trunk: Trunk, cell: Cell) -> bool:
        mine = of_cell.enter_context(claimed(self.folder.run(cell.name)))
        return mine and not self.ended(cell) and is_offered(trunk, cell, self.folder)

    def _finish(self, run: TrunkRun, cell: Cell) -> None:
        """Where the checkpoints that `cell` needs are damaged it waits for its trunk again."""
        if (error := self._error(lambda: run.cool_down(cell), self.folder.run(cell.name))) is not None:
            self._lose(run, cell, *error)

    def _error(self, train: Callable[[], object], folder: Path) -> tuple[str, str] | None:
        """The status and the error of what did not end as it should; None where it did. Raises what ranks do."""
        try:
            train()
        except Diverged as diverged:
            return "diverged", str(diverged)
        except Exception as error:
            if self.ranks is not None:
                raise
            if out_of_memory(error):
                return "failed", f"out of memory, also with half the micro-batch: {error}"
            write_atomically(folder / "error.txt", traceback.format_exc())
            return "failed", str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        return None

    def _lose(self, run: TrunkRun, cell: Cell, status: str, error: str) -> None:
        run.record(cell, status, error=error)
        self._ended.add(cell.name)
        run.forget()

    def _trunks_first(self, trained: Trunk) -> bool:
        """Whether another trunk comes before the cooldowns of the one that was just trained."""
        waiting = [trunk for trunk in self.left if trunk is not trained and self.missing(trunk)
                   and not was_claimed(self.folder.trunk(trunk.name), self.since)]  # fmt: skip
        return trunks_first(len(waiting), self.slots)

    @contextlib.contextmanager
    def _devices(self, trunk: Trunk) -> Iterator[list[Device]]:
        """What the trunk is trained on; of GPUs, with an account of their energy."""
        if self.device:
            yield [self.device]
            return
        with (
            devices_of(trunk.job, [trunk], store_of(self.store, trunk.job).train.nbytes) as devices,
            metered([uuid_of(device) for device in devices], self.folder.path),
        ):
            yield devices

    @contextlib.contextmanager
    def _running(self, trunk: Trunk, cell: Cell) -> Iterator[Running]:
        """What trains `trunk` and mirrors `cell`, on a device of its own."""
        with self._devices(trunk) as (device,):
            store = store_of(self.store, trunk.job)
            run = TrunkRun(trunk, store, device, self.folder, self.code_version, self.ranks)
            with tracking.start(trunk.job.tracking, self.folder.path, [cell.name]) as mirror:
                try:
                    yield run, mirror
                finally:
                    run.forget()
