"""SIGKILLs at random moments to random processes of small sweeps: python benchmarks/kill.py 100 (kills; else 5)

A sweep is launched again when its launcher was killed, at once, beside what is left of the one before. Each ends when
all cells have: their losses must be those of an undisturbed sweep, bit for bit, and no record may ever change. The
undisturbed one is the first to compile the loops, as in a new checkout.
Processes that stay are counted.
"""

import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from harness.data.synthetic import write_corpus

ROOT = Path(__file__).parents[1]
CELLS = 6
SESSIONS: set[int] = set()  # of every launcher, with all that it starts
LEAVE_SECONDS = 30.0  # a worker that was never given a job takes joblib's 300


def command(folder: Path, name: str) -> list[str]:
    return [
        sys.executable, "scripts/train.py", "-m", f"name={name}", "shape=w32-d2,w16-d1", "tokens=[20e3,40e3,80e3]",
        f"output_directory={folder}", "data=files", f"data.path={folder}/letters.jsonl", "data.validation_tokens=4000",
        f"data.store_directory={folder}/stores", "tokenizer=bytes", "model.seq_len=32", "model.head_size=8",
        "optimizer.batch_tokens.value=256", "optimizer.warmup_tokens.value=1024", "device=cpu", "tracking=none",
        "slots=2",
    ]  # fmt: skip


def start(folder: Path, name: str) -> subprocess.Popen:
    launcher = subprocess.Popen(
        command(folder, name), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    SESSIONS.add(launcher.pid)
    return launcher


def behind() -> list[int]:
    """The processes of all launchers that stay for LEAVE_SECONDS."""
    deadline = time.monotonic() + LEAVE_SECONDS
    while True:
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(FileNotFoundError, ProcessLookupError):
                if int(path.read_text().rpartition(")")[2].split()[3]) in SESSIONS:
                    found.append(int(path.parent.name))
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def descendants(pid: int) -> list[int]:
    """The processes below `pid`, those that end while they are counted left out."""
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, path.read_text().split()):
                found += [child, *descendants(child)]
    return found


def kind(pid: int, launcher: int) -> str:
    if pid == launcher:
        return "launcher"
    with suppress(FileNotFoundError, ProcessLookupError):
        return "worker" if b"popen_loky" in Path(f"/proc/{pid}/cmdline").read_bytes() else "other"
    return "other"


class Records:
    """Every version of every run record that was ever seen."""

    def __init__(self, sweep: Path):
        self.sweep = sweep
        self.versions: dict[str, set[tuple[int, int]]] = {}

    def look(self) -> None:
        for path in self.sweep.glob("runs/*/run.json"):
            with suppress(FileNotFoundError):
                stat = path.stat()
                self.versions.setdefault(path.parent.name, set()).add((stat.st_ino, stat.st_mtime_ns))


def losses(sweep: Path) -> dict[str, str]:
    with open(sweep / "runs.csv") as file:
        return {row["cell"]: row["loss"] for row in csv.DictReader(file) if row["status"] == "finished"}


def disturbed(folder: Path, name: str, kills: int, seconds: float, chance: random.Random) -> Counter[str]:
    """Trains one sweep through at most `kills` kills, four in the time of a whole sweep; what was killed, by kind."""
    records, killed = Records(folder / name), Counter[str]()
    process = start(folder, name)
    moment = time.monotonic() + chance.uniform(0, seconds / 2)
    while True:
        records.look()
        if process.poll() is not None:
            if process.returncode == 0 and len(records.versions) == CELLS:
                break
            process = start(folder, name)
        elif time.monotonic() > moment and killed.total() < kills:
            pid = chance.choice([process.pid, *descendants(process.pid)])
            killed[kind(pid, process.pid)] += 1
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            moment = time.monotonic() + chance.uniform(0, seconds / 2)
        time.sleep(0.005)
    changed = [cell for cell, versions in records.versions.items() if len(versions) > 1]
    assert not changed, f"{name}: trained twice: {changed}"
    return killed


def main(kills: int) -> None:
    chance, killed, sweeps = random.Random(0), Counter[str](), 0
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_corpus(folder / "letters.jsonl", documents=400, letters=255, seed=0)
        os.environ["NUMBA_CACHE_DIR"] = str(folder / "loops")
        assert start(folder, "compiling").wait() == 0
        started = time.monotonic()
        assert start(folder, "whole").wait() == 0
        seconds = time.monotonic() - started
        expected = losses(folder / "compiling")
        assert len(expected) == CELLS and losses(folder / "whole") == expected
        while killed.total() < kills:
            name = f"killed-{sweeps}"
            killed += disturbed(folder, name, kills - killed.total(), seconds, chance)
            assert losses(folder / name) == expected, f"{name}: other losses"
            sweeps += 1
            print(f"{time.monotonic() - started:.0f} s: {name} ended, {killed.total()} kills so far", flush=True)
        stayed = behind()
        left = [path for path in folder.glob("killed-*/**/.*") if path.is_file()]
    what = ", ".join(f"{count} {name}" for name, count in killed.most_common())
    print(f"{killed.total()} kills ({what}) over {sweeps} sweeps of {CELLS} cells, about one in {seconds / 4:.0f} s")
    print(f"every loss as undisturbed, bit for bit; no cell trained twice; {len(stayed)} processes and "
          f"{len(left)} temporary files left")  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
