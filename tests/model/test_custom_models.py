"""Models that a user wrote: what they are counted as, how their parameters start and learn, what is refused."""

import itertools
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.accounting import ParamCounts, count_params, train_flops_per_token
from harness.errors import UserError
from harness.grid import make_trunks
from harness.model.config import ModelConfig
from harness.model.kinds import kinds_of
from harness.model.make import groups_of, make_model
from harness.model.measure import cost_of

ROOT = Path(__file__).parents[2]
NAMES = (f"mine_{number}" for number in itertools.count())
VOCAB = 100
PLAIN = """
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self, config, vocab_size, hidden=24):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, config.width)
        self.up = nn.Linear(config.width, 2 * config.width)
        self.down = nn.Linear(2 * config.width, config.width, bias=False)
        self.gate = nn.Linear(config.width, 4, bias=False)
        self.back = nn.Linear(4, config.width, bias=False)
        self.head = nn.Linear(config.width, vocab_size)

    def forward(self, tokens):
        x = self.embedding(tokens)
        x = x + self.down(torch.relu(self.up(x))) + self.back(self.gate(x))
        return self.head(x)
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a module into the working folder, a new one each time; what names its Model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])

    def one(text: str) -> str:
        name = next(NAMES)
        Path(f"{name}.py").write_text(text)
        return f"{name}:Model"

    return one


@pytest.fixture
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", sys.path[:])


def config_of(target: str, **more) -> ModelConfig:
    shape = {"width": 32, "depth": 2, "seq_len": 24, "ff_ratio": 2.75}
    return ModelConfig(family="custom", target=target, **(shape | more))


def test_the_parallel_example_is_counted_as_by_hand(at_root):
    """Width 32, 2 blocks, heads of 16, feed-forward width 88, 24 tokens, 100 ids.

    A block: qkv 32 x 96 = 3,072, out 1,024, gates 32 x 176 = 5,632, down 88 x 32 = 2,816, so 12,544 in matrices; norms
    of 32 + 16 + 16 = 64. Two blocks and the last norm: 2 x 12,608 + 32 = 25,248. Each table: 100 x 32 = 3,200.
    A token's forward pass: two blocks of 12,544 multiply-adds and 2 x 24 x 32 = 1,536 of attention, 3,200 of the head,
    31,360 in all, two FLOPs each; three times for training.
    """
    config = config_of("examples.parallel:Model")
    assert count_params(config, VOCAB) == ParamCounts(25_248 + 6_400, 25_248, 25_248 + 3_200)
    assert train_flops_per_token(config, VOCAB) == 6 * 31_360


def test_the_recurrent_example_is_counted_as_by_hand(at_root):
    """Width 32, 2 blocks, feed-forward width 128, 100 ids.

    A block: into 32 x 96 = 3,072, out 1,024, up and down 4,096 each, so 12,288 in matrices; norms 64, memory 32. Two
    blocks and the last norm: 2 x 12,384 + 32 = 24,800. FLOPs: 6 (2 x 12,288 + 3,200), whatever the length.
    """
    config = config_of("examples.recurrence:Model", ff_ratio=4)
    assert count_params(config, VOCAB) == ParamCounts(24_800 + 6_400, 24_800, 24_800 + 3_200)
    assert train_flops_per_token(config, VOCAB) == 6 * 27_776
    assert train_flops_per_token(replace(config, seq_len=96), VOCAB) == 6 * 27_776


def test_the_scan_of_the_example_is_the_recurrence(at_root):
    from examples.recurrence import scan

    torch.manual_seed(0)
    a, x = torch.rand(2, 37, 5), torch.randn(2, 37, 5)
    h, expected = torch.zeros(2, 5), []
    for t in range(37):
        h = a[:, t] * h + x[:, t]
        expected.append(h)
    torch.testing.assert_close(scan(a, x), torch.stack(expected, 1))


def test_a_copy_of_gpt_counts_as_gpt(at_root, monkeypatch):
    """In plain torch, from benchmarks/custom.py: the three counts and the FLOPs are those of the closed forms."""
    ours = ModelConfig(width=48, depth=3, seq_len=24)
    theirs = replace(ours, family="custom", target="benchmarks.custom:PlainGPT")
    assert count_params(theirs, VOCAB) == count_params(ours, VOCAB)
    assert train_flops_per_token(theirs, VOCAB) == train_flops_per_token(ours, VOCAB)


def test_kinds_are_told_by_what_grows(write):
    config = config_of(write(PLAIN), width=VOCAB)  # as wide as its vocabulary, so that sizes tell nothing
    kinds = {name: kind.name for name, kind in kinds_of(config, VOCAB).items()}
    assert kinds == {
        "embedding.weight": "embedding", "up.weight": "matrix", "up.bias": "vector", "down.weight": "matrix",
        "gate.weight": "output", "back.weight": "other", "head.weight": "head", "head.bias": "vector",
    }  # fmt: skip
    # 100 x 200 twice, 200 of a bias, 400 twice; each table 10,000 and the head's bias 100
    assert count_params(config, VOCAB) == ParamCounts(61_100, 41_000, 51_100)


def test_a_position_table_is_no_body_and_a_tied_table_counts_once(write):
    place = "self.place = nn.Parameter(torch.zeros(config.seq_len, config.width))"
    text = PLAIN.replace("self.up =", f"{place}\n        self.up =")
    text = text.replace("self.embedding(tokens)", "self.embedding(tokens) + self.place")
    text = text.replace("nn.Linear(config.width, vocab_size)", "nn.Linear(config.width, vocab_size, bias=False)")
    tied = text.replace("    def forward", "        self.head.weight = self.embedding.weight\n\n    def forward")
    # 32 x 64 twice, 64 of a bias, 128 twice; a table of 3,200, positions 768
    for source, tables in ((text, 2), (tied, 1)):
        found = count_params(config_of(write(source), parametrization="sp"), VOCAB)
        assert found == ParamCounts(4_416 + 768 + tables * 3_200, 4_416, 4_416 + 3_200)
    with pytest.raises(UserError, match="shares one matrix between embedding and head, .*=mup: give it two, or set"):
        count_params(config_of(write(tied)), VOCAB)


def test_parameters_start_and_learn_by_the_rules(write):
    """At m = 4: hidden std .02/2, rate 1/4, decay 4; the head as what 1/4 before the logits would do."""
    config = config_of(write(PLAIN), width=128)
    model = make_model(config, VOCAB, seed=3)
    parameters = dict(model.module.named_parameters())
    assert parameters["up.weight"].std().item() == pytest.approx(0.01, rel=0.05)
    assert parameters["embedding.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert parameters["head.weight"].std().item() == pytest.approx(0.005, rel=0.05)
    torch.manual_seed(3)
    constructed = __import__(config.target.split(":")[0]).Model(config, VOCAB)
    assert torch.equal(parameters["back.weight"], constructed.back.weight)
    assert torch.equal(parameters["up.bias"], constructed.up.bias)
    names = {id(parameter): name for name, parameter in parameters.items()}
    found = {
        names[id(parameter)]: (group.kind, group.lr_scale, group.weight_decay_scale, group.eps_scale)
        for group in groups_of(model)
        for parameter in group.params
    }
    assert found == {
        "embedding.weight": ("embedding", 1.0, 1.0, 0.25), "up.weight": ("matrix", 0.25, 4.0, 0.25),
        "up.bias": ("vector", 1.0, 0.0, 0.25), "down.weight": ("matrix", 0.25, 4.0, 0.25),
        "gate.weight": ("other", 0.25, 4.0, 0.25), "back.weight": ("other", 1.0, 1.0, 0.25),
        "head.weight": ("head", 0.25, 4.0, 1.0), "head.bias": ("vector", 1.0, 0.0, 0.25),
    }  # fmt: skip
    again = make_model(config, VOCAB, seed=3)
    assert all(map(torch.equal, model.state_dict().values(), again.state_dict().values()))


def test_a_head_by_these_rules_learns_as_gpt_s_does(at_root, compose):
    """A copy of gpt in plain torch, whose logits nothing scales, at four times the base width: 20 steps of AdamW end in
    gpt's loss to rounding, from the same numbers drawn."""
    from harness.training.optimizer import Optimizer

    losses = []
    for more in ([], ["model=custom", "model.target=benchmarks.custom:PlainGPT"]):
        shape = ["shape=w128-d2", "model.seq_len=32", "model.rope_theta=100", "optimizer.batch_tokens.value=128"]
        (trunk,) = make_trunks(compose("tokens=1e6", *shape, *more), VOCAB, "", "float32")
        model = make_model(trunk.job.model, VOCAB, seed=0)
        optimizer = Optimizer(model, trunk)
        tokens = torch.randint(0, VOCAB, (4, 33), generator=torch.Generator().manual_seed(0))
        for _ in range(20):
            loss = model.loss(tokens[:, :-1], tokens[:, 1:])
            loss.backward()
            optimizer.step(1.0)
        losses.append(loss.item())
    assert losses[0] < math.log(VOCAB) - 0.5
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)


