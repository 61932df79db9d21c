"""The view of a sweep, on sweep folders written by hand."""

import io
import json
import os
import re
import time

import pytest
import yaml
from rich.console import Console

from harness.errors import UserError
from harness.records import COLUMNS
from harness.sweep import progress
from harness.sweep.progress import Progress, heartbeat, outcome, render, short, snapshot
from harness.sweep.snapshot import SweepReader, last_row

NOW = 1_800_000_000.0  # seconds since the epoch
BATCH = 1000  # tokens a step


@pytest.fixture
def sweep(tmp_path):
    """Two shapes of three budgets: 100, 200 and 400 steps. A token costs 6 flops at width 32 and 24 at 64.

    With cooldowns of a fifth a trunk takes 320 + 20 + 40 + 80 = 460 steps: 460 * 1000 * (6 + 24) = 13.8e6 flops.
    """
    cells = [
        {
            "cell": f"w{width}-d2-t{steps}k-s0-{width:04x}{steps:04x}", "trunk": f"w{width}-d2-s0-0000{width:04x}",
            "width": width, "depth": 2, "heads": width // 16, "seed": 0, "tokens": steps * BATCH, "steps": steps,
            "branch_step": steps * 4 // 5, "batch_tokens": BATCH, "flops": steps * BATCH * cost,
        }
        for width, cost in [(32, 6), (64, 24)]
        for steps in [100, 200, 400]
    ]  # fmt: skip
    folder = tmp_path / "tiny"
    (folder / "runs").mkdir(parents=True)
    launch = {"started": NOW - 190, "estimated_seconds": 600.0, "wall_seconds": None}
    plan = {"schema": 1, "sweep": "tiny", "slots": 2, "launches": [launch], "cells": cells}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(plan))
    return folder


def cell_folder(sweep, cell):
    """The run directory of a cell, named without its hash where there is but one such cell."""
    steps = re.fullmatch(r"w(\d+)-d2-t(\d+)k", cell)
    name = f"{cell}-s0-{int(steps[1]):04x}{int(steps[2]):04x}" if steps else cell
    folder = sweep / "runs" / name
    folder.mkdir(exist_ok=True)
    return folder


