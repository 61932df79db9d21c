"""Where a sweep is mirrored, by configuration and environment."""

import pytest
from sweep_files import KEY

from harness.errors import UserError
from harness.tracking import TrackingConfig
from harness.tracking.config import api_key, resolve_mode


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
