"""The losses and the hand-written CPU operations against torch's own."""

import contextlib
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from harness.model import GPT, ModelConfig, initialize
from harness.model.cpu_kernels import compiled
from harness.model.cpu_ops import attention_layer, linear, rms_norm, rotate, squared_relu_layer
from harness.model.cross_entropy import chunk_rows, linear_cross_entropy, linear_cross_entropy_rows
from harness.model.gpt import rotary_tables


def normal(*shape, dtype=torch.float64, seed=0):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(dtype).requires_grad_()


def as_in_float32(*shape, seed=0):
    """Values that float32 has too, so that no more than its arithmetic differs."""
    return normal(*shape, seed=seed).detach().float().double().requires_grad_()


def integers(high, *shape):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(1))


def assert_as_in_float64(function, *shapes, seed=0):
    """A function's value and gradients in float32, where loops of ours run, against torch's own in float64."""
    exact = [as_in_float32(*shape, seed=seed + i) for i, shape in enumerate(shapes)]
    single = [value.detach().float().requires_grad_() for value in exact]
    values = [function(*inputs) for inputs in (single, exact)]
    direction = normal(*values[1].shape, seed=seed + 99).detach()
    for value in values:
        (value * direction.to(value.dtype)).sum().backward()
    pairs = zip((values[0], *(x.grad for x in single)), (values[1], *(x.grad for x in exact)), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=3e-5 * max(1.0, theirs.abs().max().item()))


def test_loops_are_compiled_where_no_folder_can_be_written_to(monkeypatch):
    given = []

    def njit(**settings):
        given.append(settings.get("cache", False))
        if settings.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr("harness.model.cpu_kernels.numba.njit", njit)
    assert compiled(len) is len and given == [True, False]


GRADIENTS = """
import torch
from harness.model.config import ModelConfig
from harness.model.gpt import GPT
from harness.model.parameters import initialize
model = GPT(ModelConfig(width=16, depth=1), 256)
initialize(model, 0)
tokens = torch.randint(256, (4, 129), generator=torch.Generator().manual_seed(0))
model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
print([parameter.grad.double().sum().item().hex() for parameter in model.parameters()])
"""


