"""From readings to series: counters never go back, gauges never outlive their GPU."""

from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors import metrics as m
from inferwatch_collectors.gpu.base import (
    Activity,
    Counters,
    GpuEvent,
    GpuProcess,
    GpuSample,
    Identity,
    Memory,
    MigInstance,
)
from inferwatch_collectors.gpu.exporter import MAX_XIDS, WATCHED_XIDS, GpuExporter
from inferwatch_collectors.metric_store import MetricStore

WHO = Identity(index=0, uuid="GPU-a", model="L4", vendor="nvidia")
LABELS = WHO.labels


def a_sample(**changes: Any) -> GpuSample:
    return GpuSample(**{"identity": WHO, "stamp_ns": 0} | changes)


def with_energy(energy_mj: int | None) -> GpuSample:
    return a_sample(counters=Counters(energy_mj=energy_mj))


def an_exporter(store: MetricStore) -> GpuExporter:
    return GpuExporter(store, stale_ns=1_000)


def energy_mj(store: MetricStore) -> float:
    """The store counts in millijoules; the exposition divides."""
    return store.counter(m.GPU_ENERGY, LABELS).value


def restarted(store: MetricStore) -> MetricStore:
    """Return what a new process finds after the last commit of `store`."""
    fresh = MetricStore()
    fresh.restore(store.take_dirty())
    return fresh


@pytest.mark.parametrize(
    ("readings", "expected_mj", "resets"),
    [
        ([5_000], 0, 0),
        ([5_000, 5_000], 0, 0),
        ([5_000, 5_700], 700, 0),
        ([5_000, 5_700, 200], 900, 1),
        ([5_000, 0, 0], 0, 1),
        ([5_000, None, 5_300], 300, 0),
        ([None, 5_000, 5_001], 1, 0),
        ([9, 3, 2, 1], 6, 3),
    ],
)
def test_counter(readings: list[int | None], expected_mj: int, resets: int) -> None:
    """It begins at 0 with the first reading, and after a reset goes on with what the driver has counted since."""
    store = MetricStore()
    exporter = an_exporter(store)
    for reading in readings:
        exporter.take(with_energy(reading))
    exporter.refresh(0)
    assert energy_mj(store) == expected_mj
    assert store.counter(m.GPU_COUNTER_RESETS, LABELS).value == resets


GIB = 2**30


@pytest.mark.parametrize(
    ("readings", "expected_bytes", "resets"),
    [
        pytest.param([(1, 3 * GIB), (2, 1 * GIB)], 2 * GIB, 0, id="32 bits are full"),
        pytest.param([(1, 4 * GIB - 1), (2, 0), (3, 5)], 6, 0, id="just full"),
        pytest.param([(9, 3 * GIB), (2, 1 * GIB)], 1 * GIB, 1, id="the driver was reloaded: energy went back, too"),
        pytest.param([(1, 9 * GIB), (2, 1 * GIB)], 1 * GIB, 1, id="a counter of more bits"),
        pytest.param([(None, 3 * GIB), (None, 1 * GIB)], 2 * GIB, 0, id="nothing else is known"),
    ],
)
def test_bytes_over_pcie(readings: list[tuple[int | None, int]], expected_bytes: int, resets: int) -> None:
    """The driver's counter begins anew each 4 GiB; that is not taken for a reset, nor a reset for that."""
    store = MetricStore()
    exporter = an_exporter(store)
    for energy_mj, received in readings:
        exporter.take(a_sample(counters=Counters(energy_mj=energy_mj, pcie_bytes={"receive": received})))
    exporter.refresh(0)
    assert store.counter(m.GPU_PCIE_BYTES, (*LABELS, "receive")).value == expected_bytes
    assert store.counter(m.GPU_COUNTER_RESETS, LABELS).value == resets


