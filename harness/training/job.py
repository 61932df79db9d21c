"""One trunk and its cells, from checkpoints to run records: resuming, branching, evaluating."""

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from harness import slurm
from harness.data.texts import Text, open_texts
from harness.data.tokens import TokenStore
from harness.files import make_folder, remove_temporary, write_atomically
from harness.grid import Cell, Trunk, short_hash
from harness.model.make import Model
from harness.records import OF_TEXT, SCHEMA, TEXTS, SweepFolder, is_final, write_record
from harness.stop import Stopped, stop
from harness.training import checkpoint
from harness.training.claim import claimed
from harness.training.curve import Curve, read_curve
from harness.training.device import Device, configure_process, matmul_rate
from harness.training.evaluation import Evaluation, evaluate
from harness.training.ranks import Ranks
from harness.training.texts import evaluate_texts
from harness.training.trainer import Trainer, out_of_memory

CLAIM_SECONDS = 0.2  # between two looks at what another process trains


def pending_cells(trunk: Trunk, folder: SweepFolder, failed: Collection[str] = ()) -> list[Cell]:
    """Those that have not ended for good, without those in `failed`."""
    return [cell for cell in trunk.cells if cell.name not in failed and not is_final(folder.run(cell.name))]


def is_offered(trunk: Trunk, cell: Cell, folder: SweepFolder) -> bool:
    """Whether there is a checkpoint of the cell, or at its branch."""
    branch = folder.trunk(trunk.name) / f"step-{cell.branch_step}.pt"
    return branch.exists() or (folder.run(cell.name) / "checkpoint.pt").exists()


def record_lost(
    trunk: Trunk,
    store: TokenStore,
    device: Device,
    folder: SweepFolder,
    code_version: str,
    error: str,
    cells: Sequence[Cell] | None = None,
) -> None:
    """Records what has not ended for good as failed, where the process that trained it could not; all or `cells`.

    Waits for what another process trains; raises Stopped where that is asked for first.
    """
    run = TrunkRun(trunk, store, device, folder, code_version)
    for cell in trunk.cells if cells is None else cells:
        while not run.lost(cell, "failed", error):
            stop.check()
            time.sleep(CLAIM_SECONDS)


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


