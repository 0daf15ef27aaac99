"""AMD through amdsmi, against a stand-in made from AMD's reference: no such card, and no ROCm, is at hand."""

import enum
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from inferwatch_collectors.gpu.amd import AmdSource
from inferwatch_collectors.gpu.base import GpuLostError, GpuProcess, Memory, SourceUnavailableError


class AmdSmiException(Exception):  # noqa: N818 - amdsmi's name
    pass


class AmdSmiLibraryException(AmdSmiException):
    def __init__(self, code: int) -> None:
        super().__init__(f"Error code:\n\t{code}")
        self.code = code

    def get_error_code(self) -> int:
        return self.code


class AmdSmiParameterException(AmdSmiException):
    pass


TEMPERATURES = enum.Enum("TEMPERATURES", ["EDGE", "HOTSPOT", "VRAM"])
METRICS = enum.Enum("METRICS", ["CURRENT"])
CLOCKS = enum.Enum("CLOCKS", ["GFX", "MEM"])


def amdsmi(**answers: Any) -> Any:
    """A module that answers as an MI300X does, except for `answers`; an exception is raised."""
    given: dict[str, Any] = {
        "init": None,
        "shut_down": None,
        "get_processor_handles": ["card0"],
        "get_gpu_device_uuid": "b3ff74a1-0000-1000-80c4-0123456789ab",
        "get_gpu_asic_info": {"market_name": "AMD Instinct MI300X"},
        "get_gpu_driver_info": {"driver_version": "6.10.5"},
        "get_gpu_device_bdf": "0000:05:00.0",
        "get_gpu_activity": {"gfx_activity": 93, "umc_activity": 41, "mm_activity": "N/A"},
        "get_power_info": {"current_socket_power": 612, "average_socket_power": "N/A", "power_limit": 750},
        "get_energy_count": {"energy_accumulator": 1_000_000, "counter_resolution": 15.259, "timestamp": 1},
        "get_gpu_vram_usage": {"vram_total": 196_592, "vram_used": 150_000},
        "get_temp_metric": {TEMPERATURES.HOTSPOT: 61, TEMPERATURES.VRAM: 55},
        "get_clock_info": {CLOCKS.GFX: {"clk": 2100}, CLOCKS.MEM: {"clk": 1300}},
        "get_gpu_total_ecc_count": {"correctable_count": 3, "uncorrectable_count": 0},
        "get_gpu_process_list": [{"pid": 7, "mem": 4096, "name": "python3"}, {"pid": 8, "mem": "N/A"}],
    } | answers

    def function(answer: Any) -> Any:
        def call(*arguments: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer[arguments[1]] if isinstance(answer, dict) and len(arguments) > 1 else answer

        return call

    return SimpleNamespace(
        AmdSmiException=AmdSmiException,
        AmdSmiLibraryException=AmdSmiLibraryException,
        AmdSmiTemperatureType=TEMPERATURES,
        AmdSmiTemperatureMetric=METRICS,
        AmdSmiClkType=CLOCKS,
        **{f"amdsmi_{name}": function(answer) for name, answer in given.items()},
    )


def one(**answers: Any) -> Any:
    (device,) = AmdSource(library=amdsmi(**answers)).open()
    return device


def test_a_card() -> None:
    """The same readings as of any other vendor, in the same units."""
    sample = one().sample(5)
    identity = sample.identity
    assert identity.labels == ("0", "b3ff74a1-0000-1000-80c4-0123456789ab", "AMD Instinct MI300X")
    assert (identity.vendor, identity.driver_version, identity.pci_bus_id) == ("amd", "6.10.5", "0000:05:00.0")
    assert (sample.utilization_ratio, sample.memory_activity_ratio) == (0.93, 0.41)
    assert (sample.power_mw, sample.counters.energy_mj) == (612_000, 15_259)
    assert sample.memory == Memory(196_592 * 2**20, 150_000 * 2**20, 46_592 * 2**20)
    assert (sample.temperature_c, sample.memory_temperature_c) == (61, 55)
    assert sample.clocks_hz == {"sm": 2_100_000_000, "memory": 1_300_000_000}
    assert sample.counters.ecc_errors == {"corrected": 3, "uncorrected": 0}
    assert sample.processes == (GpuProcess(7, 4096), GpuProcess(8, None))
    assert (sample.power_limit_mw, sample.stamp_ns, sample.failed_reads) == (None, 5, 0)


@pytest.mark.parametrize(
    ("answers", "field", "expected"),
    [
        ({"get_gpu_activity": {"gfx_activity": "N/A", "umc_activity": 65535}}, "utilization_ratio", None),
        ({"get_gpu_activity": {"gfx_activity": 1, "umc_activity": 65535}}, "memory_activity_ratio", None),
        ({"get_power_info": {"current_socket_power": "N/A", "average_socket_power": 200}}, "power_mw", 200_000),
        ({"get_power_info": {"current_socket_power": 0xFFFFFFFF, "socket_power": 90}}, "power_mw", 90_000),
        ({"get_power_info": {"current_socket_power": 0}}, "power_mw", None),
        ({"get_gpu_vram_usage": {"vram_total": 10, "vram_used": "N/A"}}, "memory", None),
        ({"get_temp_metric": {TEMPERATURES.HOTSPOT: "N/A", TEMPERATURES.VRAM: 1}}, "temperature_c", None),
        ({"get_clock_info": {CLOCKS.GFX: {"clk": "N/A"}, CLOCKS.MEM: {}}}, "clocks_hz", {}),
        ({"get_gpu_process_list": AmdSmiLibraryException(2)}, "processes", None),
    ],
)
def test_what_is_not_known_is_absent(answers: dict[str, Any], field: str, expected: object) -> None:
    """ "N/A", and the largest number of its kind, are not values."""
    assert getattr(one(**answers).sample(0), field) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        ({"power": 2_000, "counter_resolution": 15.3}, 30),
        ({"energy_accumulator": 0, "counter_resolution": 15.3}, None),
        ({"energy_accumulator": 10, "counter_resolution": "N/A"}, None),
        (AmdSmiLibraryException(2), None),
    ],
)
def test_energy(count: Any, expected: int | None) -> None:
    """Older libraries call it `power`; a card without the counter says 0 for ever."""
    assert one(get_energy_count=count).sample(0).counters.energy_mj == expected


