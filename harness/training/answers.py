"""How well a model answers the lines of a task: the loss of its answers, the tokens that it has right, whole answers.

Each token is predicted behind the right ones before it. Whoever has all of an answer right then, has it right when it
writes its likeliest token again and again too, and the other way round, so that exact match is that of greedy decoding.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from harness.data.tasks import LINE_TOKENS, Task
from harness.model.make import Model
from harness.stop import stop
from harness.training.device import Device

TOKENS_AT_ONCE = 4096


@dataclass(frozen=True)
class Answers:
    """
    loss       mean nats a token of an answer
    loss_se    its standard error over answers
    accuracy   the share of these tokens that are the likeliest
    exact      the share of answers of which all are
    """

    loss: float
    loss_se: float
    accuracy: float
    exact: float

    def columns(self) -> dict[str, Any]:
        """As a run record has them."""
        return {"loss": self.loss, "loss_se": self.loss_se, "accuracy": self.accuracy, "exact": self.exact}


def evaluate_answers(model: Model, validation: np.ndarray, seq_len: int, task: Task, device: Device) -> Answers:
    """Evaluates `model` on the whole sequences of the lines `validation` (tokens,); raises Stopped between two batches.

    seq_len is a multiple of LINE_TOKENS, so that every answer has its question before it.
    """
    count = (len(validation) - 1) // seq_len
    tokens = torch.from_numpy(validation[: count * seq_len + 1].astype(np.int64)).to(device.torch_device)
    inputs_ST, targets_ST = tokens[:-1].view(count, seq_len), tokens[1:].view(count, seq_len)
    at_once = max(1, TOKENS_AT_ONCE // seq_len)
    model.eval()
    with torch.no_grad(), device.autocast():
        parts = []
        for inputs_BT, targets_BT in zip(inputs_ST.split(at_once), targets_ST.split(at_once), strict=True):
            stop.check()
            parts.append(_answered(model(inputs_BT).float(), targets_BT, task.answer_tokens))
    model.train()
    loss_LA, right_LA = (torch.cat(each).cpu() for each in zip(*parts, strict=True))
    losses_L = loss_LA.double().mean(1)
    spread = losses_L.std(correction=1).item() / math.sqrt(len(losses_L))
    right = right_LA.double()
    return Answers(losses_L.mean().item(), spread, right.mean().item(), right.prod(1).mean().item())


def _answered(logits_BTV: torch.Tensor, targets_BT: torch.Tensor, answer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Nats and whether it is the likeliest, of each token of the answers, (lines, answer)."""
    # Targets are a token ahead, so that the end of a line is the second to last of its LINE_TOKENS.
    part = slice(LINE_TOKENS - 2 - answer, LINE_TOKENS - 2)
    losses_N = F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="none")
    right_BT = logits_BTV.argmax(2) == targets_BT
    return losses_N.view(-1, LINE_TOKENS)[:, part], right_BT.view(-1, LINE_TOKENS)[:, part]
