import os

import pytest
from sweep_files import KEY
from wandb_server import WandbServer


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    """No W&B setting or key of the person who runs the tests."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))


@pytest.fixture
def server(monkeypatch):
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield server
        assert server.unknown == []
