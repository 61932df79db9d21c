"""Parameters and training FLOPs of a shape: in closed form, of a user's module from the module itself."""

from __future__ import annotations

from dataclasses import dataclass

from harness.model.config import CUSTOM, FAMILIES, ModelConfig


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
    if config.family == CUSTOM:
        return _counted(config, vocab_size)
    family = FAMILIES[config.family]
    final_norm = (2 if family.layer_norm else 1) * config.width
    non_embedding = config.depth * (_block_matrices(config) + _block_vectors(config)) + final_norm
    table = vocab_size * config.width
    positions = 0 if family.rotary else config.seq_len * config.width
    total = non_embedding + positions + table * (1 if config.tied else 2)
    return ParamCounts(total=total, non_embedding=non_embedding, with_head=non_embedding + table)


def _counted(config: ModelConfig, vocab_size: int) -> ParamCounts:
    """Of a user's module: a head's bias is counted with its matrix, every other table with the embedding."""
    from harness.model.kinds import kinds_of  # torch, which a configuration does not need

    kinds = kinds_of(config, vocab_size).values()
    tables = sum(kind.size for kind in kinds if kind.reads or kind.name in ("embedding", "position"))
    total = sum(kind.size for kind in kinds)
    head = sum(kind.size for kind in kinds if kind.reads)
    return ParamCounts(total=total, non_embedding=total - tables, with_head=total - tables + head)


def custom_bytes(config: ModelConfig, vocab_size: int, tokens: int) -> int:
    """An upper estimate of what a step of a user's module holds for `tokens` at once, in float32 and op by op, beside
    weights, gradients and moments: what autograd keeps, and two gradients of logits."""
    from harness.model.measure import cost_of

    return tokens * (cost_of(config, vocab_size).kept + 8 * vocab_size)


def train_flops_per_token(config: ModelConfig, vocab_size: int) -> int:
    """Training FLOPs a token: three times the forward pass's matrix products at seq_len tokens a sequence.

    A multiply-add is two FLOPs. Attention is counted in full (T x T, not the causal half); the head counts,
    table look-ups, norms, rotations and activations do not; nothing is recomputed. Both gradients of every
    product count, the first block's input gradient too, since the embedding is trained. It is exactly what
    torch.utils.flop_counter counts for forward and backward under the MATH attention backend; of a user's module it is
    what that counts on the meta device, in its own loss where it has one.
    """
    if config.family == CUSTOM:
        from harness.model.measure import cost_of

        return cost_of(config, vocab_size).flops
    attention = 2 * config.seq_len * config.width  # QK^T and AV, multiply-adds a token
    forward = 2 * (config.depth * (_block_matrices(config) + attention) + vocab_size * config.width)
    return 3 * forward
