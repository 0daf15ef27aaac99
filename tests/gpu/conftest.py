"""A stand-in for NVIDIA's library, built from C for this run, and captures to play through it.

The real nvidia-ml-py runs against it, and so does everything of ours that stands on it.
"""

import ctypes
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).with_name("nvml_stub.c")
CAPTURES = Path(__file__).parents[1] / "fixtures" / "nvml"

# The order in which the stub hands out the fields of a struct.
STRUCTS = {
    "nvmlDeviceGetUtilizationRates": ("gpu", "memory"),
    "nvmlDeviceGetMemoryInfo": ("total", "reserved", "free", "used"),
    "nvmlDeviceGetAttributes_v2": ("gpuInstanceSliceCount", "memorySizeMB"),
}
UNSIGNED_LONG_LONG = 3
NOT_AVAILABLE = 2**64 - 1


class Stub:
    """The library, and what it answers."""

    def __init__(self, library: Path) -> None:
        self.library = str(library)
        self._functions = ctypes.CDLL(self.library)

    def play(self, *frames: dict[str, Any]) -> None:
        """Answer as the last of `frames` says, and as the earlier ones where it says nothing; its events happen."""
        self._functions.stub_load(script(*frames))

    def answer(self, **calls: Any) -> None:
        """Answer these calls and no others; `GPU0_` in front of a name stands for `0/`."""
        self.play({"calls": {key.replace("GPU0_", "0/"): value for key, value in calls.items()}})

    def reset(self) -> None:
        """Answer nothing, and forget events."""
        self._functions.stub_load(b"")
        self._functions.stub_forget_events()

    @property
    def calls(self) -> int:
        """How often anything was asked, since the library was loaded."""
        return int(self._functions.stub_calls())


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


@pytest.fixture(scope="session", name="_stub_library")
def _built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libnvidia-ml.so.1, built from `nvml_stub.c`."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.fail("no C compiler here: install the package gcc (and libc6-dev), or run make test as root")
    library = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-O1", "-shared", "-fPIC", "-pthread"]
    # By this name the linker recognises it when pynvml asks for NVIDIA's.
    subprocess.run([compiler, *flags, "-Wl,-soname,libnvidia-ml.so.1", "-o", library, SOURCE], check=True)
    return library


@pytest.fixture
def stub(_stub_library: Path) -> Iterator[Stub]:
    """The stand-in, answering nothing yet."""
    stub = Stub(_stub_library)
    stub.reset()
    yield stub
    stub.reset()


@pytest.fixture
def frames() -> Any:
    """Return the frames of a capture, by its name."""
    return capture


@pytest.fixture
def stub_script() -> Any:
    """`script`, for a library in another process."""
    return script


@pytest.fixture
def stub_library(_stub_library: Path) -> str:
    """The path of the stand-in."""
    return str(_stub_library)
