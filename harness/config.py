"""The typed configuration of one job: fields, units, defaults and bounds."""

import math
import re
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from harness.data.corpus import DataConfig
from harness.data.suited import check_suited
from harness.data.texts import texts_of
from harness.data.tokenizer import TokenizerConfig
from harness.data.tokens import LONGEST_SEQUENCE, WINDOW_TOKENS
from harness.errors import UserError
from harness.model.config import ModelConfig
from harness.model.source import check_target
from harness.records import RULES_SCHEMA, check_texts
from harness.tracking import TrackingConfig

# Of a sweep, and its folder.
NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]*")
# What the rules of a tune.yaml hold for.
MEASURED = ("optimizer.name", "optimizer.target", "schedule.name", "model.parametrization", "model.base_width",
            "model.base_depth")  # fmt: skip
# Above this float64 no longer counts every token.
MOST_TOKENS = 2**53


@dataclass
class Rule:
    """A hyperparameter as a power law of the model's size, and under schedule=cosine of the budget too.

    value * (params_with_head / reference_params)^params_exponent * (tokens / reference_tokens)^tokens_exponent
    """

    value: float = MISSING  # of a model of reference_params
    params_exponent: float = 0.0  # the power of params_with_head / reference_params
    reference_params: float = 1e6  # params_with_head at which the rule gives its value
    tokens_exponent: float = 0.0  # the power of tokens / reference_tokens; schedule=cosine only
    reference_tokens: float = 1e6  # the budget likewise

    def at(self, params_with_head: int, tokens: float | None) -> float:
        """The value at a model size; `tokens` may be None where the rule does not use them."""
        value = self.value * (params_with_head / self.reference_params) ** self.params_exponent
        if self.tokens_exponent:
            assert tokens is not None
            value *= (tokens / self.reference_tokens) ** self.tokens_exponent
        return value

    def check(self, key: str, least: float = 0.0) -> None:
        numbers = [self.value, self.params_exponent, self.tokens_exponent]
        if not all(math.isfinite(number) for number in numbers) or self.value < least:
            raise UserError(f"{key}.value={self.value:g} must be finite and at least {least:g}")
        for name in ("reference_params", "reference_tokens"):
            if not getattr(self, name) > 0:
                raise UserError(f"{key}.{name}={getattr(self, name):g} must be above 0")


@dataclass
class OptimizerConfig:
    """The optimizer and its rules of size."""

    name: str = MISSING  # adamw | muon | custom
    learning_rate: Rule = field(default_factory=Rule)  # of the trunk; cosine peaks at a multiple of it
    batch_tokens: Rule = field(default_factory=Rule)  # tokens a step
    warmup_tokens: Rule = field(default_factory=Rule)  # tokens of the linear warmup
    weight_decay: Rule = field(default_factory=Rule)  # decoupled, times the learning rate
    beta1: float = 0.9  # of AdamW's mean
    beta2: float = 0.95  # of AdamW's mean square
    eps: float = 1e-8  # of AdamW
    gradient_clip: float = 1.0  # the largest norm of all gradients
    # the most tokens that pass through the model at once; a larger batch is accumulated
    micro_batch_tokens: int = 65536
    target: str | None = None  # optimizer=custom: package.module:Name of a torch.optim.Optimizer
    args: dict[str, Any] = field(default_factory=dict)  # optimizer=custom: its further arguments
    rules: str | None = None  # optimizer=tuned: the tune.yaml of scripts/tune.py that it is read from

    @property
    def label(self) -> str:
        """The name, or what the user wrote."""
        return self.target or self.name

    def by_size(self) -> dict[str, Rule]:
        """The rules by their names."""
        names = ("learning_rate", "batch_tokens", "warmup_tokens", "weight_decay")
        return {name: getattr(self, name) for name in names}

    def check(self) -> None:
        if self.name not in ("adamw", "muon", "custom"):
            raise UserError(f"optimizer.name={self.name} is not known: choose adamw, muon or custom")
        check_target("optimizer", self.name, self.target, self.args)
        for name, rule in self.by_size().items():
            rule.check(f"optimizer.{name}", least=1.0 if name == "batch_tokens" else 0.0)
        if self.learning_rate.value == 0:
            raise UserError("optimizer.learning_rate.value=0 trains nothing: give a rate above 0")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"optimizer.{name}={getattr(self, name):g} must be at least 0 and below 1")
        for name in ("eps", "gradient_clip", "micro_batch_tokens"):
            if not getattr(self, name) > 0:
                raise UserError(f"optimizer.{name}={getattr(self, name):g} must be above 0")


