"""What this machine lacks for a job, in one sentence that says what to install, before any work."""

import os
import shutil
import subprocess
import sysconfig
from collections import Counter
from pathlib import Path

import torch

from harness.config import TrainConfig
from harness.errors import UserError
from harness.training.device import device_name, gpus_of

# The oldest driver that serves a major version of CUDA: NVIDIA's tables of compatibility.
OLDEST_DRIVER = {"12": 525, "13": 580}
NVIDIA_SMI_SECONDS = 30
INDEX = "install torch from PyTorch's index cu126, which serves drivers from 525 on"


def check_machine(job: TrainConfig) -> None:
    """Raises UserError where this machine cannot train as `job` asks, or would do it on the CPU unasked."""
    name = device_name(job)
    if torch.cuda.is_available():
        if name.startswith("cuda"):
            if not gpus_of(job):
                raise UserError(f"gpus={job.gpus}: {_gpus_here()}: take no more than there are of one model")
            _check_architectures(job)
            if job.compile in (None, True):
                _check_compiler()
    elif (name.startswith("cuda") or job.device == "auto") and not _hidden() and (gpus := listed_gpus()):
        raise UserError(
            f"device={job.device}: the driver lists {len(gpus)} GPU{'s' * (len(gpus) > 1)} and torch "
            f"{torch.__version__} can use none: {_why()}, or take device=cpu"
        )
    if job.gpus > 1 and job.device == "auto" and name == "cpu":
        raise UserError(f"gpus={job.gpus}: here is no GPU: take gpus=1, or device=cpu for so many processes of a CPU")


def listed_gpus() -> list[str]:
    """What NVIDIA's driver lists, whether torch can use it or not."""
    return [line for line in nvidia_smi("-L") if line.startswith("GPU ")]


def nvidia_smi(*arguments: str) -> list[str]:
    """What it prints; nothing where there is none, or where it does not answer, as of a GPU that fell off its bus."""
    try:
        process = subprocess.Popen(
            ["nvidia-smi", *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError:
        return []
    try:
        return process.communicate(timeout=NVIDIA_SMI_SECONDS)[0].splitlines()
    except subprocess.TimeoutExpired:
        process.kill()  # and not waited for: it may never end
        return []


def _hidden() -> bool:
    """Whether the user took the GPUs away from this process."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1", "NoDevFiles")


def _why() -> str:
    built = torch.version.cuda
    if built is None:
        return f"it is a build for CPUs, so {INDEX}"
    driver = next(iter(nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader")), "unknown")
    oldest, major = OLDEST_DRIVER.get(built.split(".")[0], 0), driver.split(".")[0]
    if major.isdigit() and int(major) >= oldest:
        return f"CUDA {built} says {_what_cuda_says()} with driver {driver}, so mend that"
    if major.isdigit() and int(major) < OLDEST_DRIVER["12"]:
        return f"CUDA {built} needs driver {oldest} or newer and this is {driver}, so update it"
    return f"CUDA {built} needs driver {oldest} or newer and this is {driver}, so update it, {INDEX}"


def _what_cuda_says() -> str:
    try:
        torch.cuda.init()
    except Exception as error:
        return " ".join(str(error).split())[:200]
    return "nothing"


def _gpus_here() -> str:
    models = Counter(torch.cuda.get_device_properties(gpu).name for gpu in range(torch.cuda.device_count()))
    return "here are " + " and ".join(f"{count} {model}" for model, count in models.items())


def _check_architectures(job: TrainConfig) -> None:
    """torch has kernels for an architecture, which newer ones of the same major version run, or code for any newer."""
    names = torch.cuda.get_arch_list()
    built = [int(name[3:]) for name in names if name.startswith("sm_") and name[3:].isdigit()]
    portable = [int(name[8:]) for name in names if name.startswith("compute_") and name[8:].isdigit()]
    for gpu in gpus_of(job):
        major, minor = torch.cuda.get_device_capability(gpu)
        able = [found for found in built if found // 10 == major and found % 10 <= minor]
        able += [found for found in portable if found <= 10 * major + minor]
        if built and not able:
            index = "cu126" if major < 10 else "cu128 or newer"
            raise UserError(
                f"device={job.device}: GPU {gpu}, {torch.cuda.get_device_name(gpu)}, has compute capability {major}."
                f"{minor}, for which torch {torch.__version__} has no kernels: install one that has from PyTorch's "
                f"index {index}, hide that GPU by CUDA_VISIBLE_DEVICES, or take device=cpu"
            )


def _check_compiler() -> None:
    """Triton builds a module in C at a process's first compiled step."""
    compilers = [os.environ.get("CC"), "gcc", "clang"]
    if not any(shutil.which(compiler) for compiler in compilers if compiler):
        raise UserError("compile=true needs a C compiler, and gcc and clang are not on PATH: install gcc, or take "
                        "compile=false, which is slower and needs more memory")  # fmt: skip
    # some distributions' default scheme is another one than that of their headers
    schemes = [sysconfig.get_paths(), sysconfig.get_paths("posix_prefix")]
    if not any((Path(paths["include"]) / "Python.h").exists() for paths in schemes):
        raise UserError(
            f"compile=true needs {schemes[0]['include']}/Python.h, which is not there: install python3-dev (Debian, "
            "Ubuntu) or python3-devel, or take compile=false, which is slower and needs more memory"
        )
