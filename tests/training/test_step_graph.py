"""A step that is captured whole ends in the bits of the ordinary one, or is not taken."""

import contextlib
import functools
import gc
import json
import weakref

import pytest
import torch
from recorded_graph import RecordedGraph, recorded, tensors_of

from harness.grid import make_trunks
from harness.training import optimizer, step_graph
from harness.training.curve import Curve
from harness.training.device import Device
from harness.training.muon import Muon
from harness.training.trainer import Trainer

CPU = torch.device("cpu")
BF16, FLOAT32 = Device(CPU, "bf16", False), Device(CPU, "float32", False)


@pytest.fixture
def trainer(compose, corpus, store):
    def make(*arguments: str, device: Device = BF16) -> Trainer:
        job = compose(*corpus, "tokens=5e3", *arguments)  # 20 steps, 4 of warmup, 4 of cooldown
        (trunk,) = make_trunks(job, store.vocab_size, store.recipe_hash, device.precision)
        return Trainer(trunk, store, device)

    return make


@pytest.fixture
def stacked(monkeypatch):
    """Muon as a GPU has it."""
    monkeypatch.setattr(optimizer, "muon_class", lambda device: Muon)


def graphed(one: Trainer, capture=recorded) -> Trainer:
    one.graph = one.step_graph(capture=capture)
    one.graph.wanted = True
    return one


class Call:
    """A capture's stand-in where the model's loops are not operations of torch."""

    def __init__(self, run, device):
        self.replay = run

    def reset(self) -> None:
        self.replay = None


def train(one: Trainer, folder) -> list[dict]:
    """Trains the trunk and the last cell's cooldown, logging every third step; the rows of the curve."""
    one.log_every = 3
    folder.mkdir()
    curve = Curve([folder / "curve.jsonl"], [])
    cell = one.trunk.cells[-1]
    one.run_trunk(cell.branch_step, curve, lambda: None)
    one.run_cooldown(cell, curve, lambda: None)
    rows = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in ("step", "train_loss", "learning_rate", "grad_norm")} for row in rows]


def bits(one: Trainer) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in tensors_of(one.state())]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.mark.parametrize(
    ("family", "optimizer", "micro"),  # the whole batch of 8 sequences, or 4 at once
    [("gpt", "adamw", 65536), ("gpt", "muon", 128), ("gpt2", "muon", 65536), ("llama", "adamw", 128)],
)
def test_a_replayed_step_ends_in_the_ordinary_bits(trainer, stacked, tmp_path, family, optimizer, micro):
    arguments = f"optimizer={optimizer}", f"optimizer.micro_batch_tokens={micro}", f"model={family}"
    plain, one = trainer(*arguments), graphed(trainer(*arguments))
    replays = []
    capture = one.graph.capture
    one.graph.capture = lambda run, device: replays.append(capture(run, device)) or replays[-1]
    assert train(one, tmp_path / "graph") == train(plain, tmp_path / "plain")
    assert same(bits(one), bits(plain))
    assert one.notes == [] and one.graph.wanted
    assert len(replays) == 2 and one.graph.graph is None  # one for the trunk, one for the cooldown, none left


@pytest.mark.parametrize(("family", "optimizer"), [("gpt", "adamw"), ("gpt2", "muon"), ("llama", "muon")])
def test_the_whole_step_is_the_ordinary_one_of_a_cpu(trainer, tmp_path, family, optimizer):
    arguments = f"optimizer={optimizer}", f"model={family}", "optimizer.micro_batch_tokens=96"  # 3, 3, 2 sequences
    plain, one = trainer(*arguments, device=FLOAT32), graphed(trainer(*arguments, device=FLOAT32), Call)
    assert train(one, tmp_path / "graph") == train(plain, tmp_path / "plain")
    assert same(bits(one), bits(plain)) and one.notes == []


def test_a_graph_goes_on_from_a_checkpoint(trainer, stacked, tmp_path):
    plain, first, second = (trainer("optimizer=muon") for _ in range(3))
    curve = Curve([tmp_path / "curve.jsonl"], [])
    plain.run_trunk(15, curve, lambda: None)
    graphed(first).run_trunk(7, curve, lambda: None)
    second = graphed(second)
    second.take(0, 1.0)
    second.take(1, 1.0)  # with a graph at hand, whose memory the checkpoint must reach
    assert second.graph.graph is not None
    second.restore(first.state())
    second.run_trunk(15, curve, lambda: None)
    assert same(bits(second)[1:], bits(plain)[1:]) and second.notes == []


