"""What training takes of a GPU's memory, in closed form; slots, refusals and micro-batches all read it.

The constants were found where no GPU is: by counting the tensors of a step op by op on fake ones, and for compiled code
by running what inductor generates for an H100 with kernels that do nothing. tests/training/test_memory.py has both.
Of a user's module it is an upper estimate, from what autograd keeps of one sequence on the meta device.
"""

from collections.abc import Sequence

from harness.accounting import custom_bytes
from harness.errors import UserError
from harness.grid import Trunk
from harness.model.config import CUSTOM, ModelConfig
from harness.model.cross_entropy import ALIGNED, EAGER_BYTES, LOGITS_BYTES
from harness.training.device import Device, resolve
from harness.training.evaluation import TOKENS_AT_ONCE

# Weights, their gradients and AdamW's two moments; op by op, also the weights in bf16 that autocast keeps.
COMPILED_STATE, EAGER_STATE = 16, 18
# In evaluation: weights, moments and autocast's weights; a logit as it is made, in float32, and its log-softmax.
EVALUATED_STATE, EVALUATED_LOGIT = {"bf16": 14, "float32": 12}, {"bf16": 10, "float32": 8}
# Bytes that a block keeps of a token for backward, for each feature of the width and of the feed-forward width:
# by family, precision and whether the code is compiled.
KEPT = {
    ("gpt", "bf16", True): (26, 4), ("gpt", "bf16", False): (44, 9),
    ("gpt", "float32", True): (44, 8), ("gpt", "float32", False): (56, 8),
    ("gpt2", "bf16", True): (21, 5), ("gpt2", "bf16", False): (20, 4),
    ("gpt2", "float32", True): (36, 8), ("gpt2", "float32", False): (32, 8),
    ("llama", "bf16", True): (26, 6), ("llama", "bf16", False): (32, 8),
    ("llama", "float32", True): (44, 12), ("llama", "float32", False): (48, 16),
}  # fmt: skip
SUMMED = 4  # bytes a parameter: the gradients once more, in a row, where ranks add them up
OUTSIDE_BLOCKS = 16  # bytes a token for each feature of the width
# Bytes of each score of a query and a key, which torch keeps whole on an Apple GPU and nowhere else: of every block in
# training, of one in evaluation.
SCORE = 5
# Of a process beside its tensors: CUDA's context and libraries; and what the allocator loses to fragments.
CONTEXT_BYTES, FRAGMENTS = 10**9, 1.1
# Of a GPU's memory; a screen, the driver and the contexts of idle processes have the rest.
USABLE = 0.9


def step_bytes(config: ModelConfig, vocab_size: int, params: int, tokens: int, device: Device) -> int:
    """The peak of one step over `tokens` at once; `params` counts all of them."""
    if config.family == CUSTOM:
        return EAGER_STATE * params + custom_bytes(config, vocab_size, tokens)
    if device.compile:
        each = 2 if device.precision == "bf16" else 4
        logits = tokens * (vocab_size + -vocab_size % ALIGNED) * each
    else:
        logits = tokens * vocab_size * EAGER_BYTES
    kept = kept_bytes(config, vocab_size, device) + config.depth * score_bytes(config, device)
    kept += OUTSIDE_BLOCKS * config.width
    state = COMPILED_STATE if device.compile else EAGER_STATE
    return state * params + min(logits, LOGITS_BYTES["training"]) + tokens * kept


def kept_bytes(config: ModelConfig, vocab_size: int, device: Device) -> int:
    """What the blocks keep of a token for backward; of a user's module, all that is kept."""
    if config.family == CUSTOM:
        return custom_bytes(config, vocab_size, 1)
    of_width, of_ff = KEPT[config.family, device.precision, device.compile]
    return config.depth * (of_width * config.width + of_ff * config.ff_width)


def score_bytes(config: ModelConfig, device: Device) -> int:
    """What a block's attention holds of a token's scores."""
    return SCORE * config.heads * config.seq_len if device.kind == "mps" else 0


def evaluation_bytes(config: ModelConfig, vocab_size: int, params: int, precision: str, scores: int = 0) -> int:
    """The peak of an evaluation, which is never compiled, with the optimizer's moments beside it.

    scores: bytes of a token, as score_bytes gives them.
    """
    tokens = max(TOKENS_AT_ONCE["cuda"], config.seq_len)
    if config.family == CUSTOM:  # with all that training keeps, of which an evaluation holds a part at a time
        return EVALUATED_STATE[precision] * params + custom_bytes(config, vocab_size, tokens)
    logits = min(tokens * vocab_size, LOGITS_BYTES["evaluation"] // EAGER_BYTES) * EVALUATED_LOGIT[precision]
    return EVALUATED_STATE[precision] * params + logits + tokens * (OUTSIDE_BLOCKS * config.width + scores)


def needed_bytes(trunk: Trunk, device: Device, sequences: int | None = None, token_bytes: int | None = None) -> int:
    """Of a process that trains `trunk` on a GPU, `sequences` at once: those of micro_sequences where none are given.

    token_bytes: of the whole training split; where it is not open yet, what the largest cell sees. More than a quarter
    of the GPU never lies on it.
    """
    if sequences is None:
        sequences = micro_sequences(trunk, device)
    model = trunk.job.model
    shape = (model, trunk.vocab_size, trunk.params.total)
    step = step_bytes(*shape, sequences * model.seq_len, device)
    if trunk.job.gpus > 1:
        step += SUMMED * trunk.params.total
    if token_bytes is None:
        token_bytes = trunk.cells[-1].tokens * (2 if trunk.vocab_size <= 2**16 else 4)
    resident = min(token_bytes, device.memory // 4) if device.memory else 0
    evaluation = evaluation_bytes(*shape, device.precision, score_bytes(model, device))
    return int(FRAGMENTS * max(step, evaluation)) + resident + CONTEXT_BYTES


def memory_of(trunks: Sequence[Trunk]) -> dict[str, int]:
    """Bytes that each process which trains a trunk here needs, by the trunk's name: of its GPU, or of the machine."""
    devices = {trunk.name: resolve(trunk.job) for trunk in trunks}
    return {
        trunk.name: trunk.training_bytes if device.kind == "cpu" else needed_bytes(trunk, device)
        for trunk, device in zip(trunks, devices.values(), strict=True)
    }


def micro_sequences(trunk: Trunk, device: Device) -> int:
    """How many sequences pass through the model at once: as many as the configuration allows and the GPU holds."""
    most = max(1, trunk.job.optimizer.micro_batch_tokens // trunk.job.model.seq_len)
    if not device.memory:
        return most
    most = min(most, trunk.rank_sequences)
    while most > 1 and needed_bytes(trunk, device, most) > USABLE * device.memory:
        most = -(-most // 2)
    return most


def check_gpu_memory(trunk: Trunk, device: Device) -> None:
    """Raises UserError where a trunk does not fit into the largest GPU here, one sequence at a time."""
    if device.memory and (needed := needed_bytes(trunk, device)) > device.memory:
        model = trunk.job.model
        raise UserError(
            f"model.width={model.width}, model.depth={model.depth}, model.seq_len={model.seq_len} and a vocabulary of "
            f"{trunk.vocab_size} need {needed / 2**30:.3g} GiB to train and this GPU has {device.memory / 2**30:.3g}: "
            "make the model or its sequences smaller"
        )
