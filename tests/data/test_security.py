"""Nothing of a file is run: where one holds a pickle, it is refused unread."""

import hashlib
import os
import pickle
import re
from pathlib import Path

import pytest

from harness.training import checkpoint


class Runs:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_checkpoint_that_would_run_something(tmp_path):
    """Its checksum is right, as whoever writes one can make it."""
    ran, path = tmp_path / "ran", tmp_path / "step-1.pt"
    checkpoint.save(path, {"step": 1, "model": Runs(ran)})
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        checkpoint.load(path)
    assert not ran.exists()

    payload = pickle.dumps(Runs(ran), protocol=2)
    path.write_bytes(hashlib.sha256(payload).digest() + payload)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        checkpoint.load(path)
    assert not ran.exists()
    pickle.loads(payload)  # noqa: S301  as anything else would have read it
    assert ran.exists()


def test_every_reader_of_pickles_is_told_not_to_run_them():
    """ruff's S rules see to pickle, yaml, eval and exec, but not to these."""
    root = Path(checkpoint.__file__).parents[2]
    sources = "".join(path.read_text() for folder in ("harness", "scripts") for path in (root / folder).rglob("*.py"))
    calls = re.findall(r"torch\.load\(.*\)", sources)
    assert calls and all("weights_only=True" in call for call in calls)
    assert not re.findall(r"np\.load\(|allow_pickle|read_pickle|joblib\.load|trust_remote_code", sources)
