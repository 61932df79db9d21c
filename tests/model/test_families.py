"""gpt2 and llama against transformers, with the same weights; gpt against its own definition."""

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn

from harness.model import GPT, ModelConfig, initialize

VOCAB = 61


def randomized(model):
    """Every parameter away from 0 and 1, so that a wrong or missing one shows."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def copy_gpt2(theirs, ours):
    state = theirs.state_dict()
    with torch.no_grad():
        ours.embedding.weight.copy_(state["transformer.wte.weight"])
        ours.position.weight.copy_(state["transformer.wpe.weight"])
        ours.head.weight.copy_(state["lm_head.weight"])
        names = {
            "attention_norm": "ln_1",
            "feed_forward_norm": "ln_2",
            "attention.qkv": "attn.c_attn",
            "attention.out": "attn.c_proj",
            "feed_forward.up": "mlp.c_fc",
            "feed_forward.down": "mlp.c_proj",
        }
        for i, block in enumerate(ours.blocks):
            for our_name, their_name in names.items():
                layer, prefix = block.get_submodule(our_name), f"transformer.h.{i}.{their_name}"
                weight = state[f"{prefix}.weight"]
                # transformers keeps GPT-2's matrices as (in, out)
                layer.weight.copy_(weight.t() if isinstance(layer, nn.Linear) else weight)
                layer.bias.copy_(state[f"{prefix}.bias"])
        ours.final_norm.weight.copy_(state["transformer.ln_f.weight"])
        ours.final_norm.bias.copy_(state["transformer.ln_f.bias"])


def copy_llama(theirs, ours):
    with torch.no_grad():
        ours.embedding.weight.copy_(theirs.model.embed_tokens.weight)
        ours.head.weight.copy_(theirs.lm_head.weight)
        ours.final_norm.weight.copy_(theirs.model.norm.weight)
        for block, layer in zip(ours.blocks, theirs.model.layers, strict=True):
            attention, mlp = layer.self_attn, layer.mlp
            queries_keys_values = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
            block.attention.qkv.weight.copy_(torch.cat(queries_keys_values))
            block.attention.out.weight.copy_(attention.o_proj.weight)
            block.feed_forward.up.weight.copy_(torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]))
            block.feed_forward.down.weight.copy_(mlp.down_proj.weight)
            block.attention_norm.weight.copy_(layer.input_layernorm.weight)
            block.feed_forward_norm.weight.copy_(layer.post_attention_layernorm.weight)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("width, head_size, depth", [(64, 16, 2), (96, 32, 3)])
def test_gpt2_is_transformers_gpt2(width, head_size, depth, tied):
    their_config = transformers.GPT2Config(
        vocab_size=VOCAB, n_positions=24, n_embd=width, n_layer=depth, n_head=width // head_size,
        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, tie_word_embeddings=tied, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    theirs = randomized(transformers.GPT2LMHeadModel(their_config))
    config = ModelConfig(family="gpt2", width=width, depth=depth, head_size=head_size, seq_len=24, tied=tied,
                         norm_eps=1e-5, parametrization="sp")  # fmt: skip
    ours = GPT(config, VOCAB)
    copy_gpt2(theirs, ours)
    tokens_BT = torch.randint(VOCAB, (3, 20), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(tokens_BT), theirs(tokens_BT).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("width, head_size, depth, theta", [(64, 16, 2, 1e4), (96, 32, 3, 5e5)])
def test_llama_is_transformers_llama(width, head_size, depth, theta, tied):
    their_config = transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=width, intermediate_size=width * 11 // 4, num_hidden_layers=depth,
        num_attention_heads=width // head_size, max_position_embeddings=24, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": theta}, tie_word_embeddings=tied,
    )  # fmt: skip
    theirs = randomized(transformers.LlamaForCausalLM(their_config))
    config = ModelConfig(family="llama", width=width, depth=depth, head_size=head_size, seq_len=24, tied=tied,
                         ff_ratio=2.75, norm_eps=1e-5, rope_theta=theta, parametrization="sp")  # fmt: skip
    ours = GPT(config, VOCAB)
    copy_llama(theirs, ours)
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
