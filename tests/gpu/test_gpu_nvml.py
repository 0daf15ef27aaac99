"""Reading NVML through the real nvidia-ml-py: what is asked, what is remembered, and what an error means."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pynvml
import pytest

from inferwatch_collectors.gpu import nvml_reads
from inferwatch_collectors.gpu.base import Activity, GpuLostError, GpuProcess, GpuSample, SourceUnavailableError
from inferwatch_collectors.gpu.nvml import NvmlSource
from inferwatch_collectors.gpu.nvml_fields import FIELDS
from inferwatch_collectors.gpu.nvml_reads import reason

Frames = Callable[[str], list[dict[str, Any]]]

ONE_GPU = {"/nvmlDeviceGetCount": 1, "0/nvmlDeviceGetUUID": "GPU-a", "0/nvmlDeviceGetName": "NVIDIA Test"}

# A GPU that says nothing at all counts as lost.
ALIVE = {"0/nvmlDeviceGetTemperature/0": 1}


def one_gpu(stub: Any, calls: dict[str, Any], *, readings: int = 1) -> GpuSample:
    """Return the last of some readings of a GPU that answers `calls`."""
    stub.play({"calls": ONE_GPU | calls})
    (device,) = NvmlSource(stub.library).open()
    for stamp_ns in range(readings - 1):
        device.sample(stamp_ns)
    return device.sample(readings - 1)


def test_what_is_not_said_is_absent(stub: Any) -> None:
    """Every value but one is None or empty; none is 0."""
    sample = one_gpu(stub, {"0/nvmlDeviceGetPowerUsage": 7})
    assert sample == GpuSample(identity=sample.identity, stamp_ns=0, power_mw=7)
    assert (sample.identity.uuid, sample.identity.model, sample.identity.vendor) == ("GPU-a", "NVIDIA Test", "nvidia")


def test_a_gpu_that_says_nothing_at_all_is_lost(stub: Any) -> None:
    """Its handle may be one from before a reset: the next reading begins with a new one."""
    with pytest.raises(GpuLostError, match="nothing can be read"):
        one_gpu(stub, {})


@pytest.mark.parametrize(
    ("calls", "field", "expected"),
    [
        ({"0/nvmlDeviceGetUtilizationRates": {"gpu": 37, "memory": 5}}, "utilization_ratio", 0.37),
        ({"0/nvmlDeviceGetUtilizationRates": {"gpu": 37, "memory": 5}}, "memory_activity_ratio", 0.05),
        ({"0/nvmlDeviceGetPowerUsage": 71500}, "power_mw", 71500),
        ({"0/nvmlDeviceGetEnforcedPowerLimit": 72000}, "power_limit_mw", 72000),
        ({"0/nvmlDeviceGetTemperatureV/0": 45}, "temperature_c", 45),
        ({"0/nvmlDeviceGetTemperature/0": 46}, "temperature_c", 46),
        ({"0/nvmlDeviceGetClockInfo/1": 1980, "0/nvmlDeviceGetClockInfo/2": 2619}, "clocks_hz",
         {"sm": 1_980_000_000, "memory": 2_619_000_000}),
        ({"0/nvmlDeviceGetCurrentClocksEventReasons": 0x1E5}, "clock_events",
         frozenset({"idle", "sw_power_cap", "sw_thermal", "hw_thermal", "hw_power_brake", "display"})),
        ({"0/nvmlDeviceGetCurrentClocksEventReasons": 0}, "clock_events", frozenset()),
        ({"0/nvmlDeviceGetCurrentClocksThrottleReasons": 8}, "clock_events", frozenset({"hw_slowdown"})),
        ({"0/nvmlDeviceGetFieldValues/82": {"type": 1, "value": 71}}, "memory_temperature_c", 71),
        ({"0/nvmlDeviceGetFieldValues/5": 9, "0/nvmlDeviceGetFieldValues/6": 1}, "ecc_lifetime_errors",
         {"corrected": 9, "uncorrected": 1}),
        ({"0/nvmlDeviceGetFieldValues/142": 2}, "remapped_rows", {"corrected": 2}),
        ({"0/nvmlDeviceGetFieldValues/144": {"type": 1, "value": 1}}, "row_remap_pending", True),
        ({"0/nvmlDeviceGetFieldValues/145": {"type": 1, "value": 0}}, "row_remap_failed", False),
        ({"0/nvmlDeviceGetFieldValues/29": 4, "0/nvmlDeviceGetFieldValues/30": 5}, "retired_pages",
         {"corrected": 4, "uncorrected": 5}),
        ({"0/nvmlDeviceGetFieldValues/31": {"type": 1, "value": 1}}, "page_retirement_pending", True),
        ({"0/nvmlDeviceGetComputeRunningProcesses_v3": [[7, 1024], [8, None]]}, "processes",
         (GpuProcess(7, 1024), GpuProcess(8, None))),
        ({"0/nvmlDeviceGetComputeRunningProcesses_v3": []}, "processes", ()),
        ({"0/nvmlDeviceGetMigMode": [0, 1]}, "mig_enabled", False),
        ({"0/nvmlDeviceRegisterEvents": 0}, "hears_xid", True),
    ],
)  # fmt: skip
def test_value(stub: Any, calls: dict[str, Any], field: str, expected: object) -> None:
    """Each call of NVML becomes this value, in the unit that its name says."""
    assert getattr(one_gpu(stub, ALIVE | calls), field) == expected


@pytest.mark.parametrize(
    ("calls", "field", "expected"),
    [
        ({"83": 2**40}, "energy_mj", 2**40),
        ({"94": {"type": 1, "value": 3}}, "pcie_replays", 3),
        ({"74": 1, "76": 2, "269": 3, "270": 4, "271": 5}, "clock_event_ns",
         {"sw_power_cap": 1, "sync_boost": 2, "sw_thermal": 3, "hw_thermal": 4, "hw_power_brake": 5}),
        ({"3": 6, "4": 7}, "ecc_errors", {"corrected": 6, "uncorrected": 7}),
        ({"197": 10, "198": 20}, "pcie_bytes", {"transmit": 10, "receive": 20}),
        ({"138:4294967295": 2, "139:4294967295": 3}, "nvlink_bytes", {"transmit": 2048, "receive": 3072}),
        ({"202:4294967295": 5, "204:4294967295": 6, "138:4294967295": 2}, "nvlink_bytes", {"transmit": 5, "receive": 6}),
    ],
)  # fmt: skip
def test_counter(stub: Any, calls: dict[str, Any], field: str, expected: object) -> None:
    """Fields of counters, all read in one call; NVLink 5 counts bytes, earlier ones KiB."""
    answers = {f"0/nvmlDeviceGetFieldValues/{key}": value for key, value in calls.items()}
    assert getattr(one_gpu(stub, answers).counters, field) == expected


def test_memory_is_split(stub: Any) -> None:
    """Version 2 of the call: reserved is not used."""
    memory = one_gpu(stub, {"0/nvmlDeviceGetMemoryInfo": {"total": 100, "reserved": 7, "free": 53, "used": 40}}).memory
    assert memory is not None
    assert (memory.total, memory.used, memory.free, memory.reserved) == (100, 40, 53, 7)


@pytest.mark.parametrize(("type_", "value"), [(0, 12.0), (1, 7), (2, 8), (3, 2**63), (4, 9), (5, 10), (6, 11)])
def test_fields_of_every_type(stub: Any, type_: int, value: float) -> None:
    """The driver says with each value what it is."""
    sample = one_gpu(stub, {"0/nvmlDeviceGetFieldValues/83": {"type": type_, "value": value}})
    assert sample.counters.energy_mj == value


@pytest.mark.parametrize("code", [2, 3, 4, 13, 22, 25, 26])
def test_what_is_not_there_is_asked_once(stub: Any, code: int) -> None:
    """Not supported, no permission, unknown to this driver: remembered, and other values do not suffer."""
    denied = {
        "0/nvmlDeviceGetUtilizationRates": {"error": code},
        "0/nvmlDeviceGetFieldValues/83": {"error": code},
        "0/nvmlDeviceGetPowerUsage": 1000,
    }
    sample = one_gpu(stub, denied, readings=2)
    assert (sample.utilization_ratio, sample.counters.energy_mj, sample.power_mw) == (None, None, 1000)
    assert sample.failed_reads == 0
    (device,) = NvmlSource(stub.library).open()
    device.sample(0)
    before = stub.calls
    device.sample(1)
    # MIG mode is asked for too; of all else only the power is left.
    assert stub.calls - before <= 2


@pytest.mark.parametrize("code", [7, 10, 20, 21, 27, 999])
def test_what_fails_once_is_asked_again(stub: Any, code: int) -> None:
    """Absent this time, counted as failed, and there again when the driver gives it."""
    stub.play({"calls": ONE_GPU | ALIVE | {"0/nvmlDeviceGetPowerUsage": {"error": code}}})
    (device,) = NvmlSource(stub.library).open()
    sample = device.sample(0)
    assert (sample.power_mw, sample.failed_reads) == (None, 1)
    stub.play({"calls": ONE_GPU | {"0/nvmlDeviceGetPowerUsage": 5}})
    sample = device.sample(1)
    assert (sample.power_mw, sample.failed_reads) == (5, 0)


@pytest.mark.parametrize("code", [1, 9, 15, 16, 28])
def test_lost(stub: Any, code: int) -> None:
    """The GPU as a whole is gone; when it answers again its handle is a new one and it is asked for everything anew."""
    stub.play({"calls": ONE_GPU | ALIVE | {"0/nvmlDeviceGetPowerUsage": {"error": 3}}})
    (device,) = NvmlSource(stub.library).open()
    device.sample(0)
    stub.play({"calls": ONE_GPU | {"0/*": {"error": code}}})
    for _ in range(2):
        with pytest.raises(GpuLostError):
            device.sample(1)
    stub.play({"calls": ONE_GPU | {"0/nvmlDeviceGetPowerUsage": 5}})
    assert device.sample(2).power_mw == 5


def test_lost_at_the_start(stub: Any) -> None:
    """The others are found; who it is is learnt when it answers."""
    calls = {
        "/nvmlDeviceGetCount": 2,
        "*/nvmlDeviceGetName": "L4",
        "*/nvmlDeviceGetPowerUsage": 1,
        "0/nvmlDeviceGetUUID": "GPU-a",
        "1/nvmlDeviceGetUUID": "GPU-b",
    }
    stub.play({"calls": calls | {"1/*": {"error": 15}}})
    first, second = NvmlSource(stub.library).open()
    assert first.sample(0).identity.labels == ("0", "GPU-a", "L4")
    with pytest.raises(GpuLostError):
        second.sample(0)
    assert second.identity.labels == ("1", "", "")
    stub.play({"calls": calls})
    assert second.sample(1).identity.labels == ("1", "GPU-b", "L4")


def test_gpus_of_other_containers_are_left_out(stub: Any) -> None:
    """The driver counts them, and forbids them."""
    calls = {
        "/nvmlDeviceGetCount": 2,
        "0/*": {"error": 4},
        "1/nvmlDeviceGetUUID": "GPU-b",
        "1/nvmlDeviceGetName": "L4",
    }
    stub.play({"calls": calls})
    (device,) = NvmlSource(stub.library).open()
    assert device.identity.index == 1
    stub.play({"calls": calls | {"1/*": {"error": 4}}})
    with pytest.raises(SourceUnavailableError, match="no permission for any of the 2 GPUs"):
        NvmlSource(stub.library).open()


def test_a_driver_that_refuses_the_batch(stub: Any) -> None:
    """Then each field is asked for alone, and those that are there are read together from then on."""
    refusing: dict[str, Any] = (
        ONE_GPU | ALIVE | {"0/nvmlDeviceGetFieldValues": {"error": 2}, "0/nvmlDeviceGetFieldValues/83": 5}
    )
    stub.play({"calls": refusing})
    (device,) = NvmlSource(stub.library).open()
    assert device.sample(0).counters.energy_mj is None
    stub.play(
        {"calls": ONE_GPU | ALIVE | {"0/nvmlDeviceGetFieldValues": {"error": 999}, "0/nvmlDeviceGetFieldValues/83": 5}}
    )
    (device,) = NvmlSource(stub.library).open()
    assert device.sample(0).failed_reads == len(FIELDS)
    stub.play({"calls": ONE_GPU | {"0/nvmlDeviceGetFieldValues/83": 5}})
    assert device.sample(1).counters.energy_mj == 5


def test_activity_needs_two_readings(stub: Any) -> None:
    """Nothing after the first, means since then after the second; what cannot be is absent."""
    calls: dict[str, Any] = ALIVE | {
        "0/nvmlGpmSampleGet": 0,
        "0/nvmlGpmMetricsGet/2": 50.0,
        "0/nvmlGpmMetricsGet/3": 100.4,
        "0/nvmlGpmMetricsGet/5": "nan",
        "0/nvmlGpmMetricsGet/10": {"error": 3},
    }
    assert one_gpu(stub, calls).activity == Activity()
    assert one_gpu(stub, calls, readings=3).activity == Activity(sm_ratio=0.5, sm_occupancy_ratio=1.0)


def test_mig_instances_come_and_go(stub: Any, frames: Frames) -> None:
    """They are looked for again every few readings; while a GPU is whole it has none, and its own values are back."""
    split = frames("h100_mig")[0]["calls"]
    stub.play({"calls": split})
    (device,) = NvmlSource(stub.library).open()
    assert [each.profile for each in device.sample(0).mig_instances] == ["3g.40gb", "1g.10gb", "1g.10gb"]
    fewer = {key: value for key, value in split.items() if not key.startswith("0.2/")}
    stub.play({"calls": fewer})
    for stamp_ns in range(1, 10):
        device.sample(stamp_ns)
    assert [each.profile for each in device.sample(10).mig_instances] == ["3g.40gb", "1g.10gb"]
    whole = split | {
        "0/nvmlDeviceGetMigMode": [0, 0],
        "0/nvmlDeviceGetUtilizationRates": {"gpu": 50, "memory": 5},
        "0/nvmlDeviceGetFieldValues/138:4294967295": 1,
    }
    stub.play({"calls": whole})
    device.sample(11)
    sample = device.sample(12)
    assert (sample.mig_enabled, sample.mig_instances, sample.utilization_ratio) == (False, (), 0.5)
    assert sample.counters.nvlink_bytes == {"transmit": 1024}


def test_mig_profile_from_sizes(stub: Any, frames: Frames) -> None:
    """Where the instance's name does not tell it."""
    calls = frames("h100_mig")[0]["calls"] | {
        "0.0/nvmlDeviceGetName": "NVIDIA H100",
        "0.0/nvmlDeviceGetAttributes_v2": {"gpuInstanceSliceCount": 3, "memorySizeMB": 40448},
        "0.1/nvmlDeviceGetName": {"error": 3},
    }
    stub.play({"calls": calls})
    (device,) = NvmlSource(stub.library).open()
    assert [each.profile for each in device.sample(0).mig_instances] == ["3g.40gb", "", "1g.10gb"]