@dataclass
class ScheduleConfig:
    """How the learning rate moves."""

    name: str = MISSING  # wsd: a trunk at a constant rate, a 1-sqrt cooldown a budget | cosine: one run a budget
    cooldown_fraction: float = 0.2  # of each budget (wsd)
    peak_factor: float = 1.0  # the peak rate over the optimizer's learning rate (cosine)
    final_fraction: float = 0.0  # of the peak rate, at the end (cosine)

    def check(self) -> None:
        if self.name not in ("wsd", "cosine"):
            raise UserError(f"schedule.name={self.name} is not known: choose wsd or cosine")
        if not 0 < self.cooldown_fraction < 1:
            raise UserError(
                f"schedule.cooldown_fraction={self.cooldown_fraction:g} must lie between 0 and 1, both excluded"
            )
        if not 0 < self.peak_factor < math.inf:
            raise UserError(f"schedule.peak_factor={self.peak_factor:g} must be finite and above 0")
        if not 0 <= self.final_fraction <= 1:
            raise UserError(f"schedule.final_fraction={self.final_fraction:g} must lie between 0 and 1")


@dataclass
class TrainConfig:
    """One job: one shape and seed, trained through its token budgets."""

    name: str = MISSING  # the sweep, and its folder in output_directory
    output_directory: str = "outputs"  # holds a folder a sweep
    shape: str | None = None  # w64-d4, or w64-d4-s1 with its own seed; overrides model.width, model.depth
    tokens: Any = None  # a number or a list: the token budgets
    tokens_per_param: Any = None  # instead of tokens: budgets as multiples of params_with_head
    flops: Any = None  # instead of tokens: budgets in training FLOPs
    seed: int = 0  # of initialisation and the order of batches
    device: str = "auto"  # auto | cpu | cuda | cuda:N | mps
    precision: str = "auto"  # auto | float32 | bf16
    compile: bool | None = None  # null: on CUDA only
    threads: int = 1  # CPU threads of a job
    gpus: int = 1  # GPUs that train one job together, each a part of every batch; with device=cpu, processes
    slots: Any = "auto"  # how many jobs run at once on this machine, or in a cluster's task; auto: as many as it holds
    slots_per_gpu: Any = "auto"  # the most jobs of one GPU, where its memory holds them; auto: by a short measurement
    price_per_hour: float | None = None  # of a GPU, or of a core on a CPU: what a sweep costs is told with it
    save_model: bool = False  # keep the weights of every cell, as model.pt
    law: str = "chinchilla"  # of the headline of the sweep's fit, so that it is stated before anything is trained
    variants: Any = None  # in a sweep's file, names and the overrides of each: {gpt: [], llama: [model=llama]}
    # in a sweep's file, lists of overrides with several values; the union of their products is the grid:
    # [["optimizer.beta2=0.9,0.95"], ["optimizer.eps=1e-8,1e-6"]]
    grids: Any = None
    # further texts by name, each an entry of conf/data or the keys of one, on which every cell is evaluated at its end:
    # {stories: tinystories, code: {source: files, path: code.jsonl}}
    validation: Any = None
    # in a sweep's file, its shapes and budgets under entries of conf/size: {gpu: ["shape=w512-d8", "tokens=[1e8]"]}
    sizes: Any = None
    sized: str | None = None  # of an entry of conf/size, which sizes it takes: set by +size=gpu
    # in a sweep's file, what it decides, by which number, and where that holds; stated before anything is trained:
    # {text: ..., quantity: fit.a, rule: {low: 0.45, high: 0.55}}
    claim: Any = None
    detach: bool = False  # true, with hydra/launcher=slurm: submit the whole sweep as a job, and return
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def check(self) -> None:
        """Raises UserError for the first value that cannot be trained; needs no corpus."""
        check_name(self.name)
        if not self.output_directory.strip():
            raise UserError("output_directory is empty: name the folder that holds the sweeps, or leave it out")
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise UserError(f"device={self.device} is not known: choose auto, cpu, mps, cuda or cuda:N")
        if self.precision not in ("auto", "float32", "bf16"):
            raise UserError(f"precision={self.precision} is not known: choose auto, float32 or bf16")
        if self.slots != "auto" and (type(self.slots) is not int or self.slots < 1):
            raise UserError(f"slots={self.slots} is no number of jobs: give auto, or 1 or more")
        if self.slots_per_gpu != "auto" and (type(self.slots_per_gpu) is not int or self.slots_per_gpu < 1):
            raise UserError(f"slots_per_gpu={self.slots_per_gpu} is no number of jobs: give auto, or 1 or more")
        for name in ("threads", "gpus"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")
        if self.gpus > 1 and self.device.startswith("cuda:"):
            raise UserError(f"gpus={self.gpus} and device={self.device}, which is one: take device=cuda, or gpus=1")
        if self.gpus > 1 and self.device == "mps":
            raise UserError(f"gpus={self.gpus} and device=mps, of which a machine has one: take gpus=1")
        if self.price_per_hour is not None and not 0 < self.price_per_hour < math.inf:
            raise UserError(f"price_per_hour={self.price_per_hour:g} is no price: give one above 0, or leave it out")
        if not 0 <= self.seed < 2**31:
            raise UserError(f"seed={self.seed} must lie between 0 and 2147483647")
        for part in (self.model, self.data, self.tokenizer, self.optimizer, self.schedule, self.tracking):
            part.check()
        check_suited(self.data, self.tokenizer, self.model.seq_len, self.validation)
        check_texts(list(texts_of(self.validation, self.data)))
        if self.model.seq_len > LONGEST_SEQUENCE and WINDOW_TOKENS % self.model.seq_len:
            raise UserError(
                f"model.seq_len={self.model.seq_len} is above {LONGEST_SEQUENCE} and does not divide the window of "
                f"{WINDOW_TOKENS} tokens that batches are drawn from: take a power of 2, or {LONGEST_SEQUENCE} or less"
            )
        self.budgets()
        self._check_measured()
        if self.schedule.name == "wsd":
            for name, rule in self.optimizer.by_size().items():
                if rule.tokens_exponent:
                    raise UserError(
                        f"optimizer.{name}.tokens_exponent={rule.tokens_exponent:g} makes the trunk depend on "
                        "its token budgets: set it to 0, or take schedule=cosine"
                    )

    def _check_measured(self) -> None:
        """Raises UserError where optimizer.rules were measured with what is not trained here."""
        if self.optimizer.rules is None:
            return
        measured = rules_file(self.optimizer.rules)["measured"]
        of_sp = self.model.parametrization == "sp"  # whose rates are not those of a base
        for key in MEASURED if not of_sp else [key for key in MEASURED if "base" not in key]:
            part, name = key.split(".")
            value = getattr(getattr(self, part), name)
            if measured[key] != value:
                raise UserError(
                    f"optimizer.rules={self.optimizer.rules} was measured with {key}={measured[key]}, and this is "
                    f"{value}: train with that, or tune with this"
                )

    def budgets(self) -> tuple[str, list[float]]:
        """The key that gives the budgets and its values, ascending.

        Raises UserError where none or two keys are given, or a value is not a budget.
        """
        given = {key: getattr(self, key) for key in ("tokens", "tokens_per_param", "flops")}
        given = {key: value for key, value in given.items() if value is not None}
        if not given:
            raise UserError("no budget is given: set tokens, for example tokens=1e6 or 'tokens=[1e6,2e6]'")
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} are both given: keep one, and set the other to null")
        key, value = next(iter(given.items()))
        values = list(value) if isinstance(value, list | tuple) else [value]
        return key, _ascending(key, [_budget(key, value) for value in values])


