import math

import numpy as np
import pytest
import torch
from rich.console import Console
from sights import losses_of, sights_of
from torch import nn

from harness.data.batches import Batches
from harness.data.documents import DataConfig
from harness.data.facts import ANSWERS, BLOCK, Facts
from harness.data.language import ASIDE, TRAINING
from harness.data.tokenizer import TokenizerConfig
from harness.data.tokens import prepare, recipe_of
from harness.errors import UserError
from harness.model.config import ModelConfig
from harness.model.make import make_model
from harness.sweep.compose import compose_sweep, open_stores
from harness.sweep.floor import known_floor
from harness.sweep.run import prepare_trunks
from harness.training.device import Device
from harness.training.evaluation import evaluate

CPU = Device(torch.device("cpu"), "float32", False)
# 47 = 16 answers, 30 symbols of keys, the end of text: 30^3 is more than 2000 facts, 30^2 is not.
SMALL = {"symbols": 47, "tail": 2.0, "ranks": 1000, "seed": 3}


@pytest.fixture
def windows(monkeypatch):
    """Small ones, and so small stores."""
    monkeypatch.setattr("harness.data.tokens.WINDOW_TOKENS", 2**13)
    monkeypatch.setattr("harness.data.tokens.LONGEST_SEQUENCE", 2**8)


def config(tmp_path, **changes):
    given = {"source": "facts", "validation_tokens": 10_001, "store_directory": str(tmp_path)} | SMALL
    return DataConfig(**given | changes), TokenizerConfig(kind="identity", vocab_size=47)


def test_probabilities_are_those_of_the_law_and_its_rest():
    language = Facts(**SMALL)
    p = language.probabilities
    assert (len(p), language.key_symbols, language.document_tokens) == (2000, 3, 5)
    assert p.sum() == 1.0
    # zeta(2) = pi^2 / 6 is all there is; 1000 ranks have p, and as many share what is left
    np.testing.assert_allclose(p[[0, 1, 999]], np.array([1, 1 / 4, 1e-6]) * 6 / math.pi**2, rtol=1e-9)
    whole = math.pi**2 / 6
    np.testing.assert_allclose(p[1000:], (1 - sum(r**-2 for r in range(1, 1001)) / whole) / 1000, rtol=1e-6)


def test_every_fact_has_a_key_of_its_own_and_an_answer():
    texts = Facts(**SMALL).texts
    keys, answers = texts[:, :3], texts[:, 3]
    assert len({tuple(key) for key in keys.tolist()}) == 2000
    assert keys.min() >= ANSWERS and keys.max() == 45 and set(answers.tolist()) == set(range(16))
    # of 2000 evenly drawn answers a sixteenth each, 125 with a standard deviation of 10.8; of neighbours as many agree
    assert np.abs(np.bincount(answers) - 125).max() < 4 * 10.8
    assert abs((answers[1:] == answers[:-1]).sum() - 125) < 4 * 10.8
    # ranks tell nothing of keys: first symbols, ceil(2000 / 900) of them, agree no more often than by chance
    assert abs(np.corrcoef(np.arange(2000), keys @ [900, 30, 1])[0, 1]) < 4 / math.sqrt(2000)
    assert not np.array_equal(texts, Facts(**SMALL | {"seed": 4}).texts)
    assert np.array_equal(texts, Facts(**SMALL).texts)


def test_texts_are_drawn_by_the_probabilities():
    language = Facts(**SMALL)
    blocks = [np.column_stack([language.documents(TRAINING, block), np.zeros(BLOCK)]) for block in range(4)]
    ranks = language.ranks_of(np.concatenate(blocks).ravel())
    counts = np.bincount(ranks, minlength=2000) / len(ranks)
    for rank, p in ((0, 6 / math.pi**2), (1, 1.5 / math.pi**2), (2, 6 / 9 / math.pi**2)):
        assert counts[rank] == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / len(ranks)))


def test_store_is_every_fact_once_then_facts_as_drawn_and_grows_by_appending(tmp_path, windows):
    data, tokenizer = config(tmp_path)
    small = prepare(data, tokenizer, 5_000)
    first, validation = np.array(small.train), np.array(small.validation)
    language = Facts(**SMALL)
    assert np.bincount(language.ranks_of(validation[:10_000])).tolist() == [1] * 2000
    assert np.array_equal(validation[:5], [*language.documents(ASIDE, 0)[0], 46])
    assert np.array_equal(first[:10], np.append(language.documents(TRAINING, 0)[:2], [[46], [46]], axis=1).ravel())
    # an answer counts its fact's probability, all else nothing
    weights = small.weights
    assert len(weights) == len(validation) == 10_005
    assert weights.sum() == pytest.approx(1.0, abs=1e-12) and (weights > 0).sum() == 2000
    assert set(np.flatnonzero(weights) % 5) == {3}
    top = 5 * np.flatnonzero(language.ranks_of(validation[:10_000]) == 0)[0]
    assert weights[top + 3] == language.probabilities[0]

    grown = prepare(data, tokenizer, 40_000)
    assert len(first) < 40_000 <= len(grown.train)
    assert np.array_equal(grown.train[: len(first)], first) and np.array_equal(grown.validation, validation)
    elsewhere = prepare(config(tmp_path / "again")[0], tokenizer, 40_000)
    assert np.array_equal(elsewhere.train, grown.train)
    other = prepare(config(tmp_path / "again", seed=4)[0], tokenizer, 5_000)
    assert not np.array_equal(other.train[:1000], first[:1000])


