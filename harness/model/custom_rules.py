"""How the parameters of a user's module start and learn: as the module says, else by its parametrization.

The rules are those of parametrization.py, but for the head. Logits are not scaled outside of the module, so with m =
width / base_width what 1/m there would do to them is done to the head's matrix: std and learning rate times 1/m, weight
decay and Adam's epsilon times m, which is the same model (Yang et al. 2022, lemma J.1). Linear layers of which the
inputs alone grow with the width learn at 1/m too. What is neither a matrix of the hidden layers nor a table starts as
the module's constructor left it.
"""

from typing import Any

import torch

from harness.errors import UserError
from harness.model.config import ModelConfig
from harness.model.custom import Custom, named
from harness.model.kinds import kinds_of
from harness.model.parameters import ParameterGroup
from harness.model.parametrization import scales
from harness.model.source import refused

KINDS = ("matrix", "embedding", "head", "vector", "other")
SCALES = {"lr": "lr_scale", "weight_decay": "weight_decay_scale", "eps": "eps_scale"}
EXAMPLE = "return dicts of params, kind, lr, weight_decay, eps, the last four as docs/models.md says"


@torch.no_grad()
def initialize_custom(model: Custom, seed: int) -> None:
    """Sets the parameters from one generator, on any device alike."""
    generator, config = torch.Generator().manual_seed(seed), model.config
    own: Any = getattr(model.module, "initialize", None)
    if own is not None:
        with refused(f"{named(config)} raises in initialize"):
            own(generator)
        return
    kinds, scale = kinds_of(config, model.vocab_size), scales(config)
    of_kind = {"matrix": scale.matrix_std, "stack": scale.matrix_std, "head": scale.logits}
    of_kind |= {"embedding": 1.0, "position": 1.0}
    for name, parameter in model.module.named_parameters():
        if (factor := of_kind.get(kinds[name].name)) is not None:
            std = config.init_std * factor
            parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))


def custom_groups(model: Custom) -> list[ParameterGroup]:
    """All parameters, each once. Raises UserError where the module's own groups are not that."""
    if (own := getattr(model.module, "parameter_groups", None)) is None:
        return _groups(model)
    with refused(f"{named(model.config)} raises in parameter_groups"):
        given = list(own())
    found = [_group(model.config, group) for group in given]
    held = [id(parameter) for group in found for parameter in group.params]
    own_names = {id(parameter): name for name, parameter in model.module.named_parameters()}
    if foreign := set(held) - set(own_names):
        raise UserError(
            f"{named(model.config)}: parameter_groups gives {len(foreign)} that are no parameters of the module: leave "
            "them out"
        )
    for one, name in own_names.items():
        if held.count(one) != 1:
            raise UserError(
                f"{named(model.config)}: parameter_groups has {name} in {held.count(one)} groups: put it into one"
            )
    return found


def _group(config: ModelConfig, given: Any) -> ParameterGroup:
    keys = {"params", "kind", *SCALES}
    if not isinstance(given, dict) or "params" not in given or set(given) - keys:
        what = f"a group of {', '.join(map(str, given))}" if isinstance(given, dict) else f"a {type(given).__name__}"
        raise UserError(f"{named(config)}: parameter_groups gives {what}: {EXAMPLE}")
    params, kind = list(given["params"]), given.get("kind", "other")
    factors = {ours: given.get(theirs, 1.0) for theirs, ours in SCALES.items()}
    if kind not in KINDS or not all(isinstance(factor, int | float) and factor >= 0 for factor in factors.values()):
        raise UserError(
            f"{named(config)}: parameter_groups gives a group of kind={kind} and factors "
            f"{', '.join(map(str, factors.values()))}: choose one of {', '.join(KINDS)}, and factors of at least 0"
        )
    if kind == "matrix" and any(parameter.ndim != 2 for parameter in params):
        raise UserError(f"{named(config)}: parameter_groups calls what has not two axes a matrix: call it other")
    return ParameterGroup(params=params, kind=kind, **factors)


def _groups(model: Custom) -> list[ParameterGroup]:
    scale, kinds = scales(model.config), kinds_of(model.config, model.vocab_size)
    learns = {"matrix": scale.matrix_lr, "stack": scale.matrix_lr, "output": scale.matrix_lr, "head": scale.logits}
    decays = {"matrix": scale.matrix_weight_decay, "stack": scale.matrix_weight_decay, "vector": 0.0}
    decays |= {"output": scale.matrix_weight_decay, "head": 1 / scale.logits}
    groups: dict[tuple[str, bool], ParameterGroup] = {}
    for name, parameter in model.module.named_parameters():
        kind = kinds[name].name
        in_block = any(part.isdigit() for part in name.split("."))  # of a list of modules
        eps = scale.block_eps if in_block else scale.outer_eps
        group = groups.setdefault(
            (kind, in_block),
            ParameterGroup(
                params=[],
                kind=kind if kind in KINDS else "embedding" if kind == "position" else "other",
                lr_scale=learns.get(kind, 1.0),
                weight_decay_scale=decays.get(kind, 1.0),
                eps_scale=eps / scale.logits if kind == "head" else eps,
            ),
        )
        group.params.append(parameter)
    return list(groups.values())
