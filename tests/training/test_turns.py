"""How long trunks and their cooldowns take on some slots, against the best list schedules of an own simulation."""

import heapq
import random
from functools import cache

import pytest

from harness.grid import Trunk, make_trunks, schedule_makespan
from harness.sweep.compose import compose_sweep
from harness.training.turns import TrunkTime, makespan, trunks_first


@cache
def grid(name: str) -> list[Trunk]:
    """The trunks of a file of conf/sweep, the longest first."""
    jobs = compose_sweep(["-m", f"+sweep={name}", "device=cpu", "precision=float32", "tracking=none"]).jobs
    vocabulary = {"gpu": 8192, "gpu-large": 50257}.get(name, 1024)
    trunks = [trunk for job in jobs for trunk in make_trunks(job, vocabulary, "0", "float32")]
    return sorted(trunks, key=lambda trunk: -trunk.flops_to_train)


def times(trunks: list[Trunk]) -> list[TrunkTime]:
    """A second for each FLOP."""
    return [
        TrunkTime(0.0, [(cell.flops - trunk.cooldown_flops(cell), trunk.cooldown_flops(cell)) for cell in trunk.cells])
        for trunk in trunks
    ]


def listed(trunks: list[TrunkTime], slots: int, path_first: bool) -> float:
    """A list schedule: what has most before it comes first, or trunks before all cooldowns."""
    ready = [(-max(branch + cooldown for branch, cooldown in trunk.cells), number, trunk.cells)
             for number, trunk in enumerate(trunks)]  # fmt: skip
    if not path_first:
        ready = [(length - 1e30, number, cells) for length, number, cells in ready]
    heapq.heapify(ready)
    events: list[tuple[float, int, int, list]] = []
    now, free, count = 0.0, slots, len(trunks)
    while ready or events:
        while ready and free:
            length, _, cells = heapq.heappop(ready)
            free -= 1
            for branch, cooldown in cells or []:
                count += 1
                heapq.heappush(events, (now + branch, 0, count, [(-cooldown, count, None)]))
            end = now + (max(branch for branch, _ in cells) if cells else -length)
            heapq.heappush(events, (end, 1, -count, []))
        now, frees, _, offered = heapq.heappop(events)
        free += frees
        for task in offered:
            heapq.heappush(ready, task)
    return now


def best(trunks: list[TrunkTime], slots: int) -> float:
    return min(listed(trunks, slots, path_first) for path_first in (True, False))


def test_a_cooldown_begins_where_a_slot_is_free_once_its_branch_is_there():
    # branches at 80 and 160, cooldowns of 20 and 40; another trunk of 100 with one of 30
    trunks = [TrunkTime(0.0, [(80, 20), (160, 40)]), TrunkTime(0.0, [(100, 30)])]
    assert [trunk.alone for trunk in trunks] == [220, 130]
    assert makespan(trunks, 1) == 350
    # 160 + 40 on the one, 100 + 30 + 20 on the other
    assert makespan(trunks, 2) == makespan(trunks, 8) == 200
    # begun from checkpoints: 5 seconds before each trunk, and before the one cooldown that is not its trunk's process's
    assert makespan([TrunkTime(5.0, trunk.cells) for trunk in trunks], 2) == 205
    assert makespan([TrunkTime(5.0, trunk.cells) for trunk in trunks], 3) == 205
    # trained to 90: one cooldown is offered, and the trunk has 70 to go
    assert makespan([TrunkTime(5.0, [(0, 20), (70, 40)])], 2) == 5 + 70 + 40
    assert makespan([TrunkTime(0.0, [(0, 20), (0, 40)])], 1) == 60
    assert makespan([], 2) == 0


def test_the_last_trunks_come_before_cooldowns_and_the_others_do_not():
    assert [trunks_first(waiting, 4) for waiting in (0, 1, 3, 4)] == [False, True, True, False]
    assert not trunks_first(1, 1)
    # three equal trunks of 80 + 20 with a cooldown of 10 at 40, on two slots: both begin, the third follows at 80 and
    # ends at 180; meanwhile the other process has 2 * (20 + 10) and 10 of cooldowns
    assert makespan([TrunkTime(0.0, [(40, 10), (80, 20)])] * 3, 2) == 180


@pytest.mark.parametrize("name", ["cpu", "smoke", "gpu", "gpu-large"])
@pytest.mark.parametrize("slots", [1, 2, 4, 8])
def test_a_grid_takes_as_long_as_the_best_list_schedule(name, slots):
    trunks = times(grid(name))
    found = makespan(trunks, slots)
    assert found <= 1.01 * best(trunks, slots)
    assert found <= schedule_makespan([trunk.alone for trunk in trunks], slots) * (1 + 1e-9)


def test_no_grid_takes_much_longer_than_the_best_list_schedule():
    """Also of equal trunks, as of many seeds, where a last one could begin late."""
    chance = random.Random(0)
    budgets = [(1,), (1, 2), (1, 2, 4, 8), (1, 1.55, 2.35, 3.6), (1, 1.2, 1.4, 1.6, 1.8, 2)]
    for _ in range(300):
        count = chance.choice([1, 2, 3, 4, 5, 6, 7, 9, 12, 15, 20])
        size = chance.choice([lambda: 1.0, lambda: chance.lognormvariate(0, 1), lambda: chance.uniform(0.7, 1)])
        tokens = chance.choice(budgets)
        sizes = sorted((size() for _ in range(count)), reverse=True)
        trunks = [TrunkTime(0.0, [(0.8 * scale * part, 0.2 * scale * part) for part in tokens]) for scale in sizes]
        for slots in (1, 2, 4, 8):
            assert makespan(trunks, slots) <= 1.13 * best(trunks, slots), (tokens, sizes, slots)


@pytest.mark.parametrize("name", ["gpu", "gpu-large"])
def test_on_eight_slots_a_grid_takes_its_largest_cell(name):
    """80 % of the largest budget, then 20 %: of 8, 4, 2 and 1 parts the trunk's process trained 8 + .2 * 7 before."""
    trunks = times(grid(name))
    before = schedule_makespan([trunk.alone for trunk in trunks], 8)
    assert makespan(trunks, 8) / before == pytest.approx(8 / 9.4, rel=1e-3)