class Table(nn.Module):
    """Knows the answers of some facts of `language`, guesses evenly else; of what is no answer it knows nothing."""

    def __init__(self, language, seen):
        super().__init__()
        self.known = {tuple(text[:-1]): text[-1] for text in language.texts[seen].tolist()}

    def token_losses(self, inputs_BT, targets_BT):
        losses_BT = torch.full(targets_BT.shape, 99.0)
        for row, (inputs, targets) in enumerate(zip(inputs_BT.tolist(), targets_BT.tolist(), strict=True)):
            right = self.known.get(tuple(inputs[:3])) == targets[2]
            losses_BT[row, 2] = 0.0 if right else math.log(16)
        return losses_BT


def test_loss_of_a_table_is_that_of_what_it_has_not_seen(tmp_path, windows):
    store = prepare(*config(tmp_path), 1000)
    language, seen = Facts(**SMALL), [0, 1, 5, 999, 1500]
    found = evaluate(Table(language, seen), store.evaluated(5), 5, store.bytes_per_token, CPU, store.weights)
    of_law = sum(1 / (rank + 1) ** 2 for rank in seen[:4]) * 6 / math.pi**2
    rest = (1 - sum(r**-2 for r in range(1, 1001)) * 6 / math.pi**2) / 1000
    expected = math.log(16) * (1 - of_law - rest)
    assert found.loss == pytest.approx(expected, abs=1e-6)  # of float32
    assert language.ideal_loss(np.array(seen)) == pytest.approx(expected, abs=1e-12)
    assert found.loss_parts == () and math.isnan(found.loss_se) and math.isnan(found.bits_per_byte)
    assert found.sequences == 2000
    nothing = evaluate(Table(language, []), store.evaluated(5), 5, store.bytes_per_token, CPU, store.weights)
    assert nothing.loss == pytest.approx(math.log(16), abs=1e-6)


def test_sights_are_of_what_was_trained_and_losses_of_what_was_evaluated(tmp_path, windows):
    data, tokenizer = config(tmp_path)
    store, language = prepare(data, tokenizer, 1000), Facts(**SMALL)
    model = make_model(ModelConfig(width=16, depth=1, head_size=8, seq_len=5), 47, 0).eval()
    with torch.no_grad():
        losses = losses_of(model, language)
    evaluated = evaluate(model, store.evaluated(5), 5, store.bytes_per_token, CPU, store.weights)
    assert language.probabilities @ losses == pytest.approx(evaluated.loss, rel=1e-5)
    # an epoch of the whole store has each of its facts as often as it stands there
    whole = (len(store.train) - 1) // 5
    record = {"tokens": 1000, "batch_tokens": 5, "seq_len": 5, "seed": 0, "steps": whole}
    stands = np.bincount(language.ranks_of(np.array(store.train[: whole * 5])), minlength=2000)
    assert np.array_equal(sights_of(record, data, language), stands)


def test_weights_that_are_equal_weigh_nothing(tmp_path, windows):
    store = prepare(*config(tmp_path), 1000)
    model = make_model(ModelConfig(width=16, depth=1, head_size=8, seq_len=5), 47, 0)
    of_store = store.evaluated(5), 5, store.bytes_per_token, CPU
    alike = evaluate(model, *of_store)
    assert evaluate(model, *of_store, np.full(10_005, 0.5)).loss == pytest.approx(alike.loss, rel=1e-6)
    assert evaluate(model, *of_store, store.weights).loss != pytest.approx(alike.loss, rel=1e-3)


def test_expected_loss_is_that_of_all_texts_enumerated():
    """Two facts of probability p and 1 - p: of three drawn, neither, the one or the other is unseen."""
    language = Facts(symbols=47, tail=2.0, ranks=1, seed=0)
    p, q = language.probabilities
    assert language.expected_ideal_loss(3) == pytest.approx(math.log(16) * (p * q**3 + q * p**3), rel=1e-12)