def write_curve(sweep, cell, step, age=1.0, loss=5.0, tail="", claimed=True):
    path = cell_folder(sweep, cell) / "curve.jsonl"
    if claimed:
        (path.parent / "running").touch()
    rows = [
        {
            "phase": "trunk",
            "step": done,
            "tokens": done * BATCH,
            "train_loss": loss,
            "tokens_per_second": 2000.0,
            "flops_utilization": 0.4,
        }
        for done in (step - 10, step)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    os.utime(path, (NOW - age, NOW - age))


def write_record(sweep, cell, status="finished", age=2.0, loss=4.12346, error=None, text=None):
    path = cell_folder(sweep, cell) / "run.json"
    record = dict.fromkeys(COLUMNS) | {"schema": 1, "status": status, "error": error}
    if status == "finished":
        record |= {"loss": loss, "loss_se": 0.00412, "tokens_per_second": 4000.0, "flops_utilization": 0.6}
    path.write_text(json.dumps(record) if text is None else text)
    os.utime(path, (NOW - age, NOW - age))


def look(sweep):
    return SweepReader(sweep).snapshot(NOW)


def text_of(renderable):
    console = Console(width=80, file=io.StringIO())
    console.print(renderable)
    return console.file.getvalue()


def test_cooldowns_that_run_beside_their_trunk(sweep):
    write_record(sweep, "w32-d2-t100k")
    write_curve(sweep, "w32-d2-t200k", 180)
    write_curve(sweep, "w32-d2-t400k", 250)
    write_curve(sweep, "w64-d2-t100k", 90, claimed=False)  # of a process that left
    now = look(sweep)
    assert [cell.status for cell in now.cells] == ["finished", "running", "running", "waiting", "waiting", "waiting"]
    assert now.tokens_per_second == 4000
    # the trunk to 250, cooldowns of 20 and 20 steps; the other trunk to 80, and 10 steps of a cooldown
    assert now.flops_done == (250 + 20 + 20) * BATCH * 6 + (80 + 10) * BATCH * 24


def test_a_sweep_that_has_not_begun(sweep):
    now = look(sweep)
    assert now.count("waiting") == 6
    assert (now.flops_done, now.flops_total) == (0, 13.8e6)
    assert (now.tokens_per_second, now.seconds_left) == (0, 600)


def test_literal_counts_in_the_middle(sweep):
    write_record(sweep, "w32-d2-t100k")  # its branch is at step 80
    write_curve(sweep, "w32-d2-t200k", 170, age=1)  # in its cooldown, which began at 160
    write_curve(sweep, "w32-d2-t400k", 160, age=40, claimed=False)  # the trunk stands still meanwhile
    write_curve(sweep, "w64-d2-t400k", 40, loss=6.5)
    now = look(sweep)
    assert [cell.status for cell in now.cells] == [
        "finished", "running", "waiting", "waiting", "waiting", "running"
    ]  # fmt: skip
    # Trunk to 160, cooldowns of 20 and 10 steps; the other trunk to 40.
    assert now.flops_done == (160 + 20 + 10) * BATCH * 6 + 40 * BATCH * 24
    assert now.tokens_per_second == 4000
    # Each trunk goes on at 2000 tokens a second, side by side, the larger one for 280 steps and a cooldown of 80; the
    # other process, done after 270 steps, trains its shorter ones of 20 and 40.
    assert now.seconds_left == 360 * BATCH / 2000
    assert (now.cells[1].loss, now.cells[5].loss, now.cells[0].loss) == (5.0, 6.5, 4.12346)
    assert now.cells[5].done == 0.1


def test_a_trunk_that_has_not_run_is_given_the_speed_of_its_neighbour_in_flops(sweep):
    for cell in ("w32-d2-t100k", "w32-d2-t200k", "w32-d2-t400k"):
        write_record(sweep, cell)
    # 4000 tokens/s of 6 flops are 1000 tokens/s of 24; the shorter cooldowns, of 20 and 40 steps, go beside the trunk.
    assert look(sweep).seconds_left == 400 * BATCH / 1000


def test_trunks_queue_for_slots(sweep):
    plan = yaml.safe_load((sweep / "sweep.yaml").read_text())
    (sweep / "sweep.yaml").write_text(yaml.safe_dump(plan | {"slots": 1}))
    write_record(sweep, "w32-d2-t100k")
    # Trunk: 80 of 320 steps and 20 of cooldown are done; 360 steps at 4000 tokens/s, then 460 at 1000.
    assert look(sweep).seconds_left == pytest.approx(360 / 4 + 460)


def test_cells_that_were_lost(sweep):
    write_record(sweep, "w32-d2-t100k", "failed", error="RuntimeError: no\nluck")
    for cell in ("w64-d2-t100k", "w64-d2-t200k", "w64-d2-t400k"):
        write_record(sweep, cell, "diverged", error="loss is nan at step 7")
    now = look(sweep)
    assert (now.count("failed"), now.count("diverged"), now.count("waiting")) == (1, 3, 2)
    # Nothing is left to do for a trunk whose cells have all ended, nor for the failed cooldown.
    assert now.flops_done == 460 * BATCH * 24 + 20 * BATCH * 6
    assert "w32-d2-t100k-s0 failed  RuntimeError: no luck" in text_of(render(now))


def test_a_failed_cell_that_is_tried_again_runs(sweep):
    write_record(sweep, "w32-d2-t100k", "failed", age=60, error="killed")
    write_curve(sweep, "w32-d2-t100k", 50, age=1)
    assert look(sweep).cells[0].status == "running"


def test_a_damaged_record_is_not_done(sweep):
    write_curve(sweep, "w32-d2-t100k", 100)
    write_record(sweep, "w32-d2-t100k", text='{"schema": 1, "status": "finis')
    assert look(sweep).cells[0].status == "running"


def test_without_news_a_cell_is_quiet(sweep):
    write_curve(sweep, "w32-d2-t400k", 160, age=720)
    now = look(sweep)
    assert (now.count("running"), now.count("quiet"), now.tokens_per_second) == (0, 1, 0)
    assert "quiet 12 min" in text_of(render(now))


@pytest.mark.parametrize("tail", ["", '{"phase": "trunk", "step": 60, "tok', '{"phase": "trunk", "step": 60}'])
def test_a_torn_last_line_is_left_out(sweep, tail):
    write_curve(sweep, "w32-d2-t100k", 50, tail=tail)
    assert look(sweep).cells[0].steps_done == 50


def test_only_the_end_of_a_curve_is_read(tmp_path):
    path = tmp_path / "curve.jsonl"
    with open(path, "wb") as file:
        file.truncate(10**9)  # a hole of a gigabyte
        file.seek(0, 2)
        file.write(b'\n{"step": 7}\n')
    began = time.perf_counter()
    assert last_row(path) == {"step": 7}
    assert time.perf_counter() - began < 0.1


def test_utilization_is_that_of_what_runs_and_else_of_what_has_finished(sweep):
    assert look(sweep).utilization is None
    write_record(sweep, "w32-d2-t100k")
    assert look(sweep).utilization == 0.6
    write_curve(sweep, "w32-d2-t200k", 90)
    write_curve(sweep, "w64-d2-t400k", 90)
    assert look(sweep).utilization == pytest.approx(0.4)


def test_what_a_dead_sweep_cost_and_how_to_go_on(sweep):
    plan = yaml.safe_load((sweep / "sweep.yaml").read_text())
    launch = {"started": NOW - 900, "estimated_seconds": 400.0, "wall_seconds": 500.0}
    plan |= {"launches": [launch], "command": "python scripts/train.py -m +sweep=tiny", "threads": 2}
    (sweep / "sweep.yaml").write_text(yaml.safe_dump(plan))
    write_record(sweep, "w32-d2-t100k")
    write_curve(sweep, "w32-d2-t400k", 260, age=5000)
    write_record(sweep, "w64-d2-t100k", "failed", error="OSError: no\nspace")
    now = look(sweep)
    # 260 steps of the trunk and 20 of the first cooldown, at the 4000 tokens/s of its newest record
    assert now.process_seconds == pytest.approx(280 * BATCH / 4000)
    assert outcome(now, 2_500_000) == [
        "took 8 min, 1.25 of the 7 min that were estimated",
        "cost 2.3 core-minutes, at 60 % of the device's rate of matrix products, and 2.5 MB of disk",
        "failed: w64-d2-t100k-s0-00400064: OSError: no space",
        "4 cells have no record: they were not begun, or their process was killed",
        "what is left, and no other cell: python scripts/train.py -m +sweep=tiny",
    ]


def test_while_cells_run_nothing_is_said_to_be_left(sweep):
    write_curve(sweep, "w64-d2-t400k", 40)
    said = ["cost 0.3 core-minutes, at 40 % of the device's rate of matrix products, and 0 B of disk"]
    assert outcome(look(sweep), 0) == said
    left = "6 cells have no record: they were not begun, or their process was killed"
    assert outcome(look(sweep), 0, ended=True) == [*said, left]


def test_a_folder_without_a_sweep_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match="holds no sweep.yaml"):
        snapshot(tmp_path)


