"""Whether an Apple GPU is likely faster than the CPU that device=auto takes on a Mac: an estimate, told with the plan.

It is never taken unasked: nothing was seen to train on one.
"""

from dataclasses import replace

import torch

from harness.sweep.machines import Machine, estimated_pace
from harness.sweep.plan import Plan
from harness.training.device import Device
from harness.units import duration

# Of a core of an Apple GPU, by the M1's data sheet: 2.6e12 FLOP/s in float32 and 68e9 bytes a second for eight; later
# ones have more. The share that products reach is a guess.
CORE_FLOPS, CORE_BANDWIDTH, SHARE = 0.325e12, 8.5e9, 0.5
# So many times faster an estimate must be to be told.
TOLD = 2.0


def gpu_cores() -> int:
    """Of this machine's Apple GPU; 0 where there is none."""
    return torch.backends.mps.get_core_count() if torch.backends.mps.is_available() else 0


def seconds_on_gpu(plan: Plan, cores: int) -> float | None:
    """The wall time of a plan whose jobs pass over an Apple GPU one by one, in float32 and op by op.

    A step lasts as long as its launches, some 500 of 30 us for two blocks, or as its FLOPs and bytes. None where the
    plan has no time.
    """
    if plan.wall_seconds is None:
        return None
    machine = Machine("Apple GPU", None, cores * CORE_FLOPS, SHARE, cores * CORE_BANDWIDTH, 0)
    device = Device(torch.device("mps"), "float32", False)
    paces = {trunk.name: estimated_pace(trunk, machine, device) for trunk in plan.trunks if trunk.name in plan.pace}
    return replace(plan, pace=paces, slots=1, device="mps").wall_seconds


def gpu_line(plan: Plan, cores: int) -> str | None:
    """Why to ask for the Apple GPU, where device=auto took the CPU of such a machine."""
    if not cores or plan.device != "cpu" or plan.trunks[0].job.device != "auto":
        return None
    there, here = seconds_on_gpu(plan, cores), plan.wall_seconds
    if there is None or here is None or here < TOLD * there:
        return None
    return (
        f"device=mps is likely faster: {duration(there)} by an estimate for its {cores} cores, which no measurement "
        f"confirms, and {duration(here)} on the CPU"
    )
