"""gpt2 and llama as `transformers` has them, and their weights for ours."""

import torch
import transformers
from torch import nn

from harness.model import ModelConfig


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


def their_gpt2(config: ModelConfig, vocab_size: int) -> nn.Module:
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=vocab_size, n_positions=config.seq_len, n_embd=config.width, n_layer=config.depth,
        n_head=config.width // config.head_size, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
        layer_norm_epsilon=config.norm_eps, tie_word_embeddings=config.tied, bos_token_id=0, eos_token_id=0,
    ))  # fmt: skip


def their_llama(config: ModelConfig, vocab_size: int) -> nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=vocab_size, hidden_size=config.width, intermediate_size=config.width * 11 // 4,
        num_hidden_layers=config.depth, num_attention_heads=config.width // config.head_size,
        max_position_embeddings=config.seq_len, rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta}, tie_word_embeddings=config.tied,
    ))  # fmt: skip


# By family: how transformers makes it, and how ours gets its weights.
FAMILIES = {"gpt2": (their_gpt2, copy_gpt2), "llama": (their_llama, copy_llama)}
