"""The thread and its watchdog: a driver that hangs, dies or comes late costs its own readings and nothing else."""

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from inferwatch.settings.gpu import Gpu
from inferwatch_collectors import metrics as m
from inferwatch_collectors.gpu import sampler, worker
from inferwatch_collectors.gpu.base import (
    Counters,
    Device,
    EnergyReading,
    GpuEvent,
    GpuLostError,
    GpuSample,
    Identity,
    Source,
    SourceUnavailableError,
)
from inferwatch_collectors.gpu.monitor import GpuMonitor, sources_for
from inferwatch_collectors.metric_store import MetricStore

# Of a reading that should come at once: a loaded machine may take its time.
PATIENCE_S = 30.0


class FakeDevice:
    """A GPU that answers, hangs or is lost, as told."""

    def __init__(self, index: int) -> None:
        self.identity = Identity(index=index, uuid=f"GPU-{index}", model="Fake", vendor="fake")
        self.free = threading.Event()
        self.free.set()
        self.fault: Exception | None = None
        self.reads = 0

    def sample(self, stamp_ns: int) -> GpuSample:
        self.reads += 1
        if not self.free.wait(PATIENCE_S):
            raise AssertionError("never freed")
        if self.fault is not None:
            raise self.fault
        return GpuSample(
            identity=self.identity,
            stamp_ns=stamp_ns,
            counters=Counters(energy_mj=1000 * self.reads),
            power_mw=250_000,
        )


class FakeSource:
    """What the simulator would be: another class, and nothing else changes."""

    name = "fake"

    def __init__(self, *devices: FakeDevice) -> None:
        self.devices = devices
        self.unavailable = ""
        self.opened = 0
        self.happened: list[GpuEvent] = []

    def open(self) -> Sequence[Device]:
        self.opened += 1
        if self.unavailable:
            raise SourceUnavailableError(self.unavailable)
        return self.devices

    def events(self) -> Sequence[GpuEvent]:
        happened, self.happened = self.happened, []
        return happened


class Rig:
    """A monitor that runs, and what it says."""

    def __init__(self, *sources: Source, **settings: Any) -> None:
        self.store = MetricStore()
        self.energy: list[Sequence[EnergyReading]] = []
        given = {"interval_s": 0.2, "hang_timeout_s": 0.3} | settings
        self.monitor = GpuMonitor(Gpu(**given), self.store, self.energy.append, sources=sources)

    def gauge(self, metric: m.Metric, *labels: str) -> float | None:
        self.monitor.refresh()
        return self.store.gauge(metric, labels).value

    def up(self, index: int) -> float | None:
        return self.gauge(m.GPU_UP, str(index), f"GPU-{index}", "Fake")

    def faults(self, reason: str) -> float:
        self.monitor.refresh()
        return self.store.counter(m.GPU_SAMPLER_FAULTS, (reason,)).value


async def until(condition: Callable[[], object]) -> None:
    """Wait for `condition`, and fail if it does not come."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Rig]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(rig.monitor.run())
        try:
            yield rig
        finally:
            task.cancel()


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Any:
    """Every test ends with no more threads than it began with."""
    before = set(threading.enumerate())
    yield
    deadline_s = time.monotonic() + PATIENCE_S
    while left := [each for each in threading.enumerate() if each.name == "gpu" and each not in before]:
        assert time.monotonic() < deadline_s, left
        time.sleep(0.01)


async def test_readings_arrive() -> None:
    """Each GPU is up, and energy readings come once per round for all of them together."""
    async with running(Rig(FakeSource(FakeDevice(0), FakeDevice(1)))) as rig:
        await until(lambda: len(rig.energy) >= 2)
        assert (rig.up(0), rig.up(1)) == (1, 1)
        assert [reading.uuid for reading in rig.energy[0]] == ["GPU-0", "GPU-1"]
        assert rig.energy[0][0].energy_mj == 1000
        assert rig.energy[0][0].power_mw == 250_000
        assert abs(time.monotonic_ns() - rig.energy[-1][0].stamp_ns) < PATIENCE_S * 1e9


async def test_a_hanging_gpu_is_down_and_the_others_go_on() -> None:
    """Its series are gone, the hang is counted once, another thread reads the rest, and the loop is never held."""
    good, bad = FakeDevice(0), FakeDevice(1)
    async with running(Rig(FakeSource(good, bad))) as rig:
        await until(lambda: rig.up(1) == 1)
        bad.free.clear()
        await until(lambda: rig.up(1) == 0)
        assert rig.gauge(m.GPU_POWER, "1", "GPU-1", "Fake") is None
        reads = good.reads
        await until(lambda: good.reads >= reads + 3)
        assert rig.up(0) == 1
        assert rig.faults("hung") == 1
        assert sum(thread.name == "gpu" for thread in threading.enumerate()) == 2
        bad.free.set()


async def test_a_gpu_whose_call_returned_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the pause it is up again, and read by one thread only."""
    monkeypatch.setattr(worker, "RETRY_NS", 0)
    bad = FakeDevice(0)
    async with running(Rig(FakeSource(bad, FakeDevice(1)))) as rig:
        await until(lambda: rig.up(0) == 1)
        bad.free.clear()
        await until(lambda: rig.up(0) == 0)
        bad.free.set()
        await until(lambda: rig.up(0) == 1)
        assert sum(thread.name == "gpu" for thread in threading.enumerate()) <= 2


