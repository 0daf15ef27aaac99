"""What a GPU says, whoever made it, and what a source of such readings must offer.

A source is opened and read in the sampler's thread, where every call may block. Another source (a simulated GPU, a
vendor's library) is a class with the methods of `Source` and `Device`; nothing else knows of vendors.

Units are those in which drivers count, as integers, so that sums stay exact: millijoules, milliwatts, nanoseconds.
None, or a missing key, is "not known".
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

# Reasons for clocks being held down: the label `reason`. NVML's names, without the prefix.
CLOCK_EVENTS = (
    "idle",
    "app_clocks",
    "sw_power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal",
    "hw_thermal",
    "hw_power_brake",
    "display",
)

CORRECTED = "corrected"
UNCORRECTED = "uncorrected"
RECEIVE = "receive"
TRANSMIT = "transmit"


class EnergyReading(msgspec.Struct, frozen=True):
    """What attribution needs of one GPU at one moment."""

    uuid: str
    stamp_ns: int  # CLOCK_MONOTONIC, just before the reading
    energy_mj: int | None  # the GPU's counter, raw: it goes back when the driver is reloaded
    power_mw: int | None


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Which GPU it is. `uuid` is empty for one that was lost before it could say who it is."""

    index: int  # -1: not even that is known
    uuid: str = ""
    model: str = ""
    vendor: str = ""
    driver_version: str = ""
    pci_bus_id: str = ""

    @property
    def labels(self) -> tuple[str, str, str]:
        """Values of the labels `gpu`, `uuid`, `gpu_model`."""
        return (str(self.index) if self.index >= 0 else "", self.uuid, self.model)


class Memory(msgspec.Struct, frozen=True):
    """Bytes."""

    total: int
    used: int
    free: int | None = None
    reserved: int | None = None


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """Means since the reading before, 0 to 1."""

    sm_ratio: float | None = None
    sm_occupancy_ratio: float | None = None
    tensor_ratio: float | None = None
    dram_ratio: float | None = None


class GpuProcess(msgspec.Struct, frozen=True):
    """A process that computes on a GPU. In a container `pid` is often that of the host."""

    pid: int
    memory_bytes: int | None


class MigInstance(msgspec.Struct, frozen=True, kw_only=True):
    """One slice of a GPU."""

    uuid: str
    profile: str  # 3g.40gb
    memory: Memory | None = None
    activity: Activity = Activity()


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """What only grows until the driver is reloaded, as the driver counts it."""

    energy_mj: int | None = None
    clock_event_ns: Mapping[str, int] = {}  # by reason
    ecc_errors: Mapping[str, int] = {}  # by severity
    pcie_bytes: Mapping[str, int] = {}  # by direction
    pcie_replays: int | None = None
    nvlink_bytes: Mapping[str, int] = {}  # by direction


class GpuSample(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of one GPU."""

    identity: Identity
    stamp_ns: int  # CLOCK_MONOTONIC, just before the reading
    counters: Counters = Counters()
    utilization_ratio: float | None = None
    memory_activity_ratio: float | None = None
    activity: Activity = Activity()
    memory: Memory | None = None
    power_mw: int | None = None
    power_limit_mw: int | None = None
    temperature_c: int | None = None
    memory_temperature_c: int | None = None
    clocks_hz: Mapping[str, int] = {}  # by the label `clock`
    clock_events: frozenset[str] | None = None  # those that are active, of CLOCK_EVENTS
    ecc_lifetime_errors: Mapping[str, int] = {}  # by severity
    remapped_rows: Mapping[str, int] = {}  # by severity
    row_remap_pending: bool | None = None
    row_remap_failed: bool | None = None
    retired_pages: Mapping[str, int] = {}  # by severity
    page_retirement_pending: bool | None = None
    processes: tuple[GpuProcess, ...] | None = None
    mig_enabled: bool | None = None
    mig_instances: tuple[MigInstance, ...] = ()
    hears_xid: bool = False  # the driver tells of Xid errors of this GPU
    failed_reads: int = 0  # values that could not be read this time, though the GPU has them

    @property
    def energy(self) -> EnergyReading:
        """What attribution needs of it."""
        return EnergyReading(self.identity.uuid, self.stamp_ns, self.counters.energy_mj, self.power_mw)


class GpuEvent(msgspec.Struct, frozen=True):
    """An error that the driver told of."""

    identity: Identity
    xid: int


class SourceUnavailableError(Exception):
    """There is nothing to read here. The message is one line and says what is missing."""


class GpuLostError(Exception):
    """The GPU does not answer any more: fallen off the bus, or waiting for a reset."""


class Device(Protocol):
    """One GPU. One thread at a time calls it."""

    @property
    def identity(self) -> Identity:
        """Who it is; may become known later if the GPU was lost at the start."""

    def sample(self, stamp_ns: int) -> GpuSample:
        """Read everything the GPU has.

        Raises:
            GpuLostError: it does not answer. It is asked again later.
        """


class Source(Protocol):
    """One vendor's library, or what stands in for it."""

    @property
    def name(self) -> str:
        """For the log."""

    def open(self) -> Sequence[Device]:
        """Begin, and return the GPUs in the order of their numbers.

        Raises:
            SourceUnavailableError: no library, no driver, or no GPU.
        """

    def events(self) -> Sequence[GpuEvent]:
        """Return what happened since the last call, without waiting.

        Called while another thread may be stuck in `Device.sample`.
        """