class TrunkRun:
    """One process's training of a trunk and its cells; the caller has claimed what it trains."""

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
        self.at_branch = False  # whether the trainer has just come there on the trunk
        self.started: set[str] = set()  # cells
        self.halved = self._halved_before  # the micro-batch, since a whole one did not fit into memory
        self.trunk_folder = folder.trunk(trunk.name)
        self.trunk_curve = self.trunk_folder / "curve.jsonl"
        self.checkpoints = checkpoint.TrunkCheckpoints(self.trunk_folder, {cell.branch_step for cell in trunk.cells})

    def train_trunk(self, cells: Sequence[Cell]) -> None:
        """Trains the trunk to the branches of `cells`, ascending, with a checkpoint at each; the last one's curve
        follows it."""
        remove_temporary(self.trunk_folder)
        slurm.link_log(self.trunk_folder)
        self._start(cells[-1])
        self._in_memory(lambda: self._train_trunk(cells))

    def cool_down(self, cell: Cell) -> bool:
        """Trains the rest of `cell`, evaluates and records it; False where no checkpoint that it needs is whole.

        A whole micro-batch is tried first, whatever the trunk took: no loss depends on which process cools down.
        """
        slurm.link_log(self.trunk_folder)
        self._start(cell)
        if self.halved and not self._halved_before:
            self.forget()
        return self._in_memory(lambda: self._cool_down(cell))

    @property
    def _halved_before(self) -> bool:
        """Whether ranks that were started before these had too little memory, which all of the trunk then heeds."""
        return self.ranks is not None and self.ranks.halved

    def forget(self) -> None:
        """Frees what the device holds."""
        self.trainer, self.at_branch, self.halved = None, False, self._halved_before
        self.device.release()

    def _start(self, cell: Cell) -> None:
        if cell.name in self.started:
            return
        self.started.add(cell.name)
        run = make_folder(self.folder.run(cell.name))
        remove_temporary(run)
        (run / "run.json").unlink(missing_ok=True)
        text = yaml.safe_dump(_description(self.trunk, cell, self.folder), sort_keys=False)
        write_atomically(run / "config.yaml", text)

    def _in_memory(self, train: Callable[[], Any]) -> Any:
        """What does not fit goes on from its checkpoint with half the micro-batch, among ranks when all start anew."""
        try:
            return train()
        except Exception as error:
            if self.halved or self.ranks is not None or not out_of_memory(error):
                raise
        # out of the handler, whose exception holds the tensors of the step
        self.forget()
        self.halved = True
        return train()

    def _ready(self) -> Trainer:
        if self.trainer is None:
            configure_process(self.trunk.job, self.device)
            self.trainer = Trainer(self.trunk, self.store, self.device, self.halved, self.ranks)
        return self.trainer

    def _train_trunk(self, cells: Sequence[Cell]) -> None:
        trainer = self._ready()
        live_path = self.folder.run(cells[-1].name) / "curve.jsonl"

        def save() -> None:
            self.checkpoints.save(trainer.step, trainer.state())

        for cell in cells:
            state = self.checkpoints.load_up_to(cell.branch_step, beyond=trainer.step)
            if state is not None:
                trainer.restore(state)
            del state
            # Of a trunk that went farther before the rows are there, and other processes may be reading them.
            known = checkpoint.newest_step(self.trunk_folder) > cell.branch_step
            paths = [live_path] if known else [self.trunk_curve, live_path]
            curve = Curve(paths, read_curve(self.trunk_curve, trainer.step))
            trainer.run_trunk(cell.branch_step, curve, save)
            if cell.branch_step < cell.steps:
                save()
            else:
                checkpoint.save(self.folder.run(cell.name) / "checkpoint.pt", trainer.state())
        self.at_branch = True
        self._write_notes(self.trunk_folder)

    def _cool_down(self, cell: Cell) -> bool:
        folder = self.folder.run(cell.name)
        path = folder / "checkpoint.pt"
        if not self._restore(cell, path):
            return False
        trainer, texts = self._ready(), self._texts
        curve = Curve(
            [folder / "curve.jsonl"],
            read_curve(self.trunk_curve, cell.branch_step)
            + [row for row in read_curve(folder / "curve.jsonl", trainer.step) if row["phase"] == "cooldown"],
        )

        def save() -> None:
            checkpoint.save(path, trainer.state())

        trainer.run_cooldown(cell, curve, save)
        self._write_notes(folder)
        start, uniform = time.perf_counter(), math.log(self.trunk.vocab_size)
        try:
            result = self._evaluate(trainer.model)
            of_texts = evaluate_texts(trainer.model, texts, self.device) if result.loss < uniform else {}
        except Stopped:
            save()
            raise
        seconds = time.perf_counter() - start
        if self.trunk.job.save_model:
            checkpoint.save_model(folder / "model.pt", trainer.model, self.store.manifest["tokenizer_hash"])
        if not result.loss < uniform:
            why = f"the validation loss {result.loss:.4g} is no better than a uniform guess, {uniform:.4g}"
            self.record(cell, "diverged", result, seconds, why)
        else:
            self.record(cell, "finished", result, seconds, texts=of_texts)
        path.unlink(missing_ok=True)
        return True

    def _restore(self, cell: Cell, path: Path) -> bool:
        """Brings the trainer into `cell`'s cooldown or to its branch; else removes what is damaged of its checkpoints.

        A trainer that has just come to the branch stays as it is.
        """
        state = checkpoint.load(path)
        if state is not None and not cell.branch_step <= state["step"] <= cell.steps:
            state = None
        if state is None and self.at_branch and self._ready().step == cell.branch_step:
            self.at_branch = False
            return True
        branch = self.checkpoints.path(cell.branch_step)
        if state is None:
            state = checkpoint.load(branch)
        if state is None:
            path.unlink(missing_ok=True)
            branch.unlink(missing_ok=True)
            return False
        self.at_branch = False
        self._ready().restore(state)
        return True

    def _write_notes(self, folder: Path) -> None:
        if self.trainer is not None and self.trainer.notes:
            write_atomically(folder / "notes.txt", "".join(f"{note}\n" for note in self.trainer.notes))

    def lost(self, cell: Cell, status: str, error: str) -> bool:
        """Records that `cell` will not be trained, unless it has ended for good; False where another process has it."""
        with claimed(self.folder.run(cell.name)) as mine:
            if mine and not is_final(self.folder.run(cell.name)):
                self.record(cell, status, error=error)
            return mine

    @cached_property
    def _texts(self) -> dict[str, Text]:
        job = self.trunk.job
        return open_texts(job.validation, [(job.data, self.store)], job.tokenizer)

    def _evaluate(self, model: Model) -> Evaluation:
        result = evaluate(
            model,
            self.store.evaluated(self.trunk.job.model.seq_len),
            self.trunk.job.model.seq_len,
            self.store.bytes_per_token,
            self.device,
            self.store.weights,
        )
        self.device.release()
        return result

    def record(
        self,
        cell: Cell,
        status: str,
        result: Evaluation | None = None,
        evaluation_seconds: float = 0.0,
        error: str | None = None,
        texts: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        """Writes run.json; costs are as if the cell were trained alone. texts: the losses on further ones, by name."""
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
            "learning_rate": trunk.learning_rate, "warmup_tokens": trunk.warmup_steps * trunk.batch_tokens,
            "weight_decay": trunk.weight_decay, "schedule": job.schedule.name,
            "params_total": trunk.params.total, "params_non_embedding": trunk.params.non_embedding,
            "params_with_head": trunk.params.with_head,
            "flops": cell.flops, "flops_6nd": 6 * trunk.params.with_head * cell.tokens,
            **(result.columns() if result else dict.fromkeys(OF_TEXT)),
            "wall_seconds": seconds + evaluation_seconds,
            "tokens_per_second": cell.tokens / seconds if finished else None,
            "flops_utilization": cell.flops / seconds / (job.gpus * matmul_rate(self.device)) if finished else None,
            "device": self.device.kind, "precision": self.device.precision,
            "code_version": self.code_version, "family": job.model.label,
            "parametrization": job.model.parametrization, "optimizer": job.optimizer.label,
            "data": self.store.recipe_hash, "bytes_per_token": self.store.bytes_per_token, "error": error,
            **({TEXTS: texts} if texts else {}),
        })  # fmt: skip
