"""The entry of every script: composing its configuration, and one sentence for a user's mistake."""

import difflib
import errno
import gc
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.arguments import joined, quoted
from harness.errors import UserError
from harness.files import file_error, is_full
from harness.help import print_help
from harness.output import guarded
from harness.stop import Stopped

# Hydra's launchers that come with an extra of this package.
EXTRAS = {"submitit_slurm": "slurm"}
# What Hydra raises while it composes.
COMPOSING = (HydraException, OmegaConfBaseException)
# Keys below these are the user's own.
OPEN = ("model.args.", "optimizer.args.")
# A path of the user, wherever it is first looked at.
UNUSABLE = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ELOOP)


@contextmanager
def configuration() -> Iterator[None]:
    """Within it Hydra composes from conf/; its errors leave as UserError, one sentence each."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with initialize_config_module("harness.conf", "train", version_base=None):
                yield
    except COMPOSING as error:
        raise UserError(sentence(error)) from error


def compose_config(name: str, arguments: list[str]) -> DictConfig:
    """conf/<name>.yaml with the command line's overrides; raises UserError."""
    with configuration():
        config = compose(name, known_keys(name, [quoted(argument) for argument in arguments]))
        OmegaConf.resolve(config)
        return config


@cache
def keys_of_script(name: str) -> list[str]:
    """The keys of conf/<name>.yaml; within a context in which Hydra composes."""
    return keys_of(compose(name))


def known_keys(name: str, arguments: list[str]) -> list[str]:
    """`arguments`, checked to be overrides of keys that conf/<name>.yaml has."""
    known = keys_of_script(name)
    groups = GlobalHydra.instance().config_loader().list_groups("")
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        if not equals and not key.startswith("~"):
            raise UserError(f"{argument} is not an override: write key=value")
        group = key.split("@")[0].lstrip("+~")
        if group.startswith("hydra.sweeper.params"):
            raise UserError(f"{argument}: an axis is written as key=a,b,c, with -m before it")
        if group in groups and equals:
            _check_entry(argument, group)
        has = group in known or group in groups and name == "train"
        if has or group.startswith(("hydra", *OPEN)) or argument[0] == "~":
            continue
        near = difflib.get_close_matches(group, known, 1, 0.6)
        hint = f"did you mean {near[0]}?" if near else "--help lists the keys"
        raise UserError(f"{argument}: there is no key {group}; {hint}")
    return arguments


def _check_entry(argument: str, group: str) -> None:
    """Raises UserError where a group is given what cannot name an entry, which Hydra has no error of its own for."""
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    (found,) = parser.parse_overrides([argument])
    values = list(found.sweep_iterator()) if found.is_sweep_override() else [found.value()]
    names = [name for value in values for name in (value if isinstance(value, list) else [value])]
    if not all(isinstance(name, str | dict) for name in names):
        raise UserError(f"{argument} names no entry of conf/{group}: --help lists them")


def keys_of(config: Any, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key in config:
        full = f"{prefix}{key}"
        keys.append(full)
        if not OmegaConf.is_missing(config, key) and OmegaConf.is_dict(config[key]):
            keys.extend(keys_of(config[key], f"{full}."))
    return keys


def sentence(error: Exception) -> str:
    """What an error of Hydra's or of ours says, in one sentence."""
    if isinstance(error, UserError):
        return str(error)
    for plugin, extra in EXTRAS.items():
        if f"hydra/launcher/{plugin}'" in str(error):
            return f"hydra/launcher={extra} is not installed: pip install 'scaling-harness[{extra}]'"
    if isinstance(error, OverrideParseException):
        return f"{error.override} cannot be read as key=value: close its brackets, and quote it for the shell"
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={name} is not there: choose {', '.join(error.options)}"
    cause: BaseException = error
    while not isinstance(cause, OmegaConfBaseException) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause.__context__, UserError):  # of a resolver of ours
        return str(cause.__context__)
    text = " ".join(str(cause).split("\n")[0].split())
    key = getattr(cause, "full_key", None)
    if key and key not in text:
        text = f"{key}: {text}"
    return text.rstrip(".") + "; give a value of that kind or see conf/"


def _of_files(error: OSError) -> str:
    """What a full disk, or a path that cannot be used, deserves to be told in one sentence."""
    if error.errno in UNUSABLE:
        return f"{error.filename!s} cannot be used ({error.strerror}): correct the path, or the rights to it"
    full = "no space left on a disk that this writes to, such as that of temporary files or caches: free some"
    return str(file_error(Path(error.filename), error)) if error.filename else full


def collect_garbage() -> None:
    """From here on again, where a script has put it off; what it has imported stays, and is not searched."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def run_script(main: Callable[[list[str]], int], config: str) -> NoReturn:
    """Runs `main(arguments)` and exits with its status; a UserError is one sentence and status 2.

    --help lists the keys of conf/<config>.yaml. Where standard output takes no more, what runs goes on, and the status
    is at least 1.
    """
    if signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    collect_garbage()
    output, said = guarded(), ""
    try:
        if {"-h", "--help"} & set(sys.argv[1:]):
            with configuration():
                print_help(config, sys.modules["__main__"].__doc__ or "", sys.argv[1:])
            status = 0
        else:
            status = main(joined(sys.argv[1:]))
    except UserError as error:
        status, said = 2, f"error: {error}"
    except OSError as error:
        if not (is_full(error) or error.filename and error.errno in UNUSABLE):
            raise
        status, said = 2, f"error: {_of_files(error)}"
    except KeyboardInterrupt:
        status, said = 130, "interrupted; the same command goes on from here"
    except Stopped as stopped:
        status, said = 128 + stopped.number, f"{stopped}; the same command goes on from here"
    if status > 2:  # what follows cleans up: a further Ctrl-C would leave files behind and a traceback
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if said:
        print(said, file=sys.stderr)
    output.flush()
    if output.error:
        why = output.error.strerror
        print(f"error: standard output took no more ({why}): the rest of what was said is lost", file=sys.stderr)
    sys.exit(status or int(output.error is not None))
