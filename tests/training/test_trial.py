"""What a user wrote, tried before anything is trained: what cannot be trained, and what cannot be resumed."""

import itertools
import sys
from pathlib import Path

import pytest
import torch

from harness.errors import UserError
from harness.grid import make_trunks
from harness.model.make import make_model
from harness.training.coordinates import growth, slopes_of
from harness.training.optimizer import Optimizer
from harness.training.trial import try_custom

ROOT = Path(__file__).parents[2]
NAMES = (f"tried_{number}" for number in itertools.count())
VOCAB = 64
MODEL = """
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self, config, vocab_size):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, config.width)
        self.mix = nn.Linear(config.width, config.width, bias=False)
        self.head = nn.Linear(config.width, vocab_size, bias=False)

    def forward(self, tokens):
        x = self.embedding(tokens)
        x = x + self.mix(seen(x))
        return self.head(x)

def seen(x):
    return x.cumsum(1) / torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]
"""
LION = """
import torch

class Lion(torch.optim.Optimizer):  # Chen et al. 2023
    def __init__(self, groups, beta1=.9, beta2=.99):
        super().__init__(groups, {})
        self.betas = beta1, beta2

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                mean = state.setdefault("mean", torch.zeros_like(parameter))
                update = torch.lerp(parameter.grad, mean, self.betas[0]).sign()
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])
                mean.lerp_(parameter.grad, 1 - self.betas[1])
"""
WITHOUT_RULES = """
from benchmarks.custom import PlainGPT

class Model(PlainGPT):
    def initialize(self, generator):
        for parameter in self.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, .02, generator=generator)

    def parameter_groups(self):
        return [{"params": list(self.parameters())}]
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])

    def one(text: str) -> str:
        name = next(NAMES)
        Path(f"{name}.py").write_text(text)
        return name

    return one


@pytest.fixture
def trunk_of(compose):
    def one(*arguments: str):
        short = ["tokens=1e6", "model.seq_len=24", "optimizer.batch_tokens.value=96", "shape=w32-d2"]
        return make_trunks(compose(*short, *arguments), VOCAB, "", "float32")[0]

    return one


def custom(target: str) -> list[str]:
    return ["model=custom", f"model.target={target}"]


def test_a_sound_module_is_let_through_and_nothing_is_drawn(write, trunk_of):
    trunk = trunk_of(*custom(f"{write(MODEL)}:Model"))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert try_custom([trunk]) == []
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        # the one after is seen
        ("mix(seen(x))", "mix(x.roll(-1, 1))", "is not causal: in training tokens from 1 on change the logits at 0"),
        ("mix(seen(x))", "mix(x.mean(1, keepdim=True) + seen(x))", "is not causal: in training tokens from 1 on"),
        # a chunk of 8 sees itself whole, and the places asked for lie in chunks
        ("mix(seen(x))", "mix(x.unflatten(1, (-1, 8)).mean(2).repeat_interleave(8, 1))", "is not causal"),
        ("mix(seen(x))", "mix(seen(x) if self.training else x.mean(1, keepdim=True))",
         "is not causal: in evaluation tokens"),
        # nothing reaches the logits of a head of zeros
        ("x = x + self.mix(seen(x))", "x = x + self.mix(x.flip(1))", "is not causal"),
        ("return self.head(x)", "return self.head(x / 0)", "has a logit that is not finite before any training"),
        ("return self.head(x)", "return self.head(torch.where(x > 9, x, 0 * x).sqrt())",
         "has a gradient of .* not finite"),
        ("x = self.embedding(tokens)", "x = self.embedding(tokens); tokens.device.type == 'cpu' and self.gone",
         "raises .AttributeError: 'Model' object has no attribute 'gone', in tried_"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(write, trunk_of, old, new, said):
    text = MODEL.replace(old, new)
    if "flip" in new:
        own = "    def initialize(self, generator):\n        self.head.weight.zero_()\n\n"
        text = text.replace("bias=False)\n\n", f"bias=False)\n\n{own}")
        assert "zero_" in text
    with pytest.raises(UserError, match=said):
        try_custom([trunk_of(*custom(f"{write(text)}:Model"))])


def test_dropout_and_noise_are_no_later_tokens(write, trunk_of):
    noisy = MODEL.replace("return self.head(x)", "return self.head(nn.functional.dropout(x, .5, self.training))")
    assert try_custom([trunk_of(*custom(f"{write(noisy)}:Model"))]) == []


def test_a_copy_of_gpt_learns_alike_at_every_width_and_one_without_the_rules_does_not(trunk_of, write):
    """Under sp the logits' movement grows with the width: by these steps as its power .5 or more."""
    copy = custom("benchmarks.custom:PlainGPT")
    assert growth(trunk_of(*copy)) == []
    assert growth(trunk_of(*copy, "model.parametrization=sp")) == []  # which promises none
    name = write(WITHOUT_RULES)
    trunk = trunk_of(*custom(f"{name}:Model"))
    (said,) = try_custom([trunk])
    assert said.startswith(f"warning: model.target={name}:Model: what a step changes of ")
    assert slopes_of(trunk)[""] > 0.5


