import copy
import functools
import itertools
from collections.abc import Callable

import numpy as np
import pytest

from harness.config import TrainConfig
from harness.data.batches import Batches
from harness.data.tokens import TokenStore
from harness.errors import UserError
from harness.grid import check_distinct, check_memory, check_splits, check_unique, make_trunks, schedule_makespan
from harness.sweep.compose import compose_sweep


@functools.cache
def composed(*arguments: str) -> TrainConfig:
    (job,) = compose_sweep(["tracking=none", *arguments]).jobs
    return job


@pytest.fixture
def compose() -> Callable[..., TrainConfig]:
    """A job of its own for each call, composed once for all tests: most of them begin with the same ones."""
    return lambda *arguments: copy.deepcopy(composed(*arguments))


def trunks(job):
    return make_trunks(job, vocab_size=1024, recipe_hash="0", precision="float32")


def test_budgets_are_whole_steps_and_the_cooldown_is_their_last_fifth(compose):
    job = compose("shape=w64-d4", "tokens=[1e6,2e6]", "optimizer.batch_tokens.value=1024")
    (trunk,) = trunks(job)
    # 1e6/1024 = 976.6 -> 977 steps, a fifth of them 195; 2e6/1024 = 1953.1 -> 1953, a fifth 391
    assert [(cell.steps, cell.branch_step, cell.tokens) for cell in trunk.cells] == [
        (977, 782, 1_000_448),
        (1953, 1562, 1_999_872),
    ]
    assert trunk.batch_sequences == 8
    # the trunk to the last branch once, and both cooldowns
    assert trunk.flops_to_train == (1562 + 195 + 391) * 1024 * trunk.flops_per_token
    assert trunk.cells[0].name.startswith("w64-d4-t1M-s0-")


def test_a_trunk_does_not_know_its_budgets_and_a_cell_does(compose):
    one, two = trunks(compose("tokens=1e6"))[0], trunks(compose("tokens=[1e6,2e6]"))[0]
    assert one.name == two.name
    assert one.cells[0].name == two.cells[0].name
    assert two.cells[0].name != two.cells[1].name


@pytest.mark.parametrize(
    "change",
    ["seed=1", "model.width=128", "optimizer.learning_rate.value=.01", "optimizer.beta2=.99", "model.tied=true",
     "optimizer.weight_decay.value=0", "optimizer=muon", "schedule=cosine", "model.norm_eps=1e-5"],
)  # fmt: skip
def test_what_can_change_a_loss_changes_the_trunk(compose, change):
    base = ("tokens=1e6", "model.parametrization=sp")
    assert trunks(compose(*base))[0].name != trunks(compose(*base, change))[0].name


def test_names_are_those_of_before_there_were_several_gpus(compose):
    assert trunks(compose("tokens=1e6", "gpus=1"))[0].name == "w64-d2-s0-a768df05"
    names = {trunks(compose("tokens=1e6", f"gpus={gpus}"))[0].name for gpus in (1, 2, 3)}
    assert len(names) == 3


def test_a_batch_has_a_row_for_each_gpu(compose):
    (trunk,) = trunks(compose("tokens=1e6", "gpus=3"))  # a batch of four
    assert (trunk.batch_sequences, trunk.rank_sequences) == (4, 2)
    with pytest.raises(UserError, match="^gpus=5 is more than the 4 sequences of a batch: lower it, or raise optim"):
        trunks(compose("tokens=1e6", "gpus=5"))


@pytest.mark.parametrize("change", ["device=cpu", "threads=2", "tracking.project=x", "save_model=true", "name=y"])
def test_what_cannot_change_a_loss_keeps_the_trunk(compose, change):
    assert trunks(compose("tokens=1e6"))[0].name == trunks(compose("tokens=1e6", change))[0].name


def test_the_cooldown_is_the_cell_s_own(compose):
    before = trunks(compose("tokens=1e6"))[0]
    after = trunks(compose("tokens=1e6", "schedule.cooldown_fraction=.3"))[0]
    assert before.name == after.name
    assert before.cells[0].name != after.cells[0].name


def test_cosine_is_one_trunk_a_budget_without_a_branch(compose):
    found = trunks(compose("tokens=[1e6,2e6]", "schedule=cosine"))
    assert [len(trunk.cells) for trunk in found] == [1, 1]
    assert all(trunk.cells[0].branch_step == trunk.cells[0].steps for trunk in found)


def test_cosine_peaks_at_twice_the_rate_of_a_trunk(compose):
    rates = [trunks(compose("tokens=1e6", f"schedule={name}"))[0].learning_rate for name in ("wsd", "cosine")]
    assert rates == [0.004, 0.008]
    with pytest.raises(UserError, match="schedule.peak_factor=0 must be finite and above 0"):
        compose("tokens=1e6", "schedule=cosine", "schedule.peak_factor=0")


