"""Record what NVML says on a host into a small file, and nothing else: what we read, value by value, errors included.

The ordinary reading code runs against a pynvml that notes each call. A capture therefore has exactly what Inferwatch
asks for, and a test can play it back through a stand-in library (tests/gpu/nvml_stub.c).

The file is JSON. `frames[].calls` maps `who/function[/argument]` to a value, a list, an object, or `{"error": code}`;
`who` is a GPU's number, `0.1` for place 1 of GPU 0 (MIG), `0:3` for GPU instance 3 of GPU 0 (GPM). A later frame has
what changed. Ids of boards and processes are replaced by made-up ones: a capture may be shown to anybody.
"""

import ctypes
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from inferwatch_collectors.gpu.base import GpuLostError, SourceUnavailableError
from inferwatch_collectors.gpu.nvml import NvmlSource
from inferwatch_collectors.gpu.nvml_reads import address

FORMAT: Final = "inferwatch-nvml-capture/1"

# Not told of each round: nothing happened, as nearly always.
_SILENT: Final = "nvmlEventSetWait_v2"

# What is no reading.
_NOT_NOTED: Final = frozenset({"nvmlShutdown", "nvmlErrorString", "nvmlGpmSampleFree", "nvmlGpmSampleAlloc"})

_FIRST_PID: Final = 1000


