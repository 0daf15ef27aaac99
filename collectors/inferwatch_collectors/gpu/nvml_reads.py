"""Reading one value of NVML. What its errors mean to us: never there, not this time, or the GPU is gone."""

import ctypes
from collections.abc import Callable
from typing import Any, Final

from inferwatch_collectors.gpu.base import GpuLostError, Memory

# Numbers of nvml.h, which do not change; pynvml's own names are the same.
INVALID_ARGUMENT: Final = 2
NOT_SUPPORTED: Final = 3
NO_PERMISSION: Final = 4
UNINITIALIZED: Final = 1
DRIVER_NOT_LOADED: Final = 9
FUNCTION_NOT_FOUND: Final = 13
GPU_IS_LOST: Final = 15
RESET_REQUIRED: Final = 16
VGPU_ECC_NOT_SUPPORTED: Final = 22
ARGUMENT_VERSION_MISMATCH: Final = 25
DEPRECATED: Final = 26
GPU_NOT_FOUND: Final = 28

# Asking again will not help as long as this driver is loaded. INVALID_ARGUMENT is how old drivers answer new fields.
NEVER: Final = frozenset(
    {
        INVALID_ARGUMENT,
        NOT_SUPPORTED,
        NO_PERMISSION,
        FUNCTION_NOT_FOUND,
        VGPU_ECC_NOT_SUPPORTED,
        ARGUMENT_VERSION_MISMATCH,
        DEPRECATED,
    }
)
LOST: Final = frozenset({UNINITIALIZED, DRIVER_NOT_LOADED, GPU_IS_LOST, RESET_REQUIRED, GPU_NOT_FOUND})

NO_LIBRARY: Final = "libnvidia-ml.so.1 not found: no NVIDIA driver, or a container without the GPU's driver libraries"


def reason(nvml: Any, error: Any) -> str:
    """Return what happened and, where it is known, what to do about it."""
    code = error.value
    if code == nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return NO_LIBRARY
    if code == nvml.NVML_ERROR_DRIVER_NOT_LOADED:
        return "the NVIDIA driver is not loaded"
    if code == nvml.NVML_ERROR_NO_PERMISSION:
        return "no permission to talk to the NVIDIA driver"
    if code == nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return "the driver was updated and its library does not fit it: reload the driver or restart the host"
    return f"{error} (code {code})"


class Asked:
    """Which values one GPU does not have: asked once, remembered for as long as it is open."""

    def __init__(self, nvml: Any) -> None:
        self._error: type[Exception] = nvml.NVMLError
        self.absent: set[str] = set()
        self.failed = 0  # since it was last set to 0

    def read(self, name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """Return what the call gives, None if the GPU does not have it or not this time.

        Raises:
            GpuLostError: the GPU does not answer.
        """
        if name in self.absent:
            return None
        try:
            return call(*arguments)
        except self._error as error:
            self.note(name, int(getattr(error, "value", 0)))
            return None

    def first(self, name: str, *calls: Callable[[], Any]) -> Any:
        """Return what the first call gives that this driver knows: later ones are for older drivers."""
        for number, call in enumerate(calls):
            value = self.read(f"{name}#{number}", call)
            if value is not None:
                return value
        if all(f"{name}#{number}" in self.absent for number in range(len(calls))):
            self.absent.add(name)
        return None

    def note(self, name: str, code: int) -> None:
        """Remember that `name` was answered with error `code`.

        Raises:
            GpuLostError: it is not about the value but about the GPU.
        """
        if code in LOST:
            raise GpuLostError(f"NVML error {code}")
        if code in NEVER:
            self.absent.add(name)
        else:
            self.failed += 1


def read_memory(nvml: Any, asked: Asked, handle: Any) -> Memory | None:
    """Return the memory of a GPU or a MIG instance. Version 2 of the call: the first counts reserved as used."""
    memory = asked.read("memory", nvml.nvmlDeviceGetMemoryInfo, handle, nvml.nvmlMemory_v2)
    return None if memory is None else Memory(memory.total, memory.used, memory.free, memory.reserved)


def address(handle: Any) -> int | None:
    """Return where a handle points: two handles of one GPU are different objects with one address."""
    return ctypes.cast(handle, ctypes.c_void_p).value
