"""The GPU that is present. None is here: NVML and torch.cuda are stood in for at the edges, the rest is real."""

import ctypes
import os
import types

import pynvml
import pytest
import torch

from pytest_trainguard import Trainer
from pytest_trainguard.memory.__main__ import main
from pytest_trainguard.memory.answers.present_gpu import find_gpu, find_obstacle
from pytest_trainguard.memory.replay.budget import parse_budget, resolve_budget
from pytest_trainguard.memory.replay.counters import Measured
from pytest_trainguard.memory.replay.device import Device
from pytest_trainguard.memory.traced.measured_run import run_measured

GIB = 2**30
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: torch sees none here")


class Nvml:
    """Answers as the driver of an A100 would; the functions' names are pynvml's."""

    NVMLError = pynvml.NVMLError
    nvmlMemory_v2 = pynvml.nvmlMemory_v2

    def __init__(self, ecc=True, used=0, processes=()):
        self.ecc, self.used, self.processes, self.shut = ecc, used, processes, 0

    def nvmlInit(self):
        pass

    def nvmlShutdown(self):
        self.shut += 1

    def nvmlDeviceGetHandleByIndex(self, index):
        if index > 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return uuid

    def nvmlDeviceGetMemoryInfo(self, handle, version):
        assert version == pynvml.nvmlMemory_v2
        return types.SimpleNamespace(total=40 * GIB, reserved=GIB // 2, used=self.used, free=0)

    def nvmlDeviceGetEccMode(self, handle):
        if self.ecc is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [int(self.ecc), 0]

    def nvmlDeviceGetName(self, handle):
        return f"NVIDIA A100-SXM4-40GB ({handle})"

    def nvmlDeviceGetCudaComputeCapability(self, handle):
        return (8, 0)

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return self.processes

    def nvmlSystemGetDriverVersion(self):
        return "570.86"


def test_the_stand_in_has_the_names_that_pynvml_has():
    for name in (name for name in dir(Nvml) if name.startswith("nvml")):
        assert hasattr(pynvml, name), name
    fields = dict(pynvml.c_nvmlMemory_v2_t._fields_)
    assert {"total", "reserved", "used"} <= set(fields)
    assert fields["total"] in (ctypes.c_ulonglong, ctypes.c_ulong)
    assert {"pid", "usedGpuMemory"} <= {field[0] for field in pynvml.c_nvmlProcessInfo_v2_t._fields_}


@pytest.fixture
def nvml(monkeypatch):
    """Put a stand-in in the place of pynvml."""

    def put(visible=None, **of):
        stand_in = Nvml(**of)
        monkeypatch.setitem(__import__("sys").modules, "pynvml", stand_in)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        return stand_in

    return put


def test_what_nvml_says(nvml):
    stand_in = nvml()
    present = find_gpu()
    assert present.device == Device("NVIDIA A100-SXM4-40GB (0)", (8, 0), 40 * GIB - GIB // 2)
    assert present.words == "NVIDIA A100-SXM4-40GB (0), 39.50 GiB, ECC on, driver 570.86"
    assert stand_in.shut == 1
    nvml(ecc=None)
    assert "ECC" not in find_gpu().words


@pytest.mark.parametrize(("visible", "name"), [("1", "(1)"), ("1,0", "(1)"), ("GPU-5f", "(GPU-5f)")])
def test_the_first_visible_device_is_meant(nvml, visible, name):
    nvml(visible)
    assert find_gpu().device.name.endswith(name)


@pytest.mark.parametrize("visible", ["", "-1", "7"])
def test_no_device_to_be_seen(nvml, visible):
    nvml(visible)
    assert find_gpu() is None


def test_without_nvml_there_is_none(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    assert find_gpu() is None


@GPU
def test_a_gpu_is_seen_on_a_machine_with_one():
    assert find_gpu() is not None


def test_without_a_driver_there_is_none():
    if os.path.exists("/proc/driver/nvidia"):
        pytest.skip("there is a driver here")
    assert find_gpu() is None


def test_a_busy_or_too_small_gpu_is_told(nvml):
    others = (types.SimpleNamespace(pid=77, usedGpuMemory=20 * GIB), types.SimpleNamespace(pid=78, usedGpuMemory=None))
    nvml(used=20 * GIB, processes=others)
    present = find_gpu()
    limit = resolve_budget(parse_budget("30GiB"), present.device)
    assert find_obstacle(present, limit) == (
        "NVIDIA A100-SXM4-40GB (0) is busy: 19.50 GiB of 39.50 GiB are free, 30.00 GiB are wanted "
        "(process 77 20.00 GiB, process 78)"
    )
    assert find_obstacle(present, resolve_budget(parse_budget("10GiB"), present.device)) == ""
    assert "is too small: 39.50 GiB of 79.11 GiB" in find_obstacle(present, resolve_budget(parse_budget("h100")))


@pytest.mark.parametrize(
    ("used", "budget", "code", "says"),
    [
        (20 * GIB, "30GiB", 3, "UNKNOWN under 30GiB: NVIDIA A100-SXM4-40GB (0) is busy"),
        (0, "50GiB", 2, "error: 50GiB is more than NVIDIA A100-SXM4-40GB (0) has: 39.50 GiB"),
    ],
)
def test_the_command_line_says_so_before_anything_is_loaded(nvml, capsys, used, budget, code, says):
    nvml(used=used)
    assert main(["json:Nobody", "--gpu-budget", budget]) == code
    told = capsys.readouterr()
    assert (told.out + told.err).startswith(says)


class Tried(Trainer):
    """Says what it was given; ends as it is told to."""

    def train(self, run):
        if run.settings.get("how") == "oom":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if run.settings.get("how") == "exit":
            raise SystemExit("no")
        return run.settings.get("code")


STATS = {
    f"{name}_bytes.all.peak": size for size, name in enumerate(("allocated", "reserved", "requested", "active"), 1)
}


@pytest.mark.parametrize(
    ("settings", "ooms", "code", "word"),
    [
        ({}, 0, 0, "FITS"),
        ({"code": 3}, 0, 3, "UNKNOWN"),
        ({"how": "exit"}, 0, 1, "UNKNOWN"),
        ({"how": "oom"}, 1, 1, "OUT OF MEMORY"),
        ({}, 1, 0, "OUT OF MEMORY"),  # it recovered: it did not fit as it was asked to
    ],
)
def test_a_run_is_measured_under_the_cap(monkeypatch, tmp_path, settings, ooms, code, word):
    did = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: types.SimpleNamespace(total_memory=80 * GIB))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: did.append(share))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: did.append("reset"))
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: {**STATS, "num_alloc_retries": 2, "num_ooms": ooms})
    spec = f"{__name__}:Tried"
    found = Measured(**run_measured(spec, settings, None, str(tmp_path), 3, 0, 40 * GIB))
    assert did == [0.5, "reset"]
    assert (found.allocated, found.reserved, found.requested, found.active, found.retries) == (1, 2, 3, 4, 2)
    assert (found.exit, found.verdict) == (code, word)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_nothing_is_measured_without_a_gpu(tmp_path):
    with pytest.raises(RuntimeError, match="torch sees no GPU"):
        run_measured(f"{__name__}:Tried", {}, None, str(tmp_path), 3, 0, GIB)


class Fills(Trainer):
    """Takes half a GiB of GPU memory and gives it back."""

    def train(self, run):
        torch.zeros(2**29, dtype=torch.uint8, device="cuda").sum().item()


@GPU
def test_a_real_run_is_measured(tmp_path):
    found = Measured(**run_measured(f"{__name__}:Fills", {}, None, str(tmp_path), 1, 0, 2 * GIB))
    assert found.verdict == "FITS"
    assert found.allocated >= 2**29
    torch.cuda.empty_cache()
    small = Measured(**run_measured(f"{__name__}:Fills", {}, None, str(tmp_path), 1, 0, 2**28))
    assert small.verdict == "OUT OF MEMORY"
