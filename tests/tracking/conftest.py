import pytest
from sweep_files import KEY, leave_account
from wandb_server import WandbServer


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    leave_account(monkeypatch, tmp_path)


@pytest.fixture
def server(monkeypatch):
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield server
        assert server.unknown == []
