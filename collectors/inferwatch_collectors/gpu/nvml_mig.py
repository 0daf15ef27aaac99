"""MIG: the instances into which a GPU is split, found anew every so often, since operators move them about."""

from typing import Any, Final

from inferwatch_collectors.gpu.base import Activity, MigInstance
from inferwatch_collectors.gpu.nvml_gpm import Gpm
from inferwatch_collectors.gpu.nvml_reads import NEVER, Asked, address, read_memory

# Instances are made by hand, and finding them costs a call for each that could be there.
SCAN_EVERY: Final = 10

MIB_PER_GIB: Final = 1024


class _Instance:
    """One MIG instance and its handle."""

    def __init__(self, nvml: Any, parent: Any, handle: Any, uuid: str) -> None:
        self._nvml = nvml
        self._parent = parent
        self.handle = handle
        self.uuid = uuid
        self.asked = Asked(nvml)
        self.profile = self._profile()
        self._gpu_instance = self.asked.read("gpu_instance", nvml.nvmlDeviceGetGpuInstanceId, handle)
        self.gpm = Gpm(nvml, self.asked, self._take)

    def read(self) -> MigInstance:
        return MigInstance(
            uuid=self.uuid,
            profile=self.profile,
            memory=read_memory(self._nvml, self.asked, self.handle),
            activity=Activity() if self._gpu_instance is None else self.gpm.read(),
        )

    def _take(self, buffer: Any) -> None:
        self._nvml.nvmlGpmMigSampleGet(self._parent, self._gpu_instance, buffer)

    def _profile(self) -> str:
        """`3g.40gb`: the name ends in it; else from the sizes."""
        name = str(self.asked.read("name", self._nvml.nvmlDeviceGetName, self.handle) or "")
        _, marker, profile = name.partition(" MIG ")
        if marker:
            return profile
        sizes = self.asked.read("attributes", self._nvml.nvmlDeviceGetAttributes_v2, self.handle)
        if sizes is None:
            return ""
        return f"{sizes.gpuInstanceSliceCount}g.{round(sizes.memorySizeMB / MIB_PER_GIB)}gb"


class Mig:
    """The instances of one GPU."""

    def __init__(self, nvml: Any, asked: Asked, handle: Any) -> None:
        self._nvml = nvml
        self._asked = asked
        self._handle = handle
        self._enabled: bool | None = None
        self._instances: list[_Instance] = []
        self._until_scan = 0
        self.changed = False  # by the last `read`: the GPU was split, or is whole again

    def read(self) -> tuple[bool | None, tuple[MigInstance, ...]]:
        """Return whether the GPU is split, None if it cannot be, and its instances.

        Raises:
            GpuLostError: it does not answer.
        """
        modes = self._asked.read("mig", self._nvml.nvmlDeviceGetMigMode, self._handle)
        enabled = None if modes is None else bool(modes[0])
        self.changed = self._enabled is not None and enabled is not None and enabled != self._enabled
        self._enabled = enabled
        if not enabled:
            self._drop(self._instances)
            self._instances, self._until_scan = [], 0
            return enabled, ()
        if self._until_scan == 0:
            self._until_scan = SCAN_EVERY
            self._scan()
        self._until_scan -= 1
        readings = tuple(instance.read() for instance in self._instances)
        for instance in self._instances:
            self._asked.failed += instance.asked.failed
            instance.asked.failed = 0
        return enabled, readings

    def _scan(self) -> None:
        nvml = self._nvml
        count = self._asked.read("mig_count", nvml.nvmlDeviceGetMaxMigDeviceCount, self._handle) or 0
        known = {instance.uuid: instance for instance in self._instances}
        found: list[_Instance] = []
        for index in range(count):
            try:
                handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(self._handle, index)
                uuid = str(nvml.nvmlDeviceGetUUID(handle))
            except nvml.NVMLError as error:
                # NOT_FOUND: no instance in this place, or it went between the two calls.
                if error.value not in NEVER and error.value != nvml.NVML_ERROR_NOT_FOUND:
                    self._asked.note(f"mig_{index}", error.value)
                continue
            # The same name can get another handle after it was moved.
            old = known.get(uuid)
            if old is None or address(old.handle) != address(handle):
                old = _Instance(nvml, self._handle, handle, uuid)
            found.append(old)
        self._drop([instance for instance in self._instances if instance not in found])
        self._instances = found

    def _drop(self, instances: list[_Instance]) -> None:
        for instance in instances:
            instance.gpm.close()
