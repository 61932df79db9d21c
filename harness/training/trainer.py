"""The step loop of one trunk and its cooldowns."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from harness.data.batches import Batches
from harness.data.tokens import TokenStore
from harness.grid import Cell, Trunk
from harness.model.custom import Custom
from harness.model.make import make_model
from harness.stop import stop
from harness.training.curve import Curve
from harness.training.device import Device, matmul_rate
from harness.training.memory import micro_sequences
from harness.training.optimizer import Optimizer, clip_gradients
from harness.training.ranks import Ranks
from harness.training.schedule import cooldown_factor, cosine_factor, trunk_factor
from harness.training.step_graph import StepGraph

CURVE_POINTS = 200  # of a trunk
# Between two checkpoints, and so many times what one takes: a large model's takes seconds.
CHECKPOINT_SECONDS, CHECKPOINT_SHARE = 60.0, 50
RAISES = 2  # torch.get_deterministic_debug_mode() where an operation that is not repeatable raises


def of_the_compiler(error: BaseException) -> bool:
    """Whether an error is one of dynamo, inductor or Triton."""
    kinds = (kind.__module__ for kind in type(error).__mro__)
    return any(module.startswith(("torch._dynamo", "torch._inductor", "triton")) for module in kinds)


def out_of_memory(error: BaseException) -> bool:
    """Whether a GPU, or a library on it, could not allocate what it needed."""
    words = ("out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


class Diverged(Exception):
    """The training loss is no longer a number."""


class Trainer:
    """A model with its optimizer at some step of a trunk or of one cell's cooldown.

    ranks: those that train it together, each by a trainer of its own; None where this process is alone.
    """

    def __init__(
        self, trunk: Trunk, store: TokenStore, device: Device, halved: bool = False, ranks: Ranks | None = None
    ):
        self.trunk, self.device, self.ranks = trunk, device, ranks
        job = trunk.job
        if ranks is not None:
            ranks.tell("trainer", halved)
        self.model = make_model(job.model, trunk.vocab_size, job.seed)
        self.model.to(device.torch_device)
        self.parameters = list(self.model.parameters())  # a walk over all modules, too slow for every step
        self.optimizer = Optimizer(self.model, trunk)
        self.batches = Batches(store.train, job.model.seq_len, trunk.batch_sequences, job.seed, device.torch_device)
        self.notes: list[str] = []  # what this device did not do, and what is no longer promised
        if device.kind == "mps":
            self.notes.append(
                "an Apple GPU may add up in another order each time: the losses of a sweep that is resumed or repeated "
                "are not promised to the last bit there"
            )
        self.micro_sequences = micro_sequences(trunk, device)
        self.loss, self.compiled, self.proven = self.model.loss, device.compile, False
        if self.compiled:
            try:
                self.loss = torch.compile(self.model.loss, dynamic=False, fullgraph=True)
            except RuntimeError as error:  # of a Python that it does not know
                self._run_op_by_op(error)
        if halved:
            self.notes.append("a step did not fit into memory: half the micro-batch is taken, which moves last digits")
            self.micro_sequences = max(1, min(self.micro_sequences, trunk.rank_sequences) // 2)
        self.matmul_rate = job.gpus * matmul_rate(device)  # of this process, beside those that run now
        self.log_every = max(1, round(trunk.cells[-1].steps / CURVE_POINTS))
        self.step = 0
        self.seconds = 0.0  # of training, from the first step of the trunk
        # A row of the curve is the mean over its steps, so what is summed goes into checkpoints too: a row at every
        # branch would be the mean of a few batches, a spike in the curve.
        self.logged = 0
        self.loss_sum = torch.zeros((), device=device.torch_device)
        self.graph = self.step_graph() if device.kind == "cuda" and ranks is None and self.replays else None

    @property
    def replays(self) -> bool:
        """Whether all that a step changes is known: a user's optimizer may count in Python, a module in its buffers."""
        keeps = isinstance(self.model, Custom) and self.model.keeps_state
        return self.trunk.job.optimizer.name != "custom" and not keeps

    def step_graph(self, **how: Any) -> StepGraph:
        """What takes the steps on a GPU."""
        return StepGraph(self.device, self.batches, self.parameters, self.optimizer, self.loss_sum, self.notes.append,
                         **how)  # fmt: skip

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "seconds": self.seconds,
            "logged": self.logged,
            "loss_sum": self.loss_sum,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.rest()
        if self.ranks is not None:
            self.ranks.tell_state(state)
        self.step, self.seconds, self.logged = state["step"], state["seconds"], state["logged"]
        self.loss_sum.copy_(state["loss_sum"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"].cpu())

    def gradients(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Batch, forward, backward and clipping of one step; loss and gradient norm, both on the device.

        Nothing here waits for the device. Where compiling or an exactly repeatable operation fails, the plain way is
        taken, here and from now on, and `notes` says so.
        """
        while True:
            try:
                found = self._gradients(step)
            except Exception as error:
                if not self._step_back(error):
                    raise
            else:
                self.proven = True
                return found

    def _step_back(self, error: Exception) -> bool:
        """Whether there is a plainer way than the one that failed, which is then taken."""
        said = " ".join(str(error).split())[:200]
        if "deterministic" in said and torch.get_deterministic_debug_mode() == RAISES:
            torch.use_deterministic_algorithms(True, warn_only=True)
            self.notes.append(
                f"not every operation is exactly repeatable here ({said}): the losses of a sweep that is resumed or "
                "repeated are no longer promised to the last bit"
            )
        elif self.compiled and not self.proven and of_the_compiler(error) and not out_of_memory(error):
            self._run_op_by_op(error)
        else:
            return False
        for parameter in self.parameters:
            parameter.grad = None
        return True

    def _run_op_by_op(self, error: Exception) -> None:
        said = " ".join(str(error).split())[:200]
        self.compiled, self.loss = False, self.model.loss
        most = micro_sequences(self.trunk, replace(self.device, compile=False))
        self.micro_sequences = min(self.micro_sequences, most)
        self.notes.append(
            f"torch.compile fails here ({type(error).__name__}: {said}): models run op by op, slower and with more "
            "memory, and their last bits are others than those of compiled code"
        )

    def _gradients(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs_BT, targets_BT = self.batches.batch(step)
        if self.ranks is not None:
            inputs_BT, targets_BT = self.ranks.part(inputs_BT), self.ranks.part(targets_BT)
        return self._gradients_of(inputs_BT, targets_BT)

    def _gradients_of(self, inputs_BT: torch.Tensor, targets_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss = torch.zeros((), device=self.device.torch_device)
        for start in range(0, len(inputs_BT), self.micro_sequences):
            part = slice(start, start + self.micro_sequences)
            with self.device.autocast():
                part_loss = self.loss(inputs_BT[part], targets_BT[part])
            part_loss = part_loss * (len(inputs_BT[part]) / self.trunk.batch_sequences)
            part_loss.backward()
            loss += part_loss.detach()
        if self.ranks is not None:
            loss = self.ranks.sum(self.parameters, loss)
        return loss, clip_gradients(self.parameters, self.trunk.job.optimizer.gradient_clip)

    def take(self, step: int, rate_factor: float) -> torch.Tensor:
        """A step of training, in every rank, whose loss goes into the sum; the norm of its gradients, on the device."""
        if self.ranks is not None:
            self.ranks.tell("take", step, rate_factor)
        if self.graph:
            return self.graph.take(step, rate_factor, self._take_plainly, self._gradients_of)
        return self._take_plainly(step, rate_factor)

    def _take_plainly(self, step: int, rate_factor: float) -> torch.Tensor:
        loss, norm = self.gradients(step)
        self.optimizer.step(rate_factor)
        self.loss_sum += loss
        return norm

    def rest(self) -> None:
        """Gives back what only steps need of the device's memory."""
        if self.graph:
            self.graph.release()

    def trunk_factor(self, step: int) -> float:
        """The learning-rate factor before any cooldown."""
        schedule = self.trunk.job.schedule
        if schedule.name == "wsd":
            return trunk_factor(step, self.trunk.warmup_steps)
        return cosine_factor(step, self.trunk.warmup_steps, self.trunk.cells[-1].steps, schedule.final_fraction)

    def run_trunk(self, until: int, curve: Curve, checkpoint: Callable[[], None]) -> None:
        """Trains the trunk up to `until`; raises Diverged, or Stopped once it is saved."""
        self._run(until, "trunk", self.trunk_factor, curve, checkpoint)

    def run_cooldown(self, cell: Cell, curve: Curve, checkpoint: Callable[[], None]) -> None:
        """Trains the rest of `cell`'s cooldown; raises Diverged, or Stopped once it is saved."""
        self._run(
            cell.steps, "cooldown", lambda step: cooldown_factor(step, cell.branch_step, cell.steps), curve,
            checkpoint,
        )  # fmt: skip

    def _run(
        self,
        until: int,
        phase: str,
        factor: Callable[[int], float],
        curve: Curve,
        checkpoint: Callable[[], None],
    ) -> None:
        ends = {cell.steps for cell in self.trunk.cells}
        saved = started = time.perf_counter()
        pause = CHECKPOINT_SECONDS
        timed = self.step
        while self.step < until:
            if stop.asked():
                self.seconds += time.perf_counter() - started
                checkpoint()
                stop.check()
            rate_factor = factor(self.step)
            norm = self.take(self.step, rate_factor)
            self.step += 1
            if self.step % self.log_every and not (self.step == until and until in ends):
                continue
            row = self._row(phase, rate_factor, norm)
            now = time.perf_counter()
            row["tokens_per_second"] = (self.step - timed) * self.trunk.batch_tokens / (now - started)
            row["flops_utilization"] = row["tokens_per_second"] * self.trunk.flops_per_token / self.matmul_rate
            curve.append(row)
            if row["train_loss"] is None:
                raise Diverged(f"the training loss is not finite at step {self.step}")
            self.seconds += now - started
            if now - saved > pause and self.step < until:
                checkpoint()
                saved = time.perf_counter()
                pause = max(CHECKPOINT_SECONDS, CHECKPOINT_SHARE * (saved - now))
            started, timed = time.perf_counter(), self.step
        self.rest()
        self.seconds += time.perf_counter() - started

    def _row(self, phase: str, rate_factor: float, norm: torch.Tensor) -> dict[str, Any]:
        """The row of the curve for the steps since the last one, whose sums start anew; waits for the device."""
        train_loss, grad_norm = self.loss_sum.item() / (self.step - self.logged), norm.item()
        self.logged = self.step
        self.loss_sum.zero_()
        tokens = self.step * self.trunk.batch_tokens
        return {
            "phase": phase,
            "step": self.step,
            "tokens": tokens,
            "flops": tokens * self.trunk.flops_per_token,
            "train_loss": train_loss if math.isfinite(train_loss) else None,
            "learning_rate": self.trunk.learning_rate * rate_factor,
            "grad_norm": grad_norm if math.isfinite(grad_norm) else None,
        }
