"""Documents that a model writes: its logits by kept keys and values, and its own probabilities."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from harness.model import GPT, ModelConfig, initialize
from harness.model.sampling import Context, draw, write_documents

END = 3  # of four ids


def model_of(vocab_size: int, **keys) -> GPT:
    """With weights that are large enough for its predictions to differ."""
    model = GPT(ModelConfig(**{"width": 32, "depth": 2, "head_size": 8, "seq_len": 12, **keys}), vocab_size)
    initialize(model, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.15)
    return model.eval()


def numbers(count: int, seed: int = 0):
    generator = np.random.default_rng(seed)
    return (generator.random(count) for _ in itertools.count())


@pytest.mark.parametrize(
    "keys",
    [
        {"family": "gpt"},
        {"family": "gpt", "parametrization": "completep", "depth": 4},
        {"family": "gpt2", "parametrization": "sp", "tied": True},
        {"family": "llama"},
    ],
)
@pytest.mark.parametrize("first", [1, 5])
def test_kept_keys_and_values_give_the_logits_of_the_model(keys, first):
    model, tokens_BT = model_of(50, **keys), torch.randint(50, (3, 12), generator=torch.Generator().manual_seed(0))
    context = Context(model, 3)
    with torch.no_grad():
        found = [context.read(tokens_BT[:, :first])]
        found += [context.read(tokens_BT[:, place : place + 1]) for place in range(first, 12)]
        whole_BTV = model(tokens_BT)
    assert whole_BTV.std() > 0.5
    torch.testing.assert_close(torch.stack(found, 1), whole_BTV[:, first - 1 :], rtol=1e-4, atol=1e-4)


def test_an_id_is_drawn_by_its_probability():
    """.1, .2, .7: sums of .1, .3 and 1."""
    uniform = torch.tensor([0.0, 0.09, 0.11, 0.29, 0.31, 1 - 2**-53], dtype=torch.float64)
    logits = torch.tensor([0.1, 0.2, 0.7]).log().expand(6, 3)
    assert draw(logits, uniform).tolist() == [0, 0, 1, 1, 2, 2]
    never = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).expand(6, 3)
    assert draw(never, uniform).tolist() == [1] * 6


def test_documents_are_as_frequent_as_the_model_has_them():
    """The first two ids, an end counted as one, of 20,000 documents."""
    model = model_of(4, seq_len=4)
    documents = write_documents(model, END, 4, 20_000, numbers(20_000))
    with torch.no_grad():
        first = model(torch.tensor([[END]]))[0, -1].double().softmax(0)
        second = model(torch.tensor([[END, each] for each in range(3)]))[:, -1].double().softmax(1)
    expected = [first[END].item(), *(first[:3, None] * second).flatten().tolist()]
    begins = [tuple(np.append(ids, END)[:2].tolist()) for ids in documents]
    found = [begins.count((END,)), *(begins.count(pair) for pair in itertools.product(range(3), range(4)))]
    assert sum(found) == 20_000
    assert chisquare(found, 20_000 * np.array(expected) / sum(expected)).pvalue > 0.01
    assert all(END not in ids for ids in documents)


def test_a_full_context_begins_again_with_its_last_half():
    """Of seq_len 4 four ids follow the end of text, and the fifth is drawn given the third and the fourth alone."""
    model = model_of(4, seq_len=4)
    documents = write_documents(model, END, 4, 20_000, numbers(20_000, seed=1))
    fifths = {pair: [0] * 4 for pair in itertools.product(range(3), repeat=2)}
    for ids in documents:
        if len(ids) >= 4:
            fifths[tuple(ids[2:4].tolist())][int(np.append(ids, END)[4])] += 1
    pairs = [pair for pair, counts in fifths.items() if sum(counts) > 200]
    assert len(pairs) >= 4
    with torch.no_grad():
        expected = model(torch.tensor(pairs))[:, -1].double().softmax(1).numpy()
    for pair, chances in zip(pairs, expected, strict=True):
        assert chisquare(fifths[pair], sum(fifths[pair]) * chances / chances.sum()).pvalue > 0.001


def test_ids_beyond_the_tokenizers_are_not_drawn_and_a_document_without_an_end_is_cut():
    """64 contexts of 4; the first writes its end of text two ids earlier than each that follows could."""
    model = model_of(6, seq_len=4)
    (ids,) = write_documents(model, 5, 5, 1, numbers(1))
    assert set(ids.tolist()) == set(range(5))
    assert len(ids) == 4 + 127 * 3
