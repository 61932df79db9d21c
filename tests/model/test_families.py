"""gpt2 and llama against transformers, with the same weights; gpt against its own definition."""

import pytest
import torch
import torch.nn.functional as F
from field_models import FAMILIES, randomized

from harness.model import GPT, ModelConfig, initialize

VOCAB = 61


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("width, head_size, depth", [(64, 16, 2), (96, 32, 3)])
@pytest.mark.parametrize(("family", "more"), [
    ("gpt2", {}), ("llama", {"ff_ratio": 2.75, "rope_theta": 1e4}), ("llama", {"ff_ratio": 2.75, "rope_theta": 5e5}),
])  # fmt: skip
def test_gpt2_and_llama_are_those_of_transformers(family, more, width, head_size, depth, tied):
    config = ModelConfig(family=family, width=width, depth=depth, head_size=head_size, seq_len=24, tied=tied,
                         norm_eps=1e-5, parametrization="sp", **more)  # fmt: skip
    make, copy = FAMILIES[family]
    theirs, ours = randomized(make(config, VOCAB)), GPT(config, VOCAB)
    copy(theirs, ours)
    tokens_BT = torch.randint(VOCAB, (3, 20), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(tokens_BT), theirs(tokens_BT).logits, rtol=0, atol=1e-5)


def test_gpt_follows_its_definition():
    """One block of the gpt family written out with explicit rotations, norms and softmax."""
    config = ModelConfig(width=32, depth=1, head_size=8, seq_len=12, parametrization="sp")
    model = GPT(config, VOCAB)
    initialize(model, 0)
    randomized(model)
    block, T = model.blocks[0], 12

    def norm(x, gain):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gain

    def turn(x_TNH):
        angle_TP = torch.arange(T)[:, None] * 10000.0 ** (-torch.arange(4) / 4)
        turned = torch.complex(x_TNH[..., :4], x_TNH[..., 4:]) * torch.polar(torch.ones(T, 4), angle_TP)[:, None]
        return torch.cat([turned.real, turned.imag], -1)

    tokens_T = torch.randint(VOCAB, (T,), generator=torch.Generator().manual_seed(0))
    x_TD = model.embedding.weight[tokens_T]
    q_TD, k_TD, v_TD = (norm(x_TD, block.attention_norm.weight) @ block.attention.qkv.weight.t()).chunk(3, 1)
    q_TNH = turn(norm(q_TD.view(T, 4, 8), block.attention.query_gain))
    k_TNH = turn(norm(k_TD.view(T, 4, 8), block.attention.key_gain))
    scores_NTS = torch.einsum("tnh,snh->nts", q_TNH, k_TNH) * 16 / 8
    scores_NTS = scores_NTS.masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf)
    mixed_TNH = torch.einsum("nts,snh->tnh", scores_NTS.softmax(-1), v_TD.view(T, 4, 8))
    x_TD = x_TD + mixed_TNH.reshape(T, 32) @ block.attention.out.weight.t()
    up_TF = norm(x_TD, block.feed_forward_norm.weight) @ block.feed_forward.up.weight.t()
    x_TD = x_TD + F.relu(up_TF) ** 2 @ block.feed_forward.down.weight.t()
    expected_TV = norm(x_TD, model.final_norm.weight) @ model.head.weight.t()
    torch.testing.assert_close(model(tokens_T[None])[0], expected_TV, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("family", ["gpt", "gpt2", "llama"])
def test_a_token_sees_only_its_past(family):
    config = ModelConfig(family=family, width=32, depth=2, seq_len=16)
    model = GPT(config, VOCAB)
    initialize(model, 0)
    randomized(model)
    tokens_BT = torch.randint(VOCAB, (1, 16), generator=torch.Generator().manual_seed(0))
    changed_BT = tokens_BT.clone()
    changed_BT[0, 9] = (changed_BT[0, 9] + 1) % VOCAB
    moved_T = (model(tokens_BT) - model(changed_BT)).abs().amax((0, 2))
    assert moved_T[:9].max() < 1e-5
    assert moved_T[9:].min() > 1e-4