def rules_file(path: str) -> dict[str, Any]:
    """A tune.yaml: what was `measured`, the `optimizer` and its rules. Raises UserError where it is none."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise UserError(f"optimizer.rules={path} cannot be read ({error.strerror}): give a tune.yaml") from None
    return _read_rules(path, (status.st_mtime_ns, status.st_size))


@lru_cache
def _read_rules(path: str, version: tuple[int, int]) -> dict[str, Any]:
    """version: that of the file, of which every job of a sweep reads each key."""
    try:
        content = yaml.load(Path(path).read_text(), Loader=yaml.CSafeLoader)
        rules, measured = content["optimizer"], content["measured"]
        whole = {name: set(rules[name]) for name in OptimizerConfig().by_size()}
        assert all(keys == set(asdict(Rule(0.0))) for keys in whole.values()) and content["schema"] == RULES_SCHEMA
        assert {*MEASURED, "params", "tokens"} <= set(measured) and "certified" in content
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AssertionError):
        raise UserError(
            f"optimizer.rules={path} holds no rules: give the tune.yaml that `make tune` or scripts/tune.py wrote"
        ) from None
    return dict(content)


def tuned(path: str | None, *keys: str) -> Any:
    """What optimizer=tuned takes out of optimizer.rules; raises UserError."""
    if path is None:
        raise UserError("optimizer=tuned has no rules: give optimizer.rules=outputs/cpu-tune/tune.yaml, say")
    found: Any = rules_file(path)["optimizer"]
    for key in keys:
        found = found[key]
    return found


def unless_tuned(value: float, rule: str, *, _root_: Any) -> Any:
    """What a sweep's file gives as the value of a rule, which is not meant where optimizer=tuned brings its own."""
    path = _root_.optimizer.rules
    return value if path is None else tuned(path, rule, "value")


