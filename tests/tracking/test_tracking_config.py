"""Where a sweep is mirrored, by configuration and environment."""

import os
import socket
import threading

import pytest
from sweep_files import KEY

from harness.errors import UserError
from harness.tracking import TrackingConfig
from harness.tracking.config import api_key, base_url, resolve_mode, setting, trusts_any_certificate
from harness.tracking.probe import probe


@pytest.mark.parametrize(
    "given, problem",
    [
        ({"mode": "on"}, "tracking.mode=on is not known: choose auto, online, offline or none"),
        ({"project": "a/b"}, "tracking.project=a/b cannot name a W&B project: leave out / \\ # ? % and :"),
        (
            {"mode": "online"},
            "tracking.mode=online finds no W&B API key: set WANDB_API_KEY, run `wandb login`, or take "
            "tracking.mode=offline",
        ),
    ],
)
def test_a_wrong_configuration_is_one_sentence(given, problem):
    with pytest.raises(UserError) as refused:
        TrackingConfig(**given).check()
    assert str(refused.value) == problem


@pytest.mark.parametrize(
    "mode, environment, resolved",
    [
        ("auto", {}, ("offline", "no API key")),
        ("auto", {"WANDB_API_KEY": KEY}, ("online", "")),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, ("offline", "WANDB_MODE=offline")),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "disabled"}, ("none", "")),
        ("online", {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, ("online", "")),
        ("offline", {"WANDB_API_KEY": KEY}, ("offline", "tracking.mode=offline")),
        ("none", {"WANDB_API_KEY": KEY}, ("none", "")),
    ],
)
def test_the_mode_follows_the_configuration_then_the_environment_then_the_key(monkeypatch, mode, environment, resolved):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert resolve_mode(TrackingConfig(mode=mode)) == resolved


@pytest.mark.parametrize("place", ["variable", "here", "user"])
def test_what_the_client_honours_is_honoured(monkeypatch, tmp_path, place):
    """wandb 0.31: WANDB_<NAME>, over ./wandb/settings, over ~/.config/wandb/settings."""
    monkeypatch.chdir(tmp_path)
    wanted = {"project": "p", "entity": "e", "mode": "offline", "base_url": "https://w.org"}
    wanted["insecure_disable_ssl"] = "true"
    files = {"here": tmp_path / "wandb" / "settings", "user": tmp_path / ".config" / "wandb" / "settings"}
    for name, path in files.items():  # each says something; what stands before it wins
        path.parent.mkdir(parents=True)
        lines = [f"{key} = {value if name == place else 'other'}" for key, value in wanted.items()]
        path.write_text("\n".join(["[default]", *lines]) if name == place or place != "user" else "")
    for key, value in wanted.items() if place == "variable" else ():
        monkeypatch.setenv(f"WANDB_{key.upper()}", value)
    assert {key: setting(key) for key in wanted} == wanted
    given, free = TrackingConfig(project="q", entity="f"), TrackingConfig()
    given.settle()
    free.settle()
    assert (free.project, free.entity, given.project, given.entity) == ("p", "e", "q", "f")
    assert base_url() == "https://w.org" and trusts_any_certificate()
    said = "WANDB_MODE=offline" if place == "variable" else "W&B's settings file says mode=offline"
    assert resolve_mode(free) == ("offline", said)
    assert resolve_mode(TrackingConfig(mode="none")) == ("none", "")


def test_without_any_setting_the_project_is_ours(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    tracking = TrackingConfig()
    tracking.settle()
    assert (tracking.project, tracking.entity, base_url()) == ("scaling", None, "https://api.wandb.ai")
    assert not trusts_any_certificate()


def test_the_key_of_the_configured_server_is_found_in_netrc(monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text(
        "machine api.wandb.ai login user password public\nmachine wandb.lab.org login user password lab\n"
    )
    assert api_key() == "public"
    settings = tmp_path / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text("[default]\nbase_url = https://wandb.lab.org\n")
    assert api_key() == "lab"
    monkeypatch.setenv("WANDB_BASE_URL", "https://elsewhere.org")
    assert api_key() is None


def test_the_key_of_the_public_server_is_found_under_both_of_its_names(tmp_path):
    (tmp_path / ".netrc").write_text("machine api.forge.coreweave.com login user password forge\n")
    assert api_key() == "forge"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("x", "unknown url type: 'x/graphql'"),
        ("http://[x", "Invalid IPv6 URL"),
        ("http://h:port", "nonnumeric port: 'port'"),
    ],
)
def test_an_address_that_is_none_is_a_problem_of_the_server(monkeypatch, url, problem):
    monkeypatch.setenv("WANDB_BASE_URL", url)
    assert api_key() is None
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert probe() == problem


def test_a_server_that_does_not_speak_http_is_a_problem_of_the_server(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")

        def answer():
            client, _ = server.accept()
            client.recv(65536)
            client.sendall(b"SSH-2.0-OpenSSH\r\n")
            client.close()

        threading.Thread(target=answer, daemon=True).start()
        assert probe() == "SSH-2.0-OpenSSH"


@pytest.mark.parametrize("name", ["x" * 300, "secret/x"])
def test_a_settings_folder_that_cannot_be_read_says_nothing(monkeypatch, tmp_path, name):
    (tmp_path / "secret").mkdir()
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / name))
    monkeypatch.setattr(os, "stat", _unless_secret(os.stat))
    assert setting("mode") is None


def _unless_secret(stat):
    """The root of a container may read everything."""

    def refusing(path, *more, **others):
        if "secret" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *more, **others)

    return refusing