@pytest.mark.parametrize(("tail", "ranks", "symbols"), [(1.25, 131_072, 529), (1.5, 32_768, 273), (2.0, 32_768, 273)])
def test_ideal_learner_falls_by_the_known_exponent_on_the_stream_that_trains(tail, ranks, symbols):
    """Budgets, rows and order of conf/sweep/facts.yaml: 16, 32, 64 and 128 thousand facts."""
    language = Facts(symbols, tail, ranks, 0)
    assert language.document_tokens == 4
    blocks = [language.documents(TRAINING, block) for block in range(2**18 // BLOCK)]
    facts = np.append(np.concatenate(blocks), np.full((2**18, 1), symbols - 1), axis=1).astype(np.uint16)
    batches = Batches(np.append(facts.ravel(), symbols - 1).astype(np.uint16), 4, 64, 0, "cpu")
    rows = torch.cat([batches.drawn(step) for step in range(2000)]).numpy()
    ranks_seen = language.ranks_of(facts.ravel())[rows]
    budgets = np.array([16_000, 32_000, 64_000, 128_000])
    counted = [language.ideal_loss(ranks_seen[:budget]) for budget in budgets]
    expected = [language.expected_ideal_loss(int(budget)) for budget in budgets]
    # what is unseen varies at most as if facts were drawn apart from one another
    p = language.probabilities
    missed = [np.exp(budget * np.log1p(-p)) for budget in budgets]
    sd = [math.log(16) * math.sqrt((p**2 * each * (1 - each)).sum()) for each in missed]
    assert np.all(np.abs(np.array(counted) - expected) < 4 * np.array(sd))
    for losses in (counted, expected):
        slope = -np.polyfit(np.log(budgets), np.log(losses), 1)[0]
        assert slope == pytest.approx(1 - 1 / tail, abs=0.02)


def test_recipe_names_the_language(tmp_path):
    data, tokenizer = config(tmp_path)
    assert recipe_of(data, tokenizer)[0]["data"] == {
        "source": "facts", "symbols": 47, "tail": 2.0, "ranks": 1000, "seed": 3, "language": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.tail=1"], "data.tail=1 must be 1.1 to 3, for facts to be learnt at all: correct it"),
        (["data.ranks=10"], "data.ranks=10 must be 1000 to 10000000: correct it"),
        (["data.symbols=17"], "data.symbols=17 must be 32 to 20000: correct it"),
        (["tokenizer=bytes"], "tokenizer.kind=bytes with tokenizer.vocab_size=1024 takes data.source=facts apart "
         "otherwise than into its 273 symbols: set tokenizer=identity"),
        (["model.seq_len=8"], "model.seq_len=8 is not that of a fact of data.source=facts, which is to be alone in its "
         "sequence: set it to 4"),
        (["data.symbols=100"], "model.seq_len=4 is not that of a fact of data.source=facts, which is to be alone in "
         "its sequence: set it to 5"),
        (["data.validation_tokens=200000"], "data.validation_tokens=200000 is not the 65536 facts of data.ranks=32768, "
         "each once, and a target more: set it to 262145"),
        (["validation={seen: {source: facts}}"], "validation.seen is of facts, whose losses count by weights: train on "
         "them, data=facts"),
    ],
)  # fmt: skip
def test_facts_that_tell_no_exponent_are_refused(tmp_path, overrides, message):
    with pytest.raises(UserError) as error:
        given = ["data=facts", "model.seq_len=4", "tokens=1000", "tracking=none", f"output_directory={tmp_path}"]
        compose_sweep([*given, *overrides])
    assert str(error.value) == message


def few(tmp_path, *overrides):
    small = ["data=facts", "data.ranks=1000", "data.symbols=47", "data.validation_tokens=10001", "model.seq_len=5"]
    here = [f"data.store_directory={tmp_path}", f"output_directory={tmp_path}", "tracking=none", "model.width=16"]
    return compose_sweep([*small, *here, *overrides])


def test_ranks_that_the_largest_budget_ends_are_refused(tmp_path, windows):
    """6,400 facts at a tail of 1.5: 10 * 6400^(2/3) = 3447.04 ranks."""
    given = ["optimizer.batch_tokens.value=100", "optimizer.warmup_tokens.value=100"]
    with pytest.raises(UserError) as error:
        prepare_trunks(few(tmp_path, "tokens=32000", *given), Console())
    assert str(error.value) == (
        "data.ranks=1000 are too few for the 6400 facts of tokens=32000 at data.tail=1.5: set it to 3448 or more, or "
        "lower the budget"
    )
    # 1,000 facts, 100^(3/2), are as many as 1,000 ranks allow
    prepare_trunks(few(tmp_path, "tokens=5000", *given), Console())


def test_floor_is_nothing_and_the_exponent_known(tmp_path, windows):
    jobs = few(tmp_path, "tokens=1000").jobs
    assert known_floor(jobs, open_stores(jobs)) == {"nats": 0.0, "expected": 0.0, "exponent": pytest.approx(1 / 3)}
