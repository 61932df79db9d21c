"""One job from its trunk to its run records: resuming, branching, evaluating, failing."""

import contextlib
import math
import time
import traceback
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from harness import slurm, tracking
from harness.data.tokens import TokenStore
from harness.errors import UserError
from harness.files import make_folder, remove_temporary, write_atomically
from harness.grid import Cell, Trunk, short_hash
from harness.model.gpt import GPT
from harness.records import SCHEMA, SweepFolder, is_final, write_record
from harness.stop import Stopped, stop
from harness.training import checkpoint
from harness.training.curve import Curve, read_curve
from harness.training.device import Device, configure_process, matmul_rate
from harness.training.evaluation import Evaluation, evaluate
from harness.training.ranks import Ranks
from harness.training.trainer import Diverged, Trainer, out_of_memory


def run_trunk(
    trunk: Trunk,
    store: TokenStore,
    device: Device,
    folder: SweepFolder,
    code_version: str,
    ranks: Ranks | None = None,
) -> None:
    """Trains every cell of `trunk` that has not ended for good, and writes their records.

    A cell that fails or diverges gets a record that says so; only an interrupt leaves this function as an
    exception: Stopped, with a checkpoint written. Two processes never train one trunk at once. Among ranks all but
    divergence leaves it, for the job's own process to act on.
    """
    trunk_folder = make_folder(folder.trunk(trunk.name))
    with _locked(trunk_folder / "lock"):
        pending = pending_cells(trunk, folder, ranks.failed if ranks else frozenset())
        if not pending:
            return
        remove_temporary(trunk_folder)
        slurm.link_log(trunk_folder)
        for cell in pending:
            _start_folder(trunk, cell, folder)
        run = _TrunkRun(trunk, store, device, folder, code_version, ranks)
        with tracking.start(trunk.job.tracking, folder.path, [cell.name for cell in pending]):
            for index, cell in enumerate(pending):
                try:
                    run.cell_in_memory(cell, live=pending[-1])
                except Diverged as diverged:
                    # The cells after it share the trunk or its rate: they would end in the same way.
                    for lost in pending[index:]:
                        run.record(lost, "diverged", error=str(diverged))
                    return
                except Exception as error:
                    if ranks is not None:
                        raise
                    if out_of_memory(error):
                        run.record(cell, "failed", error=f"out of memory, also with half the micro-batch: {error}")
                        run.trainer = None
                        continue
                    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                    for lost in pending[index:]:
                        run.record(lost, "failed", error=text)
                    write_atomically(trunk_folder / "error.txt", traceback.format_exc())
                    return


def pending_cells(trunk: Trunk, folder: SweepFolder, failed: Collection[str] = ()) -> list[Cell]:
    """Those that have not ended for good, in the order in which they are trained, without those in `failed`."""
    return [cell for cell in trunk.cells if cell.name not in failed and not is_final(folder.run(cell.name))]