@given(
    growths=st.lists(st.lists(st.integers(0, 2**50), min_size=1), min_size=1),
    refresh_each=st.integers(1, 4),
    restart_each=st.integers(1, 5),
)
def test_energy_is_never_lost_nor_counted_twice(growths: list[list[int]], refresh_each: int, restart_each: int) -> None:
    """Whatever the resets and restarts: the sum of all growth but that of the first reading, exactly."""
    store = MetricStore()
    exporter = an_exporter(store)
    shown = [0.0]
    runs = [list(accumulate(growth)) for growth in growths]
    # After a reset the driver shows less than before, else nobody could know of it.
    readings = [reading for run in runs for reading in run]
    expected = 0
    for number, (before, reading) in enumerate(zip([readings[0], *readings], readings, strict=False)):
        exporter.take(with_energy(reading))
        expected += reading - before if reading >= before else reading
        if number % refresh_each == 0:
            exporter.refresh(0)
            shown.append(energy_mj(store))
            if number % restart_each == 0:
                store = restarted(store)
                exporter = an_exporter(store)
    exporter.refresh(0)
    assert energy_mj(store) == expected
    assert shown == sorted(shown)


def test_growth_while_we_were_away_is_counted() -> None:
    """The GPU went on; the counter says how far. A crash before a refresh loses nothing either."""
    store = MetricStore()
    first = an_exporter(store)
    first.take(with_energy(1_000))
    first.refresh(0)
    kept = restarted(store)
    first.take(with_energy(1_500))
    second = an_exporter(kept)
    second.take(with_energy(3_000))
    second.refresh(0)
    assert energy_mj(kept) == 2_000


def test_what_was_kept_by_another_version_is_a_new_beginning() -> None:
    """Unreadable: from the next reading on."""
    store = MetricStore()
    store.memo("gpu_counters", ("GPU-a",)).set(b"\xc1")
    exporter = an_exporter(store)
    exporter.take(with_energy(7))
    exporter.take(with_energy(9))
    exporter.refresh(0)
    assert energy_mj(store) == 2


def test_gauges_go_with_the_gpu() -> None:
    """When it is down nothing but that is shown; its counters stay where they were."""
    store = MetricStore()
    exporter = an_exporter(store)
    exporter.take(a_sample(power_mw=71_650, clocks_hz={"sm": 5}, counters=Counters(energy_mj=1)))
    exporter.refresh(0)
    assert store.gauge(m.GPU_POWER, LABELS).value == 71.65
    exporter.down(WHO)
    exporter.refresh(0)
    assert store.gauge(m.GPU_UP, LABELS).value == 0
    assert store.gauge(m.GPU_POWER, LABELS).value is None
    assert store.gauge(m.GPU_CLOCK, (*LABELS, "sm")).value is None
    assert energy_mj(store) == 0
    exporter.take(a_sample(power_mw=1_000))
    exporter.refresh(0)
    assert (store.gauge(m.GPU_UP, LABELS).value, store.gauge(m.GPU_POWER, LABELS).value) == (1, 1.0)


def test_a_value_that_is_not_known_any_more_is_not_shown() -> None:
    """Not the last good reading."""
    store = MetricStore()
    exporter = an_exporter(store)
    exporter.take(a_sample(temperature_c=60, power_mw=1))
    exporter.refresh(0)
    exporter.take(a_sample(power_mw=1))
    exporter.refresh(0)
    assert store.gauge(m.GPU_TEMPERATURE, LABELS).value is None


def test_zero_is_a_value() -> None:
    """An idle GPU is at 0, and that is shown."""
    store = MetricStore()
    exporter = an_exporter(store)
    exporter.take(a_sample(utilization_ratio=0.0, row_remap_pending=False, processes=(), memory=Memory(8, 0)))
    exporter.refresh(0)
    for metric in (
        m.GPU_UTILIZATION,
        m.GPU_ROW_REMAP_PENDING,
        m.GPU_PROCESSES,
        m.GPU_PROCESS_MEMORY,
        m.GPU_MEMORY_USED,
    ):
        assert store.gauge(metric, LABELS).value == 0


