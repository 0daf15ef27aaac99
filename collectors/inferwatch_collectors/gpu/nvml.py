"""NVIDIA: NVML through its own binding. Opened once, with one handle per GPU for the life of the process.

Every nvmlInit may wake a GPU that sleeps, which takes seconds, so nothing here is closed and opened again except after
all GPUs were lost. The library is loaded by its name before pynvml does that; if a path is configured, that file is
loaded instead, and since it carries the same SONAME the linker then gives it to pynvml.
"""

import ctypes
import logging
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final

from inferwatch_collectors.gpu.base import Device, GpuEvent, Identity, SourceUnavailableError
from inferwatch_collectors.gpu.nvml_device import NvmlDevice
from inferwatch_collectors.gpu.nvml_reads import NO_LIBRARY, address, reason

_log: Final = logging.getLogger(__name__)

NVML: Final = "libnvidia-ml.so.1"

# Of one reading. A GPU that dies can tell of many errors at once; more wait in the driver for the next reading.
MAX_EVENTS: Final = 64


class NvmlSource:
    """NVIDIA's GPUs."""

    name = "nvidia"

    def __init__(self, library: str = "", *, processes: bool = True, nvml: ModuleType | Any = None) -> None:
        """`nvml` is pynvml, or something that behaves so; None: import it when it is needed."""
        self._library = library
        self._processes = processes
        self._nvml: Any = nvml
        self._open = False
        self._devices: list[NvmlDevice] = []
        self._event_set: Any = None

    def open(self) -> Sequence[Device]:
        """Begin, or begin anew after all GPUs were lost.

        Raises:
            SourceUnavailableError: no library, no driver, or no GPU.
        """
        nvml = self._load()
        try:
            if self._open:
                self._close()
            nvml.nvmlInit()
            self._open = True
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            raise SourceUnavailableError(f"NVML: {reason(nvml, error)}") from None
        if not count:
            raise SourceUnavailableError("NVML: the driver is there, but shows no GPU to us")
        driver = self._text(nvml.nvmlSystemGetDriverVersion)
        devices = [NvmlDevice(nvml, index, driver, processes=self._processes) for index in range(count)]
        # The count has the GPUs of other containers too.
        self._devices = [device for device in devices if not device.forbidden]
        if not self._devices:
            raise SourceUnavailableError(f"NVML: no permission for any of the {count} GPUs")
        self._event_set = self._register()
        return list(self._devices)

    def events(self) -> Sequence[GpuEvent]:
        """Return the Xid errors since the last call; empty where the platform has no events."""
        found: list[GpuEvent] = []
        if self._event_set is None:
            return found
        nvml = self._nvml
        for _ in range(MAX_EVENTS):
            try:
                data = nvml.nvmlEventSetWait_v2(self._event_set, 0)
            except nvml.NVMLError as error:
                if error.value not in (nvml.NVML_ERROR_TIMEOUT, nvml.NVML_ERROR_GPU_IS_LOST):
                    # It would say the same each second.
                    _log.warning("gpu_events_lost reason=%s", reason(nvml, error))
                    self._event_set = None
                break
            if data.eventType == nvml.nvmlEventTypeXidCriticalError:
                found.append(GpuEvent(self._who(data.device), int(data.eventData)))
        return found

    def _load(self) -> Any:
        try:
            ctypes.CDLL(self._library or NVML)
        except OSError as error:
            if self._library:
                raise SourceUnavailableError(f"gpu.nvml_library: cannot load `{self._library}`: {error}") from None
            raise SourceUnavailableError(f"NVML: {NO_LIBRARY}") from None
        if self._nvml is None:
            import pynvml  # noqa: PLC0415 - a host without GPUs need not hold its 8,000 lines

            self._nvml = pynvml
        return self._nvml

    def _close(self) -> None:
        """Let go of everything; a fault in doing so matters to nobody."""
        nvml = self._nvml
        self._open = False
        self._devices, event_set, self._event_set = [], self._event_set, None
        try:
            if event_set is not None:
                nvml.nvmlEventSetFree(event_set)
            nvml.nvmlShutdown()
        except nvml.NVMLError as error:
            _log.debug("gpu_close_failed reason=%s", reason(nvml, error))

    def _register(self) -> Any:
        """Ask for Xid errors of all GPUs; return the event set, or None where there are no events."""
        nvml = self._nvml
        try:
            event_set = nvml.nvmlEventSetCreate()
        except nvml.NVMLError as error:
            _log.info("gpu_events_absent reason=%s", reason(nvml, error))
            return None
        for device in self._devices:
            if device.handle is None:
                continue
            try:
                nvml.nvmlDeviceRegisterEvents(device.handle, nvml.nvmlEventTypeXidCriticalError, event_set)
                device.hears_xid = True
            except nvml.NVMLError as error:
                _log.info("gpu_events_absent gpu=%d reason=%s", device.identity.index, reason(nvml, error))
        return event_set

    def _who(self, handle: Any) -> Identity:
        """Return whose event it is. -1: of a GPU that was not there at the start."""
        place = address(handle)
        return next((device.identity for device in self._devices if device.address == place), Identity(index=-1))

    def _text(self, call: Any) -> str:
        try:
            return str(call())
        except self._nvml.NVMLError:
            return ""