def test_budgets_in_parameters_and_in_flops(compose):
    by_params = trunks(compose("shape=w48-d2", "tokens_per_param=20", "optimizer.batch_tokens.value=1024"))[0]
    expected = 20 * by_params.params.with_head
    assert abs(by_params.cells[0].tokens - expected) <= 512
    by_flops = trunks(compose("shape=w48-d2", "flops=1e12", "optimizer.batch_tokens.value=1024"))[0]
    assert by_flops.cells[0].flops == pytest.approx(1e12, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tokens=100"], "tokens=100 is below one batch of"),
        (["tokens=[1e6,1000100]"], "round to the same"),
        (["tokens=2e5", "optimizer.warmup_tokens.value=3e5"], "outlasts the constant rate of tokens=200000"),
        (["flops=1e30"], r"flops=1e+30, .* tokens, is more than float64 counts exactly".replace("+", r"\+")),
        (["tokens_per_param=1e-3"], "tokens_per_param=0.001, .* tokens, is below one batch of"),
        (["tokens=1e6", "model.vocab_size=300"], "model.vocab_size=300 is below the tokenizer's 1024"),
        (["tokens=1e6", "model.seq_len=4096", "optimizer.batch_tokens.value=2000"], "=2000 is below half of one seq"),
        (["tokens=1e6", "model.seq_len=20000"], "model.seq_len=20000 is above 16384 and does not divide the window"),
    ],
)
def test_a_budget_that_no_run_can_have(compose, arguments, said):
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        trunks(compose(*arguments))


def test_more_tokens_than_unique_ones(compose):
    with pytest.raises(UserError, match="is more than the 500000 unique ones"):
        check_unique(trunks(compose("tokens=1e6")), 500_000, exhausted=True)
    check_unique(trunks(compose("tokens=1e6", "data.repeat=true")), 500_000, exhausted=True)


def test_sequence_batch_and_splits_against_each_other(compose):
    """Sequences of 64 and batches of 256: a split of 64 tokens lacks the last target, one of 65 has one sequence."""
    (trunk,) = trunks(compose("tokens=1e6", "model.seq_len=64", "optimizer.batch_tokens.value=256"))
    assert trunk.batch_tokens == 256
    check_splits(trunk, unique_tokens=256, validation_tokens=65)
    for unique, validation, said in (
        (256, 64, "the validation split has 64 tokens, .*model.seq_len=64 .*: raise data.validation_tokens to 65"),
        (0, 65, "the training split has too few tokens for one sequence of model.seq_len=64"),
        (192, 65, "a batch of 256 tokens is more than the 192 unique ones"),
    ):
        with pytest.raises(UserError, match=said):
            check_splits(trunk, unique, validation)


def test_what_the_checks_let_through_has_batches_and_losses(compose):
    job = compose("tokens=1e4", "data.repeat=true", "optimizer.warmup_tokens.value=0")
    let_through = 0
    for training, validation, (seq_len, batch) in itertools.product(
        [0, 1, 31, 32, 33, 128, 129, 400],
        [1, 32, 33, 64, 65],
        [(32, 15), (32, 32), (32, 128), (64, 128), (31, 100)],
    ):
        job.model.seq_len, job.optimizer.batch_tokens.value = seq_len, batch
        splits = [np.arange(size, dtype=np.uint16).view(np.memmap) for size in (training, validation)]
        store = TokenStore(*splits, 1024, 1023, 1.0, "0", True, {"recipe": {"validation_tokens": 1}})
        try:
            (trunk,) = trunks(job)
            check_splits(trunk, store.unique_tokens(seq_len), validation)
        except UserError:
            assert batch < seq_len or training <= batch // seq_len * seq_len or validation <= seq_len
            continue
        assert training > batch // seq_len * seq_len and validation > seq_len
        batches = Batches(store.train, seq_len, trunk.batch_sequences, 0, "cpu")
        assert batches.batch(0)[1].shape == (trunk.batch_sequences, seq_len)
        assert (len(store.evaluated(seq_len)) - 1) // seq_len == 1
        let_through += 1
    # 32: 33, 128, 129, 400 tokens, or for four sequences 129 and 400, times 33, 64, 65; 64: 129, 400, times 65;
    # three sequences of 31: 128, 129, 400, times 32 on
    assert let_through == 4 * 3 + 2 * 3 + 2 + 3 * 4


def test_a_model_larger_than_the_memory(compose):
    (trunk,) = trunks(compose("tokens=1e6", "shape=w64-d2"))
    needed = 16 * trunk.params.total
    check_memory(trunk, needed)
    with pytest.raises(UserError, match="model.width=64, model.depth=2 and a vocabulary of 1024 need"):
        check_memory(trunk, needed - 1)


def test_a_shape_named_twice(compose):
    twice = trunks(compose("tokens=1e6")) * 2
    with pytest.raises(UserError, match="twice"):
        check_distinct(twice)


def test_makespan_fills_the_first_free_slot():
    # slots end at 5 and 3; then 2 goes to the second (5), 4 to the first (9)
    assert schedule_makespan([5, 3, 2, 4], 2) == 9
    assert schedule_makespan([5, 3, 2, 4], 1) == 14
    assert schedule_makespan([], 2) == 0
