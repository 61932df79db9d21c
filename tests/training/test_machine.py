"""What a machine lacks is one sentence, on machines that this one pretends to be."""

import sysconfig

import pytest
import torch

from harness.config import TrainConfig
from harness.errors import UserError
from harness.training.device import device_name, precision
from harness.training.machine import check_machine


def job(device: str = "auto", **more) -> TrainConfig:
    return TrainConfig(device=device, **more)


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """nvidia-smi as a driver of that version with that many GPUs would answer."""

    def install(version: str, gpus: int = 1) -> None:
        smi = tmp_path / "nvidia-smi"
        lines = "\\n".join(f"GPU {index}: NVIDIA GeForce RTX 3090 (UUID: GPU-{index})" for index in range(gpus))
        smi.write_text(f"#!/bin/sh\nif [ \"$1\" = -L ]; then printf '{lines}\\n'; else echo {version}; fi\n")
        smi.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return install


def lacks(config: TrainConfig) -> str:
    with pytest.raises(UserError) as refused:
        check_machine(config)
    return str(refused.value)


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:1"])
def test_gpus_that_torch_cannot_use_are_not_left_to_the_cpu(driver, monkeypatch, device):
    driver("550.54.15", gpus=2)
    monkeypatch.setattr(torch, "__version__", "2.13.0+cu130")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert lacks(job(device)) == (
        f"device={device}: the driver lists 2 GPUs and torch 2.13.0+cu130 can use none: CUDA 13.0 needs driver 580 or "
        "newer and this is 550.54.15, so update it, install torch from PyTorch's index cu126, which serves drivers "
        "from 525 on, or take device=cpu"
    )
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "it is a build for CPUs, so install torch from PyTorch's index cu126" in lacks(job(device))


def test_a_cpu_that_was_asked_for_is_taken(driver, monkeypatch):
    driver("550.54.15")
    check_machine(job("cpu"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    check_machine(job("auto"))


def test_a_machine_without_a_gpu_trains_on_its_cpu(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    check_machine(job("auto"))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert (device_name(job("auto")), device_name(job("mps"))) == ("cpu", "mps")


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of that compute capability."""

    def install(*capability: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA Test")
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_120"])

    return install


def test_a_gpu_older_than_torch_s_kernels_is_refused(gpu):
    gpu(7, 0)
    assert "GPU 0, NVIDIA Test, has compute capability 7.0 and" in lacks(job())
    assert "starts at 7.5: install an older torch" in lacks(job("cuda"))


@pytest.mark.parametrize(("capability", "resolved"), [((7, 5), "float32"), ((8, 0), "bf16"), ((12, 0), "bf16")])
def test_bf16_is_taken_where_the_gpu_has_it(gpu, capability, resolved):
    gpu(*capability)
    assert precision(job()) == resolved
    assert (precision(job("cpu")), precision(job(precision="bf16"))) == ("float32", "bf16")


def test_compiling_needs_a_compiler_and_python_s_header(gpu, monkeypatch, tmp_path):
    gpu(9, 0)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "compile=true needs a C compiler" in lacks(job())
    check_machine(job(compile=False))
    (tmp_path / "gcc").touch(mode=0o755)
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert f"compile=true needs {tmp_path}/Python.h, which is not there: install python3-dev" in lacks(job())
    (tmp_path / "Python.h").touch()
    check_machine(job())
