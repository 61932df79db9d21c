"""The shape of a model: its family, its dimensions, and what no model can be built from."""

from dataclasses import dataclass, field
from typing import Any

from harness.errors import UserError
from harness.model.source import check_target

PARAMETRIZATIONS = ("sp", "mup", "completep")


@dataclass(frozen=True)
class Family:
    """What tells one architecture from another."""

    layer_norm: bool  # LayerNorm with bias; otherwise RMSNorm
    bias: bool  # on every linear layer of a block
    rotary: bool  # rotary positions; otherwise a learned table
    qk_norm: bool
    activation: str  # gelu (tanh approximation) | relu2 | swiglu
    shrink_residual_init: bool = False  # the last matrix of a branch starts smaller, by 1 / sqrt(2 * depth)


# Squared ReLU and the gains earn their place in tiny nets: at width 48, depth 2, 1.2 M tokens of sotu the loss is 3.44
# nats, with GELU 3.55, without the gains of the norms 3.54, all at one learning rate (a second seed of the
# first: 3.45). Squared ReLU is also the cheapest.
FAMILIES = {
    "gpt": Family(layer_norm=False, bias=False, rotary=True, qk_norm=True, activation="relu2"),
    "gpt2": Family(
        layer_norm=True, bias=True, rotary=False, qk_norm=False, activation="gelu", shrink_residual_init=True
    ),
    "llama": Family(layer_norm=False, bias=False, rotary=True, qk_norm=False, activation="swiglu"),
}
CUSTOM = "custom"  # the family of what a user wrote


@dataclass
class ModelConfig:
    """The shape of a model and how its hyperparameters follow from the shape."""

    family: str = "gpt"  # gpt | gpt2 | llama | custom
    width: int = 64  # features
    depth: int = 2  # blocks
    head_size: int = 16  # features; there are width / head_size heads
    seq_len: int = 128  # tokens
    vocab_size: int | None = None  # null: the tokenizer's
    tied: bool = False  # whether embedding and head share their weights
    ff_ratio: float = 4.0  # the feed-forward width over the width
    norm_eps: float = 1e-6  # of the norms
    rope_theta: float = 10000.0  # of rotary positions; wavelengths: 2 pi to 2 pi theta^(1 - 2/head_size) tokens
    init_std: float = 0.02  # of weights at the base shape
    parametrization: str = "mup"  # sp | mup (scales with width / base_width) | completep (with depth / base_depth too)
    base_width: int = 32  # the width at which learning rate, initialisation and the rest were tuned
    base_depth: int = 2  # the depth likewise
    target: str | None = None  # model=custom: package.module:Name of what is called with config, vocab_size and args
    args: dict[str, Any] = field(default_factory=dict)  # model=custom: further arguments, as in model.args.gate=2

    @property
    def label(self) -> str:
        """The family, or what the user wrote."""
        return self.target or self.family

    @property
    def heads(self) -> int:
        return self.width // self.head_size

    @property
    def ff_width(self) -> int:
        return round(self.ff_ratio * self.width)

    @property
    def shrinks_residual_init(self) -> bool:
        return FAMILIES[self.family].shrink_residual_init

    def check(self) -> None:
        """Raises UserError for the first value that no model can be built from; a user's module may refuse more."""
        check_choice("model.family", self.family, (*FAMILIES, CUSTOM))
        check_target("model", self.family, self.target, self.args)
        check_choice("model.parametrization", self.parametrization, PARAMETRIZATIONS)
        for key, least in {
            "width": 1,
            "depth": 1,
            "head_size": 1,
            "seq_len": 2,
            "base_width": 1,
            "base_depth": 1,
            "vocab_size": 2,
        }.items():
            value = getattr(self, key)
            if value is not None and value < least:
                raise UserError(f"model.{key}={value} is below {least}; set it to {least} or more.")
        for key in ("ff_ratio", "norm_eps", "rope_theta", "init_std"):
            value = getattr(self, key)
            if not 0 < value < float("inf"):
                raise UserError(f"model.{key}={value} is not a positive number; set it above 0.")
        if self.family != CUSTOM:
            self._check_features()
        if self.tied and self.parametrization != "sp":
            raise UserError(
                f"model.tied=true cannot go with model.parametrization={self.parametrization}, which scales the head "
                "apart from the embedding; set model.tied=false or model.parametrization=sp."
            )

    def _check_features(self) -> None:
        if self.width % self.head_size:
            raise UserError(
                f"model.width={self.width} is not divisible by model.head_size={self.head_size}; "
                f"use a width such as {self.head_size * max(1, round(self.width / self.head_size))}."
            )
        if FAMILIES[self.family].rotary and self.head_size % 2:
            raise UserError(
                f"model.head_size={self.head_size} is odd and rotary positions turn pairs of features; "
                "use an even head size."
            )
        if abs(self.ff_ratio * self.width - self.ff_width) > 1e-6 * self.width or self.ff_width < 1:
            raise UserError(
                f"model.ff_ratio={self.ff_ratio} times model.width={self.width} is no whole number of features; "
                f"use a ratio such as {max(1, self.ff_width) / self.width}."
            )


def check_choice(key: str, value: str, choices) -> None:
    if value not in choices:
        raise UserError(f"{key}={value} is unknown; use one of {', '.join(choices)}.")
