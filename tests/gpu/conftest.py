"""A stand-in for NVIDIA's library, built from C for this run, and captures to play through it.

The real nvidia-ml-py runs against it, and so does everything of ours that stands on it.
"""

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nvml_stand_in import build, capture, script


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


@pytest.fixture(scope="session", name="_stub_library")
def _built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libnvidia-ml.so.1, built from `nvml_stub.c`."""
    return build(tmp_path_factory.mktemp("nvml"))


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
