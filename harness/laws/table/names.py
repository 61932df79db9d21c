"""Which columns of somebody's table are params, tokens, flops and loss, by the names that people give them."""

import re
import shlex
from dataclasses import fields, replace

import numpy as np

from harness.errors import UserError
from harness.laws.forms import FORMS
from harness.laws.table.rows import VARIABLES, Columns
from harness.laws.table.table import Table

# Of a name in small letters, its other signs as `_`: what it must hold, and what it must not.
USUAL = {
    "params": (
        r"params?|parameters?|model_size|non_?emb\w*|n_no_embed|nparams",
        r"param_group|per_param|params?_per|norm|hyper|rounded|lr|rate|parametri\w*|std|ratio",
    ),
    "tokens": (
        r"tokens?|n_tok",
        r"per|sec\w*|batch|unique|warmup|val\w*|eval\w*|test|vocab\w*|served|cooldown|decay|tokeni[sz]er|seq\w*|context|"
        r"special|bytes",
    ),
    "flops": (
        r"flops?|compute|pf_?days?|petaflops?_?days?",
        r"util\w*|per|sec\w*|increase|mfu|hfu|6nd|peak|rate|cost",
    ),
    "target": (
        r"loss(es)?|nll|bpb|ppl|perplexity|cross_?entropy|ce|bits_per\w*",
        r"se|stds?|stderr|sd|err|error|parts?|scale|min|max|var|weights?|coef|aux|steps?|low|high|smooth\w*|z_loss|balanc\w*|spikes?",
    ),
    "unique_tokens": (r"unique_tokens|unique", r"per"),
    "width": (r"width|d_model|hidden_size|n_embd|model_dim", r"-"),
    "depth": (r"depth|n_layers?|num_layers|num_blocks|layers", r"-"),
}
LETTERS = {"params": "N", "tokens": "D", "flops": "C", "target": "L", "unique_tokens": "U"}
DEFAULTS = {each.name: each.default for each in fields(Columns)}


def mapped(table: Table, columns: Columns, law: str) -> tuple[Table, Columns]:
    """The columns of a law, those that nobody named and that lack the harness' own name found by their usual names.

    The table's account says what was taken. Raises UserError where several columns may be meant.
    """
    form = FORMS[law]
    taken: dict[str, str] = {}
    unclear: dict[str, list[str]] = {}
    needed = [use for use in ("params", "tokens", "unique_tokens", "width", "depth") if use in form.uses]
    for use in dict.fromkeys((*VARIABLES, *needed, "target")):
        named = getattr(columns, use)
        if named != DEFAULTS[use] or named in table.frame.columns or named in table.unusable:
            continue
        others = {getattr(columns, other) for other in USUAL if other != use}
        found = [name for name in candidates(table, use) if name not in others]
        if len(found) == 1:
            taken[use] = found[0]
        elif found:
            unclear[use] = found
    missing = {use for use in unclear if use == "target" or use in form.uses}
    if missing:
        raise UserError(
            _choose(table, replace(columns, **taken), {use: unclear[use] for use in USUAL if use in missing})
        )
    account = list(table.account)
    if taken:
        shown = ", ".join(f"{_word(use)} = {name}" for use, name in taken.items())
        account.append(f"mapped by their names: {shown}")
    for use, names in unclear.items():
        account.append(f"left out: {_word(use)} may be {' or '.join(names)}; name one with columns.{use}=NAME")
    return replace(table, account=account), replace(columns, **taken)


def candidates(table: Table, use: str) -> list[str]:
    """Columns of numbers whose name may mean a variable; of columns with the same numbers the first."""
    wanted, unwanted = USUAL[use]
    found: list[str] = []
    for name in map(str, table.frame.columns):
        plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^a-zA-Z0-9]+", "_", name).strip("_").lower()
        by_word = re.search(rf"(^|_)({wanted})(_|$)", plain) and not re.search(rf"(^|_)({unwanted})(_|$)", plain)
        if not (by_word or re.split(r"[./]", name.strip())[-1] == LETTERS.get(use)):
            continue
        values = table.spare(name)
        numeric = values is not None or _mostly_numbers(table, name)
        if numeric and not any(_same(table, name, other) for other in found):
            found.append(name)
    return found


def _mostly_numbers(table: Table, name: str) -> bool:
    """Whether a column holds numbers, a few of which are missing or wrong."""
    kind = table.frame[name].dtype.kind
    return kind in "iuf" or name in table.unusable


def _same(table: Table, name: str, other: str) -> bool:
    first, second = table.spare(name), table.spare(other)
    return first is not None and second is not None and bool(np.array_equal(first, second))


def _choose(table: Table, columns: Columns, unclear: dict[str, list[str]]) -> str:
    """One sentence with a command for each candidate of the first variable that several columns may be."""
    known = {use: getattr(columns, use) for use in USUAL if getattr(columns, use) != DEFAULTS[use]}
    (use, names), *more = unclear.items()
    commands = []
    for name in names[:6]:
        choices = known | {use: name} | {other: candidate[0] for other, candidate in more}
        keys = [f"columns.{key}={value}" for key, value in choices.items()]
        commands.append(shlex.join(["python", "scripts/fit.py", f"runs={table.source}", *keys]))
    further = "".join(f", and {_word(other)} ({', '.join(candidate)})" for other, candidate in more)
    return (
        f"{table.source} has several columns that may be {_word(use)} ({', '.join(names)}){further}, and each gives "
        f"another law: choose, as in `{'` or `'.join(commands)}`"
    )


def _word(use: str) -> str:
    return "loss" if use == "target" else use
