"""The stand-in for NVIDIA's library: how it is built, and what it is told to answer. Its source is tests/gpu/nvml_stub.c."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parents[1] / "gpu" / "nvml_stub.c"
CAPTURES = Path(__file__).parents[1] / "fixtures" / "nvml"

# The order in which the stub hands out the fields of a struct.
STRUCTS = {
    "nvmlDeviceGetUtilizationRates": ("gpu", "memory"),
    "nvmlDeviceGetMemoryInfo": ("total", "reserved", "free", "used"),
    "nvmlDeviceGetAttributes_v2": ("gpuInstanceSliceCount", "memorySizeMB"),
}
UNSIGNED_LONG_LONG = 3
NOT_AVAILABLE = 2**64 - 1


def capture(name: str) -> list[dict[str, Any]]:
    """Return the frames of a capture."""
    frames: list[dict[str, Any]] = json.loads((CAPTURES / f"{name}.json").read_text("utf-8"))["frames"]
    return frames


def script(*frames: dict[str, Any]) -> bytes:
    """Return what `Stub.play` tells the library, for one in another process."""
    calls: dict[str, Any] = {}
    for frame in frames:
        calls |= frame["calls"]
    lines = [_line(key, value) for key, value in calls.items()]
    lines += [f"event\t{each['who']}\t{each['type']}\t{each['data']}" for each in frames[-1].get("events", [])]
    return "\n".join(lines).encode()


def _line(key: str, value: Any) -> str:
    """Return a call and its answer as the stub reads it."""
    function = key.split("/")[1]
    code = hang_ms = 0
    if isinstance(value, dict):
        code, hang_ms = value.get("error", 0), value.get("hang_ms", 0)
        if function in STRUCTS and not code:
            value = [value[name] for name in STRUCTS[function]]
        elif function == "nvmlDeviceGetFieldValues":
            value = [value.get("type", UNSIGNED_LONG_LONG), value.get("value", 0)]
        else:
            value = value.get("value")
    elif function == "nvmlDeviceGetFieldValues":
        value = [UNSIGNED_LONG_LONG, value]
    elif function == "nvmlDeviceGetComputeRunningProcesses_v3":
        value = [item if item is not None else NOT_AVAILABLE for process in value for item in process]
    values = value if isinstance(value, list) else [] if value is None else [value]
    return "\t".join([key, str(code), str(hang_ms), *map(str, values)])


def build(folder: Path) -> Path:
    """Return libnvidia-ml.so.1 in `folder`, built from the source."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.fail("no C compiler here: install the package gcc (and libc6-dev), or run make test as root")
    library = folder / "libnvidia-ml.so.1"
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-O1", "-shared", "-fPIC", "-pthread"]
    # By this name the linker recognises it when pynvml asks for NVIDIA's.
    subprocess.run([compiler, *flags, "-Wl,-soname,libnvidia-ml.so.1", "-o", library, SOURCE], check=True)
    return library
