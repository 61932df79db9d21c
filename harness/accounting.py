"""Parameters and training FLOPs of a shape in closed form."""

from __future__ import annotations

from dataclasses import dataclass

from harness.model.config import FAMILIES, ModelConfig


@dataclass(frozen=True)
class ParamCounts:
    """total: every parameter once. non_embedding: without token table, position table and head.
    with_head: non_embedding plus vocabulary x width, whether the head is tied or not."""

    total: int
    non_embedding: int
    with_head: int


def _block_matrices(config: ModelConfig) -> int:
    """Weights of one block's matrices: query, key, value and output, then the feed-forward's two or three."""
    ff_matrices = 3 if FAMILIES[config.family].activation == "swiglu" else 2
    return 4 * config.width**2 + ff_matrices * config.width * config.ff_width


def _block_vectors(config: ModelConfig) -> int:
    family = FAMILIES[config.family]
    norms = (2 if family.layer_norm else 1) * 2 * config.width
    biases = (4 * config.width + config.ff_width + config.width) if family.bias else 0
    qk_gains = 2 * config.head_size if family.qk_norm else 0
    return norms + biases + qk_gains


def count_params(config: ModelConfig, vocab_size: int) -> ParamCounts:
    """The three parameter counts of a model over `vocab_size` tokens."""
    family = FAMILIES[config.family]
    final_norm = (2 if family.layer_norm else 1) * config.width
    non_embedding = config.depth * (_block_matrices(config) + _block_vectors(config)) + final_norm
    table = vocab_size * config.width
    positions = 0 if family.rotary else config.seq_len * config.width
    total = non_embedding + positions + table * (1 if config.tied else 2)
    return ParamCounts(total=total, non_embedding=non_embedding, with_head=non_embedding + table)


def train_flops_per_token(config: ModelConfig, vocab_size: int) -> int:
    """Training FLOPs a token: three times the forward pass's matrix products at seq_len tokens a sequence.

    A multiply-add is two FLOPs. Attention is counted in full (T x T, not the causal half); the head counts,
    table look-ups, norms, rotations and activations do not; nothing is recomputed. Both gradients of every
    product count, the first block's input gradient too, since the embedding is trained. It is exactly what
    torch.utils.flop_counter counts for forward and backward under the MATH attention backend.
    """
    attention = 2 * config.seq_len * config.width  # QK^T and AV, multiply-adds a token
    forward = 2 * (config.depth * (_block_matrices(config) + attention) + vocab_size * config.width)
    return 3 * forward