def test_an_optimizer_gets_rates_and_decay_as_ours(write, trunk_of):
    """Width 64 over the base width 32: matrices at half the rate and twice the decay."""
    own = ["optimizer=custom", f"optimizer.target={write(LION)}:Lion", "optimizer.args.beta1=.8"]
    own += ["optimizer.learning_rate.value=.01", "optimizer.weight_decay.value=.3"]
    trunk = trunk_of("shape=w64-d2", *own)
    model = make_model(trunk.job.model, VOCAB, 0)
    optimizer = Optimizer(model, trunk)
    (part,) = optimizer.parts
    assert part.betas == (0.8, 0.99)
    groups = {(group["kind"], group["lr"], group["weight_decay"]) for group in part.param_groups}
    assert groups == {
        ("matrix", 0.005, 0.6), ("embedding", 0.01, 0.3), ("head", 0.01, 0.3), ("vector", 0.01, 0.0),
    }  # fmt: skip
    before = model.head.weight.detach().clone()
    tokens = torch.randint(0, VOCAB, (4, 25), generator=torch.Generator().manual_seed(0))
    model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
    sign = model.head.weight.grad.sign()
    optimizer.step(0.5)
    torch.testing.assert_close(model.head.weight.detach(), before * (1 - 0.005 * 0.3) - 0.005 * sign)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert try_custom([trunk]) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("class Lion(torch.optim.Optimizer)", "class Lion(dict)", r"cannot be made \(TypeError"),
        ("beta1=.9", "beta1", r"cannot be made \(TypeError: .*beta1"),
        ("import torch\n", "import torch\ndef Lion(groups): return torch.nn.Linear(1, 1)\ndef Other():\n    pass\n",
         "gives a Linear: write a torch.optim.Optimizer"),
        ("def step(self):", "def step(self, closure):", r"raises in a step \(TypeError: .*closure"),
        ('.sign()', ".sign() / 0", "leaves parameters that are not finite after 2 steps"),
        ('mean = state.setdefault("mean", torch.zeros_like(parameter))',
         'mean = self.__dict__.setdefault("means", {}).setdefault(id(parameter), torch.zeros_like(parameter))',
         "goes on from its state_dict to other bits than without a stop"),
        ('state = self.state[parameter]', 'state = self.state[parameter]; state["of"] = torch.nn.Linear',
         "has a state that a checkpoint cannot hold"),
    ],
)  # fmt: skip
def test_an_optimizer_that_cannot_serve_is_refused(write, trunk_of, old, new, said):
    assert old in LION
    text = LION.replace(old, new)
    if "Other" in new:
        text = text.replace("class Lion", "class Unused")
    name = write(text)
    with pytest.raises(UserError, match=f"^optimizer.target={name}:Lion {said}"):
        try_custom([trunk_of("optimizer=custom", f"optimizer.target={name}:Lion")])
