"""From readings to metrics. Everything here happens on the event loop.

Gauges show the last reading of a GPU that answers, and vanish with it. Counters of the driver go back when it is
reloaded; ours do not: we add how far the driver's counter has come since the reading before. What we last saw is kept
with the values (`Memo`), in the same commit as they, so that a restart of ours neither loses nor counts twice.

The first reading of a GPU ever is where its counters begin, at 0. If a counter has gone back, what it shows is what
was counted since; what was counted between our last reading and the reset is lost.

Bytes over PCIe the driver counts with 32 bits (seen on an H200, driver 580.159): once 4 GiB have gone by they begin
anew. That is no reset as long as no other counter of the GPU has gone back; of more than 4 GiB between two readings
the multiples are lost.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from inferwatch_collectors import metrics as m
from inferwatch_collectors.gpu.base import (
    CLOCK_EVENTS,
    Activity,
    Counters,
    GpuEvent,
    GpuProcess,
    GpuSample,
    Identity,
)
from inferwatch_collectors.metric_store import Counter, LabelValues, MetricStore
from inferwatch_collectors.metrics import Metric

MEMO: Final = "gpu_counters"

MW_PER_W: Final = 1_000

# Those that call for a person; they begin at 0, so that the first one is seen as an increase.
WATCHED_XIDS: Final = (48, 63, 64, 74, 79, 94, 95, 119, 120)

# Different Xid numbers of one GPU that get a series. NVIDIA has some 150 of them; a sick GPU tells of a handful.
MAX_XIDS: Final = 32

_GAUGES: Final[tuple[tuple[Metric, Callable[[GpuSample], float | None]], ...]] = (
    (m.GPU_UTILIZATION, lambda s: s.utilization_ratio),
    (m.GPU_MEMORY_ACTIVITY, lambda s: s.memory_activity_ratio),
    (m.GPU_SM_ACTIVITY, lambda s: s.activity.sm_ratio),
    (m.GPU_SM_OCCUPANCY, lambda s: s.activity.sm_occupancy_ratio),
    (m.GPU_TENSOR_ACTIVITY, lambda s: s.activity.tensor_ratio),
    (m.GPU_DRAM_ACTIVITY, lambda s: s.activity.dram_ratio),
    (m.GPU_MEMORY_TOTAL, lambda s: None if s.memory is None else s.memory.total),
    (m.GPU_MEMORY_USED, lambda s: None if s.memory is None else s.memory.used),
    (m.GPU_MEMORY_FREE, lambda s: None if s.memory is None else s.memory.free),
    (m.GPU_MEMORY_RESERVED, lambda s: None if s.memory is None else s.memory.reserved),
    (m.GPU_POWER, lambda s: None if s.power_mw is None else s.power_mw / MW_PER_W),
    (m.GPU_POWER_LIMIT, lambda s: None if s.power_limit_mw is None else s.power_limit_mw / MW_PER_W),
    (m.GPU_TEMPERATURE, lambda s: s.temperature_c),
    (m.GPU_MEMORY_TEMPERATURE, lambda s: s.memory_temperature_c),
    (m.GPU_ROW_REMAP_PENDING, lambda s: s.row_remap_pending),
    (m.GPU_ROW_REMAP_FAILED, lambda s: s.row_remap_failed),
    (m.GPU_PAGE_RETIREMENT_PENDING, lambda s: s.page_retirement_pending),
    (m.GPU_PROCESSES, lambda s: None if s.processes is None else len(s.processes)),
    (m.GPU_PROCESS_MEMORY, lambda s: _process_memory(s.processes)),
    (m.GPU_MIG_ENABLED, lambda s: s.mig_enabled),
)

_LABELLED_GAUGES: Final[tuple[tuple[Metric, Callable[[GpuSample], Mapping[str, float]]], ...]] = (
    (m.GPU_CLOCK, lambda s: s.clocks_hz),
    (m.GPU_CLOCK_EVENT, lambda s: _clock_events(s.clock_events)),
    (m.GPU_ECC_LIFETIME, lambda s: s.ecc_lifetime_errors),
    (m.GPU_REMAPPED_ROWS, lambda s: s.remapped_rows),
    (m.GPU_RETIRED_PAGES, lambda s: s.retired_pages),
)

_COUNTERS: Final[tuple[tuple[Metric, Callable[[Counters], int | None]], ...]] = (
    (m.GPU_ENERGY, lambda c: c.energy_mj),
    (m.GPU_PCIE_REPLAYS, lambda c: c.pcie_replays),
)
_LABELLED_COUNTERS: Final[tuple[tuple[Metric, Callable[[Counters], Mapping[str, int]]], ...]] = (
    (m.GPU_CLOCK_EVENT_SECONDS, lambda c: c.clock_event_ns),
    (m.GPU_ECC_ERRORS, lambda c: c.ecc_errors),
    (m.GPU_PCIE_BYTES, lambda c: c.pcie_bytes),
    (m.GPU_NVLINK_BYTES, lambda c: c.nvlink_bytes),
)

# Metrics whose counter in the driver has 32 bits.
_WRAPPING: Final = frozenset({m.GPU_PCIE_BYTES.name})
_WRAP: Final = 2**32

# (metric, label values after those of the card) -> what a driver's counter shows, in 1/scale of the metric's unit.
_Raw = dict[tuple[str, str], int]

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[tuple[str, str, int]]).decode


class _Card:
    """What is known of one GPU."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.sample: GpuSample | None = None  # None: it does not answer
        self.raw: _Raw | None = None  # at the last reading; None: not looked up yet
        self.grown: _Raw = {}  # since the last refresh
        self.resets = 0
        self.xids: set[int] = set()


