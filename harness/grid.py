"""The cells of a grid and what they cost."""

import copy
import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from harness.accounting import ParamCounts, count_params, custom_bytes, train_flops_per_token
from harness.config import MOST_TOKENS, TrainConfig
from harness.data.corpus import facts_of
from harness.data.facts import RANKS_OF_BUDGET
from harness.errors import UserError
from harness.model.config import CUSTOM
from harness.model.source import load
from harness.units import count_label, counted

# Raise by hand when a change of the training code changes losses: finished cells are then trained anew.
TRAINING_REVISION = 6
# torch and what else a process imports; a CUDA context is about as much.
PROCESS_BYTES = 512 * 2**20
OF_OPTIMIZER = ("name", "beta1", "beta2", "eps", "gradient_clip", "target", "args")  # what can change a loss


@dataclass(frozen=True)
class Cell:
    """One shape x token budget x seed. Steps are optimizer steps; the cooldown starts at branch_step."""

    name: str
    trunk: str
    config_hash: str
    tokens: int  # steps * batch_tokens
    steps: int
    branch_step: int
    flops: int  # as if trained alone


@dataclass(frozen=True)
class Trunk:
    """One run at a constant rate (wsd) or one whole run (cosine), with every number its rules gave."""

    name: str
    job: TrainConfig
    vocab_size: int
    params: ParamCounts
    flops_per_token: int
    batch_sequences: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    cells: tuple[Cell, ...]  # ascending in tokens

    @property
    def batch_tokens(self) -> int:
        return self.batch_sequences * self.job.model.seq_len

    @property
    def rank_sequences(self) -> int:
        """Of a batch, the most that one of the job's GPUs has."""
        return -(-self.batch_sequences // self.job.gpus)

    @property
    def flops_to_train(self) -> int:
        """FLOPs of the trunk, counted once, and its cooldowns."""
        cooldowns = sum(cell.steps - cell.branch_step for cell in self.cells)
        return (self.cells[-1].branch_step + cooldowns) * self.batch_tokens * self.flops_per_token

    def cooldown_flops(self, cell: Cell) -> int:
        return (cell.steps - cell.branch_step) * self.batch_tokens * self.flops_per_token

    @property
    def training_bytes(self) -> int:
        """An upper estimate of what each process that trains this needs, in float32: itself; weights, gradients and
        AdamW's two moments; what the backward pass keeps of a micro-batch: some 16 rows of the width and 4 of the
        feed-forward width a block; of a user's module as measured."""
        model = self.job.model
        tokens = min(self.rank_sequences * model.seq_len, self.job.optimizer.micro_batch_tokens)
        if model.family == CUSTOM:
            return PROCESS_BYTES + 16 * self.params.total + custom_bytes(model, self.vocab_size, tokens)
        kept = tokens * (model.depth * (16 * model.width + 4 * model.ff_width) + 4 * model.width)
        head = 2 * self.vocab_size * model.width
        return PROCESS_BYTES + 16 * self.params.total + 4 * (kept + head)


def make_trunks(job: TrainConfig, vocab_size: int, recipe_hash: str, precision: str) -> list[Trunk]:
    """The trunks of one job: one under wsd, one a budget under cosine.

    vocab_size is the tokenizer's, recipe_hash the token store's, precision the resolved one. Raises UserError
    for a budget that no run can have.
    """
    job = copy.deepcopy(job)
    if job.model.vocab_size is not None and job.model.vocab_size < vocab_size:
        raise UserError(
            f"model.vocab_size={job.model.vocab_size} is below the tokenizer's {vocab_size}: "
            "set it to null, or to that or more"
        )
    vocab_size = job.model.vocab_size or vocab_size
    params = count_params(job.model, vocab_size)
    flops_per_token = train_flops_per_token(job.model, vocab_size)
    key, values = job.budgets()
    scale = {"tokens": 1.0, "tokens_per_param": params.with_head, "flops": 1 / flops_per_token}[key]
    budgets = [value * scale for value in values]
    groups = [budgets] if job.schedule.name == "wsd" else [[budget] for budget in budgets]
    return [_trunk(job, group, vocab_size, params, flops_per_token, recipe_hash, precision) for group in groups]


def _trunk(
    job: TrainConfig,
    budgets: list[float],
    vocab_size: int,
    params: ParamCounts,
    flops_per_token: int,
    recipe_hash: str,
    precision: str,
) -> Trunk:
    rules = {
        name: rule.at(params.with_head, budgets[-1] if rule.tokens_exponent else None)
        for name, rule in job.optimizer.by_size().items()
    }
    if job.schedule.name == "cosine":
        rules["learning_rate"] *= job.schedule.peak_factor
    sequences = _batch_sequences(job, rules["batch_tokens"])
    batch_tokens = sequences * job.model.seq_len
    warmup_steps = round(rules["warmup_tokens"] / batch_tokens)
    identity = {
        "revision": TRAINING_REVISION,
        "model": written("model", asdict(job.model)) | {"vocab_size": vocab_size},
        "tokens": recipe_hash,
        "precision": precision,
        "seed": job.seed,
        "batch_tokens": batch_tokens,
        "warmup_steps": warmup_steps,
        "learning_rate": rules["learning_rate"],
        "weight_decay": rules["weight_decay"],
        "optimizer": written("optimizer", {name: getattr(job.optimizer, name) for name in OF_OPTIMIZER}),
        "schedule": job.schedule.name,
    }
    if job.schedule.name == "cosine":
        identity |= {"budget": budgets[0], "final_fraction": job.schedule.final_fraction}
    if job.gpus > 1:  # whose sums round otherwise
        identity["gpus"] = job.gpus
    trunk_hash = short_hash(identity)
    name = f"w{job.model.width}-d{job.model.depth}-s{job.seed}-{trunk_hash}"
    cells = tuple(_cell(job, budget, batch_tokens, warmup_steps, flops_per_token, name) for budget in budgets)
    for before, after in zip(cells, cells[1:], strict=False):
        if before.steps == after.steps:
            raise UserError(
                f"tokens: two budgets of {name} round to the same {after.tokens} tokens of "
                f"{batch_tokens} a step: set them further apart"
            )
    return Trunk(
        name=name,
        job=job,
        vocab_size=vocab_size,
        params=params,
        flops_per_token=flops_per_token,
        batch_sequences=sequences,
        learning_rate=rules["learning_rate"],
        warmup_steps=warmup_steps,
        weight_decay=rules["weight_decay"],
        cells=cells,
    )


def written(group: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a model or an optimizer as they are a part of an identity: with the sources of one that the user
    wrote, and of another without the keys that only such a one has."""
    if settings["target"] is None:
        return {key: value for key, value in settings.items() if key not in ("target", "args")}
    return settings | {"code": load(group, settings["target"]).code}


def _batch_sequences(job: TrainConfig, batch_tokens: float) -> int:
    sequences = round(batch_tokens / job.model.seq_len)
    if sequences < 1:
        raise UserError(
            f"optimizer.batch_tokens={batch_tokens:.4g} is below half of one sequence of "
            f"model.seq_len={job.model.seq_len}: raise optimizer.batch_tokens.value, or lower model.seq_len"
        )
    if sequences < job.gpus:
        more = "lower it, or raise optimizer.batch_tokens.value"
        raise UserError(f"gpus={job.gpus} is more than the {counted(sequences, 'sequence')} of a batch: {more}")
    return sequences


def _cell(
    job: TrainConfig, budget: float, batch_tokens: int, warmup_steps: int, flops_per_token: int, trunk: str
) -> Cell:
    if budget < batch_tokens:
        raise UserError(
            f"{_asked(job, budget)} is below one batch of {batch_tokens} tokens: raise it, or lower "
            "optimizer.batch_tokens.value"
        )
    if budget > MOST_TOKENS:
        raise UserError(f"{_asked(job, budget)} is more than float64 counts exactly: stay below 2^53 tokens")
    steps = round(budget / batch_tokens)
    cooldown = job.schedule.cooldown_fraction if job.schedule.name == "wsd" else 0.0
    branch_step = steps - max(1, round(steps * cooldown)) if cooldown else steps
    if warmup_steps > branch_step:
        raise UserError(
            f"optimizer.warmup_tokens={warmup_steps * batch_tokens} outlasts the constant rate of "
            f"{_asked(job, budget)}: lower optimizer.warmup_tokens.value or drop that budget"
        )
    config_hash = short_hash({"trunk": trunk, "budget": budget, "cooldown": cooldown})
    name = f"w{job.model.width}-d{job.model.depth}-t{count_label(budget)}-s{job.seed}-{config_hash}"
    tokens = steps * batch_tokens
    return Cell(name, trunk, config_hash, tokens, steps, branch_step, tokens * flops_per_token)


def _asked(job: TrainConfig, budget: float) -> str:
    """A budget by the key that gives it."""
    key, _ = job.budgets()
    return f"tokens={budget:.16g}" if key == "tokens" else f"{key}={getattr(job, key)}, {budget:.4g} tokens,"


def short_hash(value: Any) -> str:
    """Eight hexadecimal digits that name `value`, any JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def check_distinct(trunks: list[Trunk]) -> None:
    """Raises UserError where two jobs of a sweep would train the same trunk or cell."""
    seen: set[str] = set()
    for trunk in trunks:
        if trunk.name in seen:
            raise UserError(
                f"the grid names {trunk.name.rsplit('-', 1)[0]} twice: list each shape and seed once, and "
                "let what else varies be a key that changes losses"
            )
        seen.add(trunk.name)


def check_ranks(trunk: Trunk, unique_tokens: int) -> None:
    """Raises UserError where a budget learns so many of the facts of data.source=facts that they end."""
    data = trunk.job.data
    language = facts_of(data)
    seen = min(trunk.cells[-1].tokens, unique_tokens) // language.document_tokens
    needed = math.ceil(RANKS_OF_BUDGET * seen ** (1 / data.tail))
    if data.ranks < needed:
        raise UserError(
            f"data.ranks={data.ranks} are too few for the {seen} facts of {_asked(trunk.job, trunk.cells[-1].tokens)} "
            f"at data.tail={data.tail:g}: set it to {needed} or more, or lower the budget"
        )


def check_memory(trunk: Trunk, memory_bytes: int) -> None:
    """Raises UserError where weights, gradients and AdamW's two moments, 4 bytes each, do not fit into memory."""
    needed = 16 * trunk.params.total
    if needed > memory_bytes:
        model = trunk.job.model
        raise UserError(
            f"model.width={model.width}, model.depth={model.depth} and a vocabulary of {trunk.vocab_size} need "
            f"{needed / 2**30:.3g} GiB to train and this device has {memory_bytes / 2**30:.3g}: make the model smaller"
        )


def schedule_makespan(seconds: list[float], slots: int) -> float:
    """Wall time of jobs that start in the given order, each on the first slot that is free."""
    ends = [0.0] * max(1, slots)
    for duration in seconds:
        first = min(range(len(ends)), key=ends.__getitem__)
        ends[first] += duration
    return max(ends)


def check_splits(trunk: Trunk, unique_tokens: int, validation_tokens: int) -> None:
    """Raises UserError where a split of a corpus is shorter than what is taken of it at once.

    unique_tokens are those of whole sequences to train on, validation_tokens the length of the validation split.
    """
    seq_len = trunk.job.model.seq_len
    if validation_tokens <= seq_len:
        raise UserError(
            f"the validation split has {validation_tokens} tokens, too few for one sequence of model.seq_len={seq_len} "
            f"and its last target: raise data.validation_tokens to {seq_len + 1} or more, or lower model.seq_len"
        )
    if unique_tokens < seq_len:
        raise UserError(
            f"the training split has too few tokens for one sequence of model.seq_len={seq_len} and its last target: "
            "lower model.seq_len or data.validation_tokens, or take a larger corpus"
        )
    if trunk.batch_tokens > unique_tokens:
        raise UserError(
            f"a batch of {trunk.batch_tokens} tokens is more than the {unique_tokens} unique ones of the training "
            "split: lower optimizer.batch_tokens.value, or take a larger corpus"
        )


def check_unique(trunks: list[Trunk], unique_tokens: int, exhausted: bool) -> None:
    """Raises UserError where a cell sees more tokens than there are, unless data.repeat allows it."""
    for trunk in trunks:
        most = trunk.cells[-1].tokens
        if most > unique_tokens and not trunk.job.data.repeat:
            assert exhausted
            raise UserError(
                f"{_asked(trunk.job, most)} is more than the {unique_tokens} unique ones of the training split: "
                "lower it, or allow epochs with data.repeat=true"
            )