def test_xid_events(stub: Any) -> None:
    """By GPU; other kinds of events are none; one of a GPU that we do not have is nobody's."""
    calls = {
        "/nvmlDeviceGetCount": 2,
        "*/nvmlDeviceGetUUID": "GPU-x",
        "*/nvmlDeviceGetName": "L4",
        "*/nvmlDeviceRegisterEvents": 0,
    }
    stub.play({"calls": calls})
    source = NvmlSource(stub.library)
    source.open()
    assert source.events() == []
    happened = [
        {"who": "1", "type": 8, "data": 79},
        {"who": "0", "type": 2, "data": 1},
        {"who": "7", "type": 8, "data": 31},
    ]
    stub.play({"calls": calls, "events": happened})
    assert [(event.identity.index, event.xid) for event in source.events()] == [(1, 79), (-1, 31)]


@pytest.mark.parametrize(("code", "again"), [(15, True), (999, False)])
def test_events_that_cannot_be_had(stub: Any, caplog: pytest.LogCaptureFixture, code: int, again: bool) -> None:
    """A lost GPU ends them for this time only; another error ends them for good, with one line."""
    caplog.set_level(logging.WARNING)
    stub.play({"calls": ONE_GPU})
    source = NvmlSource(stub.library)
    source.open()
    stub.play({"calls": ONE_GPU | {"/nvmlEventSetWait": {"error": code}}})
    for _ in range(3):
        assert source.events() == []
    stub.play({"calls": ONE_GPU, "events": [{"who": "0", "type": 8, "data": 79}]})
    assert bool(source.events()) is again
    assert len(caplog.messages) == (not again)


