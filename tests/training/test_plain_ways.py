"""What was never seen to work must not stop a sweep: each first way is made to fail, and the plain one is taken."""

import pytest
import torch

from harness.grid import make_trunks
from harness.records import SweepFolder, read_record
from harness.training.device import Device, configure_compiler
from harness.training.trainer import Trainer
from harness.training.worker import run_trunk

CPU = torch.device("cpu")
COMPILED = Device(CPU, "float32", True)


@pytest.fixture
def trunk_of(compose, corpus, store):
    def make(*arguments: str):
        (trunk,) = make_trunks(compose(*corpus, *arguments), store.vocab_size, store.recipe_hash, "float32")
        return trunk

    return make


@pytest.fixture
def counting(monkeypatch):
    """torch.compile with a compiler that counts the graphs it is given and runs them as they are."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda loss, **how: compiled(loss, backend=backend, **how))
    torch.compiler.reset()
    configure_compiler()
    yield graphs
    torch.compiler.reset()


def test_every_shape_of_a_process_is_compiled(trunk_of, store, counting):
    for number, width in enumerate(range(8, 80, 8)):
        one = Trainer(trunk_of("tokens=20e3", f"model.width={width}"), store, COMPILED)
        one.gradients(0)
        one.gradients(1)
        assert (one.compiled, one.notes, len(counting)) == (True, [], number + 1)
    assert number == 8


def test_the_rest_of_a_batch_is_compiled_too(trunk_of, store, counting):
    for width in range(8, 48, 8):  # a batch of 8 in 3, 3, 2
        trunk = trunk_of("tokens=20e3", "optimizer.micro_batch_tokens=96", f"model.width={width}")
        one = Trainer(trunk, store, COMPILED)
        one.gradients(0)
    assert len(counting) == 2 * 5 and one.compiled


def test_a_model_that_does_not_compile_runs_op_by_op(trunk_of, store, monkeypatch):
    class InductorError(RuntimeError):
        __module__ = "torch._inductor.exc"

    def compiled(*batch):
        raise InductorError("fatal error: Python.h: No such file\nor directory")

    monkeypatch.setattr(torch, "compile", lambda loss, **how: compiled)
    trunk = trunk_of("tokens=20e3")
    stepped_back, plain = Trainer(trunk, store, COMPILED), Trainer(trunk, store, Device(CPU, "float32", False))
    assert torch.equal(stepped_back.gradients(0)[0], plain.gradients(0)[0])
    assert stepped_back.notes == [
        "torch.compile fails here (InductorError: fatal error: Python.h: No such file or directory): models run op by "
        "op, slower and with more memory, and their last bits are others than those of compiled code"
    ]
    for one, other in zip(stepped_back.parameters, plain.parameters, strict=True):
        assert torch.equal(one.grad, other.grad)


def test_a_fault_of_the_model_is_not_taken_for_one_of_the_compiler(trunk_of, store, monkeypatch):
    def faulty(*batch):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch, "compile", lambda loss, **how: faulty)
    one = Trainer(trunk_of("tokens=20e3"), store, COMPILED)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        one.gradients(0)
    assert one.compiled and one.notes == []


def test_a_python_that_cannot_compile_runs_op_by_op(trunk_of, store, monkeypatch):
    def unknown(loss, **how):
        raise RuntimeError("torch.compile is not supported on Python 3.15+")

    monkeypatch.setattr(torch, "compile", unknown)
    one = Trainer(trunk_of("tokens=20e3"), store, COMPILED)
    one.gradients(0)
    assert not one.compiled and "is not supported on Python 3.15+" in one.notes[0]


def test_a_compiled_model_that_fails_later_is_not_run_op_by_op(trunk_of, store, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda loss, **how: loss)
    one = Trainer(trunk_of("tokens=20e3"), store, COMPILED)
    one.gradients(0)
    one.loss = lambda *batch: 1 / 0
    with pytest.raises(ZeroDivisionError):
        one.gradients(1)


def test_what_is_not_repeatable_runs_with_a_note(trunk_of, store):
    trunk = trunk_of("tokens=20e3")
    plain, one = (Trainer(trunk, store, Device(CPU, "float32", False)) for _ in range(2))

    def unrepeatable(*batch):
        if torch.get_deterministic_debug_mode() == 2:
            raise RuntimeError("upsample_bilinear2d_backward does not have a deterministic implementation")
        return one.model.loss(*batch)

    one.loss = unrepeatable
    torch.use_deterministic_algorithms(True)
    try:
        loss, _ = one.gradients(0)
        assert torch.get_deterministic_debug_mode() == 1
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(loss, plain.gradients(0)[0])
    assert one.notes == [
        "not every operation is exactly repeatable here (upsample_bilinear2d_backward does not have a deterministic "
        "implementation): the losses of a sweep that is resumed or repeated are no longer promised to the last bit"
    ]


@pytest.fixture
def small(monkeypatch):
    """A device whose memory fails a step so many times where it has more than so many sequences at once."""
    whole, seen = Trainer._gradients, []

    def limit(sequences: int, step: int, times: int) -> list[int]:
        failures = []

        def gradients(self, number):
            seen.append(min(self.micro_sequences, self.trunk.batch_sequences))
            found = whole(self, number)
            if number == step and seen[-1] > sequences and len(failures) < times:
                failures.append(number)  # with gradients there, as in the middle of backward
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 12.27 GiB")
            return found

        monkeypatch.setattr(Trainer, "_gradients", gradients)
        return seen

    return limit


def trained(trunk, store, folder) -> list[dict]:
    sweep = SweepFolder(folder)
    run_trunk(trunk, store, Device(CPU, "float32", False), sweep, "test")
    return [read_record(sweep.run(cell.name)) for cell in trunk.cells]


def test_half_the_micro_batch_is_taken_where_a_whole_one_does_not_fit(trunk_of, store, small, tmp_path):
    trunk = trunk_of("tokens=[10e3,20e3]")  # 39 and 78 steps of 8 sequences, branches after 31 and 62
    expected = trained(trunk, store, tmp_path / "whole")
    seen = small(4, step=50, times=9)
    found = trained(trunk, store, tmp_path / "halved")
    assert [record["status"] for record in found] == ["finished", "finished"]
    assert found[0]["loss"] == expected[0]["loss"]
    assert found[1]["loss"] == pytest.approx(expected[1]["loss"], rel=1e-4)
    # to step 50, again from the branch at 31, whose checkpoint is the newest; a cooldown tries the whole one again
    assert seen.count(8) == 50 + 1 + (78 - 62) + (39 - 31) and seen.count(4) == 62 - 31
    (notes,) = tmp_path.glob("halved/trunks/*/notes.txt")
    said = "a step did not fit into memory: half the micro-batch is taken, which moves last digits\n"
    assert notes.read_text() == said
    assert not list(tmp_path.glob("whole/trunks/*/notes.txt"))


def test_a_cell_that_does_not_fit_halved_fails_alone(trunk_of, store, small, tmp_path):
    trunk = trunk_of("tokens=[10e3,20e3]")
    small(1, step=70, times=2)  # of the second one's cooldown, which comes first, whole and halved
    second, first = trained(trunk, store, tmp_path)
    assert (first["status"], second["status"]) == ("failed", "finished")
    why = "out of memory, also with half the micro-batch: CUDA out of memory. Tried to allocate 12.27 GiB"
    assert first["error"] == why