def check_name(name: str) -> None:
    """Raises UserError where a sweep's folder would lie elsewhere than in output_directory."""
    if not NAME.fullmatch(name):
        raise UserError(f"name={name} cannot name a folder: use letters, digits, '.', '_' and '-'")


def _budget(key: str, value: Any) -> float:
    """One budget as a number; Hydra hands over 1e6, 1000000 and '1e6' alike."""
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number <= 0:
        raise UserError(f"{key}={value} is not a budget: give numbers above 0, such as 1e6")
    if key == "tokens" and number > MOST_TOKENS:
        raise UserError(f"tokens={value} is more than float64 counts exactly: stay below 2^53, about 9e15")
    return number


def _ascending(key: str, values: list[float]) -> list[float]:
    if not values:
        raise UserError(f"{key}=[] names no budget: give at least one, such as {key}=[1e6]")
    for before, after in zip(values, values[1:], strict=False):
        if after <= before:
            what = "is doubled" if after == before else f"comes after {before:g}"
            raise UserError(f"{key}: {after:g} {what}: list each budget once, in ascending order")
    return values


def apply_shape(config: TrainConfig) -> None:
    """Resolves `shape` into model.width, model.depth and, where it names one, seed."""
    if config.shape is None:
        return
    match = re.fullmatch(r"w(\d+)-d(\d+)(?:-s(\d+))?", config.shape)
    if not match:
        raise UserError(f"shape={config.shape} is not a shape: write w64-d4, or w64-d4-s1 to give its seed")
    config.model.width, config.model.depth = int(match[1]), int(match[2])
    if match[3] is not None:
        config.seed = int(match[3])


def to_config(composed: Any) -> TrainConfig:
    """A composed Hydra configuration as a checked TrainConfig; raises UserError."""
    if "${tuned:" not in OmegaConf.to_yaml(composed.optimizer):  # of an axis, another value than tuned
        composed.optimizer.rules = None
    OmegaConf.resolve(composed)
    missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        raise UserError(f"{missing[0]} has no value: give it on the command line")
    config = OmegaConf.to_object(composed)
    assert isinstance(config, TrainConfig)
    apply_shape(config)
    config.tracking.settle()
    config.check()
    return config


OmegaConf.register_new_resolver("tuned", tuned)
OmegaConf.register_new_resolver("unless_tuned", unless_tuned)
# So that a wrong key or type fails when a job is composed.
SCHEMA = OmegaConf.structured(TrainConfig)
for part in (SCHEMA.model, SCHEMA.optimizer):
    OmegaConf.set_struct(part.args, False)  # whose keys are the user's own
ConfigStore.instance().store(name="train_schema", node=SCHEMA)