def test_no_events_on_this_platform(stub: Any) -> None:
    """Then there are none, and no series that says 0."""
    stub.play({"calls": ONE_GPU | ALIVE | {"/nvmlEventSetCreate": {"error": 3}}})
    source = NvmlSource(stub.library)
    (device,) = source.open()
    assert source.events() == []
    assert not device.sample(0).hears_xid


def test_opened_again(stub: Any) -> None:
    """After all GPUs were lost: what was there is let go, and found anew."""
    stub.play({"calls": ONE_GPU | ALIVE})
    source = NvmlSource(stub.library)
    source.open()
    (device,) = source.open()
    assert device.sample(0).identity.uuid == "GPU-a"


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        ({"/nvmlInit": {"error": 9}}, "NVML: the NVIDIA driver is not loaded"),
        ({"/nvmlInit": {"error": 4}}, "NVML: no permission to talk to the NVIDIA driver"),
        ({"/nvmlInit": {"error": 18}}, "NVML: the driver was updated and its library does not fit it"),
        ({"/nvmlInit": {"error": 999}}, r"NVML: Unknown Error \(code 999\)"),
        ({"/nvmlDeviceGetCount": 0}, "NVML: the driver is there, but shows no GPU to us"),
        ({"/nvmlDeviceGetCount": {"error": 15}}, r"NVML: GPU is lost \(code 15\)"),
    ],
)
def test_nothing_to_read(stub: Any, calls: dict[str, Any], message: str) -> None:
    """Why, and whose fault it is, in one line."""
    stub.play({"calls": ONE_GPU | calls})
    with pytest.raises(SourceUnavailableError, match=message):
        NvmlSource(stub.library).open()