def test_what_is_not_there_is_asked_once() -> None:
    """Not supported is remembered; what failed once is asked again; wrong arguments are another library's."""
    device = one(get_gpu_activity=AmdSmiLibraryException(2), get_gpu_vram_usage=AmdSmiLibraryException(12),
                 get_clock_info=AmdSmiParameterException("clk_type"))  # fmt: skip
    sample = device.sample(0)
    assert (sample.utilization_ratio, sample.memory, sample.failed_reads) == (None, None, 1)
    assert device._absent == {"activity", "clock_GFX", "clock_MEM"}
    assert device.sample(1).failed_reads == 1


@pytest.mark.parametrize("code", [32, 34])
def test_a_driver_that_is_gone(code: int) -> None:
    """The GPU is lost."""
    with pytest.raises(GpuLostError):
        one(get_gpu_activity=AmdSmiLibraryException(code)).sample(0)


def test_a_card_that_is_gone() -> None:
    """amdsmi has no word for it: nothing can be read."""
    gone = AmdSmiLibraryException(14)
    device = one(get_gpu_activity=gone, get_power_info=gone, get_energy_count=gone, get_gpu_vram_usage=gone)
    with pytest.raises(GpuLostError, match="nothing can be read"):
        device.sample(0)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"init": AmdSmiLibraryException(34)}, "amdsmi: Error code: 34"),
        ({"get_processor_handles": []}, "amdsmi: the driver is there, but shows no GPU to us"),
    ],
)
def test_nothing_to_read(answers: dict[str, Any], message: str) -> None:
    """Why, in one line."""
    with pytest.raises(SourceUnavailableError, match=message):
        AmdSource(library=amdsmi(**answers)).open()


@pytest.mark.parametrize("module", [None, "broken"])
def test_no_library(module: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not installed, or installed without ROCm's shared library."""
    if module is None:
        monkeypatch.setitem(sys.modules, "amdsmi", None)
    else:

        def missing(_: str) -> ModuleType:
            raise OSError("libamd_smi.so: cannot open shared object file")

        monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(SourceUnavailableError, match="not installed or no ROCm"):
        AmdSource().open()


def test_opened_again_and_no_events() -> None:
    """After all cards were lost; amdsmi knows no Xid."""
    source = AmdSource(library=amdsmi())
    source.open()
    assert len(source.open()) == 1
    assert source.events() == ()
