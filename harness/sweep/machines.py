"""What a plan would be on a machine that is not here: an estimate from its peak rate, its bandwidth and its memory.

A step lasts as long as the GPU's work, matrix products at a share of the peak rate and the traffic of all else, or as
long as the host's launches, whichever is longer. No constant was measured on these machines.
"""

from dataclasses import dataclass, replace

import torch

from harness.config import TrainConfig
from harness.errors import UserError
from harness.grid import Trunk, check_distinct, make_trunks
from harness.sweep.compose import Sweep
from harness.sweep.pace import Pace
from harness.sweep.plan import Plan
from harness.training.device import Device
from harness.training.gpus import Gpu, most_jobs, slots_a_gpu
from harness.training.memory import check_gpu_memory, kept_bytes, micro_sequences, needed_bytes
from harness.units import data_size


@dataclass(frozen=True)
class Machine:
    """One GPU: dense FLOP/s in bf16 without sparsity (None: it has none of use) and in float32, the share of them that
    products reach, bytes a second, bytes of memory."""

    name: str
    bf16: float | None
    float32: float
    share: float
    bandwidth: float
    memory: float


# Peak rates, bandwidths and memories are of NVIDIA's and Apple's data sheets (H100 SXM, A100 SXM 80 GB, M3 Max with 40
# GPU cores, of whose 36 GB Metal recommends three quarters); the shares are guesses between what large products reach
# elsewhere.
MACHINES = {
    "h200": Machine("H200", 989e12, 67e12, 0.55, 4.8e12, 141e9),
    "h100": Machine("H100", 989e12, 67e12, 0.55, 3.35e12, 80e9),
    "a100": Machine("A100", 312e12, 19.5e12, 0.65, 2.04e12, 80e9),
    "l40s": Machine("L40S", 362e12, 91.6e12, 0.6, 0.864e12, 48e9),
    "4090": Machine("RTX 4090", 165e12, 82.6e12, 0.75, 1.008e12, 24e9),
    "3090": Machine("RTX 3090", 71e12, 35.6e12, 0.75, 0.936e12, 24e9),
    "mps": Machine("Apple M3 Max", None, 14.2e12, 0.5, 0.4e12, 29e9),
}
# Of a step: kernels outside the blocks and in each, seconds of host time a launch and besides.
LAUNCHES, LAUNCHES_A_BLOCK, HOST_SECONDS = 57, 40, 0.8e-3
LAUNCH_SECONDS = {"cuda": 7e-6, "mps": 30e-6}  # of Metal a guess between ten and a hundred
# How often a step moves what it keeps for backward, and bytes that it moves for each logit.
PASSES, LOGIT_TRAFFIC = 8.7, 12
# Of what comes before a trunk's first step, and of the compiling of a shape, once.
START_SECONDS, COMPILE_SECONDS = 2.0, 30.0
# Ids of tiktoken's encodings, so that no file of theirs is asked for; and bytes of English text a token.
ENCODINGS = {"gpt2": 50_257, "cl100k_base": 100_277, "o200k_base": 200_019}
TEXT_BYTES = 4.0


