"""What a plan says of time, cost and disk."""

import pytest

from harness.grid import make_trunks
from harness.sweep.pace import Pace, measure_here
from harness.sweep.plan import CELL_SECONDS, JOB_SECONDS, Plan


@pytest.fixture
def make(compose):
    def make_plan(*arguments, slots=2, finished=(), resumed=None, pace=None, shapes=("w64-d2", "w48-d2")):
        jobs = []
        for shape in shapes:
            job = compose(f"shape={shape}", "tokens=[512e3,1024e3]", *arguments)
            jobs.append(tuple(make_trunks(job, 1024, "0", "float32")))
        names = [trunk.name for job in jobs for trunk in job]
        paces = dict(zip(names, [Pace(0.03, 2.0, 0.5), Pace(0.02, 1.0, 0.25)], strict=False)) if pace is None else pace
        cells = [cell.name for job in jobs for trunk in job for cell in trunk.cells]
        done = frozenset(cells[index] for index in finished)
        kept = {names[index]: step for index, step in (resumed or {}).items()}
        return Plan("tiny", tuple(jobs), slots, "cpu", 0, done, kept, paces)

    return make_plan


# 1000 and 2000 steps; the trunk ends at step 1600, the cooldowns take 200 and 400
FIXED = JOB_SECONDS + 2 * CELL_SECONDS


def test_time_is_of_steps_evaluations_and_what_comes_besides(make):
    whole = make()
    first, second = (0.5 + 2200 * 0.03 + 2 * 2.0 + FIXED, 0.25 + 2200 * 0.02 + 2 * 1.0 + FIXED)
    assert [whole.seconds(trunk) for trunk in whole.trunks] == pytest.approx([first, second])
    # the first trunk to step 1600 and its longer cooldown; the other process trains the shorter one meanwhile
    assert whole.wall_seconds == pytest.approx(0.5 + (1600 + 400) * 0.03 + 2.0 + JOB_SECONDS + CELL_SECONDS)
    assert make(slots=1).wall_seconds == pytest.approx(first + second)
    assert "about 1 min and 2.0 core-minutes" in whole.summary()
    assert "about 1 min and 3.9 core-minutes" in make("threads=2").summary()


def test_a_job_on_several_gpus_costs_each_of_them(make):
    assert "2 at a time: about 1 min and 3.9 core-minutes" in make("gpus=2").summary()
    assert make("gpus=2").machine == {"device": "cpu", "slots": 2, "gpus": 0, "threads": 1, "ranks": 2}
    assert make().machine == {"device": "cpu", "slots": 2, "gpus": 0, "threads": 1}
    # which trains its cooldowns itself
    assert make("gpus=2").wall_seconds == pytest.approx(0.5 + 2200 * 0.03 + 2 * 2.0 + FIXED)


def test_the_longest_start_first_whatever_their_order(make):
    paces = {trunk.name: Pace(0.01, 0.0, 0.0) for trunk in make(shapes=("w48-d2", "w64-d2", "w96-d2")).trunks}
    plans = [
        make(shapes=shapes, pace=paces) for shapes in (("w48-d2", "w64-d2", "w96-d2"), ("w96-d2", "w64-d2", "w48-d2"))
    ]
    assert plans[0].wall_seconds == plans[1].wall_seconds


def test_what_is_finished_or_in_a_checkpoint_is_not_counted_again(make):
    # left of the first trunk: from its checkpoint at 700 to 1600, and both cooldowns
    resumed = make(resumed={0: 700})
    assert resumed.seconds(resumed.trunks[0]) == pytest.approx(0.5 + (900 + 600) * 0.03 + 2 * 2.0 + FIXED)
    # its first cell is done: from 800, its branch, to 1600, and one cooldown
    half = make(finished=[0], resumed={0: 800})
    assert half.seconds(half.trunks[0]) == pytest.approx(0.5 + (800 + 400) * 0.03 + 2.0 + FIXED - CELL_SECONDS)
    assert make(finished=range(4)).wall_seconds == 0


def test_without_a_measurement_there_is_no_time(make):
    unknown = make(pace={})
    assert unknown.wall_seconds is None
    assert "at a time: " in unknown.summary() and "about" not in unknown.summary()


def test_disk_is_of_checkpoints_and_cells(make):
    small = make(shapes=("w48-d2",), pace={})
    params = small.trunks[0].params.total
    # two branches of 12 bytes a parameter, two cells of curve, record and W&B run
    assert small.disk_bytes == 2 * 12 * params + 2 * 150_000
    assert make("save_model=true", shapes=("w48-d2",), pace={}).disk_bytes - small.disk_bytes == 2 * 4 * params


def test_a_pace_is_of_this_machine(compose):
    job = compose("shape=w32-d1", "tokens=512e3")
    (trunk,) = make_trunks(job, 1024, "0", "float32")
    pace = measure_here(trunk)
    assert 0 < pace.step < pace.evaluation and pace.start > 0
