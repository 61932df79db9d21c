"""Scales by hand, initialisation, and coordinate checks: what a training step does to activations at each shape."""

from collections import Counter

import pytest
import torch

from harness.model import GPT, ModelConfig, initialize, parameter_groups
from harness.model.parametrization import Scales, scales

VOCAB = 64
# width = 4 * base, depth = 2 * base, so m = 4 and k = 2; head size 16
SHAPE = dict(family="llama", ff_ratio=2.75, width=128, depth=4, base_width=32, base_depth=2)


def built(seed=0, **changes):
    model = GPT(ModelConfig(**{**SHAPE, **changes}), VOCAB)
    initialize(model, seed)
    return model


@pytest.mark.parametrize(
    "parametrization, expected",
    [
        # attention 16^-1/2 = 1/4
        ("sp", Scales(matrix_std=1, matrix_lr=1, matrix_weight_decay=1, block_eps=1, outer_eps=1, logits=1,
                      attention=1 / 4, residual=1)),
        # 4^-1/2 = 1/2
        ("mup", Scales(matrix_std=1 / 2, matrix_lr=1 / 4, matrix_weight_decay=4, block_eps=1 / 4, outer_eps=1 / 4,
                       logits=1 / 4, attention=1 / 16, residual=1)),
        # lr 1/4 * 2^(alpha - 1) = 1/4 and eps 1/4 * 2^-alpha = 1/8 at alpha = 1
        ("completep", Scales(matrix_std=1 / 2, matrix_lr=1 / 4, matrix_weight_decay=4, block_eps=1 / 8,
                             outer_eps=1 / 4, logits=1 / 4, attention=1 / 16, residual=1 / 2)),
    ],
)  # fmt: skip
def test_every_scale_at_four_widths_and_two_depths(parametrization, expected):
    assert scales(ModelConfig(**SHAPE, parametrization=parametrization)) == expected


@pytest.mark.parametrize(
    "parametrization, expected",
    [
        ("sp", {("embedding", 1, 1, 1): 1, ("matrix", 1, 1, 1): 16, ("vector", 1, 0, 1): 9, ("head", 1, 1, 1): 1}),
        ("completep", {("embedding", 1, 1, 1 / 4): 1, ("matrix", 1 / 4, 4, 1 / 8): 16, ("vector", 1, 0, 1 / 8): 8,
                       ("vector", 1, 0, 1 / 4): 1, ("head", 1, 1, 1 / 4): 1}),
    ],
)  # fmt: skip
def test_parameter_groups(parametrization, expected):
    """Four blocks of four matrices and two gains, the final gain, embedding and head: kind, lr, decay, eps."""
    model = built(parametrization=parametrization)
    found = Counter()
    for group in parameter_groups(model):
        found[group.kind, group.lr_scale, group.weight_decay_scale, group.eps_scale] += len(group.params)
    assert found == expected
    grouped = [id(parameter) for group in parameter_groups(model) for parameter in group.params]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())


def test_tied_head_is_grouped_once_as_embedding():
    model = built(family="gpt2", ff_ratio=4, tied=True, parametrization="sp")
    kinds = Counter({group.kind: len(group.params) for group in parameter_groups(model)})
    assert kinds["embedding"] == 2 and kinds["head"] == 0  # tokens and positions


@pytest.mark.parametrize("family, ff_ratio", [("gpt", 4), ("llama", 2.75)])
def test_at_the_base_shape_all_agree_but_for_attention(family, ff_ratio):
    base = dict(family=family, ff_ratio=ff_ratio, width=32, depth=2)
    sp, mup, completep = (built(**base, parametrization=name) for name in ("sp", "mup", "completep"))
    tokens_BT = torch.arange(32).view(2, 16)
    for other in (mup, completep):
        for ours, theirs in zip(sp.parameters(), other.parameters(), strict=True):
            assert torch.equal(ours, theirs)
        groups, other_groups = parameter_groups(sp), parameter_groups(other)
        assert [(g.kind, g.lr_scale, g.weight_decay_scale, g.eps_scale) for g in groups] == [
            (g.kind, g.lr_scale, g.weight_decay_scale, g.eps_scale) for g in other_groups
        ]
        if family == "llama":
            assert not torch.equal(other(tokens_BT), sp(tokens_BT))
            for block in other.blocks:
                block.attention.scale = sp.blocks[0].attention.scale
        assert torch.equal(other(tokens_BT), sp(tokens_BT))


