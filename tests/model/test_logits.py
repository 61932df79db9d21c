"""Logits are never all there at once, on no device and for no vocabulary."""

import pytest
import torch
import torch.nn.functional as F
from live_bytes import counted

from harness.model import GPT, ModelConfig, initialize
from harness.model import cross_entropy as bounded
from harness.training.evaluation import TOKENS_AT_ONCE

GB = 1e9


@pytest.mark.parametrize(
    ("vocab_size", "seq_len", "width", "depth"),
    [(50_257, 512, 768, 12), (50_257, 512, 256, 4), (200_019, 512, 768, 12), (200_019, 8192, 768, 12)],
)
def test_evaluation_holds_little_beyond_the_weights(vocab_size, seq_len, width, depth):
    config = ModelConfig(width=width, depth=depth, head_size=64, seq_len=seq_len)
    with counted() as live, torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        model = GPT(config, vocab_size)
        tokens = torch.empty(max(1, TOKENS_AT_ONCE["cuda"] // seq_len), seq_len, dtype=torch.int64)
        weights = live.restart()
        model.sequence_losses(tokens, tokens)
        assert live.peak - weights <= 4.5 * GB


def test_training_holds_a_bounded_part_of_the_logits():
    """Of 32,768 tokens and 200,019 ids, whose logits op by op would take 118 GB."""
    config = ModelConfig(width=256, depth=4, head_size=64, seq_len=512)
    with counted() as live:
        model = GPT(config, 200_019)
        tokens = torch.empty(64, 512, dtype=torch.int64)
        weights = live.restart()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model.loss(tokens, tokens)
        loss.backward()
    # gradients of 2 x 200,019 x 256 float32 weights, their bf16 copies and gradients, activations, and the logits
    assert live.peak - weights <= (0.41 + 0.31 + 2.5 + 4.3) * GB


@pytest.mark.parametrize("chunks", [1, 3])
def test_chunks_give_the_loss_and_the_gradients_of_the_whole(monkeypatch, chunks):
    model = GPT(ModelConfig(width=32, depth=1, seq_len=16), 100)
    initialize(model, 0)
    tokens = torch.arange(4 * 17).remainder(100).view(4, 17)
    inputs, targets = tokens[:, :-1], tokens[:, 1:].contiguous()
    rows = -(-64 // chunks)  # of 4 x 16
    monkeypatch.setattr(
        bounded, "LOGITS_BYTES", dict.fromkeys(("training", "evaluation"), rows * 100 * bounded.EAGER_BYTES)
    )
    whole = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="none").view(4, 16)
    expected = torch.autograd.grad(whole.mean(), list(model.parameters()))
    hidden_ND = model.hidden(inputs).flatten(0, 1)
    loss = bounded.bounded_cross_entropy(hidden_ND, model.head.weight, targets.flatten(), model.logits_scale)
    torch.testing.assert_close(loss, whole.mean())
    for found, true in zip(torch.autograd.grad(loss, list(model.parameters())), expected, strict=True):
        torch.testing.assert_close(found, true, rtol=1e-5, atol=1e-7)
    with torch.no_grad():
        losses_N = bounded.bounded_cross_entropy_rows(
            model.hidden(inputs).flatten(0, 1), model.head.weight, targets.flatten(), model.logits_scale
        )
    torch.testing.assert_close(losses_N.view(4, 16), whole)


@pytest.mark.parametrize("family", ["gpt", "gpt2", "llama"])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_loss_is_one_graph(monkeypatch, family, chunked):
    """With padded logits where the vocabulary is no multiple of 64, and in chunks, as a compiler sees it."""
    if chunked:
        monkeypatch.setattr(bounded, "LOGITS_BYTES", {"training": 100 * 20 * 4, "evaluation": 100 * 20 * 4})
    config = ModelConfig(family=family, width=32, depth=1, seq_len=16, tied=family == "gpt2", parametrization="sp")
    model = GPT(config, 100)
    initialize(model, 0)
    tokens = torch.arange(4 * 17).remainder(100).view(4, 17)
    inputs, targets = tokens[:, :-1], tokens[:, 1:].contiguous()
    plain, compiled = model.loss(inputs, targets), torch.compile(model.loss, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(plain, list(model.parameters()))
    found = compiled(inputs, targets)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-6)
    for gradient, true in zip(torch.autograd.grad(found, list(model.parameters())), expected, strict=True):
        torch.testing.assert_close(gradient, true, rtol=1e-4, atol=1e-6)
