"""How initialisation, learning rate and multipliers follow from a model's shape.

With m = width / base_width and k = depth / base_depth, relative to sp, under AdamW:

| quantity                         | sp           | mup        | completep  |
|----------------------------------|--------------|------------|------------|
| matrix: init std                 | 1            | m^-1/2     | m^-1/2     |
| matrix: learning rate            | 1            | 1/m        | 1/m        |
| matrix: weight decay             | 1            | m          | m          |
| embedding, head, vector: std, lr | 1            | 1          | 1          |
| vector: weight decay             | 0            | 0          | 0          |
| Adam epsilon in the blocks       | 1            | 1/m        | 1/(m k)    |
| Adam epsilon elsewhere           | 1            | 1/m        | 1/m        |
| logits                           | 1            | 1/m        | 1/m        |
| attention scale                  | d_head^-1/2  | 1/d_head   | 1/d_head   |
| residual branch                  | 1            | 1          | 1/k        |

At the base shape the three agree but for the attention scale. Head size is fixed across widths, so that scale is the
same at every width; where queries and keys are normed (family gpt) it is 16/d_head under all three (see gpt.py).
A family that shrinks its residual init with depth (gpt2) does so by base_depth under completep, whose 1/k does the
rest. Position tables count as embeddings. Weight decay times m keeps its product with the learning rate the same at
every width.

Sources: Yang et al. 2022 (Tensor Programs V, arXiv 2203.03466, table 8 and definition 4.1), Dey et al. 2024
(Cerebras and EleutherAI, The Practitioner's Guide to the Maximal Update Parameterization), Dey et al. 2025 (CompleteP,
arXiv 2505.01618, table 1, at alpha = 1, where the factors k^(alpha-1) of the learning rates are 1).
"""

from dataclasses import dataclass

from harness.model.config import ModelConfig


@dataclass(frozen=True)
class Scales:
    """Multipliers of one shape under its parametrization; the table above says which is which."""

    matrix_std: float
    matrix_lr: float
    matrix_weight_decay: float
    block_eps: float
    outer_eps: float
    logits: float
    attention: float
    residual: float


def scales(config: ModelConfig) -> Scales:
    """The multipliers of `config`'s shape."""
    if config.parametrization == "sp":
        return Scales(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, config.head_size**-0.5, 1.0)
    m = config.width / config.base_width
    k = config.depth / config.base_depth if config.parametrization == "completep" else 1.0
    return Scales(
        matrix_std=m**-0.5,
        matrix_lr=1 / m,
        matrix_weight_decay=m,
        block_eps=1 / (m * k),
        outer_eps=1 / m,
        logits=1 / m,
        attention=1 / config.head_size,
        residual=1 / k,
    )