def estimated_pace(trunk: Trunk, machine: Machine, device: Device) -> Pace:
    """Seconds of a step, of an evaluation and of the start of a trunk on another machine."""
    model, tokens = trunk.job.model, trunk.batch_tokens
    peak = machine.bf16 if device.precision == "bf16" and machine.bf16 else machine.float32
    rate = peak * machine.share
    traffic = PASSES * tokens * kept_bytes(model, trunk.vocab_size, device) + LOGIT_TRAFFIC * tokens * trunk.vocab_size
    work = tokens * trunk.flops_per_token / rate + traffic / machine.bandwidth
    parts = -(-trunk.batch_sequences // micro_sequences(trunk, device))
    op_by_op = 1 if device.compile else 4
    launches = op_by_op * (LAUNCHES + LAUNCHES_A_BLOCK * model.depth) * parts
    step = max(work, HOST_SECONDS + LAUNCH_SECONDS[device.kind] * launches)
    evaluation = trunk.job.data.validation_tokens / tokens * work  # a third of its FLOPs, op by op
    return Pace(step, evaluation, START_SECONDS)


def _paces(trunks: list[Trunk], machine: Machine, device: Device) -> dict[str, Pace]:
    """Of each trunk by its name; the first of a shape compiles it."""
    paces: dict[str, Pace] = {}
    compiled: set[str] = set()
    for trunk in trunks:
        pace, shape = estimated_pace(trunk, machine, device), repr((trunk.job.model, trunk.batch_sequences))
        compiles = device.compile and shape not in compiled
        paces[trunk.name] = replace(pace, start=pace.start + COMPILE_SECONDS * compiles)
        compiled.add(shape)
    return paces


def vocabulary(job: TrainConfig) -> int:
    """How many ids the configuration's tokenizer has, without opening it."""
    tokenizer = job.tokenizer
    if job.model.vocab_size is not None:
        return job.model.vocab_size
    if tokenizer.kind == "tiktoken":
        if tokenizer.encoding not in ENCODINGS:
            raise UserError(
                f"tokenizer.encoding={tokenizer.encoding} has a vocabulary that is not known without it: give "
                "model.vocab_size= for this plan"
            )
        return ENCODINGS[tokenizer.encoding]
    return 257 if tokenizer.kind == "bytes" else tokenizer.vocab_size


def plan_elsewhere(sweep: Sweep, name: str) -> tuple[Plan, list[str]]:
    """The plan of a sweep on the machine of that name, and sentences on what it is based; opens no corpus.

    Raises UserError for a machine that is not known, for jobs on several GPUs, and where a trunk does not fit.
    """
    if name not in MACHINES:
        raise UserError(f"machine={name} is not known: choose {', '.join(MACHINES)}, or plan on the machine itself")
    if several := [job.gpus for job in sweep.jobs if job.gpus > 1]:
        raise UserError(f"gpus={several[0]}: machine={name} is one GPU, and how fast several are joined is not known: "
                        "leave gpus out of this plan")  # fmt: skip
    machine = MACHINES[name]
    kind = "mps" if name == "mps" else "cuda"
    job = sweep.jobs[0]
    precision = job.precision if job.precision != "auto" else "bf16" if machine.bf16 else "float32"
    compiled = kind == "cuda" if job.compile is None else job.compile
    device = Device(torch.device(kind), precision, compiled, int(machine.memory))
    by_job = [tuple(make_trunks(job, vocabulary(job), "", precision)) for job in sweep.jobs]
    trunks = [trunk for of_job in by_job for trunk in of_job]
    check_distinct(trunks)
    for trunk in trunks:
        check_gpu_memory(trunk, device)
    needs = [needed_bytes(trunk, device) for trunk in trunks]
    slots = most_jobs([Gpu(0, machine.name, int(machine.memory), int(machine.memory))], needs, slots_a_gpu(job))
    plan = Plan(
        name=sweep.folder.path.name,
        jobs=tuple(by_job),
        slots=min(max(1, slots) if job.slots == "auto" else job.slots, sum(len(trunk.cells) for trunk in trunks)),
        device=kind,
        gpus=1,
        finished=frozenset(),
        resumed={},
        pace=_paces(trunks, machine, device),
        labels=sweep.labels,
        memory={trunk.name: need for trunk, need in zip(trunks, needs, strict=True)},
    )
    most = max(trunk.cells[-1].tokens for trunk in trunks)
    lines = [
        f"estimated for one {machine.name}, of which nothing was measured: a job takes up to {data_size(max(needs))} "
        f"of its {data_size(machine.memory)}"
    ]
    if job.data.source == "hub":
        lines.append(f"reads about {data_size(TEXT_BYTES * (most + job.data.validation_tokens))} of text from the hub")
    return plan, lines
