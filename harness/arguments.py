"""A command line as people write it: words that belong together, paths of any letters, texts that are settled once."""

import os
import re
import shlex
from collections.abc import Sequence

from omegaconf import OmegaConf

from harness.errors import UserError
from harness.files import homeless

# Keys of all scripts whose values are paths; a comma is one of their letters, and makes no axis.
PATHS = ("output_directory", "data.path", "data.generator", "data.store_directory", "optimizer.rules", "runs", "out")
# Groups of conf/, whose entries may have names that Hydra's grammar takes for a number or for true.
GROUPS = ("model", "data", "tokenizer", "optimizer", "schedule", "tracking", "sweep", "size", "hydra/launcher")
NO_TEXT = re.compile(r"[+-]?(\d|\.\d|inf$|nan$)[\w.+-]*|true|false", re.ASCII | re.IGNORECASE)
# What has another value in another process, or a moment later.
UNSETTLED = re.compile(r"\$\{\s*(?:now|oc\.env)\s*:[^${}]*\}")
OVERRIDE = re.compile(r"-m$|--|[+~]{0,2}[A-Za-z_][\w./@]*=")
# A path that Hydra's grammar takes as it stands, and for no number.
PLAIN = re.compile(r"[\w.@+-]*/[\w./@+-]*", re.ASCII)


def split(text: str) -> list[str]:
    """The words of make's ARGS, with quotes and backslashes as in a shell, and nothing else that a shell does."""
    try:
        return shlex.split(text)
    except ValueError:
        raise UserError(f"ARGS={text} has a quote that is not closed: close it") from None


def joined(arguments: Sequence[str]) -> list[str]:
    """The arguments with lists made whole that a shell cut at their spaces, as in tokens=[20e3, 40e3].

    Raises UserError for letters that are not in UTF-8, which no file of a sweep can hold.
    """
    for argument in arguments:
        shown = argument.encode(errors="replace").decode()
        if shown != argument:
            raise UserError(f"{shown} has letters that are not in UTF-8: rename what it names, or set LC_ALL=C.UTF-8")
    found, rest = [], list(arguments)
    while rest:
        words = [rest.pop(0)]
        while open_list(" ".join(words)) and rest and not OVERRIDE.match(rest[0]):
            words.append(rest.pop(0))
        found += words if open_list(" ".join(words)) else [" ".join(words)]
    return found


def open_list(argument: str) -> bool:
    """Whether a bracket of key=value is not closed, or a comma ends it."""
    if not OVERRIDE.match(argument):
        return False
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", argument)
    return bare.rstrip().endswith(",") or sum(map(bare.count, "[{(")) > sum(map(bare.count, "]})"))


def settled(text: str) -> str:
    """`text` with ${now:...} and ${oc.env:...} replaced by what they are now; within a context in which Hydra composes.

    Every process of a sweep would find another time, and a cluster's jobs other variables.
    """
    while found := UNSETTLED.search(text):
        text = text[: found.start()] + str(OmegaConf.create({"value": found[0]})["value"]) + text[found.end() :]
    return text


def expanded(path: str) -> str:
    """A path with its ~, or each of several in a,b or [a,b]. Raises UserError where nobody's home is known."""

    def home(found: "re.Match[str]") -> str:
        folder = os.path.expanduser(found[2])
        if found[2] == "~" and homeless():
            raise UserError(f"{path}: ~ stands for no folder, since HOME is not set: write the path in full")
        return found[1] + folder

    return re.sub(r"(^|[\[,]\s*)(~[^/,\]]*)", home, path)


def quoted(argument: str, keys: Sequence[str] = PATHS) -> str:
    """An override whose value is a text, in quotes where Hydra's grammar would read more into it; paths expanded."""
    key, equals, value = argument.partition("=")
    name = key.lstrip("+")
    if name in GROUPS and NO_TEXT.fullmatch(value):
        return f"{key}='{value}'"
    quotes = re.fullmatch(r"(['\"])(.*)\1", value, re.DOTALL)
    if not (equals and name in keys) or value == "null" or (quotes and name not in PATHS):
        return argument
    if name in PATHS:
        value = expanded(quotes[2].replace(f"\\{quotes[1]}", quotes[1]) if quotes else value)
    return f"{key}={value if PLAIN.fullmatch(value) else literal(value)}"


def literal(text: str) -> str:
    """A text in quotes, as Hydra's grammar has it."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"