async def test_threads_are_bounded_when_all_gpus_hang() -> None:
    """One thread for each that hangs; when there is nothing left to read, none that works."""
    devices = [FakeDevice(index) for index in range(3)]
    source = FakeSource(*devices)
    async with running(Rig(source)) as rig:
        await until(lambda: rig.up(2) == 1)
        for device in devices:
            device.free.clear()
        await until(lambda: rig.faults("hung") == 3)
        await asyncio.sleep(0.8)
        assert rig.faults("hung") == 3
        # The events of the source can still be asked for.
        assert sum(thread.name == "gpu" for thread in threading.enumerate()) <= 4
        assert [rig.up(index) for index in range(3)] == [0, 0, 0]
        for device in devices:
            device.free.set()


async def test_a_source_that_hangs_at_the_start_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening has a limit of its own, since it may wake GPUs. Until it returns there is one series that says 0; the other source is read."""
    monkeypatch.setattr(worker, "OPENING_NS", 0)
    hanging, good = FakeSource(FakeDevice(0)), FakeSource(FakeDevice(5))
    free = threading.Event()
    opened = hanging.open
    hanging.open = lambda: (free.wait(PATIENCE_S), opened())[1]  # type: ignore[method-assign]
    async with running(Rig(hanging, good)) as rig:
        await until(lambda: rig.up(5) == 1)
        assert rig.faults("hung") == 1
        assert rig.up(0) is None
        free.set()
        await until(lambda: rig.monitor._sampler is not None and not rig.monitor._sampler._feeds[0]._opening.hung)


async def test_a_lost_gpu_comes_back(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Down while it is lost, counted and told once, up when it answers again; the other is read all the time."""
    monkeypatch.setattr(worker, "RETRY_NS", 0)
    caplog.set_level(logging.INFO)
    lost = FakeDevice(1)
    async with running(Rig(FakeSource(FakeDevice(0), lost))) as rig:
        await until(lambda: rig.up(1) == 1)
        lost.fault = GpuLostError("Xid 79")
        await until(lambda: rig.up(1) == 0)
        reads = lost.reads
        await until(lambda: lost.reads > reads + 1)
        assert rig.faults("lost") == 1
        assert rig.up(0) == 1
        lost.fault = None
        await until(lambda: rig.up(1) == 1)
    assert sum("gpu_lost" in line for line in caplog.messages) == 1
    assert sum("gpu_back" in line for line in caplog.messages) == 1


async def test_a_source_is_opened_again_when_all_its_gpus_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reloaded driver knows no old handles."""
    monkeypatch.setattr(worker, "RETRY_NS", 0)
    device = FakeDevice(0)
    source = FakeSource(device)
    async with running(Rig(source)) as rig:
        await until(lambda: rig.up(0) == 1)
        device.fault = GpuLostError("driver gone")
        await until(lambda: source.opened >= 2)
        device.fault = None
        await until(lambda: rig.up(0) == 1)


async def test_no_gpu_is_one_line_and_one_series(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However often it looks again; a driver installed later is found."""
    monkeypatch.setattr(worker, "RETRY_NS", 0)
    first, second = FakeSource(FakeDevice(0)), FakeSource()
    first.unavailable, second.unavailable = "no driver", "no ROCm"
    async with running(Rig(first, second)) as rig:
        await until(lambda: first.opened >= 3)
        await until(lambda: rig.gauge(m.GPU_UP, "", "", "") == 0)
        assert [line for line in caplog.messages if "gpu_none_found" in line] == [
            "gpu_none_found everything else works, gpu.source: none ends the search: no driver; no ROCm"
        ]
        first.unavailable = ""
        await until(lambda: rig.up(0) == 1)
        assert rig.gauge(m.GPU_UP, "", "", "") is None


