from pathlib import Path

import pytest

from harness.errors import UserError
from harness.training.curve import Curve


def test_a_full_disk_is_one_sentence(tmp_path):
    curve = Curve([tmp_path / "curve.jsonl"], [])
    (tmp_path / "curve.jsonl").unlink()
    (tmp_path / "curve.jsonl").symlink_to(Path("/dev/full"))  # refuses every write, as a full disk does
    with pytest.raises(UserError, match="^no space left to write .*curve.jsonl: free some"):
        curve.append({"step": 1})
