"""A W&B server that fails in every way that we know of: training neither waits nor dies, and is told once why."""

import json
import re
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from sweep_files import KEY, assert_no_key, columns, rows, wait_until, write_cell
from wandb_files import read_run
from wandb_server import WandbServer

from harness import tracking
from harness.data.synthetic import write_corpus
from harness.tracking import TrackingConfig

ROOT = Path(__file__).parents[2]
# What is wrong from the start, and what W&B does not get for it.
AT_ONCE = {
    "failing": (500, "HTTP 500"),
    "limiting": (429, "HTTP 429"),
    "silent": ("hang", "no answer in 10 s"),
    "dropping": ("drop", "connection lost"),
}
# What goes wrong when the run is already there.
LATER = {"fading": ("drop", "connection lost"), "breaking": (500, "HTTP 500"), "throttling": (429, "HTTP 429")}


def test_training_never_waits_for_a_server_that_fails(tmp_path, monkeypatch):
    """All faults at once, each with its own sweep: most of the time is spent waiting for silent servers."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with ExitStack() as stack:
        names = [*AT_ONCE, *LATER, "refusing", "closed", "slow"]
        servers = {name: stack.enter_context(WandbServer()) for name in names}
        for name, (fault, _) in AT_ONCE.items():
            servers[name].fault = fault
        servers["refusing"].key = "9876543210" * 4
        servers["closed"].closed.add("scaling")
        servers["slow"].fault = 1.0
        taken = stack.enter_context(socket.socket())
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        urls = {name: server.url for name, server in servers.items()}
        urls["unheard"] = f"http://127.0.0.1:{taken.getsockname()[1]}"
        mirrors = {}
        for name, url in urls.items():
            write_cell(tmp_path / name, "a", range(100), None if name in LATER else "finished")
            monkeypatch.setenv("WANDB_BASE_URL", url)
            mirrors[name] = timed(1.0, tracking.start, TrackingConfig(), tmp_path / name, ["a"])
        for name, (fault, _) in LATER.items():
            wait_until(lambda s=servers[name]: "id-a" in s.runs, 120)
            servers[name].fault = fault
            write_cell(tmp_path / name, "a", range(100), "finished")
        for mirror in mirrors.values():
            timed(0.1, mirror.close)
        whys = {name: why for name, (_, why) in (AT_ONCE | LATER).items()} | {
            "refusing": "the API key was refused",
            "closed": "no permission to write to that project",
            "unheard": "connection refused",
        }
        for name, why in whys.items():
            sweep_dir = tmp_path / name
            assert tracking.wait(sweep_dir, 180) == [
                f"W&B: 1 run not uploaded ({why}); `python scripts/sync.py runs={sweep_dir}` uploads what is kept"
            ], name
            (kept,) = (sweep_dir / "wandb").glob("*run-*-id-a")
            assert columns(read_run(next(kept.glob("*.wandb"))).history, "tokens") == columns(
                rows(range(100)), "tokens"
            )
        slow = servers["slow"]
        assert tracking.wait(tmp_path / "slow", 180) == [f"W&B: 1 run at {slow.url}/me/scaling/groups/slow"]
        assert columns(slow.run("id-a").history, "_step") == [(10 * i,) for i in range(100)]


def timed(most, call, *arguments):
    began = time.monotonic()
    result = call(*arguments)
    assert time.monotonic() - began < most
    return result


def test_a_sweep_ends_as_usual_while_the_server_refuses_its_key(tmp_path, server, monkeypatch):
    server.key = "9876543210" * 4
    write_corpus(tmp_path / "letters.jsonl", documents=400, letters=255, seed=0)
    done = subprocess.run(
        [
            sys.executable, "scripts/train.py", "-m", "name=tiny", "shape=w16-d1,w24-d1", "tokens=[10e3,20e3]",
            "data=files", f"data.path={tmp_path}/letters.jsonl", "data.validation_tokens=4000", "tokenizer=bytes",
            f"data.store_directory={tmp_path}/stores", f"output_directory={tmp_path}", "model.seq_len=32",
            "model.head_size=8", "optimizer.batch_tokens.value=256", "optimizer.warmup_tokens.value=1024", "device=cpu",
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode, re.sub(r"measuring the pace of .*\n", "", done.stderr)) == (0, "")  # where it is busy
    assert done.stdout.count("W&B") == 1
    assert "W&B: 4 runs not uploaded (the API key was refused); `python scripts/sync.py" in done.stdout
    losses = [json.loads(path.read_text())["loss"] for path in tmp_path.glob("tiny/runs/*/run.json")]
    assert len(losses) == 4 and all(loss > 0 for loss in losses)
    assert_no_key(done.stdout.encode(), tmp_path)
