"""Users without a home and without a name, as in many containers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.tracking.config import api_key, base_url, setting

ROOT = Path(__file__).parents[1]


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    for name in ("HOME", "LOGNAME", "USER", "NETRC", *(name for name in os.environ if name.startswith("WANDB_"))):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987654321)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_settings_of_a_user_without_a_home_are_none(nobody):
    assert (setting("mode"), base_url(), api_key()) == (None, "https://api.wandb.ai", None)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can take the id of nobody")
def test_a_sweep_of_nobody_is_kept_offline(corpus, tmp_path):
    """A process whose id has no passwd entry, with a right to read that a test's files need."""
    caps = "+dac_override,+dac_read_search"
    environment = {key: value for key, value in os.environ.items()
                   if key not in ("HOME", "LOGNAME", "USER") and not key.startswith("WANDB_")}  # fmt: skip
    done = subprocess.run(
        ["setpriv", "--reuid=987654321", "--clear-groups", f"--inh-caps={caps}", f"--ambient-caps={caps}",
         sys.executable, "-B", str(ROOT / "scripts/train.py"), *corpus, "tokens=2e3", "name=x",
         "optimizer.warmup_tokens.value=256", "output_directory=outputs"],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "W&B: 1 run not uploaded (no API key)" in done.stdout and "1 of 1 cells finished" in done.stdout
    assert os.listdir(tmp_path) == ["outputs"]  # no folder named ~