class GpuExporter:
    """Takes readings, and brings the store up to date when it is asked."""

    def __init__(self, store: MetricStore, *, stale_ns: int) -> None:
        """A reading older than `stale_ns` is not shown."""
        self._store = store
        self._stale_ns = stale_ns
        self._cards: dict[tuple[str, int], _Card] = {}  # by vendor and number
        self._nobody = _Card(Identity(index=-1))  # whose events are of a GPU that we do not know
        self._searched = False
        self._shown: dict[tuple[Metric, LabelValues], float] = {}

    def searched(self) -> None:
        """The drivers were asked what GPUs there are. Before that nobody knows, and nothing is shown."""
        self._searched = True

    def take(self, sample: GpuSample) -> None:
        """Take a reading."""
        card = self._card(sample.identity)
        card.sample = sample
        if not sample.identity.uuid:
            return
        fresh = _flat(sample.counters)
        last = self._baseline(card) if card.raw is None else card.raw
        back = {key for key, raw in fresh.items() if raw < last.get(key, raw)}
        reset = any(key[0] not in _WRAPPING or last[key] >= _WRAP for key in back)
        for key, raw in fresh.items():
            before = last.get(key, raw) if key not in back else 0 if reset else last[key] - _WRAP
            card.grown[key] = card.grown.get(key, 0) + raw - before
        card.resets += reset
        card.raw = last | fresh
        if sample.hears_xid and not card.xids:
            for xid in WATCHED_XIDS:
                self._xid(card, xid)

    def down(self, identity: Identity) -> None:
        """The GPU does not answer."""
        self._card(identity).sample = None

    def event(self, event: GpuEvent) -> None:
        """Count an error that the driver told of."""
        card = self._nobody if event.identity.index < 0 else self._card(event.identity)
        self._xid(card, event.xid).add()

    def fault(self, reason: str, count: int = 1) -> None:
        """Count what went wrong while reading."""
        self._store.counter(m.GPU_SAMPLER_FAULTS, (reason,)).add(count)

    def cost(self, cpu_s: float, duration_s: float) -> None:
        """Take what the last round cost."""
        self._store.counter(m.GPU_SAMPLER_CPU).add(cpu_s)
        self._store.gauge(m.GPU_SAMPLE_DURATION).set(duration_s)

    def refresh(self, now_ns: int) -> None:
        """Bring the store up to date."""
        shown: dict[tuple[Metric, LabelValues], float] = {}
        for card in self._cards.values():
            self._count(card)
            if card.sample is not None and now_ns - card.sample.stamp_ns > self._stale_ns:
                card.sample = None
            shown[m.GPU_UP, card.identity.labels] = int(card.sample is not None)
            if card.sample is not None:
                shown.update(_readings(card.sample))
        if self._searched and not self._cards:
            shown[m.GPU_UP, self._nobody.identity.labels] = 0
        for (metric, labels), value in shown.items():
            self._store.gauge(metric, labels).set(value)
        self._hide(set(self._shown) - set(shown))
        self._shown = shown

    def _card(self, identity: Identity) -> _Card:
        key = (identity.vendor, identity.index)
        card = self._cards.get(key)
        if card is None or (identity.uuid and card.identity.uuid != identity.uuid):
            # Another board in the same place, or one that was lost before it could say who it is.
            card = self._cards[key] = _Card(identity)
        elif identity.uuid:
            card.identity = identity
        return card

    def _hide(self, gone: set[tuple[Metric, LabelValues]]) -> None:
        for metric, labels in gone:
            self._store.gauge(metric, labels).set(None)
        # Operators may cut a GPU into ever new instances.
        instances = {(labels[3],) for metric, labels in gone if metric.labels == m.INSTANCE}
        if instances:
            self._store.retire(("mig_uuid",), instances)

    def _baseline(self, card: _Card) -> _Raw:
        data = self._store.memo(MEMO, (card.identity.uuid,)).data
        try:
            return {(name, label): raw for name, label, raw in _decode(data)} if data else {}
        except msgspec.DecodeError:  # written by another version
            return {}

    def _count(self, card: _Card) -> None:
        if card.raw is None:
            return
        labels = card.identity.labels
        for (name, label), growth in card.grown.items():
            self._store.counter(m.BY_NAME[name], (*labels, label) if label else labels).add(growth)
        self._store.counter(m.GPU_COUNTER_RESETS, labels).add(card.resets)
        card.grown, card.resets = {}, 0
        rows = [(name, label, raw) for (name, label), raw in card.raw.items()]
        self._store.memo(MEMO, (card.identity.uuid,)).set(_encode(rows))

    def _xid(self, card: _Card, xid: int) -> Counter:
        if xid not in card.xids and len(card.xids) < MAX_XIDS:
            card.xids.add(xid)
        name = str(xid) if xid in card.xids else "other"
        return self._store.counter(m.GPU_XID_ERRORS, (*card.identity.labels, name))