def test_code_just_compiled_and_code_kept_give_the_same_bits(tmp_path):
    """A sweep begun in a new checkout and resumed in another process has the losses of one that was not stopped."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", GRADIENTS]
    compiling = subprocess.check_output(command, env=environment, text=True)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("kernels-*/**/*.nb[ic]")}
    assert any("attention_gradient" in path.name for path in kept)
    assert subprocess.check_output(command, env=environment, text=True) == compiling
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("kernels-*/**/*.nb[ic]")} == kept


def test_rms_norm():
    x, gain = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([2.0, 1.0])
    # mean square 12.5; 3 / sqrt(12.5) * 2 and 4 / sqrt(12.5)
    torch.testing.assert_close(rms_norm(x, gain, 0.0)[0], torch.tensor([1.6970563, 1.1313708]))
    assert rms_norm(x, gain, 1e-6)[1].tolist() == [0.0, 0.0]


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(1, 40), size=st.integers(1, 70), seed=st.integers(0, 99))
def test_rms_norm_in_float32(rows, size, seed):
    assert_as_in_float64(lambda x, gain: rms_norm(x, gain, 1e-3), (2, rows, size), (size,), seed=seed)
    assert_as_in_float64(lambda x, gain: rms_norm(x.mT, gain, 1e-3), (size, rows), (size,), seed=seed)


@settings(deadline=None, max_examples=30)
@given(
    tokens=st.sampled_from([1, 2, 4, 20, 128, 130, 256, 260]),
    heads=st.integers(1, 3),
    size=st.sampled_from([2, 4, 16, 24, 64, 68]),
    batch=st.integers(1, 3),
    library=st.sampled_from(["oneDNN", "MKL"]),
    seed=st.integers(0, 99),
)
def test_attention_layer_in_float32(tokens, heads, size, batch, library, seed):
    """Of every size, those that our loops take and those that they leave to torch."""
    tables = rotary_tables(tokens, size, 100.0)

    def attend(x, qkv, out, query_gain, key_gain):
        own = (table.to(x.dtype) for table in tables)
        return attention_layer(x, qkv / width**0.5, out / width**0.5, query_gain, key_gain, *own, 1e-3, 0.7)

    width = heads * size
    shapes = (batch, tokens, width), (3 * width, width), (width, width), (size,), (size,)
    with products_by(library):
        assert_as_in_float64(attend, *shapes, seed=seed)


def test_attention_of_two_tokens():
    # One head of four features, without rotation. Normed, each vector has two features of sqrt(2): equal ones have a
    # product of 4, a score of 2, and those at a right angle one of 0.
    one, other = [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]
    qkv = torch.tensor([one + one + [1.0, 2.0, 3.0, 4.0], other + other + [0.0] * 4] + [other + one + [0.0] * 4] * 2)
    # the second token: exp(0) / (exp(0) + exp(2)) of the first one's values; two more tokens for the loops' sake
    tables = torch.ones(4, 1, 4), torch.zeros(4, 1, 4)
    out = 10 * torch.eye(4)[[1, 2, 3, 0]]
    layer = attention_layer(torch.eye(4)[None], qkv.t(), out, torch.ones(4), torch.ones(4), *tables, 0.0, 0.5)
    torch.testing.assert_close(layer[0, 0], torch.tensor([20.0, 30.0, 40.0, 10.0]))
    torch.testing.assert_close(layer[0, 1], 0.11920292 * torch.tensor([20.0, 30.0, 40.0, 10.0]))


def test_no_token_sees_a_later_one():
    x, tables = normal(1, 24, 16, dtype=torch.float32), rotary_tables(24, 16, 100.0)
    weights = normal(48, 16, seed=1, dtype=torch.float32), torch.eye(16)
    gains = torch.full((16,), 3.0), torch.full((16,), 3.0)
    before, after = (x.detach().clone() for _ in range(2))
    after[:, 17:] *= -5.0
    mixed = [attention_layer(each, *weights, *gains, *tables, 1e-6, 1.0) for each in (before, after)]
    assert torch.equal(mixed[0][:, :17], mixed[1][:, :17])
    assert not torch.equal(mixed[0][:, 17], mixed[1][:, 17])


@pytest.mark.parametrize("part", range(3))
def test_what_is_not_a_number_stays_so(part):
    """A diverged run is known by its loss."""
    qkv = torch.ones(48, 16)
    qkv[16 * part] = float("nan")
    tables = rotary_tables(8, 16, 100.0)
    weights = qkv, torch.eye(16), torch.ones(16), torch.ones(16)
    assert attention_layer(torch.ones(1, 8, 16), *weights, *tables, 1e-6, 1.0)[0, 0, 0].isnan()
    assert rms_norm(torch.tensor([[float("nan"), 1.0]]), torch.ones(2), 0.0).isnan().all()
    up, down = torch.eye(4), torch.eye(4)
    with torch.enable_grad():
        layer = squared_relu_layer(torch.full((1, 4), float("nan")), up.requires_grad_(), down)
    assert layer.isnan().all()


def test_rotate_turns_pairs_by_their_position():
    # theta 100 and head size 4: frequencies 1 and 100^(-1/2) = 0.1; pairs are (0, 2) and (1, 3).
    cos_T1H, sin_T1H = rotary_tables(3, 4, 100.0)
    x_BTNH = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(1, 3, 1, 4)
    expected_H = torch.tensor([2.0, 0.2]).cos().tolist() + torch.tensor([2.0, 0.2]).sin().tolist()
    torch.testing.assert_close(rotate(x_BTNH, cos_T1H, sin_T1H)[0, 2, 0], torch.tensor(expected_H))


def test_gradient_of_rotation():
    cos_T1H, sin_T1H = (table.double() for table in rotary_tables(5, 6, 1e4))
    assert torch.autograd.gradcheck(lambda x: rotate(x, cos_T1H, sin_T1H), normal(2, 5, 3, 6))


def plain_squared_relu_layer(x, up_FD, down_DF):
    return F.linear(F.relu(F.linear(x, up_FD)) ** 2, down_DF)


LAYERS = [
    (linear, F.linear, [(2, 3, 5), (7, 5), (7,)]),
    (linear, F.linear, [(2, 3, 7), (2, 7)]),
    (squared_relu_layer, plain_squared_relu_layer, [(2, 3, 4), (9, 4), (4, 9)]),
]


@contextlib.contextmanager
def products_by(library):
    """Both ways on any processor."""
    with pytest.MonkeyPatch.context() as patch:
        there = hasattr(torch.ops.mkldnn, "_linear_pointwise")
        patch.setattr("harness.model.products.ONEDNN", library == "oneDNN" and there)
        yield


@pytest.mark.parametrize("ours, plain, shapes", LAYERS)
def test_products_value_and_gradient(ours, plain, shapes):
    inputs = [normal(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    torch.testing.assert_close(ours(*inputs), plain(*inputs))
    with torch.no_grad():
        torch.testing.assert_close(ours(*inputs), plain(*inputs))
    assert torch.autograd.gradcheck(ours, inputs)


@settings(deadline=None, max_examples=60)
@given(
    layer=st.sampled_from(LAYERS),
    rows=st.integers(1, 300),
    sides=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    seed=st.integers(0, 99),
    library=st.sampled_from(["oneDNN", "MKL"]),
)
def test_products_in_float32_are_those_in_float64(layer, rows, sides, seed, library):
    """float32 takes kernels that choose by shape."""
    ours, plain, shapes = layer
    sizes = dict(zip(dict.fromkeys(size for shape in shapes[1:] for size in shape), sides, strict=True))
    shapes = [(rows, sizes[shapes[0][-1]])] + [tuple(sizes[size] for size in shape) for shape in shapes[1:]]
    exact = [as_in_float32(*shape, seed=seed + i) for i, shape in enumerate(shapes)]
    single = [value.detach().float().requires_grad_() for value in exact]
    # What sums of these sizes are where nothing cancels, which is what rounding goes by.
    sizes_of = [value.detach().abs().requires_grad_() for value in exact]
    plain(*sizes_of).square().sum().backward()
    plain(*exact).square().sum().backward()
    with products_by(library):
        ours(*single).square().sum().backward()
    for ours_in, exact_in, size_in in zip(single, exact, sizes_of, strict=True):
        scale = size_in.grad.max().item()
        torch.testing.assert_close(ours_in.grad.double(), exact_in.grad, rtol=0, atol=2e-6 * scale)


@pytest.mark.parametrize("rows", [1, 27])
def test_linear_cross_entropy_gradcheck(rows, monkeypatch):
    monkeypatch.setattr("harness.model.cross_entropy.LEAST_ROWS", 10)
    monkeypatch.setattr("harness.model.cross_entropy.CHUNK_LOGITS", 13 * 10)
    assert chunk_rows(13) == 10
    hidden_ND, weight_VD, targets_N = normal(rows, 5), normal(13, 5, seed=1), integers(13, rows)
    value = linear_cross_entropy(hidden_ND, weight_VD, targets_N, 0.7)
    torch.testing.assert_close(value, F.cross_entropy(0.7 * hidden_ND @ weight_VD.t(), targets_N))
    assert torch.autograd.gradcheck(
        lambda hidden, weight: linear_cross_entropy(hidden, weight, targets_N, 0.7), (hidden_ND, weight_VD)
    )


@pytest.mark.parametrize("library", ["oneDNN", "MKL"])
@pytest.mark.parametrize("size", [1.0, 30.0])  # 30: logits of hundreds of nats, whose softmax underflows
def test_linear_cross_entropy_in_float32(size, library):
    hidden_ND, weight_VD = normal(600, 48, dtype=torch.float32), normal(1024, 48, dtype=torch.float32, seed=1)
    targets_N = integers(1024, 600)
    with products_by(library):
        ours = linear_cross_entropy(hidden_ND, weight_VD, targets_N, size)
    theirs = F.cross_entropy(size * F.linear(hidden_ND, weight_VD), targets_N)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-5)
    expected = torch.autograd.grad(3 * theirs, (hidden_ND, weight_VD))
    gradients = torch.autograd.grad(3 * ours, (hidden_ND, weight_VD))
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=3e-6 * size)
    rows_N = F.cross_entropy(size * F.linear(hidden_ND, weight_VD), targets_N, reduction="none")
    ours_N = linear_cross_entropy_rows(hidden_ND, weight_VD, targets_N, size)
    torch.testing.assert_close(ours_N, rows_N.detach(), rtol=1e-5, atol=1e-3 * size)


def built(family, **changes):
    parametrization = "sp" if changes.get("tied") else "mup"
    config = ModelConfig(family=family, width=32, depth=2, seq_len=16, parametrization=parametrization, **changes)
    model = GPT(config, 50)
    initialize(model, 3)
    return model


FAMILIES = [("gpt", False), ("gpt2", True), ("llama", True), ("llama", False)]


@pytest.mark.parametrize("family, tied", FAMILIES)
def test_loss_and_gradients_are_those_of_the_logits(family, tied):
    model = built(family, tied=tied, base_width=16)
    inputs_BT, targets_BT = integers(50, 4, 16), integers(50, 4, 16).flip(0)
    by_logits = F.cross_entropy(model(inputs_BT).flatten(0, 1), targets_BT.flatten())
    expected = torch.autograd.grad(by_logits, list(model.parameters()))
    loss = model.loss(inputs_BT, targets_BT)
    torch.testing.assert_close(loss, by_logits)
    torch.testing.assert_close(torch.autograd.grad(loss, list(model.parameters())), expected, rtol=1e-4, atol=1e-7)
    with torch.no_grad():
        torch.testing.assert_close(model.loss(inputs_BT, targets_BT), by_logits)
    losses_B = model.sequence_losses(inputs_BT, targets_BT)
    assert losses_B.shape == (4,) and losses_B.dtype == torch.float32
    torch.testing.assert_close(losses_B.mean(), by_logits)
    one = F.cross_entropy(model(inputs_BT[2:3]).flatten(0, 1), targets_BT[2])
    torch.testing.assert_close(losses_B[2], one)


@pytest.mark.parametrize("family, tied", FAMILIES)
def test_compiles_whole_to_the_same_numbers(family, tied):
    """The plain forms, as an accelerator runs them: one graph without a break, equal to the hand-written ones."""
    torch._dynamo.reset()
    model = built(family, tied=tied)
    inputs_BT, targets_BT = integers(50, 4, 16), integers(50, 4, 16).flip(0)
    compiled = torch.compile(model.loss, fullgraph=True, backend="aot_eager")
    loss = compiled(inputs_BT, targets_BT)
    expected = model.loss(inputs_BT, targets_BT)
    torch.testing.assert_close(loss, expected)
    theirs = torch.autograd.grad(expected, list(model.parameters()))
    torch.testing.assert_close(torch.autograd.grad(loss, list(model.parameters())), theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("family", ["gpt", "gpt2", "llama"])
def test_bfloat16_autocast_stays_close(family):
    model = built(family)
    inputs_BT, targets_BT = integers(50, 4, 16), integers(50, 4, 16).flip(0)
    expected = model.loss(inputs_BT, targets_BT)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(inputs_BT, targets_BT)
        losses_B = model.sequence_losses(inputs_BT, targets_BT)
    loss.backward()
    assert loss.dtype == losses_B.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), abs=0.01)
    assert losses_B.mean().item() == pytest.approx(expected.item(), abs=0.01)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("family", ["gpt", "gpt2", "llama"])
def test_no_host_synchronisation(family):
    model = built(family)
    inputs_BT, targets_BT = integers(50, 4, 16), integers(50, 4, 16)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        model.loss(inputs_BT, targets_BT).backward()
        model.sequence_losses(inputs_BT, targets_BT)
    names = {event.key for event in seen.key_averages()}
    assert names & {"mkldnn::_linear_pointwise", "aten::mm"}
    assert "aten::_local_scalar_dense" not in names
