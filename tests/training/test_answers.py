"""How well a model answers the lines of a task, by models of known answers and by one that was not trained."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from harness.data.tasks import LINE_TOKENS, TASKS
from harness.model.config import ModelConfig
from harness.model.make import make_model
from harness.records import COLUMNS, SweepFolder, read_record, text_losses, write_record, write_rows
from harness.training.answers import evaluate_answers
from harness.training.device import Device
from harness.training.evaluation import evaluate

CPU = Device(torch.device("cpu"), "float32", False)
SEQ_LEN, LINES = 32, 12


def lines_of(name: str) -> np.ndarray:
    """The ids of the first instances, and a target more."""
    text = "".join(f"{TASKS[name].line(number)}\n" for number in range(LINES)) + "x"
    return np.frombuffer(text.encode(), np.uint8).astype(np.uint16)


class Known(nn.Module):
    """Gives the right next token e times the odds of each other, but in the lines and at the places of `wrong`, where
    another one has them; its batches come in order."""

    def __init__(self, tokens: np.ndarray, wrong: set[tuple[int, int]]):
        super().__init__()
        self.targets, self.done = tokens[1:].astype(np.int64).copy(), 0
        for line, place in wrong:
            self.targets[line * LINE_TOKENS + place - 1] = 200

    def forward(self, inputs_BT):
        part = torch.from_numpy(self.targets[self.done : self.done + inputs_BT.numel()]).view(inputs_BT.shape)
        self.done += inputs_BT.numel()
        return nn.functional.one_hot(part, 257).float()


def test_what_is_right_is_counted_among_answers_alone():
    """Of 12 copies of 7 letters, the last of tokens 8 to 14: one is wrong in a letter, one in two, one in all.

    What is wrong elsewhere, in a question, its equals sign or the end of a line, does not count.
    """
    tokens = lines_of("copying")
    wrong = {(2, 8), (3, 9), (3, 14), *((11, place) for place in range(8, 15))}
    beside = {(line, place) for line in range(1, LINES) for place in (0, 3, 7, 15)}
    found = evaluate_answers(Known(tokens, wrong | beside), tokens, SEQ_LEN, TASKS["copying"], CPU)
    assert found.exact == pytest.approx(9 / 12)
    assert found.accuracy == pytest.approx(74 / 84)
    # The right token has probability e / (256 + e), or 1 / (256 + e) where another has those odds.
    missed = [1, 2, 7, *[0] * 9]
    losses = [math.log(256 + math.e) - (7 - each) / 7 for each in missed]
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-6)
    assert found.loss_se == pytest.approx(np.std(losses, ddof=1) / 12**0.5, rel=1e-5)


@pytest.mark.parametrize("name", list(TASKS))
def test_the_loss_is_that_of_the_same_tokens_by_weights(name):
    """The other way to a loss of some tokens, which writes no logits out."""
    tokens, answer = lines_of(name), TASKS[name].answer_tokens
    model = make_model(ModelConfig(width=16, depth=1, head_size=8, seq_len=SEQ_LEN), 257, 0)
    weights = np.zeros((LINES, LINE_TOKENS))
    weights[:, LINE_TOKENS - 1 - answer : LINE_TOKENS - 1] = 1
    by_weights = evaluate(model, tokens, SEQ_LEN, 1.0, CPU, np.append(weights, 0))
    found = evaluate_answers(model, tokens, SEQ_LEN, TASKS[name], CPU)
    assert found.loss == pytest.approx(by_weights.loss, rel=1e-5)
    assert 0 <= found.exact <= found.accuracy < 0.5


def test_exact_match_is_that_of_writing_the_likeliest_token_again_and_again():
    """An untrained model seldom has the right token, so tokens count as right where they are what it writes."""
    torch.manual_seed(0)
    model = make_model(ModelConfig(width=16, depth=1, head_size=8, seq_len=SEQ_LEN), 257, 0).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    tokens = lines_of("brackets").astype(np.int64).copy()
    exact = 0
    for row in range(LINES // 2):  # two lines a sequence
        start = row * SEQ_LEN
        for line in range(2):
            begin = start + line * LINE_TOKENS + LINE_TOKENS - 5
            written = tokens[start:begin].tolist()
            for _ in range(4):
                with torch.no_grad():
                    written.append(int(model(torch.tensor([written]))[0, -1].argmax()))
            if row % 2:  # what it writes is made the answer
                tokens[begin : begin + 4] = written[-4:]
            exact += tokens[begin : begin + 4].tolist() == written[-4:]
    assert exact == 6
    found = evaluate_answers(model, tokens.astype(np.uint16), SEQ_LEN, TASKS["brackets"], CPU)
    assert found.exact == exact / LINES


def test_columns_of_a_task_stand_beside_those_of_a_text(tmp_path):
    """accuracy_ and exact_ in the place of the parts and of bits per byte, in the record, its table and W&B."""
    task = {"recipe": "r1", "loss": 0.5, "loss_se": 0.01, "accuracy": 0.9, "exact": 0.6}
    text = {"recipe": "r2", "loss": 2.0, "loss_se": 0.02, "loss_parts": "2 2", "bits_per_byte": 1.5}
    record = dict.fromkeys(COLUMNS) | {"cell": "a", "status": "finished", "loss": 1.0}
    write_record(tmp_path, record | {"validation": {"copying": task, "code": text}})
    read = read_record(tmp_path)
    expected = {
        "loss_copying": 0.5, "loss_se_copying": 0.01, "accuracy_copying": 0.9, "exact_copying": 0.6,
        "loss_code": 2.0, "loss_se_code": 0.02, "loss_parts_code": "2 2", "bits_per_byte_code": 1.5,
    }  # fmt: skip
    assert text_losses(read) == expected
    content = {
        "cells": [{"cell": "a"}, {"cell": "b"}],
        "validation": {"copying": "r1", "code": "r2"},
        "tasks": {"copying": {"task": "copying", "tokens": 7, "symbols": 26}},
    }
    failed = record | {"cell": "b", "status": "failed", "loss": None}
    write_rows(SweepFolder(tmp_path).table, content, {"a": read, "b": failed})
    head, first, second = (tmp_path / "runs.csv").read_text().splitlines()
    assert head.split(",")[-8:] == list(expected)
    assert first.split(",")[-8:] == [str(value) for value in expected.values()]
    assert second.split(",")[-8:] == [""] * 8
