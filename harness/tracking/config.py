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

Mode = Literal["online", "offline", "none"]


@dataclass
class TrackingConfig:
    """Where the runs of a sweep are mirrored."""

    # auto | online | offline | none; auto: online with an API key, offline without; WANDB_MODE=offline, disabled first
    mode: str = "auto"
    project: str = "scaling"  # of W&B; the sweep's name is the group
    entity: str | None = None  # a user or team of W&B; null: the account's own

    def check(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"tracking.mode={self.mode} is not known: choose auto, online, offline or none")
        if not self.project or any(letter in self.project for letter in "/\\#?%:"):
            raise UserError(f"tracking.project={self.project} cannot name a W&B project: leave out / \\ # ? % and :")
        if self.mode == "online" and api_key() is None:
            raise UserError(
                "tracking.mode=online finds no W&B API key: set WANDB_API_KEY, run `wandb login`, or take "
                "tracking.mode=offline"
            )


def resolve_mode(tracking: TrackingConfig) -> tuple[Mode, str]:
    """(online | offline | none, why): the configuration, then WANDB_MODE, then whether there is a key."""
    if tracking.mode == "none":
        return "none", ""
    if tracking.mode == "offline":
        return "offline", "tracking.mode=offline"
    wanted = os.environ.get("WANDB_MODE", "") if tracking.mode == "auto" else "online"
    if wanted == "disabled":
        return "none", ""
    if wanted in ("offline", "dryrun"):
        return "offline", f"WANDB_MODE={wanted}"
    return ("online", "") if api_key() else ("offline", "no API key")


def base_url() -> str:
    """The W&B server: WANDB_BASE_URL, or what `wandb login --host` left, or the public one."""
    settings = configparser.ConfigParser()
    folder = os.environ.get("WANDB_CONFIG_DIR") or Path.home() / ".config" / "wandb"
    with contextlib.suppress(configparser.Error, OSError):
        settings.read(Path(folder) / "settings")
    kept = settings.get("default", "base_url", fallback=f"https://{PUBLIC[0]}")
    return (os.environ.get("WANDB_BASE_URL") or kept).rstrip("/")


def api_key() -> str | None:
    """The key of that server: WANDB_API_KEY or the netrc file."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    host = urlsplit(base_url()).netloc
    for path in [os.environ.get("NETRC") or "~/.netrc", "~/_netrc"]:
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            hosts = netrc.netrc(Path(path).expanduser()).hosts
            for name in PUBLIC if host in PUBLIC else (host,):
                if entry := hosts.get(name):
                    return entry[2]
    return None


def without_key(text: str) -> str:
    key = api_key()
    return text.replace(key, "...") if key else text
