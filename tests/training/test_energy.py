"""The energy of a sweep's GPUs: read by the driver's own calls, of a library that stands in for it, and added up."""

import json
import shutil
import subprocess

import pytest
import torch

from harness.sweep.run import train
from harness.training import energy
from harness.training.device import Device, uuid_of
from harness.training.energy import joules, metered, taken

# As NVIDIA's nvml.h declares them; the counter moves by 1.5 MJ a reading, GPU-old has none, 999 is NVML_ERROR_UNKNOWN.
NVML = """
#include <string.h>
static char known;
static unsigned long long count = 1000000000ULL;
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    if (strcmp(uuid, "GPU-1-2-3") && strcmp(uuid, "GPU-old")) return 999;
    *device = strcmp(uuid, "GPU-old") ? &known : 0;
    return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *energy) {
    if (!device) return 3;
    *energy = count;
    count += 1500000000ULL;
    return 0;
}
"""


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A driver with an energy counter of GPU-1-2-3."""
    (tmp_path / "nvml.c").write_text(NVML)
    library = tmp_path / "libnvidia-ml.so.1"
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler, "a C compiler, which torch.compile needs too"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "nvml.c"], check=True)
    monkeypatch.setattr(energy, "LIBRARY", str(library))


def test_the_counter_is_read_in_joules(driver):
    assert [joules("1-2-3"), joules("GPU-1-2-3")] == [1e6, 2.5e6]  # as torch and as the driver name it
    assert joules("4-5-6") is None and joules("old") is None


def test_without_a_driver_nothing_is_read(tmp_path, monkeypatch):
    assert joules("1-2-3") is None
    (tmp_path / "empty.c").write_text("int nvmlInit_v2(void) { return 9; }")  # NVML_ERROR_DRIVER_NOT_LOADED
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "lib.so", tmp_path / "empty.c"], check=True)
    monkeypatch.setattr(energy, "LIBRARY", str(tmp_path / "lib.so"))
    assert joules("1-2-3") is None


def test_a_job_writes_down_what_its_gpu_took(driver, tmp_path):
    for uuid in ("1-2-3", None, "old", "4-5-6"):
        with metered([uuid], tmp_path):
            pass
    (line,) = map(json.loads, (tmp_path / "energy.jsonl").read_text().splitlines())
    assert (line["gpu"], line["last"] - line["first"]) == ("1-2-3", 1.5e6) and line["began"] <= line["ended"]
    with pytest.raises(ZeroDivisionError), metered(["1-2-3"], tmp_path):
        raise ZeroDivisionError
    assert taken(tmp_path) == 3e6
    with metered(["1-2-3"], tmp_path / "gone"):
        pass


def spans(folder, *lines) -> None:
    keys = ("gpu", "began", "ended", "first", "last")
    (folder / "energy.jsonl").write_text(
        "".join(json.dumps(dict(zip(keys, line, strict=True))) + "\n" for line in lines)
    )


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([("a", 0, 10, 100, 300)], 200),
        ([("a", 0, 10, 100, 300), ("a", 20, 30, 350, 400)], 250),  # nothing of the pause
        ([("a", 0, 10, 100, 300), ("a", 5, 20, 220, 500)], 400),  # shared from 5 to 10
        ([("a", 0, 20, 100, 500), ("a", 5, 10, 220, 300)], 400),  # one within the other
        ([("a", 0, 20, 100, 500), ("a", 5, 10, 220, 300), ("a", 15, 30, 450, 600)], 500),
        ([("b", 0, 10, 7, 8), ("a", 0, 10, 100, 300)], 201),  # two GPUs at once
        ([("a", 0, 10, 100, 300), ("a", 20, 30, 350, 10)], 200),  # a driver loaded anew
    ],
)
def test_what_jobs_share_is_counted_once(tmp_path, lines, expected):
    spans(tmp_path, *lines)
    assert taken(tmp_path) == expected
    spans(tmp_path, *reversed(lines))
    assert taken(tmp_path) == expected


def test_a_torn_line_is_left_out_and_no_line_is_no_account(tmp_path):
    assert taken(tmp_path) is None
    spans(tmp_path, ("a", 0, 10, 100, 300))
    with open(tmp_path / "energy.jsonl", "a") as file:
        file.write('{"gpu": "a", "began": 2')
    assert taken(tmp_path) == 200


def test_the_driver_s_name_of_a_gpu_is_asked_for_on_cuda_alone(monkeypatch):
    class Properties:
        uuid = "1-2-3"

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda gpu: Properties())
    assert uuid_of(Device(torch.device("cuda:1"), "bf16", True)) == "1-2-3"
    assert uuid_of(Device(torch.device("cpu"), "float32", False)) is None
    assert uuid_of(Device(torch.device("mps"), "float32", False)) is None


@pytest.mark.parametrize("uuid", ["1-2-3", "4-5-6", None])
def test_a_sweep_tells_its_kilowatt_hours_where_the_driver_counts(driver, corpus, tmp_path, monkeypatch, capsys, uuid):
    monkeypatch.setattr("harness.training.worker.uuid_of", lambda device: uuid)
    arguments = ["shape=w16-d1", *corpus, "tokens=[10e3,20e3]", f"output_directory={tmp_path}", "tracking=none"]
    assert train(arguments) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "kWh" in line]
    # 1.5 MJ, however long it took
    told = ["its GPUs took 0.417 kWh while its jobs ran, other programs on them included"]
    assert said == (told if uuid == "1-2-3" else [])