def record_lost(
    trunk: Trunk,
    store: TokenStore,
    device: Device,
    folder: SweepFolder,
    code_version: str,
    error: str,
    cells: Sequence[Cell] | None = None,
) -> None:
    """Records what has not ended for good as failed, where the process that trained it could not; all or `cells`."""
    with _locked(make_folder(folder.trunk(trunk.name)) / "lock"):
        run = _TrunkRun(trunk, store, device, folder, code_version)
        for cell in trunk.cells if cells is None else cells:
            if not is_final(make_folder(folder.run(cell.name))):
                run.record(cell, "failed", error=error)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Waits for the lock; raises Stopped where that is asked for first."""
    lock = FileLock(path)
    while not lock.is_locked:
        stop.check()
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=1)
    try:
        yield
    finally:
        lock.release()


def _start_folder(trunk: Trunk, cell: Cell, folder: SweepFolder) -> None:
    run = make_folder(folder.run(cell.name))
    remove_temporary(run)
    (run / "run.json").unlink(missing_ok=True)
    write_atomically(run / "config.yaml", yaml.safe_dump(_description(trunk, cell, folder), sort_keys=False))


def _description(trunk: Trunk, cell: Cell, folder: SweepFolder) -> dict[str, Any]:
    """config.yaml: all that names a cell, for W&B and for readers."""
    job = trunk.job
    return {
        "schema": SCHEMA,
        "sweep": folder.path.name,
        "cell": cell.name,
        "trunk": trunk.name,
        "config_hash": cell.config_hash,
        "run_id": short_hash([folder.path.name, cell.name]),
        "tags": [job.model.family, job.model.parametrization, job.schedule.name, job.optimizer.name],
        "job": asdict(job),
        "derived": {
            "width": job.model.width,
            "depth": job.model.depth,
            "heads": job.model.heads,
            "vocab_size": trunk.vocab_size,
            "tokens": cell.tokens,
            "steps": cell.steps,
            "branch_step": cell.branch_step,
            "batch_tokens": trunk.batch_tokens,
            "learning_rate": trunk.learning_rate,
            "warmup_steps": trunk.warmup_steps,
            "weight_decay": trunk.weight_decay,
            "params_total": trunk.params.total,
            "params_non_embedding": trunk.params.non_embedding,
            "params_with_head": trunk.params.with_head,
            "flops": cell.flops,
            "flops_per_token": trunk.flops_per_token,
        },
    }


class _TrunkRun:
    """The state of one trunk's training across its cells."""

    def __init__(
        self,
        trunk: Trunk,
        store: TokenStore,
        device: Device,
        folder: SweepFolder,
        code_version: str,
        ranks: Ranks | None = None,
    ):
        self.trunk, self.store, self.device = trunk, store, device
        self.folder, self.code_version, self.ranks = folder, code_version, ranks
        self.trainer: Trainer | None = None
        self.halved = ranks is not None and ranks.halved  # the micro-batch, since a whole one did not fit into memory
        self.trunk_folder = folder.trunk(trunk.name)
        self.trunk_curve = self.trunk_folder / "curve.jsonl"
        self.checkpoints = checkpoint.TrunkCheckpoints(self.trunk_folder, {cell.branch_step for cell in trunk.cells})

    def cell_in_memory(self, cell: Cell, live: Cell) -> None:
        """`cell`; the first that does not fit goes on from its checkpoint with half the micro-batch."""
        try:
            return self.cell(cell, live)
        except Exception as error:
            if self.halved or self.ranks is not None or not out_of_memory(error):
                raise
        # out of the handler, whose exception holds the tensors of the step
        self.halved, self.trainer = True, None
        self.device.release()
        self.cell(cell, live)

    def cell(self, cell: Cell, live: Cell) -> None:
        """Trains, evaluates and records one cell; the curve of `live` follows the trunk as it goes."""
        folder = self.folder.run(cell.name)
        cooldown_path = folder / "checkpoint.pt"
        if self.trainer is None:
            configure_process(self.trunk.job, self.device)
            self.trainer = Trainer(self.trunk, self.store, self.device, self.halved, self.ranks)
        cooldown = checkpoint.load(cooldown_path)
        if cooldown is not None and cell.branch_step <= cooldown["step"] <= cell.steps:
            self.trainer.restore(cooldown)
        else:
            self.trainer = self._train_trunk(self.trainer, cell, live)
        trainer = self.trainer
        curve = Curve(
            [folder / "curve.jsonl"],
            read_curve(self.trunk_curve, cell.branch_step)
            + [row for row in read_curve(folder / "curve.jsonl", trainer.step) if row["phase"] == "cooldown"],
        )

        def save() -> None:
            checkpoint.save(cooldown_path, trainer.state())

        trainer.run_cooldown(cell, curve, save)
        if trainer.notes:
            write_atomically(self.trunk_folder / "notes.txt", "".join(f"{note}\n" for note in trainer.notes))
        try:
            result, seconds = self._evaluate(trainer.model)
        except Stopped:
            save()
            raise
        if self.trunk.job.save_model:
            checkpoint.save_model(folder / "model.pt", trainer.model)
        uniform = math.log(self.trunk.vocab_size)
        if not result.loss < uniform:
            why = f"the validation loss {result.loss:.4g} is no better than a uniform guess, {uniform:.4g}"
            self.record(cell, "diverged", result, seconds, why)
        else:
            self.record(cell, "finished", result, seconds)
        cooldown_path.unlink(missing_ok=True)

    def _train_trunk(self, trainer: Trainer, cell: Cell, live: Cell) -> Trainer:
        """A trainer at the branch of `cell`, gone on from the newest checkpoint before it."""
        state = self.checkpoints.load_up_to(cell.branch_step)
        if state is not None:
            trainer.restore(state)
        elif trainer.step:
            # Its checkpoints are damaged, and the trainer has moved on: begin again.
            trainer = Trainer(self.trunk, self.store, self.device, self.halved, self.ranks)
        live_path = self.folder.run(live.name) / "curve.jsonl"
        curve = Curve([self.trunk_curve, live_path], read_curve(self.trunk_curve, trainer.step))

        def save() -> None:
            self.checkpoints.save(trainer.step, trainer.state())

        trainer.run_trunk(cell.branch_step, curve, save)
        if cell.branch_step < cell.steps:
            save()
        return trainer

    def _evaluate(self, model: GPT) -> tuple[Evaluation, float]:
        start = time.perf_counter()
        result = evaluate(
            model,
            self.store.evaluated(self.trunk.job.model.seq_len),
            self.trunk.job.model.seq_len,
            self.store.bytes_per_token,
            self.device,
        )
        self.device.release()
        return result, time.perf_counter() - start

    def record(
        self,
        cell: Cell,
        status: str,
        result: Evaluation | None = None,
        evaluation_seconds: float = 0.0,
        error: str | None = None,
    ) -> None:
        """Writes run.json; costs are as if the cell were trained alone."""
        trunk, job = self.trunk, self.trunk.job
        seconds = self.trainer.seconds if self.trainer else 0.0
        unique = min(cell.tokens, self.store.unique_tokens(job.model.seq_len))
        finished = result is not None
        write_record(self.folder.run(cell.name), {
            "cell": cell.name, "status": status, "trunk": trunk.name, "config_hash": cell.config_hash,
            "width": job.model.width, "depth": job.model.depth, "heads": job.model.heads,
            "seq_len": job.model.seq_len, "vocab_size": trunk.vocab_size, "seed": job.seed,
            "tokens": cell.tokens, "unique_tokens": unique, "epochs": cell.tokens / unique,
            "batch_tokens": trunk.batch_tokens, "steps": cell.steps,
            "learning_rate": trunk.learning_rate, "schedule": job.schedule.name,
            "params_total": trunk.params.total, "params_non_embedding": trunk.params.non_embedding,
            "params_with_head": trunk.params.with_head,
            "flops": cell.flops, "flops_6nd": 6 * trunk.params.with_head * cell.tokens,
            "loss": result.loss if result else None, "loss_se": result.loss_se if result else None,
            "loss_parts": " ".join(f"{part:.6f}" for part in result.loss_parts) if result else None,
            "bits_per_byte": result.bits_per_byte if result else None,
            "wall_seconds": seconds + evaluation_seconds,
            "tokens_per_second": cell.tokens / seconds if finished else None,
            "flops_utilization": cell.flops / seconds / (job.gpus * matmul_rate(self.device)) if finished else None,
            "device": self.device.kind, "precision": self.device.precision,
            "code_version": self.code_version, "family": job.model.family,
            "parametrization": job.model.parametrization, "optimizer": job.optimizer.name,
            "data": self.store.recipe_hash, "bytes_per_token": self.store.bytes_per_token, "error": error,
        })  # fmt: skip