def _readings(sample: GpuSample) -> Iterator[tuple[tuple[Metric, LabelValues], float]]:
    """Yield every gauge of one GPU that has a value."""
    identity = sample.identity
    labels = identity.labels
    yield (m.GPU_INFO, (*labels, identity.vendor, identity.driver_version, identity.pci_bus_id)), 1
    for metric, read in _GAUGES:
        value = read(sample)
        if value is not None:
            yield (metric, labels), value
    for metric, read_all in _LABELLED_GAUGES:
        for label, value in read_all(sample).items():
            yield (metric, (*labels, label)), value
    for instance in sample.mig_instances:
        own = (*labels, instance.uuid, instance.profile)
        if instance.memory is not None:
            yield (m.GPU_MIG_MEMORY_TOTAL, own), instance.memory.total
            yield (m.GPU_MIG_MEMORY_USED, own), instance.memory.used
        for metric, ratio in _mig_activity(instance.activity):
            if ratio is not None:
                yield (metric, own), ratio


def _mig_activity(activity: Activity) -> tuple[tuple[Metric, float | None], ...]:
    return (
        (m.GPU_MIG_SM_ACTIVITY, activity.sm_ratio),
        (m.GPU_MIG_SM_OCCUPANCY, activity.sm_occupancy_ratio),
        (m.GPU_MIG_TENSOR_ACTIVITY, activity.tensor_ratio),
        (m.GPU_MIG_DRAM_ACTIVITY, activity.dram_ratio),
    )


def _flat(counters: Counters) -> _Raw:
    raw: _Raw = {}
    for metric, read in _COUNTERS:
        value = read(counters)
        if value is not None:
            raw[metric.name, ""] = value
    for metric, read_all in _LABELLED_COUNTERS:
        raw.update({(metric.name, label): value for label, value in read_all(counters).items()})
    return raw


def _process_memory(processes: tuple[GpuProcess, ...] | None) -> int | None:
    """All processes' memory; None if it is not known of one of them, since a part would look like the whole."""
    sizes = [process.memory_bytes for process in processes or ()]
    known = [size for size in sizes if size is not None]
    return None if processes is None or len(known) < len(sizes) else sum(known)


def _clock_events(active: frozenset[str] | None) -> dict[str, float]:
    return {} if active is None else {name: int(name in active) for name in CLOCK_EVENTS}