def test_the_panel_shows_losses_by_shape_and_budget(sweep):
    write_record(sweep, "w32-d2-t100k")
    write_record(sweep, "w32-d2-t200k", "diverged", error="loss is nan at step 7")
    write_curve(sweep, "w64-d2-t400k", 100)
    lines = text_of(render(look(sweep), elapsed=190)).splitlines()
    assert lines[0].split("   ")[:3] == [" tiny", "1 of 6 cells", "1 running"]
    # 100 steps and a lost cooldown of 40 at 6000 flops a step, 100 steps at 24000
    assert lines[2] == " 3.2e6 of 1.4e7 FLOPs · 2k tokens/s · 40 % of its rate · 3 min so far"
    assert [line.split() for line in lines[4:7]] == [
        ["loss", "after", "100k", "200k", "400k"],
        ["w32-d2-s0", "4.1235", "div.", "·"],
        ["w64-d2-s0", "·", "·", "25", "%"],
    ]
    assert lines[9].split()[0] == "w64-d2-t400k-s0"
    assert lines[9].split()[-4:] == ["25", "%", "5.000", "2k"]
    assert max(map(len, lines)) <= 80


def test_the_slurm_jobs_of_what_runs_and_of_what_failed_are_named(sweep):
    write_curve(sweep, "w32-d2-t400k", 90)
    (cell_folder(sweep, "w32-d2-t400k") / "running").write_text("7 a-node-of-the-cluster")
    write_record(sweep, "w64-d2-t100k", "failed", error="no disk")
    for trunk, job in (("w32-d2-s0-00000020", "1234567_0"), ("w64-d2-s0-00000040", "1234567_1")):
        (sweep / "trunks" / trunk).mkdir(parents=True)
        os.symlink(f"../../slurm/{job}/{job}_0_log.out", sweep / "trunks" / trunk / "log")
    text = text_of(render(look(sweep)))
    assert re.search(r"w32-d2-t400k-s0 .* 1234567_0 *$", text, re.MULTILINE)
    assert "w64-d2-t100k-s0 failed in SLURM job 1234567_1  no disk" in text
    assert "logs: slurm/JOB/ in the sweep's folder" in text