async def test_events_are_counted() -> None:
    """Xid errors by number and GPU; one of a GPU that nobody knows has empty labels and makes no GPU."""
    source = FakeSource(device := FakeDevice(0))
    async with running(Rig(source)) as rig:
        source.happened = [
            GpuEvent(device.identity, 79),
            GpuEvent(device.identity, 79),
            GpuEvent(Identity(index=-1), 31),
        ]
        await until(lambda: rig.store.counter(m.GPU_XID_ERRORS, (*device.identity.labels, "79")).value == 2)
        assert rig.store.counter(m.GPU_XID_ERRORS, ("", "", "", "31")).value == 1
        assert rig.gauge(m.GPU_UP, "", "", "") is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_fault_of_ours_is_counted_and_the_thread_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a pause, with what it had before."""
    monkeypatch.setattr(sampler, "RESTART_NS", 0)
    device = FakeDevice(0)
    async with running(Rig(FakeSource(device))) as rig:
        await until(lambda: rig.up(0) == 1)
        device.fault = ValueError("a bug")
        await until(lambda: rig.faults("died") >= 1)
        device.fault = None
        reads = device.reads
        await until(lambda: device.reads > reads + 1)


async def test_readings_that_nobody_takes_are_dropped_and_counted() -> None:
    """A loop that is blocked finds a few of them, not all."""
    rig = Rig(FakeSource(device := FakeDevice(0)))
    async with running(rig):
        await until(lambda: rig.up(0) == 1)
        reads, started_s = device.reads, time.monotonic()
        # Blocks the loop, as nothing of ours may: that is the case.
        while device.reads < reads + 12 and time.monotonic() < started_s + PATIENCE_S:
            time.sleep(0.05)
        assert device.reads >= reads + 12
        assert rig.faults("dropped") >= 3


async def test_an_old_reading_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing came for three intervals and the limit of a hang, the GPU is down, whatever the reason."""
    rig = Rig(FakeSource(FakeDevice(0)))
    async with running(rig):
        await until(lambda: rig.up(0) == 1)
    later_ns = time.monotonic_ns() + 2_000_000_000
    monkeypatch.setattr(time, "monotonic_ns", lambda: later_ns)
    assert rig.up(0) == 0
    assert rig.gauge(m.GPU_POWER, "0", "GPU-0", "Fake") is None
    assert rig.gauge(m.GPU_INFO, "0", "GPU-0", "Fake", "fake", "", "") is None


async def test_source_none_reads_nothing() -> None:
    """No thread, no series."""
    store = MetricStore()
    monitor = GpuMonitor(Gpu(source="none"), store)
    await monitor.run()
    monitor.refresh()
    monitor.close()
    assert store.series(m.GPU_UP) == []


def test_what_sources_are_chosen() -> None:
    """By the setting."""
    chosen = {name: [each.name for each in sources_for(Gpu(source=name))] for name in ("auto", "nvidia", "amd", "none")}
    assert chosen == {"auto": ["nvidia", "amd"], "nvidia": ["nvidia"], "amd": ["amd"], "none": []}


async def test_a_slow_start_is_no_hang() -> None:
    """Bringing up GPUs takes longer than reading them: it is waited for."""
    source = FakeSource(FakeDevice(0))
    opened = source.open
    source.open = lambda: (time.sleep(0.6), opened())[1]  # type: ignore[method-assign]
    async with running(Rig(source)) as rig:
        await until(lambda: rig.up(0) == 1)
        assert rig.faults("hung") == 0


HANGS = """
import asyncio, sys
from inferwatch.settings.gpu import Gpu
from inferwatch_collectors.gpu.monitor import GpuMonitor
from inferwatch_collectors.metric_store import MetricStore
import ctypes

async def main() -> None:
    functions = ctypes.CDLL(sys.argv[1])
    lines = "/nvmlDeviceGetCount\\t0\\t0\\t1\\n0/nvmlDeviceGetUUID\\t0\\t0\\tGPU-0\\n0/nvmlDeviceGetName\\t0\\t60000\\tX"
    functions.stub_load(lines.encode())
    monitor = GpuMonitor(Gpu(source="nvidia", hang_timeout_s=0.1, nvml_library=sys.argv[1]), MetricStore())
    try:
        async with asyncio.timeout(1.0):
            await monitor.run()
    except TimeoutError:
        print("done")

asyncio.run(main())
"""


def test_a_hanging_call_does_not_hold_up_the_end_of_the_process(stub: Any) -> None:
    """The process is gone before the call, which takes a minute, returns."""
    done = subprocess.run(
        [sys.executable, "-c", HANGS, stub.library], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
