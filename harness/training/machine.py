"""What this machine lacks for a job, in one sentence that says what to install, before any work."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import torch

from harness.config import TrainConfig
from harness.errors import UserError
from harness.training.device import device_name

# The oldest driver that serves a major version of CUDA: NVIDIA's tables of compatibility.
OLDEST_DRIVER = {"12": "525", "13": "580"}
INDEX = "install torch from PyTorch's index cu126, which serves drivers from 525 on"


def check_machine(job: TrainConfig) -> None:
    """Raises UserError where this machine cannot train as `job` asks, or would do it on the CPU unasked."""
    name = device_name(job)
    if torch.cuda.is_available():
        if name.startswith("cuda"):
            _check_architectures()
            if job.compile in (None, True):
                _check_compiler()
    elif (name.startswith("cuda") or job.device == "auto") and not _hidden() and (gpus := listed_gpus()):
        raise UserError(
            f"device={job.device}: the driver lists {len(gpus)} GPU{'s' * (len(gpus) > 1)} and torch "
            f"{torch.__version__} can use none: {_why()}, or take device=cpu"
        )


def listed_gpus() -> list[str]:
    """What NVIDIA's driver lists, whether torch can use it or not."""
    return [line for line in asked("-L") if line.startswith("GPU ")]


def asked(*arguments: str) -> list[str]:
    """What nvidia-smi prints; nothing where there is none."""
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines()


def _hidden() -> bool:
    """Whether the user took the GPUs away from this process."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1", "NoDevFiles")


def _why() -> str:
    built = torch.version.cuda
    if built is None:
        return f"it is a build for CPUs, so {INDEX}"
    driver = next(iter(asked("--query-gpu=driver_version", "--format=csv,noheader")), "unknown")
    oldest = OLDEST_DRIVER.get(built.split(".")[0], "a newer one")
    return f"CUDA {built} needs driver {oldest} or newer and this is {driver}, so update it, {INDEX}"


def _check_architectures() -> None:
    """torch's kernels run on the architectures that it was built for and on newer ones."""
    built = [int(name[3:]) for name in torch.cuda.get_arch_list() if name.startswith("sm_") and name[3:].isdigit()]
    for gpu in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(gpu)
        if built and 10 * major + minor < min(built):
            raise UserError(
                f"device=cuda: GPU {gpu}, {torch.cuda.get_device_name(gpu)}, has compute capability {major}.{minor} "
                f"and torch {torch.__version__} starts at {min(built) / 10:g}: install an older torch from PyTorch's "
                "index cu126, hide that GPU by CUDA_VISIBLE_DEVICES, or take device=cpu"
            )


def _check_compiler() -> None:
    """Triton builds a module in C at a process's first compiled step."""
    compilers = [os.environ.get("CC"), "gcc", "clang"]
    if not any(shutil.which(compiler) for compiler in compilers if compiler):
        raise UserError("compile=true needs a C compiler, and gcc and clang are not on PATH: install gcc, or take "
                        "compile=false, which is slower and needs more memory")  # fmt: skip
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.exists():
        raise UserError(f"compile=true needs {header}, which is not there: install python3-dev (Debian, Ubuntu) or "
                        "python3-devel, or take compile=false, which is slower and needs more memory")  # fmt: skip