def test_tokens_that_are_not_on_the_device_are_put_where_the_graph_reads(trainer, tmp_path, monkeypatch):
    plain = trainer()
    monkeypatch.setattr("harness.data.batches.fits", lambda size, device: False)
    one = graphed(trainer())
    assert plain.batches.resident and not one.batches.resident
    assert train(one, tmp_path / "graph") == train(plain, tmp_path / "plain")
    assert same(bits(one), bits(plain)) and one.notes == []
    one.take(20, 1.0)
    assert one.graph.drawn.shape == (8, 33) and one.graph.drawn.dtype == torch.int16


def test_the_whole_step_runs_on_meta_and_waits_for_nothing(compose, corpus, store, monkeypatch):
    library = torch.library.Library("aten", "IMPL", "Meta")
    library.impl("_fused_adamw_.tensor_lr", lambda *args, **kwargs: None)
    monkeypatch.setattr("harness.training.trainer.matmul_rate", lambda device: 1.0)
    (trunk,) = make_trunks(compose(*corpus, "tokens=20e3", "optimizer=muon"), store.vocab_size, "", "float32")
    one = graphed(Trainer(trunk, store, Device(torch.device("meta"), "float32", False)))
    assert isinstance(one.optimizer.parts[1], Muon)
    held = one.graph
    held.drawn = torch.zeros_like(one.batches.drawn(0))
    graph = RecordedGraph()
    with graph:  # which refuses what waits
        held._whole(one._gradients_of)
    made = [tensor for _, _, _, out in graph.calls for tensor in tensors_of(out)]
    assert len(graph.calls) > 100
    assert {tensor.device.type for tensor in made} == {"meta"}
    assert torch.float64 not in {tensor.dtype for tensor in made}
    with graph, pytest.raises(RuntimeError, match="not permitted"):
        torch.ones(()).item()


def broken(run, device):
    """A capture that fails in its middle, with the state half changed, and torch's second error behind the first."""
    run()
    try:
        raise RuntimeError("CUDA error: operation not permitted\nwhen stream is capturing")
    except RuntimeError:
        raise ValueError("capture invalidated") from None


def full(run, device):
    run()
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


class Idle(Call):
    def __init__(self, run, device):
        super().__init__(lambda: None, device)


@pytest.mark.parametrize(
    ("capture", "why"),
    [
        (broken, "RuntimeError: CUDA error: operation not permitted when stream is capturing; then ValueError: capture "
                 "invalidated"),
        (full, "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"),
        (Idle, "a replay ends in other bits than the step"),
    ],
)  # fmt: skip
def test_a_step_that_cannot_be_captured_is_taken_plainly(trainer, tmp_path, capture, why):
    plain, one = trainer(), graphed(trainer(), capture)
    generator = torch.get_rng_state()
    one.take(0, 0.25)
    assert torch.equal(torch.get_rng_state(), generator)
    plain.take(0, 0.25)
    assert same(bits(one), bits(plain)) and one.micro_sequences == plain.micro_sequences
    assert one.notes == [
        f"a step cannot be replayed as a CUDA graph here ({why}): its kernels are launched one by one, slower, to the "
        "same bits"
    ]
    assert all(parameter.grad is None for parameter in one.parameters)
    one.step = plain.step = 1
    assert train(one, tmp_path / "graph") == train(plain, tmp_path / "plain")
    assert same(bits(one), bits(plain)) and len(one.notes) == 1


def test_a_rate_that_a_graph_would_keep_is_found(trainer):
    one = graphed(trainer())
    for part in one.optimizer.parts:
        part.rates = ()  # numbers of Python again
    one.take(0, 1.0)
    assert one.graph.wanted is False and "ends in other bits" in one.notes[0]


