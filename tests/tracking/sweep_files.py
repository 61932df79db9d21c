"""Sweep directories as training leaves them, and their mirrors."""

import json
import os
import time
from base64 import b64encode

import yaml

from harness import tracking
from harness.records import COLUMNS, SweepFolder, write_sweep
from harness.tracking import TrackingConfig

KEY = "0123456789" * 4


def leave_account(patch, home):
    """No W&B setting or key of the person who runs the tests."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        patch.delenv(name)
    patch.setenv("HOME", str(home))
    patch.setenv("NETRC", str(home / ".netrc"))


def rows(numbers):
    """Rows of curve.jsonl; row i is at step 10 i, 10240 i tokens and 6e9 i flops."""
    return [
        {"phase": "trunk", "step": 10 * i, "tokens": 10240 * i, "flops": 6e9 * i, "train_loss": 7 - 0.01 * i}
        for i in numbers
    ]


def write_cell(sweep_dir, cell, numbers, status=None, tail=""):
    """A run directory as training leaves it; `tail` is a row that is still being written."""
    folder = sweep_dir / "runs" / cell
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "schema": 1, "sweep": sweep_dir.name, "cell": cell, "trunk": "w64-d2-s0-00000000", "config_hash": "abc",
        "run_id": f"id-{cell}", "tags": ["gpt", "wsd"],
        "job": {"model": {"width": 64}, "tokens": [1e6, 2e6], "tracking": {"mode": "auto", "project": "scaling"}},
        "derived": {"tokens": 1000448, "steps": 977, "params_total": 115000},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(about))
    text = "".join(json.dumps(row) + "\n" for row in rows(numbers))
    (folder / "curve.jsonl").write_text(text + tail)
    if status:
        record = {"schema": 1, "cell": cell, "status": status, "tokens": 1000448, "width": 64}
        record["loss"] = 4.5 if status == "finished" else None
        record["error"] = "RuntimeError: out of luck" if status == "failed" else None
        (folder / "run.json").write_text(json.dumps(dict.fromkeys(COLUMNS) | record))


def write_plan(sweep_dir, cells, **labels):
    """labels: of an axis, its value in each cell."""
    sweep_dir.mkdir(exist_ok=True)
    plan = {"sweep": sweep_dir.name, "overrides": ["name=x"], "code_version": "1", "packages": {"torch": "2"}}
    plan |= {"axes": [*labels]} if labels else {}
    values = [dict(zip(labels, row, strict=True)) for row in zip(*labels.values(), strict=True)] or [{}] * len(cells)
    listed = [{"cell": cell} | value for cell, value in zip(cells, values, strict=True)]
    write_sweep(SweepFolder(sweep_dir), plan | {"cells": listed})


def mirror_once(sweep_dir, cells):
    with tracking.start(TrackingConfig(), sweep_dir, cells):
        pass
    return tracking.wait(sweep_dir, 120)


def columns(history, *names):
    return [tuple(row.get(name) for name in names) for row in history]


def assert_no_key(told, folder):
    """The API key is neither in `told` nor in a file of `folder` or its name, in the clear or as HTTP sends it."""
    everything = [path for path in folder.rglob("*") if path.is_file()]
    assert len(everything) > 20
    content = told + b"".join(path.read_bytes() + os.fsencode(path) for path in everything)
    for secret in (KEY.encode(), b64encode(f"api:{KEY}".encode()), b64encode(KEY.encode())):
        assert secret not in content


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


FIT = {
    "choices": {"law": "chinchilla", "loss": "log_mse"},
    "source": {"rows": 2},
    "versions": {"scipy": "1"},
    "fit": {
        "law": "chinchilla",
        "rows": 2,
        "estimates": {"E": 1.8, "alpha": 0.4, "beta": 0.5, "a": 0.556},
        "intervals": {"alpha": [0.35, 0.45], "beta": None},
        "certificate": {"certified": True},
    },
    "by_params": [
        {
            "law": "chinchilla",
            "params": name,
            "loss": "log_mse",
            "estimates": {"alpha": alpha},
            "intervals": ends and {"alpha": ends},
            "certificate": {"certified": certified},
        }
        for name, alpha, ends, certified in [
            ("params_with_head", 0.4, [0.35, 0.45], True),
            ("params_total", 0.5, None, False),
        ]
    ],
    "holdouts": [{"name": "largest_shape", "mean_relative_error": 0.003, "competitor_mean_relative_error": 0.02}],
}
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0000003"
    "0101009a6c0b430000000049454e44ae426082"
)


def write_fit(sweep_dir):
    write_cell(sweep_dir, "a", range(3), "finished")
    (sweep_dir / "fit.json").write_text(json.dumps(FIT))
    (sweep_dir / "runs.csv").write_text("cell,width,loss\na,64,4.5\nb,96,\n")
    (sweep_dir / "figures").mkdir()
    (sweep_dir / "figures" / "frontier.png").write_bytes(PIXEL)
