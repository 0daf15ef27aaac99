"""One NVIDIA GPU: which values it has, and reading them with few calls.

Most values are fields, read together in one driver call, each with its own return code. Whatever the driver answers
with "not supported" is not asked for again (`nvml_errors.Asked`); one value that fails does not take the others along.
"""

import logging
from typing import Any, Final

from inferwatch_collectors.gpu.base import CLOCK_EVENTS, GpuLostError, GpuProcess, GpuSample, Identity
from inferwatch_collectors.gpu.nvml_fields import (
    ECC_LIFETIME_FIELDS,
    FIELDS,
    REMAPPED_FIELDS,
    RETIRED_FIELDS,
    Field,
    counters,
    family,
)
from inferwatch_collectors.gpu.nvml_gpm import Gpm
from inferwatch_collectors.gpu.nvml_mig import Mig
from inferwatch_collectors.gpu.nvml_reads import NEVER, NO_PERMISSION, Asked, address, read_memory

_log: Final = logging.getLogger(__name__)

HZ_PER_MHZ: Final = 1_000_000

# By nvmlFieldValue_t.valueType.
_VALUE_ATTRIBUTES: Final = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")


class NvmlDevice:
    """One GPU, by its number."""

    def __init__(self, nvml: Any, index: int, driver_version: str, *, processes: bool) -> None:
        self._nvml = nvml
        self._driver_version = driver_version
        self._processes = processes
        self.identity = Identity(index=index, vendor="nvidia", driver_version=driver_version)
        self.handle: Any = None
        self.address: int | None = None  # of the handle: events carry it
        self.forbidden = False
        self.hears_xid = False  # the source has registered for them
        self._told = False
        self._batch: tuple[Field, ...] = FIELDS
        self._asked = Asked(nvml)
        self._gpm = Gpm(nvml, self._asked, self._take_gpm)
        self._mig = Mig(nvml, self._asked, None)
        try:
            self._find()
        except GpuLostError as error:
            _log.log(logging.INFO if self.forbidden else logging.WARNING, "gpu_absent gpu=%d reason=%s", index, error)

    def sample(self, stamp_ns: int) -> GpuSample:
        """Read everything this GPU has.

        Raises:
            GpuLostError: it does not answer.
        """
        if self.handle is None:
            self._find()
        try:
            return self._read(stamp_ns)
        except GpuLostError:
            # After a reset the old handle is worth nothing.
            self.handle = None
            raise

    def _read(self, stamp_ns: int) -> GpuSample:
        asked, nvml, handle = self._asked, self._nvml, self.handle
        asked.failed = 0
        fields = self._fields()
        mig_enabled, instances = self._mig.read()
        if self._mig.changed:
            # What a GPU can tell depends on whether it is split.
            asked.absent.clear()
            self._batch = FIELDS
        utilization = asked.read("utilization", nvml.nvmlDeviceGetUtilizationRates, handle)
        events = asked.first("clock_events", self._clock_events, self._throttle_reasons)
        sample = GpuSample(
            identity=self.identity,
            stamp_ns=stamp_ns,
            counters=counters(fields),
            utilization_ratio=None if utilization is None else utilization.gpu / 100,
            memory_activity_ratio=None if utilization is None else utilization.memory / 100,
            activity=self._gpm.read(),
            memory=read_memory(nvml, asked, handle),
            power_mw=asked.read("power", nvml.nvmlDeviceGetPowerUsage, handle),
            power_limit_mw=asked.read("power_limit", nvml.nvmlDeviceGetEnforcedPowerLimit, handle),
            temperature_c=asked.first("temperature", self._temperature, self._old_temperature),
            memory_temperature_c=fields.get("memory_temperature"),
            clocks_hz=self._clocks(),
            clock_events=None if events is None else _reasons(events),
            ecc_lifetime_errors=family(fields, ECC_LIFETIME_FIELDS),
            remapped_rows=family(fields, REMAPPED_FIELDS),
            row_remap_pending=_flag(fields.get("remap_pending")),
            row_remap_failed=_flag(fields.get("remap_failed")),
            retired_pages=family(fields, RETIRED_FIELDS),
            page_retirement_pending=_flag(fields.get("retired_pending")),
            processes=self._running() if self._processes else None,
            mig_enabled=mig_enabled,
            mig_instances=instances,
            hears_xid=self.hears_xid,
            failed_reads=asked.failed,
        )
        if not fields and all(
            value is None for value in (utilization, sample.memory, sample.power_mw, sample.temperature_c)
        ):
            # A handle that is no longer good is called an invalid argument, call after call.
            raise GpuLostError("NVML: nothing can be read")
        self._tell_absent()
        return sample

    def _find(self) -> None:
        """Get the handle and learn who it is.

        Raises:
            GpuLostError: it does not answer.
        """
        nvml, index = self._nvml, self.identity.index
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid, model = nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle)
        except nvml.NVMLError as error:
            self.forbidden = error.value == NO_PERMISSION
            raise GpuLostError(f"NVML error {error.value}") from None
        self._batch, self._asked = FIELDS, Asked(nvml)
        self._gpm = Gpm(nvml, self._asked, self._take_gpm)
        self._mig = Mig(nvml, self._asked, handle)
        pci = self._asked.read("pci", nvml.nvmlDeviceGetPciInfo_v3, handle)
        bus_id = "" if pci is None else pci.busId
        self.identity = Identity(
            index=index,
            uuid=uuid,
            model=model,
            vendor="nvidia",
            driver_version=self._driver_version,
            pci_bus_id=bus_id.decode() if isinstance(bus_id, bytes) else bus_id,
        )
        self.address = address(handle)
        self.handle = handle

    def _fields(self) -> dict[str, int]:
        values = self._ask(self._batch)
        if not self._asked.absent.isdisjoint(field.name for field in self._batch):
            self._batch = tuple(field for field in self._batch if field.name not in self._asked.absent)
        return values

    def _ask(self, fields: tuple[Field, ...]) -> dict[str, int]:
        """Read `fields` in one call, or one by one if the driver refuses the call as a whole."""
        if not fields:
            return {}
        try:
            values = self._nvml.nvmlDeviceGetFieldValues(self.handle, [(each.field_id, each.scope) for each in fields])
        except self._nvml.NVMLError as error:
            if error.value not in NEVER or len(fields) == 1:
                for field in fields:
                    self._asked.note(field.name, error.value)
                return {}
            return {name: value for field in fields for name, value in self._ask((field,)).items()}
        found: dict[str, int] = {}
        for field, value in zip(fields, values, strict=True):
            if value.nvmlReturn:
                self._asked.note(field.name, value.nvmlReturn)
            elif value.valueType < len(_VALUE_ATTRIBUTES):
                found[field.name] = int(getattr(value.value, _VALUE_ATTRIBUTES[value.valueType]))
        return found

    def _clocks(self) -> dict[str, int]:
        nvml = self._nvml
        found: dict[str, int] = {}
        for name, clock in (("sm", nvml.NVML_CLOCK_SM), ("memory", nvml.NVML_CLOCK_MEM)):
            mhz = self._asked.read(f"clock_{name}", nvml.nvmlDeviceGetClockInfo, self.handle, clock)
            if mhz is not None:
                found[name] = mhz * HZ_PER_MHZ
        return found

    def _clock_events(self) -> Any:
        return self._nvml.nvmlDeviceGetCurrentClocksEventReasons(self.handle)

    def _throttle_reasons(self) -> Any:
        """The same before driver 535."""
        return self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self.handle)

    def _temperature(self) -> Any:
        return self._nvml.nvmlDeviceGetTemperatureV(self.handle, self._nvml.NVML_TEMPERATURE_GPU)

    def _old_temperature(self) -> Any:
        """Before driver 565; it is to go with CUDA 14."""
        return self._nvml.nvmlDeviceGetTemperature(self.handle, self._nvml.NVML_TEMPERATURE_GPU)

    def _take_gpm(self, buffer: Any) -> None:
        self._nvml.nvmlGpmSampleGet(self.handle, buffer)

    def _running(self) -> tuple[GpuProcess, ...] | None:
        running = self._asked.read("processes", self._nvml.nvmlDeviceGetComputeRunningProcesses_v3, self.handle)
        return None if running is None else tuple(GpuProcess(each.pid, each.usedGpuMemory) for each in running)

    def _tell_absent(self) -> None:
        """Say once what this GPU does not have."""
        if not self._told:
            self._told = True
            names = ",".join(sorted(name for name in self._asked.absent if "#" not in name))
            _log.info("gpu_found gpu=%d model=%r not_available=%s", self.identity.index, self.identity.model, names)


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def _reasons(mask: int) -> frozenset[str]:
    """NVML's bits are in the order of CLOCK_EVENTS; later ones, which we do not know, are left out."""
    return frozenset(name for bit, name in enumerate(CLOCK_EVENTS) if mask >> bit & 1)