def test_no_library_at_all() -> None:
    """In a process that never loaded one: the line says what is missing. pynvml itself looks for it."""
    program = (
        "from inferwatch_collectors.gpu.nvml import NvmlSource\n"
        "from inferwatch_collectors.gpu.base import SourceUnavailableError\n"
        "try: NvmlSource().open()\n"
        "except SourceUnavailableError as error: print(error)\n"
        "else: print('a GPU')\n"
    )
    environ = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environ, check=True)
    assert done.stdout.startswith(("NVML: libnvidia-ml.so.1 not found", "a GPU", "NVML: the NVIDIA driver is not"))


def test_the_error_numbers_are_those_of_the_binding() -> None:
    """Ours are written down, since they decide what is asked again."""
    for name in (
        "INVALID_ARGUMENT", "NOT_SUPPORTED", "NO_PERMISSION", "UNINITIALIZED", "DRIVER_NOT_LOADED", "FUNCTION_NOT_FOUND",
        "GPU_IS_LOST", "RESET_REQUIRED", "VGPU_ECC_NOT_SUPPORTED", "ARGUMENT_VERSION_MISMATCH", "DEPRECATED", "GPU_NOT_FOUND",
    ):  # fmt: skip
        assert getattr(nvml_reads, name) == getattr(pynvml, f"NVML_ERROR_{name}")
    assert "not found" in reason(pynvml, pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))