class RecordingNvml:
    """Behaves as pynvml, and notes what each call gave."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self.calls: dict[str, Any] = {}
        self.events: list[dict[str, Any]] = []
        self._who: dict[int | None, str] = {}  # by the address of a handle or a sample buffer
        self._uuids: dict[str, str] = {}
        self._pids: dict[int, int] = {}

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._nvml, name)
        if not name.startswith("nvml") or not callable(value) or name in _NOT_NOTED:
            return value
        return lambda *arguments: self._call(name, value, arguments)

    def _call(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if name == "nvmlGpmMigSampleGet":
            self._who[address(arguments[2])] = f"{self._name_of(arguments[0])}:{arguments[1]}"
        elif name == "nvmlGpmSampleGet":
            self._who[address(arguments[1])] = self._name_of(arguments[0])
        try:
            result = function(*arguments)
        except self._nvml.NVMLError as error:
            if name != _SILENT or error.value != self._nvml.NVML_ERROR_TIMEOUT:
                self.calls[self._key(name, arguments)] = {"error": error.value}
            raise
        self._note(name, arguments, result)
        return result

    def _note(self, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        if name in ("nvmlDeviceGetHandleByIndex", "nvmlDeviceGetMigDeviceHandleByIndex"):
            self._who[address(result)] = self._key(name, arguments).partition("/")[0]
        elif name == "nvmlDeviceGetFieldValues":
            self._note_fields(arguments, result)
        elif name == "nvmlGpmMetricsGet":
            self._note_gpm(arguments[0])
        elif name == _SILENT:
            device = self._name_of(result.device)
            self.events.append({"who": device, "type": result.eventType, "data": result.eventData})
        elif name in ("nvmlGpmSampleGet", "nvmlGpmMigSampleGet", "nvmlDeviceRegisterEvents"):
            self.calls[self._key(name, arguments)] = 0
        elif name not in ("nvmlInit", "nvmlEventSetCreate"):
            self.calls[self._key(name, arguments)] = self._plain(name, result)

    def _note_fields(self, arguments: tuple[Any, ...], values: Any) -> None:
        who = self._name_of(arguments[0])
        for (field, scope), value in zip(arguments[1], values, strict=True):
            key = f"{who}/nvmlDeviceGetFieldValues/{field}" + (f":{scope}" if scope else "")
            if value.nvmlReturn:
                self.calls[key] = {"error": value.nvmlReturn}
            else:
                attribute = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")[value.valueType]
                self.calls[key] = {"type": value.valueType, "value": getattr(value.value, attribute)}

    def _note_gpm(self, request: Any) -> None:
        who = self._name_of(request.sample2)
        for index in range(request.numMetrics):
            metric = request.metrics[index]
            value = {"error": metric.nvmlReturn} if metric.nvmlReturn else metric.value
            self.calls[f"{who}/nvmlGpmMetricsGet/{metric.metricId}"] = value

    def _key(self, name: str, arguments: tuple[Any, ...]) -> str:
        if name == "nvmlDeviceGetHandleByIndex":
            return f"{arguments[0]}/{name}"
        if name == "nvmlDeviceGetMigDeviceHandleByIndex":
            return f"{self._name_of(arguments[0])}.{arguments[1]}/{name}"
        if name == "nvmlGpmMigSampleGet":
            return f"{self._name_of(arguments[2])}/{name}"
        if name == _SILENT or not arguments or isinstance(arguments[0], int):
            return f"/{name.removesuffix('_v2') if name == _SILENT else name}"
        key = f"{self._name_of(arguments[0])}/{name}"
        if name in ("nvmlDeviceGetClockInfo", "nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"):
            key += f"/{arguments[1]}"
        return key

    def _name_of(self, handle: Any) -> str:
        return self._who.get(address(handle), "")

    def _plain(self, name: str, result: Any) -> Any:
        if name == "nvmlDeviceGetUUID":
            return self._made_up_uuid(str(result))
        if name == "nvmlDeviceGetPciInfo_v3":
            return str(result.busId)
        if name == "nvmlDeviceGetComputeRunningProcesses_v3":
            return [[self._made_up_pid(each.pid), each.usedGpuMemory] for each in result]
        if isinstance(result, ctypes.Structure):
            return {field[0]: getattr(result, field[0]) for field in result._fields_ if field[0] != "version"}
        return list(result) if isinstance(result, list | tuple) else result

    def _made_up_uuid(self, uuid: str) -> str:
        number = len(self._uuids) + 1
        return self._uuids.setdefault(uuid, f"{uuid.partition('-')[0]}-00000000-0000-4000-8000-{number:012d}")

    def _made_up_pid(self, pid: int) -> int:
        return self._pids.setdefault(pid, _FIRST_PID + len(self._pids))


def record(
    library: str, *, samples: int, interval_s: float, nvml: Any = None, sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """Read all GPUs `samples` times, `interval_s` apart, and return the capture.

    Raises:
        SourceUnavailableError: there is nothing to record.
    """
    if nvml is None:
        import pynvml  # noqa: PLC0415 - as in `nvml`

        nvml = pynvml
    recorder = RecordingNvml(nvml)
    source = NvmlSource(library, nvml=recorder)
    devices = source.open()
    frames: list[dict[str, Any]] = []
    told: dict[str, Any] = {}
    for number in range(samples):
        if number:
            sleep(interval_s)
        for device in devices:
            try:
                device.sample(time.monotonic_ns())
            except GpuLostError:
                continue  # the error is in the capture
        source.events()
        frame: dict[str, Any] = {
            "calls": {key: value for key, value in recorder.calls.items() if key not in told or told[key] != value}
        }
        told |= recorder.calls
        if recorder.events:
            frame["events"], recorder.events = recorder.events, []
        frames.append(frame)
    return {"format": FORMAT, "synthetic": False, "about": "", "interval_s": interval_s, "frames": frames}


def write(file: str, library: str, *, samples: int, interval_s: float) -> int:
    """Record into `file`; return the exit code. What went wrong is one line on stderr."""
    try:
        capture = record(library, samples=samples, interval_s=interval_s)
    except SourceUnavailableError as error:
        sys.stderr.write(f"inferwatch: doctor: nothing to capture: {error}\n")
        return 1
    data = msgspec.json.format(msgspec.json.encode(capture), indent=1) + b"\n"
    try:
        Path(file).write_bytes(data)
    except OSError as error:
        sys.stderr.write(f"inferwatch: doctor: cannot write `{file}`: {error.strerror}\n")
        return 1
    gpus = sum(key.endswith("/nvmlDeviceGetName") and "." not in key for key in capture["frames"][0]["calls"])
    sys.stdout.write(f"{file}: {gpus} GPU(s), {samples} readings, {len(data)} bytes\n")
    return 0