@pytest.mark.parametrize(
    ("processes", "count", "memory"),
    [
        (None, None, None),
        ((), 0, 0),
        ((GpuProcess(1, 5), GpuProcess(2, 7)), 2, 12),
        ((GpuProcess(1, 5), GpuProcess(2, None)), 2, None),
    ],
)
def test_processes(processes: tuple[GpuProcess, ...] | None, count: int | None, memory: int | None) -> None:
    """Their memory is shown if it is known of all of them."""
    store = MetricStore()
    exporter = an_exporter(store)
    exporter.take(a_sample(processes=processes))
    exporter.refresh(0)
    assert store.gauge(m.GPU_PROCESSES, LABELS).value == count
    assert store.gauge(m.GPU_PROCESS_MEMORY, LABELS).value == memory


def test_a_gpu_that_says_later_who_it_is() -> None:
    """While it is lost from the start it has only a number; that series goes when it is found."""
    store = MetricStore()
    exporter = an_exporter(store)
    exporter.down(Identity(index=0, vendor="nvidia"))
    exporter.refresh(0)
    assert store.gauge(m.GPU_UP, ("0", "", "")).value == 0
    exporter.take(a_sample())
    exporter.refresh(0)
    assert store.gauge(m.GPU_UP, ("0", "", "")).value is None
    assert store.gauge(m.GPU_UP, LABELS).value == 1
    # Lost again, and this time known.
    exporter.down(Identity(index=0, vendor="nvidia"))
    exporter.refresh(0)
    assert store.gauge(m.GPU_UP, LABELS).value == 0


def test_gpus_of_two_vendors_may_have_one_number() -> None:
    """Both are shown."""
    store = MetricStore()
    exporter = an_exporter(store)
    other = Identity(index=0, uuid="AMD-a", model="MI300X", vendor="amd")
    exporter.take(a_sample())
    exporter.take(a_sample(identity=other))
    exporter.refresh(0)
    assert store.gauge(m.GPU_UP, LABELS).value == store.gauge(m.GPU_UP, other.labels).value == 1


def test_mig_instances_that_are_gone_leave_no_series_behind() -> None:
    """Operators may make ever new ones: their series are removed, not only hidden."""
    store = MetricStore()
    exporter = an_exporter(store)
    for number in range(3):
        instance = MigInstance(
            uuid=f"MIG-{number}", profile="1g.10gb", memory=Memory(2, 1), activity=Activity(sm_ratio=0.5)
        )
        exporter.take(a_sample(mig_enabled=True, mig_instances=(instance,)))
        exporter.refresh(0)
        assert store.series(m.GPU_MIG_MEMORY_USED) == [(*LABELS, f"MIG-{number}", "1g.10gb")]
        assert store.gauge(m.GPU_MIG_SM_ACTIVITY, (*LABELS, f"MIG-{number}", "1g.10gb")).value == 0.5


def test_xids_begin_at_0_and_are_bounded() -> None:
    """Those that call for a person are there from the start; a GPU that makes up numbers gets no more than its share."""
    store = MetricStore()
    exporter = an_exporter(store)
    exporter.take(a_sample(hears_xid=True))
    assert {labels[3]: store.counter(m.GPU_XID_ERRORS, labels).value for labels in store.series(m.GPU_XID_ERRORS)} == {
        str(xid): 0 for xid in WATCHED_XIDS
    }
    for xid in range(1_000, 1_200):
        exporter.event(GpuEvent(WHO, xid))
    exporter.event(GpuEvent(WHO, 79))
    assert len(store.series(m.GPU_XID_ERRORS)) == MAX_XIDS + 1
    assert store.counter(m.GPU_XID_ERRORS, (*LABELS, "79")).value == 1
    assert store.counter(m.GPU_XID_ERRORS, (*LABELS, "other")).value == 200 - (MAX_XIDS - len(WATCHED_XIDS))


def test_nothing_is_said_before_anybody_looked() -> None:
    """Then it is 0, until a GPU is found."""
    store = MetricStore()
    exporter = an_exporter(store)
    exporter.refresh(0)
    assert store.series(m.GPU_UP) == []
    exporter.searched()
    exporter.refresh(0)
    assert store.gauge(m.GPU_UP, ("", "", "")).value == 0
    exporter.take(a_sample())
    exporter.refresh(0)
    assert store.gauge(m.GPU_UP, ("", "", "")).value is None
