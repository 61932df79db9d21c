"""What ModelConfig refuses, and how it says so."""

import pytest
from omegaconf import OmegaConf

from harness.errors import UserError
from harness.model import GPT, ModelConfig

DIVISIBLE = "model.width=72 is not divisible by model.head_size=16; use a width such as 64."
ODD = "model.head_size=15 is odd and rotary positions turn pairs of features; use an even head size."
TIED = (
    "model.tied=true cannot go with model.parametrization=completep, which scales the head apart from the embedding; "
    "set model.tied=false or model.parametrization=sp."
)


@pytest.mark.parametrize(
    "changes, sentence",
    [
        (dict(width=72), DIVISIBLE),
        (dict(width=8), "model.width=8 is not divisible by model.head_size=16; use a width such as 16."),
        (dict(width=0), "model.width=0 is below 1; set it to 1 or more."),
        (dict(depth=0), "model.depth=0 is below 1; set it to 1 or more."),
        (dict(head_size=0), "model.head_size=0 is below 1; set it to 1 or more."),
        (dict(width=60, head_size=15), ODD),
        (dict(seq_len=1), "model.seq_len=1 is below 2; set it to 2 or more."),
        (dict(vocab_size=1), "model.vocab_size=1 is below 2; set it to 2 or more."),
        (dict(base_width=0), "model.base_width=0 is below 1; set it to 1 or more."),
        (dict(base_depth=-1), "model.base_depth=-1 is below 1; set it to 1 or more."),
        (dict(ff_ratio=0.0), "model.ff_ratio=0.0 is not a positive number; set it above 0."),
        (dict(ff_ratio=float("nan")), "model.ff_ratio=nan is not a positive number; set it above 0."),
        (dict(norm_eps=-1e-6), "model.norm_eps=-1e-06 is not a positive number; set it above 0."),
        (dict(init_std=float("inf")), "model.init_std=inf is not a positive number; set it above 0."),
        (dict(rope_theta=0.0), "model.rope_theta=0.0 is not a positive number; set it above 0."),
        # 64 * 2.7 = 172.8, and 173 / 64 = 2.703125
        (dict(ff_ratio=2.7), "model.ff_ratio=2.7 times model.width=64 is no whole number of features; "
                             "use a ratio such as 2.703125."),
        (dict(family="mamba"), "model.family=mamba is unknown; use one of gpt, gpt2, llama, custom."),
        (dict(parametrization="ntk"), "model.parametrization=ntk is unknown; use one of sp, mup, completep."),
        (dict(tied=True, parametrization="completep"), TIED),
    ],
)  # fmt: skip
def test_refuses_in_one_sentence(changes, sentence):
    config = ModelConfig(**changes)
    for attempt in (config.check, lambda: GPT(config, 100)):
        with pytest.raises(UserError) as error:
            attempt()
        assert str(error.value) == sentence


@pytest.mark.parametrize("vocab_size", [0, 1])
def test_refuses_a_vocabulary_below_two(vocab_size):
    with pytest.raises(UserError, match=f"model.vocab_size={vocab_size} is below 2"):
        GPT(ModelConfig(), vocab_size)


@pytest.mark.parametrize(
    "changes",
    [
        dict(),
        dict(family="gpt2", width=60, head_size=15, tied=True, parametrization="sp"),  # odd heads, learned positions
        dict(width=48, ff_ratio=8 / 3),  # 128 features
        dict(width=100, head_size=10, ff_ratio=2.29),  # 229, though 2.29 * 100 = 229.00000000000003
    ],
)
def test_accepts(changes):
    ModelConfig(**changes).check()


@pytest.mark.parametrize("name", ["gpt", "gpt2", "llama"])
def test_every_group_file_fills_a_valid_config(name, pytestconfig):
    path = pytestconfig.rootpath / "conf" / "model" / f"{name}.yaml"
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ModelConfig), OmegaConf.load(path)))
    assert isinstance(config, ModelConfig)
    assert config.family == name
    config.check()