def test_the_field_numbers_are_those_of_the_binding() -> None:
    """The same of fields: a wrong number would be another value with a plausible look."""
    named = {
        "energy": "TOTAL_ENERGY_CONSUMPTION", "memory_temperature": "MEMORY_TEMP", "retired_pending": "RETIRED_PENDING",
        "remap_pending": "REMAPPED_PENDING", "remap_failed": "REMAPPED_FAILURE", "pcie_replays": "PCIE_REPLAY_COUNTER",
        "clock_event_sw_power_cap": "CLOCKS_EVENT_REASON_SW_POWER_CAP",
        "clock_event_sync_boost": "CLOCKS_EVENT_REASON_SYNC_BOOST",
        "clock_event_sw_thermal": "CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN",
        "clock_event_hw_thermal": "CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN",
        "clock_event_hw_power_brake": "CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN",
        "ecc_corrected": "ECC_SBE_VOL_TOTAL", "ecc_uncorrected": "ECC_DBE_VOL_TOTAL",
        "ecc_lifetime_corrected": "ECC_SBE_AGG_TOTAL", "ecc_lifetime_uncorrected": "ECC_DBE_AGG_TOTAL",
        "retired_corrected": "RETIRED_SBE", "retired_uncorrected": "RETIRED_DBE",
        "remapped_corrected": "REMAPPED_COR", "remapped_uncorrected": "REMAPPED_UNC",
        "pcie_transmit": "PCIE_COUNT_TX_BYTES", "pcie_receive": "PCIE_COUNT_RX_BYTES",
        "nvlink_transmit": "NVLINK_COUNT_XMIT_BYTES", "nvlink_receive": "NVLINK_COUNT_RCV_BYTES",
        "nvlink_transmit_kib": "NVLINK_THROUGHPUT_DATA_TX", "nvlink_receive_kib": "NVLINK_THROUGHPUT_DATA_RX",
    }  # fmt: skip
    assert {field.name: field.field_id for field in FIELDS} == {
        name: getattr(pynvml, f"NVML_FI_DEV_{constant}") for name, constant in named.items()
    }
