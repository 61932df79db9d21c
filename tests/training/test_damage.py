"""Damaged files of a sweep: what they held is trained again, to the same bits."""

import pytest

from harness.records import SweepFolder, read_record
from harness.sweep.run import train

BUDGETS = "tokens=[10e3,20e3]"


@pytest.fixture
def sweep(corpus, tmp_path, capsys):
    """Trains one trunk with two cells in this process, again and again; gives its folder, losses and lines."""
    folder = SweepFolder(tmp_path / "single")

    def run() -> tuple[SweepFolder, list[float], list[str]]:
        assert train([*corpus, BUDGETS, f"output_directory={tmp_path}", "tracking=none"]) == 0
        records = [read_record(path.parent) for path in sorted(folder.path.glob("runs/*/run.json"))]
        return folder, [record["loss"] for record in records], capsys.readouterr().out.splitlines()

    return run


def test_damaged_records_are_said_in_one_line_and_trained_again(sweep):
    folder, before, lines = sweep()
    assert not [line for line in lines if "count as not done" in line]
    first, second = sorted(folder.path.glob("runs/*/run.json"))
    first.write_bytes(first.read_bytes()[:100])
    second.write_bytes(b"\xff\x00")
    _, after, lines = sweep()
    assert [line for line in lines if "count as not done" in line] == [
        f"damaged run records count as not done: {first.parent.name}, {second.parent.name}"
    ]
    assert after == before
    _, _, lines = sweep()
    assert not [line for line in lines if "count as not done" in line]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged_checkpoints_cost_time_and_no_bit(sweep, damage):
    folder, before, _ = sweep()
    newest = max(folder.path.glob("trunks/*/step-*.pt"), key=lambda path: path.stat().st_mtime_ns)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    content = {"truncated": content[:-10], "flipped": content, "empty": b""}[damage]
    newest.write_bytes(content)
    for record in folder.path.glob("runs/*/run.json"):
        (record.parent / "checkpoint.pt").write_bytes(content)
        record.unlink()
    assert sweep()[1] == before
