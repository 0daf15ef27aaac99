"""AMD: amdsmi, which comes with ROCm and not from PyPI. The same readings as far as that library has them.

Written from AMD's reference of amdsmi 6.4 to 7.2 and tested against a stand-in only. Between its versions keys were
renamed (`power`, then `energy_accumulator`), and what a card does not have is the text "N/A".
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from inferwatch_collectors.gpu.base import (
    CORRECTED,
    UNCORRECTED,
    Counters,
    Device,
    GpuEvent,
    GpuLostError,
    GpuProcess,
    GpuSample,
    Identity,
    Memory,
    SourceUnavailableError,
)

MIB: Final = 1024 * 1024
HZ_PER_MHZ: Final = 1_000_000
MW_PER_W: Final = 1_000
UJ_PER_MJ: Final = 1_000

# amdsmi_status_t. Asking again will not help: not supported, not yet implemented, no permission.
NEVER: Final = frozenset({2, 3, 10})
# Not initialised, driver not loaded.
LOST: Final = frozenset({32, 34})

# What no board draws: 0xFFFFFFFF and its like stand for "not known".
MAX_WATTS: Final = 10_000


class AmdSource:
    """AMD's GPUs."""

    name = "amd"

    def __init__(self, *, processes: bool = True, library: Any = None) -> None:
        """`library` is the module amdsmi, or something that behaves so; None: import it when it is needed."""
        self._processes = processes
        self._library: Any = library
        self._open = False

    def open(self) -> Sequence[Device]:
        """Begin, or begin anew.

        Raises:
            SourceUnavailableError: no library, no driver, or no GPU.
        """
        smi = self._load()
        try:
            if self._open:
                self._open = False
                smi.amdsmi_shut_down()
            smi.amdsmi_init()
            self._open = True
            handles = smi.amdsmi_get_processor_handles()
        except smi.AmdSmiException as error:
            raise SourceUnavailableError(f"amdsmi: {' '.join(str(error).split())}") from None
        if not handles:
            raise SourceUnavailableError("amdsmi: the driver is there, but shows no GPU to us")
        return [AmdDevice(smi, index, handle, self._processes) for index, handle in enumerate(handles)]

    def events(self) -> Sequence[GpuEvent]:
        """Nothing: amdsmi has no Xid."""
        return ()

    def _load(self) -> Any:
        if self._library is None:
            try:
                self._library = importlib.import_module("amdsmi")
            # Without ROCm's shared library the module raises at import, differently from version to version.
            except (ImportError, OSError, AttributeError, KeyError) as error:
                raise SourceUnavailableError(f"amdsmi: {type(error).__name__}, not installed or no ROCm") from None
        return self._library


