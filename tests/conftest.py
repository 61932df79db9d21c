import signal

import pytest

from harness.config import TrainConfig
from harness.sweep.compose import compose_grid


@pytest.fixture(scope="session", autouse=True)
def heard():
    """A run in the background, or under nohup, ignores these, and so would every process that a test starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def compose(tmp_path):
    """Composes the one job of a command line, its files under tmp_path and its tracking off."""

    def one(*arguments: str) -> TrainConfig:
        grid = compose_grid([f"output_directory={tmp_path}/outputs", "tracking=none", *arguments])
        assert len(grid.jobs) == 1
        return grid.jobs[0]

    return one