@pytest.mark.parametrize("family, ff_ratio", [("gpt", 4), ("gpt2", 4), ("llama", 2.75)])
def test_initialisation_follows_the_seed_alone(family, ff_ratio):
    first = built(family=family, ff_ratio=ff_ratio)
    torch.manual_seed(99)
    again, other = built(family=family, ff_ratio=ff_ratio), built(seed=1, family=family, ff_ratio=ff_ratio)
    for (name, ours), same, different in zip(
        first.named_parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(ours, same), name
        if ours.ndim == 1:
            assert torch.equal(ours, torch.zeros_like(ours) if name.endswith("bias") else torch.ones_like(ours)), name
        else:
            assert not torch.equal(ours, different), name


@pytest.mark.parametrize(
    "family, parametrization, branch_end",
    # .02 * 4^-1/2 = .01; GPT-2 divides by sqrt(2 * depth): sp .02 / sqrt(8), completep .01 / sqrt(2 * 2) = .005
    [("llama", "mup", 0.01), ("gpt2", "sp", 0.02 / 8**0.5), ("gpt2", "completep", 0.005)],
)
def test_initial_standard_deviations(family, parametrization, branch_end):
    model = built(family=family, parametrization=parametrization, ff_ratio=3)
    matrix = 0.02 if parametrization == "sp" else 0.01
    block = model.blocks[3]
    stds = [(block.attention.qkv, matrix), (block.feed_forward.up, matrix), (block.attention.out, branch_end),
            (block.feed_forward.down, branch_end), (model.embedding, 0.02), (model.head, 0.02)]  # fmt: skip
    for layer, expected in stds:
        # 8192 numbers or more: the standard error of a standard deviation is below .8 %
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.03)


def activations_after(steps, lr=0.01, **changes):
    """Sizes after AdamW steps on one repeated batch: mean |last block's output| and mean |change of a logit|.

    The logits of the start itself fall as width^-1/2 under mup (Yang et al. 2022); what is learned stays.
    """
    model = built(**changes)
    groups = [
        dict(params=group.params, lr=lr * group.lr_scale, eps=1e-8 * group.eps_scale, weight_decay=0.0)
        for group in parameter_groups(model)
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    rows_BT = torch.randint(VOCAB, (4, 17), generator=torch.Generator().manual_seed(0))
    sizes = {}
    model.final_norm.register_forward_pre_hook(lambda _, inputs: sizes.update(stream=inputs[0].abs().mean().item()))
    with torch.no_grad():
        before = model(rows_BT[:, :-1])
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(rows_BT[:, :-1], rows_BT[:, 1:]).backward()
        optimizer.step()
    with torch.no_grad():
        sizes["logit_change"] = (model(rows_BT[:, :-1]) - before).abs().mean().item()
    return sizes


def growth(small, large):
    return {name: large[name] / small[name] for name in small}


@pytest.mark.parametrize("family, ff_ratio", [("gpt", 4), ("llama", 2.75)])
def test_coordinate_check_over_width(family, ff_ratio):
    shape = dict(family=family, ff_ratio=ff_ratio, depth=2)
    sizes = {
        (name, width): activations_after(4, **shape, parametrization=name, width=width)
        for name in ("sp", "mup")
        for width in (32, 64, 128, 256)
    }
    for width in (64, 128, 256):
        for name, factor in growth(sizes["mup", 32], sizes["mup", width]).items():
            assert 1 / 1.7 < factor < 1.7, (width, name, factor)
    sp = growth(sizes["sp", 32], sizes["sp", 256])
    assert sp["stream"] > 3 and sp["logit_change"] > 3, sp


def test_coordinate_check_over_depth():
    shape = dict(family="gpt", ff_ratio=4, width=32, base_depth=2)
    sizes = {
        (name, depth): activations_after(4, **shape, parametrization=name, depth=depth)
        for name in ("mup", "completep")
        for depth in (2, 8, 16)
    }
    for depth in (8, 16):
        for name, factor in growth(sizes["completep", 2], sizes["completep", depth]).items():
            assert 1 / 1.7 < factor < 1.7, (depth, name, factor)
    assert growth(sizes["mup", 2], sizes["mup", 16])["stream"] > 3
