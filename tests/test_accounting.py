"""Closed-form parameters and FLOPs against the built module, torch's own counter, and arithmetic by hand."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from harness.accounting import ParamCounts, count_params, train_flops_per_token
from harness.model import GPT, ModelConfig, parameter_groups

SHAPES = [
    ("gpt", dict()),
    ("gpt", dict(tied=True, width=48, depth=3)),
    ("gpt2", dict(tied=True)),
    ("gpt2", dict(width=96, head_size=32, seq_len=20)),
    ("llama", dict(ff_ratio=2.75)),
    ("llama", dict(ff_ratio=2.75, tied=True, depth=1)),
]


def shape(family, changes):
    return ModelConfig(**{**dict(family=family, width=64, depth=2, seq_len=32, parametrization="sp"), **changes})


GPT2_SMALL = ModelConfig(
    family="gpt2", width=768, depth=12, head_size=64, seq_len=1024, tied=True, parametrization="sp"
)


def test_params_of_gpt2_small():
    # Tokens 50257 * 768 = 38,597,376 (tied); positions 1024 * 768 = 786,432.
    # A block: qkv 768 * 2304 + 2304 = 1,771,776; out 768 * 768 + 768 = 590,592; up 768 * 3072 + 3072 = 2,362,368;
    # down 3072 * 768 + 768 = 2,360,064; two norms 2 * 2 * 768 = 3,072: together 7,087,872; twelve are 85,054,464.
    # The final norm 1,536: non-embedding 85,056,000.
    counts = count_params(GPT2_SMALL, 50257)
    assert counts == ParamCounts(total=124_439_808, non_embedding=85_056_000, with_head=123_653_376)


def test_params_of_a_small_gpt():
    # A block: qkv 48 * 144 = 6,912; out 48 * 48 = 2,304; up and down 2 * 48 * 192 = 18,432; two norms 96; query and
    # key gains 2 * 16 = 32: together 27,776; two are 55,552; the final norm 48. Table and head 1024 * 48 = 49,152 each.
    counts = count_params(ModelConfig(width=48, depth=2), 1024)
    assert counts == ParamCounts(total=153_904, non_embedding=55_600, with_head=104_752)


def test_params_of_llama_7b():
    # Touvron et al. 2023: 6.7 B. A block: 4 * 4096^2 + 3 * 4096 * 11008 + 2 * 4096 = 202,383,360; 32 are 6,476,267,520;
    # the final norm 4096; table and head 32000 * 4096 = 131,072,000 each.
    config = ModelConfig(family="llama", width=4096, depth=32, head_size=128, ff_ratio=11008 / 4096)
    assert count_params(config, 32000).total == 6_738_415_616


def test_flops_of_gpt2_small():
    # Multiply-adds a token: a block 768 * 2304 + 768^2 + 2 * 768 * 3072 = 7,077,888 in matrices and
    # 2 * 1024 * 768 = 1,572,864 in attention; twelve are 103,809,024; head 50257 * 768 = 38,597,376.
    # Together 142,406,400; times two FLOPs, times three passes.
    assert train_flops_per_token(GPT2_SMALL, 50257) == 854_438_400


@pytest.mark.parametrize("family, changes", SHAPES)
def test_params_are_the_built_modules(family, changes):
    config = shape(family, changes)
    model, counts = GPT(config, 50), count_params(config, 50)
    by_kind = dict.fromkeys(["matrix", "vector", "embedding", "head"], 0)
    for group in parameter_groups(model):
        by_kind[group.kind] += sum(parameter.numel() for parameter in group.params)
    assert counts.total == sum(parameter.numel() for parameter in model.parameters())
    assert counts.non_embedding == by_kind["matrix"] + by_kind["vector"]
    assert counts.with_head == counts.non_embedding + model.head.weight.numel()


def counted_flops(config, vocab_size, batch, run):
    """FLOPs that torch counts while `run` uses the model on a batch; on a CPU it would miss oneDNN's products."""
    model = GPT(config, vocab_size).to("meta")
    tokens_BT = torch.zeros(batch, config.seq_len, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run(model, tokens_BT)
    return counter.get_total_flops()


@pytest.mark.parametrize("family, changes", SHAPES)
def test_flops_are_what_torch_counts(family, changes):
    """A third in the forward pass, all with the backward pass; loss() multiplies in place, which the counter misses."""
    config, batch = shape(family, changes), 3
    expected = train_flops_per_token(config, 50) * batch * config.seq_len
    runs = {
        "forward": lambda model, tokens_BT: model(tokens_BT),
        "both": lambda model, tokens_BT: F.cross_entropy(model(tokens_BT).mT, tokens_BT).backward(),
    }
    counted = {name: counted_flops(config, 50, batch, run) for name, run in runs.items()}
    assert counted == {"forward": expected // 3, "both": expected}


@settings(deadline=None, max_examples=25)
@given(
    family=st.sampled_from(["gpt", "gpt2", "llama"]),
    heads=st.integers(1, 4),
    half_head=st.integers(1, 8),
    depth=st.integers(1, 3),
    ff_quarters=st.integers(1, 20),
    seq_len=st.integers(2, 40),
    vocab_size=st.integers(2, 80),
    tied=st.booleans(),
)
def test_closed_forms_hold_for_every_shape(family, heads, half_head, depth, ff_quarters, seq_len, vocab_size, tied):
    config = ModelConfig(
        family=family, width=heads * 2 * half_head, head_size=2 * half_head, depth=depth,
        ff_ratio=ff_quarters / (2 * half_head), seq_len=seq_len, tied=tied, parametrization="sp",
    )  # fmt: skip
    model = GPT(config, vocab_size)
    assert count_params(config, vocab_size).total == sum(parameter.numel() for parameter in model.parameters())