def test_a_failed_capture_leaves_no_memory(trainer):
    made = []

    def failing(run, device):
        graph = recorded(run, device)
        made.extend(weakref.ref(tensor) for _, _, _, out in graph.calls for tensor in tensors_of(out))
        raise RuntimeError("capture invalidated")

    graphed(trainer()).take(0, 1.0)  # torch's first recording imports its compiler, which keeps what stands around it
    one = graphed(trainer(), failing)
    standing = {id(tensor) for tensor in [*one.parameters, *one.optimizer.tensors(), one.loss_sum]}
    gc.disable()
    try:
        one.take(0, 1.0)
        left = [tensor for ref in made if (tensor := ref()) is not None and id(tensor) not in standing]
    finally:
        gc.enable()
    assert len(made) > 100 and left == []


def test_a_trainer_with_a_graph_is_freed_when_it_is_let_go(trainer):
    one = graphed(trainer())
    one.take(0, 1.0)
    one.take(1, 1.0)
    freed = weakref.ref(one)
    one.rest()
    gc.disable()
    try:
        del one
        assert freed() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("enqueued", "done", "wanted"),
    [(1.7, 1.9, True), (1.7, 3.3, True), (1.7, 3.5, False), (2.0, 17.0, False)],  # milliseconds
)
def test_a_graph_is_wanted_where_launching_takes_more_than_half_of_a_step(trainer, monkeypatch, enqueued, done, wanted):
    one = trainer()
    clock = [0.0, 0.0]  # the host's and the GPU's
    monkeypatch.setattr(step_graph.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(Device, "synchronize", lambda device: clock.__setitem__(0, max(clock)))

    def plain(step, factor):
        compiling = 1000 if step < 2 else 1
        clock[:] = [clock[0] + compiling * enqueued, max(clock) + compiling * done]
        return one.loss_sum

    graph = one.step_graph(capture=recorded)
    seen = []
    for step in range(8):
        seen.append(graph.wanted)
        if graph.wanted is None:
            graph.take(step, 1.0, plain, one._gradients_of)
    assert seen == [None] * 7 + [wanted]


class FakeCuda:
    """torch.cuda's streams and captures by their order of calls; the end of a capture may raise, as torch's does."""

    def __init__(self, monkeypatch, breaks: bool):
        self.now, self.said = "main", []
        stream = type("Stream", (), {"wait_stream": lambda one, other: self.said.append(f"{one.name} waits")})
        self.main, self.side = stream(), stream()
        self.main.name, self.side.name = "main", "side"

        @contextlib.contextmanager
        def current(one):
            before, self.now = self.now, one.name
            try:
                yield
            finally:
                self.now = before

        @contextlib.contextmanager
        def graph(one, pool, stream):
            self.said.append(f"capture into {pool} on {stream.name}")
            self.now = stream.name
            try:
                yield
            finally:
                if breaks:
                    raise ValueError("capture invalidated")
            self.now = "main"

        fakes = {
            "current_stream": lambda gpu: self.main, "Stream": lambda gpu: self.side, "stream": current, "graph": graph,
            "CUDAGraph": lambda: "the graph", "graph_pool_handle": lambda: (0, 7),
        }  # fmt: skip
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
            said = functools.partial(lambda name, *where: self.said.append((name, *where)), name)
            monkeypatch.setattr(torch._C, name, said, raising=False)


def test_a_capture_runs_once_before_it_on_its_stream(monkeypatch):
    cuda = FakeCuda(monkeypatch, breaks=False)
    gpu = Device(torch.device("cuda:1"), "bf16", True)
    assert step_graph.captured(lambda: cuda.said.append(f"run on {cuda.now}"), gpu) == "the graph"
    assert cuda.said == [
        "side waits", "run on side", "capture into (0, 7) on side", "run on side", "main waits"
    ]  # fmt: skip


def test_a_capture_that_fails_gives_back_its_pool_and_the_stream(monkeypatch):
    cuda = FakeCuda(monkeypatch, breaks=True)
    runs = []

    def run():
        runs.append(cuda.now)
        if len(runs) == 2:
            raise RuntimeError("operation not permitted")

    with pytest.raises(ValueError, match="invalidated") as raised:
        step_graph.captured(run, Device(torch.device("cuda:1"), "bf16", True))
    assert str(raised.value.__context__) == "operation not permitted"
    assert (runs, cuda.now) == (["side", "side"], "main")
    pool = [("_cuda_endAllocateToPool", 1, (0, 7)), ("_cuda_releasePool", 1, (0, 7))]
    assert cuda.said == ["side waits", "capture into (0, 7) on side", *pool, "main waits"]