def test_a_module_may_have_rules_of_its_own(write):
    own = (
        PLAIN
        + """
    def initialize(self, generator):
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, 0, .5, generator=generator)

    def parameter_groups(self):
        tables = [*self.embedding.parameters(), *self.head.parameters()]
        rest = [self.up.weight, self.down.weight]
        return [{"params": tables, "lr": 2, "weight_decay": 0}, {"params": rest, "kind": "matrix", "eps": .5},
                {"params": [self.up.bias, self.gate.weight, self.back.weight]}]

    def loss(self, inputs, targets):
        return self(inputs).square().mean()
"""
    )
    config = config_of(write(own))
    # 32 x 64 twice, 32 x 4 twice, 32 x 100 of the head, in its loss alone
    assert train_flops_per_token(config, VOCAB) == 6 * 7_552
    model = make_model(config, VOCAB, seed=0)
    assert model.module.gate.weight.std().item() == pytest.approx(0.5, rel=0.2)
    groups = [(group.kind, group.lr_scale, group.weight_decay_scale, group.eps_scale) for group in groups_of(model)]
    assert groups == [("other", 2, 0, 1.0), ("matrix", 1.0, 1.0, 0.5), ("other", 1.0, 1.0, 1.0)]
    tokens = torch.arange(24)[None]
    assert model.loss(tokens, tokens).item() == model(tokens).square().mean().item()
    uniform = model.sequence_losses(tokens, tokens)
    assert uniform.shape == (1,) and uniform.item() != model.loss(tokens, tokens).item()
    for change, said in (
        ('"kind": "matrix", "eps": .5', "has up.weight in 0 groups: put it into one"),
        ('"lr": 2', "a group of params, rate, weight_decay: return dicts of params, kind, lr"),
        ('"kind": "matrix"', "a group of kind=hidden and factors .*: choose one of matrix, embedding"),
        ("self.up.bias, ", "has up.bias in 0 groups"),
    ):
        new = {'"lr": 2': '"rate": 2', '"kind": "matrix"': '"kind": "hidden"', "self.up.bias, ": ""}.get(change)
        text = own.replace(change, new) if new is not None else own.replace("rest = [self.up.weight, ", "rest = [")
        with pytest.raises(UserError, match=said):
            groups_of(make_model(config_of(write(text)), VOCAB, seed=0))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("import torch\n", "import nowhere\n", 
         r"cannot be imported \(ModuleNotFoundError: No module named 'nowhere', in mine_\d+.py line 2\)"),
        ("import torch\n", "import torch as = 1\n", r"cannot be imported \(SyntaxError: invalid syntax"),
        ("class Model", "class Other", "has no Model: correct the name"),
        ("class Model(nn.Module):", "Model = 3\nclass Other(nn.Module):", "is a int: name a class or a function"),
        ("class Model(nn.Module):", "class Model:\n    def __new__(cls, *_): return 3\nclass Other(nn.Module):",
         "width 32 and depth 2 returns a int: return a torch.nn.Module"),
        ("hidden=24", "hidden", r"cannot be built \(TypeError: .*missing 1 required positional argument: 'hidden'"),
        ("return self.head(x)", "return self.head(x)[:, 0]",
         r"returns \(1, 100\) for tokens \(1, 24\): return logits \(1, 24, 100\)"),
        ("return self.head(x)", "return (self.head(x), x)", r"returns a tuple: return logits \(1, 24, 100\)"),
        ("return self.head(x)", "raise KeyError('lost')", r"\(KeyError: 'lost', in mine_\d+.py line 18\)"),
        ("return self.head(x)", "return self.head(x) if x.sum() > 0 else x", "cannot be run on torch's meta device"),
        (" + self.back(self.gate(x))", "", "has a parameter gate.weight that gets no gradient: use it, or make"),
        ("nn.Linear(config.width, 4, bias=False)", "nn.Linear(config.width, 4, bias=config.width < 64)",
         "has a parameter gate.bias that it lacks with twice the width"),
    ],
)  # fmt: skip
def test_what_cannot_be_counted_is_refused(write, old, new, said):
    assert old in PLAIN
    config = config_of(write(PLAIN.replace(old, new)))
    with pytest.raises(UserError, match=said):
        count_params(config, VOCAB)
        train_flops_per_token(config, VOCAB)


