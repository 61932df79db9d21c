import json
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.data.synthetic import BITS_PER_LETTER
from harness.grid import make_trunks
from harness.training.curve import Curve
from harness.training.device import Device
from harness.training.evaluation import evaluate
from harness.training.trainer import Diverged, Trainer

CPU = Device(torch.device("cpu"), "float32", False)


@pytest.fixture
def trainer(compose, corpus, store):
    def make(*arguments: str) -> Trainer:
        (trunk,) = make_trunks(compose(*corpus, *arguments), store.vocab_size, store.recipe_hash, "float32")
        return Trainer(trunk, store, CPU)

    return make


def curve_in(tmp_path) -> Curve:
    return Curve([tmp_path / "curve.jsonl"], [])


class Waits(TorchDispatchMode):
    """Counts the operations that would make the host wait for an accelerator."""

    def __init__(self):
        super().__init__()
        self.count, self.operations = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operations += 1
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("model", ["gpt", "gpt2", "llama"])
def test_a_step_never_waits_for_the_device(trainer, model):
    one = trainer("tokens=20e3", f"model={model}")
    with Waits() as waits:
        one.gradients(0)
        one.gradients(1)
    assert waits.operations > 50
    assert waits.count == 0
    with Waits() as waits:
        torch.ones(()).item()
    assert waits.count == 1


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_nears_the_corpus_entropy_and_not_below(trainer, store, tmp_path, optimizer):
    one = trainer(
        "tokens=80e3", f"optimizer={optimizer}", "optimizer.learning_rate.value=.02", "model.seq_len=64",
        "optimizer.batch_tokens.value=256", "optimizer.warmup_tokens.value=2048", "model.parametrization=sp",
    )  # fmt: skip
    (cell,) = one.trunk.cells
    one.run_trunk(cell.branch_step, curve_in(tmp_path), lambda: None)
    one.run_cooldown(cell, curve_in(tmp_path), lambda: None)
    result = evaluate(one.model, store.validation, 64, store.bytes_per_token, CPU)
    # 255 letters and one end of text a document; its first letter costs log2(16) bits and its end next to none
    floor = (254 * BITS_PER_LETTER + 4) / 256 * math.log(2)
    assert floor < result.loss < 1.1 * floor
    assert result.bits_per_byte == pytest.approx(result.loss / math.log(2) / store.bytes_per_token)


def test_evaluation_is_the_mean_and_its_error_over_sequences(trainer, store):
    one = trainer("tokens=20e3")
    result = evaluate(one.model, store.validation, 32, store.bytes_per_token, CPU)
    count = (len(store.validation) - 1) // 32
    assert result.sequences == count
    tokens = torch.from_numpy(store.validation[: count * 32 + 1].astype("int64"))
    with torch.no_grad():
        logits = one.model(tokens[:-1].view(count, 32))
    losses = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), tokens[1:].view(count, 32), reduction="none"
    ).mean(1)
    assert result.loss == pytest.approx(losses.mean().item(), rel=1e-5)
    assert result.loss_se == pytest.approx((losses.std() / math.sqrt(count)).item(), rel=1e-4)
    assert len(result.loss_parts) == 10 and count % 10  # the first parts are one sequence longer
    first, last = -(-count // 10), count // 10
    assert result.loss_parts[0] == pytest.approx(losses[:first].mean().item(), rel=1e-5)
    assert result.loss_parts[9] == pytest.approx(losses[-last:].mean().item(), rel=1e-5)
    few = evaluate(one.model, store.validation[: 9 * 32 + 1], 32, store.bytes_per_token, CPU)
    assert (few.sequences, few.loss_parts) == (9, ())


def test_accumulated_gradients_are_those_of_the_whole_batch(trainer):
    whole, parts = trainer("tokens=20e3"), trainer("tokens=20e3", "optimizer.micro_batch_tokens=96")
    assert (whole.micro_sequences, parts.micro_sequences) == (2048, 3)  # a batch of 8 in 3, 3, 2
    whole_loss, _ = whole.gradients(0)
    parts_loss, _ = parts.gradients(0)
    assert parts_loss.item() == pytest.approx(whole_loss.item(), rel=1e-6)
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-7)


def test_a_restored_trainer_goes_on_to_the_last_bit(trainer, tmp_path):
    straight, first, second = (trainer("tokens=20e3") for _ in range(3))
    curve = curve_in(tmp_path)
    straight.run_trunk(40, curve, lambda: None)
    first.run_trunk(25, curve, lambda: None)
    second.restore(first.state())
    second.run_trunk(40, curve, lambda: None)
    assert second.step == straight.step == 40
    for one, other in zip(straight.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_loss_that_is_no_number_is_divergence(trainer, tmp_path):
    one = trainer("tokens=20e3")
    with torch.no_grad():
        one.model.embedding.weight[:] = float("inf")
    with pytest.raises(Diverged, match="not finite at step"):
        one.run_trunk(40, curve_in(tmp_path), lambda: None)


def test_the_rates_are_those_of_the_schedule(trainer, tmp_path):
    one = trainer("tokens=20480", "optimizer.learning_rate.value=.01", "model.parametrization=sp")
    # 80 steps of 256 tokens; 1024 tokens of warmup are 4 steps; the last 16 steps cool down
    (cell,) = one.trunk.cells
    assert (cell.steps, cell.branch_step, one.trunk.warmup_steps) == (80, 64, 4)
    seen = []
    step = one.optimizer.step
    one.optimizer.step = lambda factor: (seen.append(factor), step(factor))
    one.run_trunk(64, curve_in(tmp_path), lambda: None)
    one.run_cooldown(cell, curve_in(tmp_path), lambda: None)
    assert seen[:6] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert seen[64:66] == [1.0, 0.75]  # 1 - sqrt(0/16), 1 - sqrt(1/16)
    assert len(seen) == 80


def test_a_branch_leaves_no_row_of_its_own(trainer, tmp_path):
    one = trainer("tokens=20480")  # 80 steps; the cooldown starts at step 64
    (cell,) = one.trunk.cells
    one.log_every = 10
    curve = curve_in(tmp_path)
    one.run_trunk(cell.branch_step, curve, lambda: None)
    one.restore(one.state())
    one.run_cooldown(cell, curve, lambda: None)
    rows = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50, 60, 70, 80]
    assert all(1.2 < row["train_loss"] < 6 for row in rows)  # the corpus has 1.2 nats a letter
    assert all(row["tokens_per_second"] > 0 for row in rows)
