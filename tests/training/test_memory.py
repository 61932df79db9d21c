"""The closed form of a GPU's memory against what tensors take: op by op counted here, compiled as inductor's code took.

The literals are peaks of a step in GB (1e9) at 32,768 tokens of 512 a sequence and 50,257 ids, weights and moments
included: of inductor's code for an H100 (torch 2.13), run on fake tensors with kernels that do nothing.
"""

import contextlib
from dataclasses import replace

import pytest
import torch
from live_bytes import counted

from harness.accounting import count_params
from harness.errors import UserError
from harness.grid import make_trunks
from harness.model import GPT, ModelConfig
from harness.training.device import Device
from harness.training.evaluation import TOKENS_AT_ONCE
from harness.training.memory import check_gpu_memory, evaluation_bytes, micro_sequences, needed_bytes, step_bytes

SHAPES = ((256, 4), (256, 6), (384, 8), (512, 8), (640, 10), (768, 12))
COMPILED = {
    ("gpt", "bf16"): (5.09, 5.78, 8.13, 9.83, 13.40, 17.81),
    ("gpt", "float32"): (7.32, 8.56, 12.58, 15.42, 21.44, 28.82),
    ("llama", "bf16"): (5.10, 5.80, 8.19, 9.89, 13.52, 17.95),
    ("llama", "float32"): (7.36, 8.60, 12.68, 15.54, 21.64, 29.10),
    # less the weights and moments of a head apart from the embedding, which fake tensors had there
    ("gpt2", "bf16"): (4.82, 5.44, 7.52, 9.01, 12.19, 16.16),
    ("gpt2", "float32"): (6.90, 8.00, 11.54, 14.02, 19.35, 25.91),
}
TOKENS, VOCAB, GB = 32_768, 50_257, 1e9
# autocast squares in float32 on CUDA and in bf16 on a CPU: bytes more for each feature that a block makes of a token
# (on fake CUDA tensors 7.52, 16.39 and 31.18 GB for the first, the fourth and the last shape; here 6.85, 13.71, 25.14)
CUDA_MORE = {("gpt", "bf16"): 20}


def config_of(family: str, width: int, depth: int, **more) -> ModelConfig:
    ratio = {"gpt": 4, "gpt2": 4, "llama": 2.75}[family]
    tied = family == "gpt2"
    shared = {"parametrization": "sp" if tied else "mup", "tied": tied, "ff_ratio": ratio, "head_size": 64}
    return ModelConfig(family=family, width=width, depth=depth, seq_len=512, **(shared | more))


def counted_step(config: ModelConfig, precision: str, monkeypatch) -> tuple[float, float]:
    """GB of a step op by op and of an evaluation, as on a device that is no CPU."""
    for module in ("gpt", "cpu_ops"):
        monkeypatch.setattr(f"harness.model.{module}.written_out", lambda x: False)
    cast = torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    with counted() as live:
        model = GPT(config, VOCAB)
        moments = [torch.empty_like(parameter) for parameter in model.parameters() for _ in range(2)]
        batch = torch.empty(TOKENS // 512, 512, dtype=torch.int64)
        with cast:
            loss = model.loss(batch, batch)
        loss.backward()
        step = live.peak
        for parameter in model.parameters():
            parameter.grad = None
        del loss
        live.restart()
        batch = torch.empty(TOKENS_AT_ONCE["cuda"] // 512, 512, dtype=torch.int64)
        with cast:
            model.sequence_losses(batch, batch)
        assert moments
        return step / GB, live.peak / GB


@pytest.mark.parametrize("precision", ["bf16", "float32"])
@pytest.mark.parametrize("family", ["gpt", "gpt2", "llama"])
def test_the_estimate_is_above_the_truth_and_below_1_4_of_it(family, precision, monkeypatch):
    for (width, depth), compiled in zip(SHAPES, COMPILED[family, precision], strict=True):
        config = config_of(family, width, depth)
        params = count_params(config, VOCAB).total
        step, evaluation = counted_step(config, precision, monkeypatch)
        step += CUDA_MORE.get((family, precision), 0) * TOKENS * depth * width / GB
        shape = (config, VOCAB, params)
        found = {
            "compiled": step_bytes(*shape, TOKENS, Device(torch.device("cuda"), precision, True)) / GB / compiled,
            "op by op": step_bytes(*shape, TOKENS, Device(torch.device("cuda"), precision, False)) / GB / step,
            "evaluation": evaluation_bytes(*shape, precision) / GB / evaluation,
        }
        assert all(1 <= ratio <= 1.4 for ratio in found.values()), (width, depth, found)


@pytest.mark.parametrize("ff_ratio", [2, 8])
@pytest.mark.parametrize("family", ["gpt", "gpt2", "llama"])
def test_it_follows_the_feed_forward_width(family, ff_ratio, monkeypatch):
    config = config_of(family, 256, 4, ff_ratio=ff_ratio)
    step, _ = counted_step(config, "float32", monkeypatch)
    estimate = (
        step_bytes(
            config, VOCAB, count_params(config, VOCAB).total, TOKENS, Device(torch.device("cuda"), "float32", False)
        )
        / GB
    )
    assert 1 <= estimate / step <= 1.4


@pytest.fixture
def largest(compose):
    """The largest trunk of the large gpu grid."""
    (trunk,) = make_trunks(compose("+sweep=gpu-large", "shape=w768-d12", "hydra.mode=RUN"), VOCAB, "", "bf16")
    return trunk


def gpu(gigabytes: float) -> Device:
    return Device(torch.device("cuda:0"), "bf16", True, int(gigabytes * GB))


def test_the_micro_batch_is_what_the_gpu_holds(largest):
    # 64 sequences of 512 tokens a step
    assert [micro_sequences(largest, gpu(size)) for size in (80, 40, 24, 16, 12)] == [64, 64, 32, 16, 16]
    for size in (80, 40, 24, 16, 12):
        assert needed_bytes(largest, gpu(size)) <= 0.9 * size * GB


def test_a_rank_holds_its_rows_and_the_gradients_once_more(largest):
    two = replace(largest, job=replace(largest.job, gpus=2))  # 32 sequences each
    assert [micro_sequences(two, gpu(size)) for size in (80, 24, 16)] == [32, 32, 16]
    more = needed_bytes(two, gpu(80)) - needed_bytes(largest, gpu(80), sequences=32)
    assert more == pytest.approx(1.1 * 4 * largest.params.total, abs=2)


def test_tokens_beyond_a_quarter_of_a_gpu_do_not_lie_on_it(largest):
    many = replace(largest, cells=(replace(largest.cells[-1], tokens=10**12),))
    check_gpu_memory(many, gpu(40))
    assert needed_bytes(many, gpu(80)) - needed_bytes(largest, gpu(80)) == 20 * GB - 2 * largest.cells[-1].tokens
    assert needed_bytes(largest, gpu(80), token_bytes=10**12) == needed_bytes(many, gpu(80))


def test_a_gpu_that_holds_not_one_sequence_is_refused(largest):
    check_gpu_memory(largest, gpu(8))
    with pytest.raises(UserError, match="a vocabulary of 50257 need .* GiB to train and this GPU has 3.73: make"):
        check_gpu_memory(largest, gpu(4))
    check_gpu_memory(largest, Device(torch.device("cpu"), "float32", False))