def test_a_large_sweep_fits_a_small_terminal(tmp_path, sweep):
    plan = yaml.safe_load((sweep / "sweep.yaml").read_text())
    first = plan["cells"][0]
    plan["cells"] = [first | {"cell": f"w{i}-d2-t1M-s0-{i:08x}", "trunk": str(i), "width": i} for i in range(1, 2001)]
    (sweep / "sweep.yaml").write_text(yaml.safe_dump(plan))
    for i in range(1, 31):
        cell = f"w{i}-d2-t1M-s0-{i:08x}"
        write_record(sweep, cell) if i <= 20 else write_curve(sweep, cell, 50)
    reader = SweepReader(sweep)
    reader.snapshot(NOW)
    began = time.process_time()
    now = reader.snapshot(NOW)
    assert time.process_time() - began < 0.5
    assert (now.count("finished"), now.count("running"), now.count("waiting")) == (20, 10, 1970)
    lines = text_of(render(now)).splitlines()
    assert len(lines) <= 24
    assert " and 6 more" in [line.rstrip() for line in lines]


def test_plain_lines_where_there_is_no_terminal(sweep, monkeypatch):
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.01)
    write_record(sweep, "w32-d2-t100k")
    out = io.StringIO()
    with Progress(sweep, Console(file=out, width=40)):
        until(lambda: "1/6 cells" in out.getvalue())
        write_record(sweep, "w32-d2-t200k", loss=3.98766)
        until(lambda: "2/6 cells" in out.getvalue())
        write_record(sweep, "w64-d2-t100k", "failed", error="OSError: [Errno 28]\nno space")
        until(lambda: "failed" in out.getvalue())
    assert "\x1b" not in out.getvalue()
    lines = [line.split("  ", 1) for line in out.getvalue().splitlines()]
    assert all(time.strptime(clock, "%H:%M:%S") for clock, _ in lines)
    assert [line for _, line in lines] == [
        # 100 of 460 + 4 * 460 steps of the small shape; 360 at 4000 tokens/s, then cooldowns, beside 400 at 1000
        "1/6 cells, 4 % of the FLOPs, about 7 min left",
        "w32-d2-t200k-s0  loss 3.9877 ± .0041  2/6 cells, about 7 min left",
        "w64-d2-t100k-s0  failed (OSError: [Errno 28] no space)  2/6 cells, about 7 min left",
        "2/6 cells, 1 failed, 13 % of the FLOPs, about 7 min left",
    ]


def test_a_sweep_in_which_nothing_happens_is_told_once(sweep, monkeypatch):
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.01)
    out = io.StringIO()
    with Progress(sweep, Console(file=out, width=40)):
        until(lambda: "0/6 cells" in out.getvalue())
    assert out.getvalue().count("0/6 cells") == 1


def test_a_live_panel_in_a_terminal(sweep, monkeypatch):
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.01)
    out = io.StringIO()
    with Progress(sweep, Console(file=out, width=80, height=25, force_terminal=True)):
        until(lambda: "0 of 6 cells" in out.getvalue())
        write_record(sweep, "w32-d2-t100k")
    assert "1 of 6 cells" in out.getvalue()
    assert "4.1235" in out.getvalue()


def test_a_sweep_that_is_not_planned_yet_shows_nothing(tmp_path):
    out = io.StringIO()
    with Progress(tmp_path, Console(file=out)):
        pass
    assert out.getvalue() == ""


def test_the_heartbeat_names_what_is_not_as_planned(sweep):
    write_record(sweep, "w32-d2-t100k", "failed")
    write_curve(sweep, "w64-d2-t400k", 40)
    assert heartbeat(look(sweep)) == (
        "0/6 cells, 1 running, 1 failed, 7 % of the FLOPs, 2k tokens/s, 40 % of its rate, about 3 min left"
    )


@pytest.mark.parametrize(
    "number, shown",
    [(0, "0"), (999, "999"), (2000, "2k"), (1234, "1.2k"), (31250, "31k"), (1.92e6, "1.9M"), (4e9, "4B")],
)
def test_short_numbers(number, shown):
    assert short(number) == shown


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
