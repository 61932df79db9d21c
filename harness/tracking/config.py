"""Where a sweep is mirrored: its configuration, the W&B server, the key for it."""

import configparser
import contextlib
import netrc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from harness.errors import UserError

MODES = ("auto", "online", "offline", "none")
# Two names of the public server; which of them `wandb login` writes down depends on the client's version.
PUBLIC = ("api.wandb.ai", "api.forge.coreweave.com")

PROJECT = "scaling"
Mode = Literal["online", "offline", "none"]


@dataclass
class TrackingConfig:
    """Where the runs of a sweep are mirrored."""

    # auto | online | offline | none; auto: online with an API key, offline without; WANDB_MODE=offline, disabled first
    mode: str = "auto"
    # of W&B; the sweep's name is the group; null: WANDB_PROJECT, else what W&B's settings files say, else scaling
    project: str | None = None
    # a user or team of W&B; null: WANDB_ENTITY, else what W&B's settings files say, else the account's own
    entity: str | None = None

    def settle(self) -> None:
        """Gives project and entity the values that the machine of the launcher has for them."""
        self.project = self.project if self.project is not None else setting("project") or PROJECT
        self.entity = self.entity if self.entity is not None else setting("entity")

    def check(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"tracking.mode={self.mode} is not known: choose auto, online, offline or none")
        if self.project == "" or any(letter in (self.project or "") for letter in "/\\#?%:"):
            raise UserError(f"tracking.project={self.project} cannot name a W&B project: leave out / \\ # ? % and :")
        if self.mode == "online" and api_key() is None:
            raise UserError(
                "tracking.mode=online finds no W&B API key: set WANDB_API_KEY, run `wandb login`, or take "
                "tracking.mode=offline"
            )


def resolve_mode(tracking: TrackingConfig) -> tuple[Mode, str]:
    """(online | offline | none, why): the configuration, then W&B's own setting, then whether there is a key."""
    if tracking.mode == "none":
        return "none", ""
    if tracking.mode == "offline":
        return "offline", "tracking.mode=offline"
    wanted = setting("mode") if tracking.mode == "auto" else "online"
    if wanted == "disabled":
        return "none", ""
    if wanted in ("offline", "dryrun"):
        said = "WANDB_MODE" if os.environ.get("WANDB_MODE") else "W&B's settings file says mode"
        return "offline", f"{said}={wanted}"
    return ("online", "") if api_key() else ("offline", "no API key")


def setting(name: str) -> str | None:
    """What W&B's client takes for a setting: its variable, else its settings file here, else that of the user."""
    if value := os.environ.get(f"WANDB_{name.upper()}"):
        return value
    here = Path(os.environ.get("WANDB_DIR") or ".")
    user = Path(os.environ.get("WANDB_CONFIG_DIR") or os.path.expanduser("~/.config/wandb"))
    for folder in (here / (".wandb" if os.path.exists(here / ".wandb") else "wandb"), user):
        kept = configparser.ConfigParser(interpolation=None)
        with contextlib.suppress(configparser.Error, OSError, UnicodeDecodeError):
            kept.read(folder / "settings")
        if value := kept.get("default", name, fallback=""):
            return value
    return None


def base_url() -> str:
    """The W&B server: what is set, as `wandb login --host` leaves it, or the public one."""
    return (setting("base_url") or f"https://{PUBLIC[0]}").rstrip("/")


def trusts_any_certificate() -> bool:
    return (setting("insecure_disable_ssl") or "").lower() in ("1", "true", "t", "yes", "y", "on")


def api_key() -> str | None:
    """The key of that server: WANDB_API_KEY or the netrc file."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    host = _host(base_url())
    for path in [os.environ.get("NETRC") or "~/.netrc", "~/_netrc"]:
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            hosts = netrc.netrc(os.path.expanduser(path)).hosts
            for name in PUBLIC if host in PUBLIC else (host,):
                if entry := hosts.get(name):
                    return entry[2]
    return None


def _host(url: str) -> str:
    """Empty where that is no URL."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def without_key(text: str) -> str:
    key = api_key()
    return text.replace(key, "...") if key else text