class AmdDevice:
    """One GPU."""

    def __init__(self, smi: Any, index: int, handle: Any, processes: bool) -> None:
        self._smi = smi
        self._handle = handle
        self._processes = processes
        self._absent: set[str] = set()
        self._failed = 0
        self.identity = Identity(index=index, vendor="amd")

    def sample(self, stamp_ns: int) -> GpuSample:
        """Read everything this GPU has.

        Raises:
            GpuLostError: it does not answer.
        """
        smi = self._smi
        self._failed = 0
        if not self.identity.uuid:
            self.identity = self._identify()
        activity = self._read("activity", smi.amdsmi_get_gpu_activity)
        power = self._read("power", smi.amdsmi_get_power_info)
        ecc = self._read("ecc", smi.amdsmi_get_gpu_total_ecc_count)
        energy_mj, memory = self._energy_mj(), self._memory()
        if not activity and not power and energy_mj is None and memory is None:
            # amdsmi has no error of its own for a card that is gone.
            raise GpuLostError("amdsmi: nothing can be read")
        return GpuSample(
            identity=self.identity,
            stamp_ns=stamp_ns,
            counters=Counters(
                energy_mj=energy_mj,
                ecc_errors=_known(
                    {CORRECTED: ecc.get("correctable_count"), UNCORRECTED: ecc.get("uncorrectable_count")}
                ),
            ),
            utilization_ratio=_ratio(activity.get("gfx_activity")),
            memory_activity_ratio=_ratio(activity.get("umc_activity")),
            memory=memory,
            power_mw=_power_mw(power),
            # No limit: its unit is watts up to 7.1 and microwatts in 7.13. Not told rather than told wrongly.
            temperature_c=self._temperature("temperature", "HOTSPOT"),
            memory_temperature_c=self._temperature("memory_temperature", "VRAM"),
            clocks_hz=_known({"sm": self._clock("GFX"), "memory": self._clock("MEM")}),
            processes=self._running() if self._processes else None,
            failed_reads=self._failed,
        )

    def _identify(self) -> Identity:
        smi = self._smi
        uuid = self._read("uuid", smi.amdsmi_get_gpu_device_uuid) or ""
        board = self._read("asic", smi.amdsmi_get_gpu_asic_info)
        driver = self._read("driver", smi.amdsmi_get_gpu_driver_info)
        return Identity(
            index=self.identity.index,
            uuid=str(uuid),
            model=str(board.get("market_name", "")),
            vendor="amd",
            driver_version=str(driver.get("driver_version", "")),
            pci_bus_id=str(self._read("bdf", smi.amdsmi_get_gpu_device_bdf) or ""),
        )

    def _energy_mj(self) -> int | None:
        """The accumulator counts in steps of `counter_resolution` microjoules."""
        count = self._read("energy", self._smi.amdsmi_get_energy_count)
        steps = _number(count.get("energy_accumulator", count.get("power")))
        resolution_uj = _number(count.get("counter_resolution"))
        # A card without the counter says 0 for ever.
        if not steps or not resolution_uj:
            return None
        return int(steps * resolution_uj) // UJ_PER_MJ

    def _memory(self) -> Memory | None:
        usage = self._read("memory", self._smi.amdsmi_get_gpu_vram_usage)
        total, used = _number(usage.get("vram_total")), _number(usage.get("vram_used"))
        if total is None or used is None:
            return None
        return Memory(int(total) * MIB, int(used) * MIB, int(total - used) * MIB)

    def _temperature(self, name: str, sensor: str) -> int | None:
        smi = self._smi
        kind = getattr(smi.AmdSmiTemperatureType, sensor)
        value = _number(self._read(name, smi.amdsmi_get_temp_metric, kind, smi.AmdSmiTemperatureMetric.CURRENT))
        return None if value is None else int(value)

    def _clock(self, domain: str) -> int | None:
        kind = getattr(self._smi.AmdSmiClkType, domain)
        mhz = _number(self._read(f"clock_{domain}", self._smi.amdsmi_get_clock_info, kind).get("clk"))
        return None if mhz is None else int(mhz) * HZ_PER_MHZ

    def _running(self) -> tuple[GpuProcess, ...] | None:
        running = self._read("processes", self._smi.amdsmi_get_gpu_process_list)
        if not isinstance(running, list):
            return None
        return tuple(
            GpuProcess(int(each["pid"]), None if (used := _number(each.get("mem"))) is None else int(used))
            for each in running
        )

    def _read(self, name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """Return what the call gives; an empty dict if the GPU does not have it or not this time.

        Raises:
            GpuLostError: it does not answer.
        """
        if name in self._absent:
            return {}
        try:
            return call(self._handle, *arguments)
        except self._smi.AmdSmiLibraryException as error:
            code = error.get_error_code()
            if code in LOST:
                raise GpuLostError(f"amdsmi error {code}") from None
            if code in NEVER:
                self._absent.add(name)
            else:
                self._failed += 1
        except self._smi.AmdSmiException:  # wrong arguments: another version of the library
            self._absent.add(name)
        return {}


def _number(value: Any) -> float | None:
    """Return a number; None for "N/A" and for anything that is none."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else None


def _ratio(percent: Any) -> float | None:
    number = _number(percent)
    return None if number is None or number > 100 else number / 100


def _power_mw(power: Any) -> int | None:
    """Instinct has the current power, Navi and older the mean. 0 W is how some cards say that they do not know."""
    for key in ("current_socket_power", "average_socket_power", "socket_power"):
        watts = _number(power.get(key))
        if watts and watts <= MAX_WATTS:
            return int(watts * MW_PER_W)
    return None


def _known(values: dict[str, Any]) -> dict[str, int]:
    return {key: int(number) for key, value in values.items() if (number := _number(value)) is not None}