def test_two_tables_of_one_kind_must_be_named(write):
    text = PLAIN.replace("nn.Linear(config.width, vocab_size)", "nn.Embedding(vocab_size, config.width)")
    text = text.replace("self.head(x)", "x @ self.head.weight.T")
    assert count_params(config_of(write(text)), VOCAB).with_head == 4_416 + 3_200
    unnamed = text.replace("self.head", "self.reads").replace("self.embedding", "self.table")
    with pytest.raises(UserError, match=r"since 2 \(table.weight, reads.weight\) of its parameters grow"):
        count_params(config_of(write(unnamed)), VOCAB)
    half = text.replace("self.head", "self.reads")
    assert count_params(config_of(write(half)), VOCAB).with_head == 4_416 + 3_200


def test_a_module_without_parameters(write):
    text = "import torch\nclass Model(torch.nn.Module):\n    def __init__(self, config, vocab): super().__init__()\n"
    with pytest.raises(UserError, match="width 32 and depth 2 has no parameters: register them as torch.nn.Parameter"):
        count_params(config_of(write(text)), VOCAB)


def test_what_autograd_keeps_is_counted(write):
    """Of a token in float32, width 32: its id, which is its target here (8 bytes), x for two products, relu's 64
    outputs (down's inputs too), 4 of the gate, x of the head, 100 log-softmax values; and a share of the loss's own."""
    kept = cost_of(config_of(write(PLAIN)), VOCAB).kept
    floats = 32 + 64 + 4 + 32 + 100
    assert 4 * floats + 8 <= kept <= 4 * floats + 16


def test_what_a_step_changes_beside_parameters_is_known(write):
    """Running means are kept, as in a checkpoint, and nothing of a module without."""
    assert not make_model(config_of(write(PLAIN)), VOCAB).keeps_state
    text = PLAIN.replace("self.up =", "self.mean = nn.BatchNorm1d(config.seq_len, affine=False)\n        self.up =")
    assert make_model(config_of(write(text)), VOCAB).keeps_state
