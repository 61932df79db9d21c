"""What a machine lacks is one sentence, on machines that this one pretends to be."""

import re
import sysconfig
from types import SimpleNamespace

import pytest
import torch

from harness.config import TrainConfig
from harness.errors import UserError
from harness.training.device import device_name, gpus_of, precision
from harness.training.machine import check_machine, nvidia_smi


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
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90"])

    return install


def test_a_gpu_that_torch_has_no_kernels_for_is_refused(gpu, monkeypatch):
    gpu(7, 0)
    said = (
        "GPU 0, NVIDIA Test, has compute capability 7.0, for which torch .* has no kernels: install one .* index cu126"
    )
    assert re.search(said, lacks(job("cuda")))
    gpu(12, 0)
    assert "index cu128 or newer, hide that GPU" in lacks(job())
    for runs in ((7, 5), (8, 6), (9, 0)):  # 8.6 by the kernels of 8.0
        gpu(*runs)
        check_machine(job(compile=False))
    gpu(12, 0)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_90", "compute_90"])  # code for any newer one
    check_machine(job(compile=False))


def test_only_the_gpus_that_a_job_may_use_are_looked_at(gpu, monkeypatch):
    gpu(9, 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: [(6, 1), (9, 0)][index])
    check_machine(job("cuda:1", compile=False))
    assert precision(job("cuda:1")) == "bf16"
    assert "GPU 0" in lacks(job(compile=False))


def test_a_job_takes_no_more_gpus_than_are_alike(gpu, monkeypatch):
    gpu(9, 0)
    models = ["H100", "4090", "4090"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(name=models[index]))
    assert [gpus_of(job(gpus=count)) for count in (1, 2)] == [[0, 1, 2], [1, 2]]
    check_machine(job(gpus=2, compile=False))
    assert lacks(job(gpus=3)) == "gpus=3: here are 1 H100 and 2 4090: take no more than there are of one model"
    check_machine(job("cpu", gpus=3))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert lacks(job(gpus=2)) == "gpus=2: here is no GPU: take gpus=1, or device=cpu for so many processes of a CPU"


def test_a_driver_that_is_new_enough_is_not_told_to_be_renewed(driver, monkeypatch):
    driver("580.65.06")
    monkeypatch.setattr(torch.version, "cuda", "13.0")

    def init():
        raise RuntimeError("Error 802: system not yet initialized")

    monkeypatch.setattr(torch.cuda, "init", init)
    assert "CUDA 13.0 says Error 802: system not yet initialized with driver 580.65.06, so mend that" in lacks(job())
    driver("470.82")
    said = lacks(job())
    assert "needs driver 580 or newer and this is 470.82, so update it, or take" in said and "cu126" not in said


def test_a_driver_that_does_not_answer_is_not_waited_for(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("harness.training.machine.NVIDIA_SMI_SECONDS", 0.2)
    assert nvidia_smi("-L") == []


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
    monkeypatch.setattr(sysconfig, "get_paths", lambda *scheme: {"include": str(tmp_path)})
    assert f"compile=true needs {tmp_path}/Python.h, which is not there: install python3-dev" in lacks(job())
    (tmp_path / "Python.h").touch()
    check_machine(job())
